"""Networks: any size, identity at the start, halo, joint gates, configs, and counts done by hand."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_blocks import features, randomised

from denoise_se.blocks import SqueezeExcitation
from denoise_se.network import NetworkConfig, build_network, count_macs_per_pixel, count_parameters

BLOCKS = ["residual", "se_residual", "se_bottleneck", "mobile_se"]


def make(layout="unet", widths=None, seed=0, **options):
    """A random network without a constant result, in eval mode."""
    widths = widths or {"flat": (4,), "unet": (4, 6)}[layout]
    options = {"blocks": 1, "se_ratio": 0.5} | options
    return randomised(build_network(NetworkConfig(layout=layout, widths=widths, **options)), seed)


def flat_level(noisy, level=0.1):
    return torch.full_like(noisy[:, :1], level)


configs = st.builds(
    NetworkConfig,
    layout=st.just("unet"),
    channels=st.integers(1, 4),
    noise_map=st.booleans(),
    unshuffle=st.integers(1, 3),
    widths=st.sampled_from([(3,), (3, 4), (2, 3, 4)]),
    blocks=st.integers(1, 2),
    block=st.sampled_from(BLOCKS),
    norm=st.sampled_from(["batch", "none"]),
    se_every=st.sampled_from(["block", "stage"]),
    inner_skip=st.booleans(),
    final_relu=st.booleans(),
) | st.builds(
    NetworkConfig,
    layout=st.just("flat"),
    channels=st.integers(1, 4),
    noise_map=st.booleans(),
    unshuffle=st.integers(1, 3),
    widths=st.just((4,)),
    blocks=st.integers(1, 3),
    block=st.sampled_from(BLOCKS),
    norm=st.sampled_from(["batch", "none"]),
)


@settings(max_examples=30, deadline=None)
@given(config=configs, height=st.integers(1, 13), width=st.integers(1, 13))
def test_any_network_takes_any_size_and_starts_as_the_identity(config, height, width):
    noisy = features(2, config.channels, height, width)
    network = build_network(config).eval()
    assert torch.equal(network(noisy, flat_level(noisy)), noisy)
    result = randomised(network)(noisy, flat_level(noisy))
    assert result.shape == noisy.shape and torch.isfinite(result).all()
    assert not torch.equal(result, noisy)


@pytest.mark.parametrize("layout", ["flat", "unet"])
def test_a_blind_network_ignores_the_level_and_another_does_not(layout):
    noisy = features(1, 1, 8, 8)
    for noise_map in (True, False):
        network = make(layout, noise_map=noise_map)
        same = torch.equal(network(noisy, flat_level(noisy, 0.1)), network(noisy, flat_level(noisy, 0.2)))
        assert same is not noise_map


@pytest.mark.parametrize("layout", ["flat", "unet"])
@pytest.mark.parametrize("block", BLOCKS)
def test_folding_batchnorm_changes_nothing(layout, block):
    network = make(layout, block=block, norm="batch")
    noisy = features(1, 1, 9, 6)
    before = network(noisy, flat_level(noisy))
    network.fold_batchnorm()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(noisy, flat_level(noisy)), before, atol=1e-5, rtol=1e-5)


# --- halo -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "flat", "unshuffle": 2, "blocks": 2},
        {"layout": "flat", "unshuffle": 1, "block": "mobile_se"},
        {"layout": "unet", "unshuffle": 1, "widths": (3,)},
        {"layout": "unet", "unshuffle": 2, "widths": (3, 4)},
        {"layout": "unet", "unshuffle": 1, "widths": (2, 3, 3), "block": "se_bottleneck"},
    ],
)
def test_the_halo_holds_all_that_a_pixel_touches_and_little_more(options):
    """A NaN marks everything that is computed from it (in float64 no convolution mixes tiles of its input)."""
    network = make(**options).double()
    multiple, halo, size = network.config.multiple_of, network.halo, 72
    gates = torch.ones(1, sum(network.gate_channels), dtype=torch.float64)
    start = size // 2 // multiple * multiple
    touched = torch.zeros(size, size, dtype=torch.bool)
    for y, x in [(start, start), (start + multiple - 1, start + multiple - 1)]:
        noisy = features(1, 1, size, size).double()
        noisy[..., y, x] = torch.nan
        touched |= network(noisy, flat_level(noisy), gates)[0, 0].isnan()
    for reached in (touched.any(dim=0).nonzero(), touched.any(dim=1).nonzero()):
        before, after = start - int(reached.min()), int(reached.max()) - (start + multiple - 1)
        assert halo - multiple <= before <= halo
        assert halo - multiple <= after <= halo


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "flat", "unshuffle": 2, "blocks": 2},
        {"layout": "unet", "unshuffle": 1, "widths": (3,), "block": "residual"},
        {"layout": "unet", "unshuffle": 2, "widths": (3, 4), "noise_map": False},
        {"layout": "unet", "unshuffle": 1, "widths": (2, 3, 3), "blocks": 2},
    ],
)
def test_a_window_cut_at_any_sides_gives_what_the_whole_image_gives_there(options):
    network = make(**options).double()
    margin, size = network.margin, 4 * network.margin + network.config.multiple_of
    noisy, level = features(1, 1, size, size + 3).double(), features(1, 1, size, size + 3).double()
    gates = 1 + 0.3 * features(1, sum(network.gate_channels)).double()
    whole = network(noisy, level, gates)
    first, last = margin + network.config.multiple_of, 3 * margin
    for cut in itertools.product((0, 1), repeat=4):
        rows = slice((first - margin) * cut[0], last + margin if cut[1] else None)
        columns = slice((first - margin) * cut[2], last + margin if cut[3] else None)
        result = network(noisy[..., rows, columns], level[..., rows, columns], gates, torch.tensor(cut))
        kept = slice(first * cut[0], last if cut[1] else None), slice(first * cut[2], last if cut[3] else None)
        torch.testing.assert_close(result, whole[..., kept[0], kept[1]], atol=1e-9, rtol=1e-9)


# --- gates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flat", "unet"])
@pytest.mark.parametrize("block", BLOCKS)
def test_squeezed_gates_of_one_window_are_its_own(layout, block):
    network = make(layout, block=block, blocks=2)
    noisy = features(1, 1, 10, 7)
    gates = network.squeeze(noisy, flat_level(noisy))
    assert gates.shape == (1, sum(network.gate_channels))
    torch.testing.assert_close(network(noisy, flat_level(noisy), gates), network(noisy, flat_level(noisy)))


def test_windows_are_squeezed_together():
    network = make("flat", widths=(6,))
    windows = torch.cat([features(1, 1, 8, 8), 3 + features(1, 1, 8, 8, seed=5)])
    pooled = []
    se = network.blocks[0].se
    handle = se.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0].mean(dim=(2, 3))))
    network(windows, flat_level(windows))
    handle.remove()
    expected = se.gate_scale * se.excite(pooled[0].mean(dim=0, keepdim=True))
    gates = network.squeeze(windows, flat_level(windows))
    torch.testing.assert_close(gates, expected)
    assert not torch.allclose(gates, network.squeeze(windows[:1], flat_level(windows[:1])))


def test_squeezing_leaves_no_hook_behind_even_after_an_error():
    network = make()
    with pytest.raises(RuntimeError):
        network.squeeze(features(1, 3, 8, 8), features(1, 1, 8, 8))
    noisy = torch.cat([features(1, 1, 8, 8), 3 + features(1, 1, 8, 8, seed=5)])
    alone = torch.cat([network(noisy[i : i + 1], flat_level(noisy[:1])) for i in range(2)])
    torch.testing.assert_close(network(noisy, flat_level(noisy)), alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("se_every", "channels"), [("block", [2, 2, 3, 3, 4, 4, 3, 3, 2, 2]), ("stage", [2, 3, 4, 3, 2])]
)
def test_gates_are_listed_in_the_order_in_which_they_act(se_every, channels):
    network = make(widths=(2, 3, 4), blocks=2, se_every=se_every)
    acted = []
    for module in network.modules():
        if isinstance(module, SqueezeExcitation):
            module.register_forward_hook(lambda module, *_: acted.append(module.channels))
    noisy = features(1, 1, 8, 8)
    network(noisy, flat_level(noisy))
    assert network.gate_channels == acted == channels


# --- configs ----------------------------------------------------------------------------------


@given(config=configs)
@settings(max_examples=30, deadline=None)
def test_a_config_survives_json(config):
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "not a mapping"),
        ({"depth": 3}, "unknown field 'depth'"),
        ({"layout": "resnet"}, "layout is 'resnet'; one of 'flat', 'unet'"),
        ({"block": "conv"}, "block is 'conv'"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"se_every": ["block"]}, "se_every is"),
        ({"noise_map": 1.0}, "noise_map is 1.0; one of True, False"),
        ({"final_relu": 0}, "final_relu is 0"),
        ({"channels": 0}, "channels is 0; an integer from 1 to 4"),
        ({"channels": True}, "channels is True"),
        ({"unshuffle": 2.0}, "unshuffle is 2.0"),
        ({"blocks": 65}, "blocks is 65"),
        ({"widths": []}, "widths is"),
        ({"widths": [64, 0]}, "widths is"),
        ({"widths": [4096]}, "one to six integers from 1 to 2048"),
        ({"widths": "64"}, "widths is"),
        ({"widths": 64}, "ill-typed"),
        ({"layout": "flat", "widths": [8, 8]}, "a flat network has one width"),
        ({"se_ratio": 0}, "se_ratio is 0; above 0, at most 1"),
        ({"se_ratio": float("nan")}, "se_ratio is nan"),
        ({"se_gate_scale": 5}, "se_gate_scale is 5"),
        ({"se_ratio": "1/16"}, "ill-typed"),
    ],
)
def test_a_config_that_makes_no_network_is_refused_by_field(values, words):
    with pytest.raises(ValueError, match=words):
        NetworkConfig.from_dict(values)


# --- counts -----------------------------------------------------------------------------------


def test_parameters_and_multiply_adds_are_those_counted_by_hand():
    residual = NetworkConfig("flat", unshuffle=1, widths=(4,), blocks=1, block="residual")
    head, body, tail = 2 * 4 * 9, 2 * 4 * 4 * 9, 4 * 1 * 9
    assert count_parameters(build_network(residual)) == head + 4 + body + 8 + tail + 1
    assert count_macs_per_pixel(residual, size=16) == head + body + tail

    gated = NetworkConfig("flat", unshuffle=1, widths=(4,), blocks=1, block="se_residual", se_ratio=0.25)
    assert count_parameters(build_network(gated)) == head + 4 + body + 8 + tail + 1 + 2 * 4 * 1
    assert count_macs_per_pixel(gated, size=16) == head + body + tail + 2 * 4 * 1 / 16**2


def test_unshuffling_by_two_spends_its_multiply_adds_on_a_quarter_of_the_pixels():
    config = NetworkConfig("flat", unshuffle=2, widths=(4,), blocks=1, block="residual")
    head, body, tail = (4 + 1) * 4 * 9, 2 * 4 * 4 * 9, 4 * 4 * 9
    assert count_macs_per_pixel(config, size=16) == (head + body + tail) / 4
