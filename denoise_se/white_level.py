"""The value of an image that stands for 1 where a network sees it."""

from __future__ import annotations

import math

import numpy as np

from denoise_se.noise_estimation import estimate_noise
from denoise_se.scanlines import Scanlines

BAND = 768  # rows that are looked at a time
DIM = 0.25  # a deep image whose values all lie below this share of its range uses a small part of it
MOST_GAIN, MOST_LEVEL = 2.0**16, 50.0  # of such an image, and of its noise after it in 8-bit units


def full_range(dtype: np.dtype) -> float:
    """The value that stands for 1.0 in a file: 255, 65535, or 1.0 for floats."""
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


def white_level(source: Scanlines, level: float | np.ndarray | None = None) -> float:
    """The value that a network is to see as 1: that of the full range; in a deep image that uses a small part of it
    (counts of a camera of 12 bits in 16, say) a power of two less, as networks and int8 are not made for differences
    that small. Not so much less that the noise, `level` in 8-bit units or else estimated, would be stronger than
    networks know."""
    full = full_range(source.dtype)
    if source.dtype == np.uint8:
        return full
    peak = 0.0
    for start in range(0, source.shape[0], BAND):
        peak = max(peak, float(np.abs(source.rows(start, min(start + BAND, source.shape[0]))).max()))
        if peak > DIM * full:
            return full
    strongest = float(np.max(estimate_noise(source).level if level is None else level))
    gain = min(full / peak if peak else 1.0, MOST_GAIN, MOST_LEVEL / strongest if strongest else MOST_GAIN)
    return full / 2.0 ** max(0, math.floor(math.log2(gain)))
