"""Networks that start from weights of another shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import TINY, save_tiny
from torch import nn

from denoise_se.checkpoint import load_checkpoint, save_checkpoint
from denoise_se.errors import CheckpointError
from denoise_se.network import NetworkConfig, build_network
from denoise_se.warm_start import warm_start


def perturbed(config: NetworkConfig) -> nn.Module:
    torch.manual_seed(1)
    network = build_network(config).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return network


@pytest.mark.parametrize("noise_map", [True, False])
def test_a_colour_network_started_from_a_grey_one_does_the_same_to_grey_pictures(
    tmp_path: Path, noise_map: bool
) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "grey.safetensors", channels=1, noise_map=noise_map))
    network = perturbed(NetworkConfig(channels=3, noise_map=noise_map, **TINY))
    warm_start(network, start)  # type: ignore[arg-type]
    grey, level = torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    expected = start.network()(grey, level)
    assert (expected - grey).abs().max() > 1e-3
    torch.testing.assert_close(network(grey.expand(-1, 3, -1, -1), level), expected.expand(-1, 3, -1, -1))


def test_a_grey_network_started_from_a_colour_one_gives_the_mean_of_its_channels(tmp_path: Path) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "colour.safetensors", channels=3))
    network = perturbed(NetworkConfig(channels=1, **TINY))
    warm_start(network, start)  # type: ignore[arg-type]
    grey, level = torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    expected = start.network()(grey.expand(-1, 3, -1, -1), level).mean(1, keepdim=True)
    torch.testing.assert_close(network(grey, level), expected)


def test_a_blind_network_sees_what_a_conditioned_one_sees_at_level_zero(tmp_path: Path) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "map.safetensors", channels=3))
    blind = perturbed(NetworkConfig(channels=3, noise_map=False, **TINY))
    warm_start(blind, start)  # type: ignore[arg-type]
    noisy, zero = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    torch.testing.assert_close(blind(noisy, zero), start.network()(noisy, zero))


def test_a_new_noise_map_starts_without_effect(tmp_path: Path) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "blind.safetensors", channels=3, noise_map=False))
    network = perturbed(NetworkConfig(channels=3, **TINY))
    warm_start(network, start)  # type: ignore[arg-type]
    noisy, level = torch.rand(1, 3, 16, 16), torch.full((1, 1, 16, 16), 0.3)
    torch.testing.assert_close(network(noisy, level), start.network()(noisy, level))


@pytest.mark.parametrize("layout", [{"layout": "flat", "widths": (6,)}, {"layout": "unet", "widths": (4, 8)}])
def test_a_deeper_network_starts_as_the_shallower_one(layout: dict[str, object], tmp_path: Path) -> None:
    config = NetworkConfig(channels=1, blocks=2, **layout)  # type: ignore[arg-type]
    start = tmp_path / "shallow.safetensors"
    save_checkpoint(start, perturbed(config).state_dict(), config, training={}, psnr={})
    deeper = build_network(replace(config, blocks=5))
    warm_start(deeper, load_checkpoint(start))
    noisy, level = torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    expected = load_checkpoint(start).network()(noisy, level)
    assert (expected - noisy).abs().max() > 1e-3
    torch.testing.assert_close(deeper(noisy, level), expected)


@pytest.mark.parametrize("blocks", [2, 5])
def test_a_wider_network_starts_as_the_narrower_one(blocks: int, tmp_path: Path) -> None:
    config = NetworkConfig(channels=1, layout="flat", widths=(4,), blocks=2, se_ratio=0.5)
    start = tmp_path / "narrow.safetensors"
    save_checkpoint(start, perturbed(config).state_dict(), config, training={}, psnr={})
    wider = replace(config, widths=(7,), blocks=blocks)
    network = perturbed(wider) if blocks == 2 else build_network(wider)  # a fresh block is the identity, no other is
    warm_start(network, load_checkpoint(start))
    noisy, level = torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    expected = load_checkpoint(start).network()(noisy, level)
    assert (expected - noisy).abs().max() > 1e-3
    torch.testing.assert_close(network(noisy, level), expected)


def test_a_narrower_network_cannot_start_from_a_wider_one(tmp_path: Path) -> None:
    config = NetworkConfig(channels=1, layout="flat", widths=(7,), blocks=1)
    start = tmp_path / "wide.safetensors"
    save_checkpoint(start, perturbed(config).state_dict(), config, training={}, psnr={})
    with pytest.raises(CheckpointError, match="another shape"):
        warm_start(build_network(replace(config, widths=(4,))), load_checkpoint(start))


def test_blocks_that_cannot_start_as_the_identity_are_not_added(tmp_path: Path) -> None:
    config = NetworkConfig(channels=1, layout="flat", widths=(4,), blocks=1, final_relu=True)
    start = tmp_path / "shallow.safetensors"
    save_checkpoint(start, perturbed(config).state_dict(), config, training={}, psnr={})
    with pytest.raises(CheckpointError, match="another shape"):
        warm_start(build_network(replace(config, blocks=2)), load_checkpoint(start))


def test_a_start_of_another_shape_is_refused_with_the_mend(tmp_path: Path) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "tiny.safetensors"))
    with pytest.raises(CheckpointError, match="--init none"):
        warm_start(build_network(NetworkConfig(channels=3, widths=(4, 16), blocks=1)), start)
