"""Pairs that do not lie on each other are found, under noise, and others are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from denoise_se.misalignment import misaligned, shift_between
from denoise_se.training_images import Pair


def textured(seed: int, side: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rough = sum(cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), s) * s for s in (1.5, 4, 12))
    return 128 + 40 * rough / rough.std()


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))[None]


@pytest.mark.parametrize("noise", [0, 20, 40])
@pytest.mark.parametrize(("down", "right"), [(2, -3), (-5, 0), (0, 2)])
def test_a_shift_is_measured_to_half_a_pixel_under_noise(noise: float, down: int, right: int) -> None:
    wide = textured(1)
    clean, moved = wide[10:-10, 10:-10], np.roll(wide, (down, right), (0, 1))[10:-10, 10:-10]
    moved = moved + np.random.default_rng(0).normal(0, noise, moved.shape)
    assert shift_between(tensor(clean), tensor(moved)) == pytest.approx((down, right), abs=0.5)


def test_noise_row_banding_and_plain_images_are_no_shift() -> None:
    rng = np.random.default_rng(0)
    clean = textured(2)
    noisy = clean + rng.normal(0, 40, clean.shape) + rng.normal(0, 20, (clean.shape[0], 1))
    assert max(map(abs, shift_between(tensor(clean), tensor(noisy)))) <= 0.5
    plain = np.full((64, 64), 90.0)
    assert shift_between(tensor(plain), tensor(plain + rng.normal(0, 10, plain.shape))) == (0, 0)
    assert shift_between(tensor(plain[:8]), tensor(plain[:8])) == (0, 0)


def test_only_pairs_that_are_off_by_more_than_a_pixel_are_named() -> None:
    clean = textured(3)
    pairs = [Pair(f"by {n}", tensor(np.roll(clean, n, 1)), tensor(clean)) for n in (0, 1, 4)]
    (line,) = misaligned([*pairs, Pair("clean alone", None, tensor(clean))])
    assert line.startswith("by 4: the noisy image is shifted by +")
