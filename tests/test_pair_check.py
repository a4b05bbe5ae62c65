"""Pairs whose sides do not go together are found, under noise, and others are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from denoise_se.errors import DatasetError
from denoise_se.misalignment import shift_between
from denoise_se.pair_check import checked
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


def noisy(clean: np.ndarray, sigma: float = 10.0, seed: int = 0) -> np.ndarray:
    return clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)


def pair(name: str, one: np.ndarray, other: np.ndarray) -> Pair:
    return Pair(name, tensor(one), tensor(other))


def test_only_pairs_that_are_off_by_more_than_a_pixel_are_named() -> None:
    clean = textured(3)
    pairs = [pair(f"by {n}", noisy(np.roll(clean, n, 1)), clean) for n in (0, 1, 4)]
    (line,) = checked([*pairs, Pair("clean alone", None, tensor(clean))])
    assert line.startswith("by 4: the noisy image is shifted by +")


def test_equal_sides_are_named_and_told_once_where_there_is_nothing_else() -> None:
    clean = textured(3)
    (line,) = checked([pair("a", clean, clean), pair("b", noisy(clean), clean)])
    assert line == "a: both sides are equal, so it holds no noise to learn"
    (line,) = checked([pair("a", clean, clean), pair("b", clean, clean)])
    assert line.startswith("the noisy images are the clean ones")


def test_partners_that_show_other_scenes_are_named_and_most_of_them_refused() -> None:
    blocks = [np.random.default_rng(seed).uniform(20, 230, (8, 8)) for seed in range(6)]
    scenes = [np.kron(values, np.ones((24, 24))) for values in blocks]
    right = [pair(str(i), noisy(scene, 40, i), scene) for i, scene in enumerate(scenes)]
    assert checked(right) == []
    wrong = [one._replace(clean=other.clean) for one, other in zip(right, right[1:] + right[:1], strict=True)]
    assert checked([*right, wrong[0]]) == ["0: the two sides show different scenes"]
    with pytest.raises(DatasetError, match=r"6 of 6 pairs show different scenes, such as 0; they are matched by name"):
        checked(wrong)


@pytest.mark.parametrize("seed", range(4))
def test_noise_in_which_the_scene_can_hardly_be_seen_is_no_other_scene(seed: int) -> None:
    faint = 60 + (textured(seed) - 128) / 20  # a standard deviation of 2 under noise of 50
    grain = cv2.GaussianBlur(noisy(0 * faint, 50, seed), (0, 0), 1.0)
    assert checked([pair("white", noisy(faint + 60, 50, seed), faint + 60)]) == []
    assert checked([pair("correlated", faint + 60 + grain * 40 / grain.std(), faint + 60)]) == []


def test_other_exposure_and_exchanged_folders_are_told_once() -> None:
    scenes = [textured(seed) for seed in range(4)]
    (line,) = checked([pair(str(i), noisy(scene / 4, 3), scene) for i, scene in enumerate(scenes)])
    assert line.startswith(
        "4 of 4 noisy images are brighter or darker than their clean partners, such as 0 (0.25 times)"
    )
    (line,) = checked([pair(str(i), scene, noisy(scene)) for i, scene in enumerate(scenes)])
    assert line == "most clean sides are noisier than the noisy ones; the noisy folder comes first"
