"""Strength between the input and the result, for luma and chroma apart."""

from __future__ import annotations

import numpy as np
import pytest

from denoise_se.blending import Strength, blended
from denoise_se.errors import UsageError

NOISY = np.array([[[100, 50, 200], [0, 255, 7]]], np.uint8)
RESTORED = np.array([[[110, 60, 210], [10, 240, 27]]], np.float32) / 255


def test_full_strength_is_the_rounded_and_clipped_result():
    restored = np.array([[[1.2, -0.3, 100.5 / 255]]], np.float32)
    assert blended(np.zeros((1, 1, 3), np.uint8), restored, Strength()).tolist() == [[[255, 0, 100]]]


def test_equal_shares_are_the_way_from_the_input_to_the_result():
    # 100 + 0.5 * 10 = 105, 255 - 0.5 * 15 = 247.5 -> even, 7 + 0.5 * 20 = 17
    assert blended(NOISY, RESTORED, Strength(0.5, 0.5)).tolist() == [[[105, 55, 205], [5, 248, 17]]]


def test_luma_alone_moves_all_channels_alike_and_keeps_the_colour_differences():
    # the first pixel changes by 10 in every channel: all luma, no chroma
    assert blended(NOISY, RESTORED, Strength(1, 0))[0, 0].tolist() == [110, 60, 210]
    assert blended(NOISY, RESTORED, Strength(0, 1))[0, 0].tolist() == [100, 50, 200]
    # the second by (10, -15, 20): luma 0.299 * 10 - 0.587 * 15 + 0.114 * 20 = -3.535
    assert blended(NOISY, RESTORED, Strength(1, 0))[0, 1].tolist() == [0, 251, 3]
    assert blended(NOISY, RESTORED, Strength(0, 1))[0, 1].tolist() == [14, 244, 31]


def test_one_channel_has_luma_only():
    noisy, restored = np.full((1, 1, 1), 1000, np.uint16), np.full((1, 1, 1), 2000 / 65535, np.float32)
    assert blended(noisy, restored, Strength(0.25, 1)).tolist() == [[[1250]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_zero_gives_every_value_back(dtype):
    noisy = (NOISY.astype(np.float64) * 1.5).astype(dtype)
    assert np.array_equal(blended(noisy, RESTORED, Strength(0, 0)), noisy)
    assert Strength(0, 0).is_zero and not Strength(0, 0.1).is_zero


@pytest.mark.parametrize("shares", [(-0.1, 1), (1, 1.1), (float("nan"), 0)])
def test_a_share_outside_0_to_1_is_refused(shares):
    with pytest.raises(UsageError, match="from 0"):
        Strength(*shares)
