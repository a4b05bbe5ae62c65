"""The value of an image that stands for 1 where a network sees it."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from denoise_se.noise_estimation import estimate_noise
from denoise_se.scanlines import Scanlines, in_bands

DIM = 0.25  # a deep image whose values all lie below this share of its range uses a small part of it
MOST_ABOVE = 0.005  # of the values that may lie above white: of floats where that is above 2, and for weak noise
MOST_GAIN, MOST_LEVEL = 2.0**16, 50.0  # of a dim image, and of its noise after it in 8-bit units
LEAST_LEVEL = 1.0  # of noise, in 8-bit units; of weaker noise networks take less than they add


def full_range(dtype: np.dtype) -> float:
    """The value that stands for 1.0 in a file: 255, 65535, or 1.0 for floats."""
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


def white_level(source: Scanlines, level: ArrayLike | None = None) -> float:
    """The value that a network is to see as 1: that of the full range; in floats of which more than a few lie above 2
    (highlights, or counts) a power of two that is hardly exceeded, as networks know no such values; in a deep image
    that uses a small part of it (counts of a camera of 12 bits in 16, say) a power of two less, as networks and int8
    are not made for differences that small. Single pixels (hot ones, cosmic rays) use none of the range. Not so much
    less that the noise, `level` in 8-bit units or else estimated, would be stronger than networks know. Where a `level`
    that is given would be weaker than networks know, a power of two less again that few values exceed, as in a field of
    stars."""
    full = full_range(source.dtype)
    if source.dtype == np.uint8:
        return full
    if source.dtype.kind == "f" and (highest := 2.0 ** max(0, _exponent(source))) > 2:
        return highest
    peak = 0.0
    for _, rows in in_bands(source):
        if np.abs(rows).max() > peak:
            peak = max(peak, float(np.abs(_without_single(rows)).max()))
        if peak > DIM * full:
            break
    if peak > DIM * full and level is None:
        return full
    strongest = float(np.max(estimate_noise(source).level if level is None else level))
    gain = 1.0 if peak > DIM * full else min(full / peak if peak else 1.0, MOST_GAIN)
    doublings = math.floor(math.log2(max(1.0, min(gain, MOST_LEVEL / strongest if strongest else gain))))
    usual = 0.0 if level is None else float(np.median(np.asarray(level)))
    if 0 < usual * 2.0**doublings < LEAST_LEVEL:
        wanted = math.ceil(math.log2(LEAST_LEVEL / usual))
        doublings = max(doublings, min(wanted, -_exponent(source)))
    return full / 2.0**doublings


def _without_single(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """[n, W, C] without what is smaller than three pixels or a line: medians of 3x3."""
    values = np.ascontiguousarray(rows if rows.dtype.kind == "u" else rows.astype(np.float32))
    return cv2.medianBlur(values, 3)


def _exponent(source: Scanlines) -> int:
    """Of the least power of two, in units of the range, that at most MOST_ABOVE of the values exceed, whatever their
    sign; at most 128, as no float32 is above 2**128."""
    counts = np.zeros(257, np.int64)  # of the values up to 2**-128, ..., 1, 2, 4, ...
    for _, rows in in_bands(source):
        values = rows.astype(np.float32).ravel() / np.float32(full_range(rows.dtype))
        exponents = np.frexp(np.nextafter(values, np.float32(-np.inf)))[1]  # so that 2 itself counts as up to 2
        counts += np.bincount(exponents.clip(-128, 128) + 128, minlength=257)
    above = counts.sum() - counts.cumsum()
    return int(np.argmax(above <= MOST_ABOVE * counts.sum())) - 128
