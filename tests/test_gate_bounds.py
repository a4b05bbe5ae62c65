"""Gates held within what training showed: found, kept through training and files, and what they are for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_blocks import features, randomised
from test_training import CONFIG, TRAIN, VALIDATION, smooth

from denoise_se.blocks import SqueezeExcitation
from denoise_se.checkpoint import load_checkpoint, save_checkpoint
from denoise_se.fitting import fit
from denoise_se.gate_bounds import bounds_of, find_bounds
from denoise_se.network import NetworkConfig, build_network
from denoise_se.noise import parse_noise_spec
from denoise_se.objectives import Rehearsed, Supervised
from denoise_se.rehearsal import rehearsed
from denoise_se.training_images import Pair

FLAT = NetworkConfig(layout="flat", channels=1, widths=(8,), blocks=2, se_ratio=0.5)


def opened(network):
    for bounds in bounds_of(network):
        bounds.open()
    return network


def gates_of(network, noisy):
    return network.squeeze(noisy, torch.full_like(noisy[:, :1], 0.1))


def test_a_gate_goes_no_further_than_its_bounds():
    se = randomised(SqueezeExcitation(4, 0.5, gate_scale=2.0))
    x = 50 * features(6, 4, 3, 3)
    by_hand = torch.sigmoid(torch.relu(x.mean((2, 3)) @ se.excite[0].weight.T) @ se.excite[2].weight.T)
    low, high = se.excite[4].low, se.excite[4].high
    assert (by_hand < low).any() and (by_hand > high).any()
    held = torch.stack([by_hand[:, c].clamp(float(low[c]), float(high[c])) for c in range(4)], dim=1)
    torch.testing.assert_close(se(x), x * (2 * held)[:, :, None, None])


def test_bounds_are_the_least_and_the_largest_gate_seen_and_change_nothing_within():
    network = opened(randomised(build_network(FLAT)))
    images = features(6, 1, 16, 16)
    levels = torch.full_like(images, 0.1)
    before = network(images, levels)
    seen = torch.cat([gates_of(network, images[i : i + 1]) for i in range(6)])
    wild = gates_of(network, 9 + 30 * features(1, 1, 16, 16, seed=3))
    find_bounds(network, [(images[:4], levels[:4]), (images[4:], levels[4:])])
    found = bounds_of(network)
    torch.testing.assert_close(torch.cat([2 * bounds.low for bounds in found]), seen.amin(0))
    torch.testing.assert_close(torch.cat([2 * bounds.high for bounds in found]), seen.amax(0))
    torch.testing.assert_close(network(images, levels), before)
    held = gates_of(network, 9 + 30 * features(1, 1, 16, 16, seed=3))
    assert ((wild < seen.amin(0)) | (wild > seen.amax(0))).any()
    assert (held >= seen.amin(0) - 1e-6).all() and (held <= seen.amax(0) + 1e-6).all()


def test_finding_bounds_leaves_no_hook_behind_even_after_an_error():
    network = build_network(FLAT)
    with pytest.raises(RuntimeError):
        find_bounds(network, [(torch.rand(1, 2, 8, 8), torch.rand(1, 1, 8, 8))])
    assert all(not bounds._forward_pre_hooks for bounds in bounds_of(network))


def test_a_file_without_bounds_holds_nothing(tmp_path):
    path = tmp_path / "old.safetensors"
    network = opened(randomised(build_network(FLAT)))
    save_checkpoint(path, network.state_dict(), FLAT, training={}, psnr={})
    metadata = {"schema_version": "1", "config": json.dumps(FLAT.to_dict())}
    old = {key: weight for key, weight in load_file(path).items() if not key.endswith((".low", ".high"))}
    save_file(old, path, metadata)
    loaded = load_checkpoint(path).network()
    assert all(bounds.is_open for bounds in bounds_of(loaded))
    noisy = features(1, 1, 12, 12)
    torch.testing.assert_close(loaded(noisy, noisy * 0 + 0.1), network(noisy, noisy * 0 + 0.1))


def run(folder, start=None, **options):
    config = replace(CONFIG, network=FLAT, learning_rate=0.02, **options)
    return fit(folder, config, TRAIN, VALIDATION, data="made in a test", quiet=True, start=start).best


def test_training_from_scratch_finds_bounds_and_what_goes_on_from_there_keeps_them(tmp_path):
    first = load_checkpoint(run(tmp_path / "first", steps=30)).network()
    bounds = bounds_of(first)
    assert all(not one.is_open and (one.low <= one.high).all() for one in bounds)
    assert any((one.low < one.high).any() for one in bounds), "gates that were trained move a little"
    second = load_checkpoint(run(tmp_path / "second", load_checkpoint(tmp_path / "first/best.safetensors"), seed=3))
    for one, other in zip(bounds, bounds_of(second.network()), strict=True):
        assert torch.equal(one.low, other.low) and torch.equal(one.high, other.high)


def test_gates_that_a_larger_network_has_more_than_its_start_learn_to_move(tmp_path):
    start = load_checkpoint(run(tmp_path / "first", steps=30))
    larger = replace(CONFIG, network=replace(FLAT, blocks=4, widths=(12,)), learning_rate=0.02, steps=30)
    fit(tmp_path / "second", larger, TRAIN, VALIDATION, data="made in a test", quiet=True, start=start)
    saved = torch.load(tmp_path / "second/last.ckpt", weights_only=True)["state_dict"]
    for block in range(4):
        low, high = (saved[f"average.module.blocks.{block}.se.excite.4.{end}"] for end in ("low", "high"))
        assert (low < high).sum() > 6 and ((low > 0) | (high < 1)).all()
        assert (saved[f"network.blocks.{block}.se.excite.4.high"] == 1).all(), "free while it is trained"


def test_a_start_without_bounds_gets_them_before_its_first_step(tmp_path):
    network = opened(randomised(build_network(FLAT)))
    save_checkpoint(tmp_path / "open.safetensors", network.state_dict(), FLAT, training={}, psnr={})
    start = load_checkpoint(tmp_path / "open.safetensors")
    run(tmp_path / "run", start, drawings=1.0, steps=2)
    saved = torch.load(tmp_path / "run/last.ckpt", weights_only=True)["state_dict"]
    trained = saved["network.blocks.0.se.excite.4.high"]
    clean = torch.cat([pair.clean[None] for pair in [*TRAIN, Pair("x", None, smooth(5))]]) / 255
    span = gates_of(network, clean)[0, : len(trained)] / 2
    assert (trained < 1).all() and (trained - span).abs().max() < 0.3, "those of photographs, not of drawings"
    assert torch.equal(trained, saved["average.module.blocks.0.se.excite.4.high"])


def test_a_start_without_bounds_gets_them_when_it_rehearses_too(tmp_path):
    network = opened(randomised(build_network(FLAT)))
    training = {"recipe": {"noise": "gaussian:0-55"}}
    save_checkpoint(tmp_path / "open.safetensors", network.state_dict(), FLAT, training=training, psnr={})
    start = load_checkpoint(tmp_path / "open.safetensors")
    config = replace(CONFIG, network=FLAT, noise="gaussian:10", steps=2)
    objective = rehearsed(Supervised(parse_noise_spec("gaussian:10")), start, 0.15, config.patch, config.network, [])
    run = fit(tmp_path / "run", config, TRAIN, VALIDATION, data="x", quiet=True, start=start, objective=objective)
    assert isinstance(objective, Rehearsed)
    assert not any(bounds.is_open for bounds in bounds_of(load_checkpoint(run.best).network()))


def test_a_run_begun_before_gates_were_held_is_resumed_and_gets_bounds(tmp_path):
    config = replace(CONFIG, network=FLAT, steps=4)
    run = fit(tmp_path / "run", config, TRAIN, VALIDATION, data="x", quiet=True)
    state = torch.load(run.last, weights_only=True)
    state["state_dict"] = {k: v for k, v in state["state_dict"].items() if not k.endswith((".low", ".high"))}
    torch.save(state, run.last)
    fit(tmp_path / "run", replace(config, steps=6), TRAIN, VALIDATION, data="x", quiet=True, resume=True)
    saved = torch.load(run.last, weights_only=True)
    assert saved["global_step"] == 6
    assert (saved["state_dict"]["average.module.blocks.0.se.excite.4.high"] < 1).all()
