"""Pairs out of noisy pictures whose noise is known in kind and not in level."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_model import save_tiny
from torch import Tensor

from denoise_se.checkpoint import load_checkpoint
from denoise_se.datasets import Example
from denoise_se.held_out_risk import Denoise
from denoise_se.noise import parse_noise_spec
from denoise_se.resynthesis import ResynthesisRisk, Scaled, half_size, resynthesised
from denoise_se.training_images import Pair

NOISE = parse_noise_spec("gaussian:12")


def same(noisy: Tensor, level: Tensor) -> Tensor:
    return noisy


def blurred(noisy: Tensor, level: Tensor, sigma: float = 1.5) -> Tensor:
    planes = noisy[0].permute(1, 2, 0).numpy()
    return torch.from_numpy(cv2.GaussianBlur(planes, (0, 0), sigma).transpose(2, 0, 1).copy())[None]


def picture(side: int = 128) -> Tensor:
    """Plain in one half, stripes of 8 pixels in the other."""
    x = torch.arange(side)
    row = torch.where((x > side // 2) & (x // 8 % 2 == 0), 0.75, 0.4)
    return row.expand(1, 3, side, side).contiguous()


def test_noise_is_scaled_by_a_number_for_each_image() -> None:
    clean = torch.full((400, 1, 24, 24), 0.5)
    noisy, level = Scaled(NOISE)(clean, torch.Generator().manual_seed(0))
    deviations = (noisy - clean).flatten(1).std(dim=1) * 255
    assert float(deviations.min()) == pytest.approx(12, rel=0.1) and float(deviations.max()) == pytest.approx(
        24, rel=0.1
    )
    assert float(deviations.mean()) == pytest.approx(18, rel=0.03)
    assert torch.corrcoef(torch.stack([deviations, level.mean(dim=(1, 2, 3)) * 255]))[0, 1] > 0.95


def test_half_size_images_have_half_the_noise_that_was_left() -> None:
    clean = torch.full((1, 3, 128, 128), 0.5)
    noisy = NOISE(clean, torch.Generator().manual_seed(0)).image
    half = half_size(same, noisy, noisy[:, :1])
    assert half.shape == (1, 3, 64, 64)
    assert float(half.std()) * 255 == pytest.approx(6, rel=0.03)


def test_pictures_that_are_too_small_to_be_halved_are_left_out(tmp_path: Path) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "tiny.safetensors"))
    tail = {key: torch.zeros_like(value) for key, value in start.weights.items() if key.startswith("tail")}
    start = replace(start, weights=dict(start.weights) | tail)  # does nothing
    small, large = (torch.full((3, side, 50), 102, dtype=torch.uint8) for side in (30, 40))
    (pair,) = resynthesised([Pair("s", small, small, 0.1), Pair("l", large, large, 0.1)], start, 20)
    assert pair.name == "l" and pair.noisy is None and pair.clean.shape == (3, 20, 25)
    assert set(pair.clean.flatten().int().tolist()) == {102 * 257}


def test_a_network_is_judged_by_noise_it_leaves_and_by_the_picture_it_takes() -> None:
    noisy = (picture() + 12 / 255 * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))).clamp(0, 1)

    def edge_keeping(image: Tensor, level: Tensor) -> Tensor:
        planes = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
        kept = cv2.bilateralFilter(planes, 9, 0.25, 2.0)
        return torch.from_numpy(kept.transpose(2, 0, 1).copy())[None]

    image = Example(noisy, noisy, torch.full((1, 1, 1, 1), 12 / 255))
    risk = ResynthesisRisk(Scaled(NOISE), edge_keeping)

    def judged(network: Denoise) -> float:
        return float(risk(network, image, torch.Generator().manual_seed(2)))

    def on_the_images(network: Denoise) -> Denoise:
        """As good as the start on the half-size pictures, so that only the rest tells."""
        return lambda image, level: (network if image.shape[-1] == 128 else edge_keeping)(image, level)

    own = judged(edge_keeping)
    left = float((edge_keeping(noisy, noisy) - noisy).square().mean())
    assert judged(on_the_images(same)) > own + 0.5 * left, "all the noise is left in the flat half"
    assert judged(on_the_images(blurred)) > own + 0.002, "the stripes' edges are gone"
    assert judged(blurred) > judged(on_the_images(blurred)), "and the made pictures count too"
