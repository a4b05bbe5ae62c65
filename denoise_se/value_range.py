"""Which values of an image a network sees as 0 and as 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from denoise_se.noise_estimation import estimate_noise
from denoise_se.samples import sample_windows
from denoise_se.scanlines import Scanlines, in_bands

DIM = 0.25  # a deep image whose values all lie below this share of its range uses a small part of it
MOST_BEYOND = 0.005  # of the values that may lie above white, of floats where that is above 2, or below black
MOST_GAIN, MOST_LEVEL = 2.0**100, 50.0  # of a dim image, so that float32 holds it, and of its noise in 8-bit units
LEAST_LEVEL = 1.0  # of noise, in 8-bit units; of weaker noise networks take less than they add
NOISE_BEYOND = 3.0  # standard deviations: noise takes fewer than MOST_BEYOND of the values further from what they were
BELOW = 0.02  # of the contrast: so far below black is overshoot, as of a filter


@dataclass(frozen=True)
class ValueRange:
    """The values that a network sees as 0, `black`, and as 1, `white`, which is `span` above it."""

    black: float
    span: float

    @property
    def white(self) -> float:
        return self.black + self.span

    def seen(self, values: ArrayLike) -> NDArray[np.float32]:
        """As a network sees them."""
        given = np.asarray(values)
        if self.black:
            given = np.subtract(given, np.float32(self.black), dtype=np.float32, casting="unsafe")
        return np.divide(given, np.float32(self.span), dtype=np.float32, casting="unsafe", order="C")

    def given_back(self, clean: NDArray[np.float32], noisy: NDArray[np.generic]) -> NDArray[np.float32]:
        """What a network made of these values, in units of their type's range."""
        full = full_range(noisy.dtype)
        step = np.float32(self.span / full)
        if self.black:  # by what it changed, which is more exact
            return noisy.astype(np.float32) / np.float32(full) + (clean - self.seen(noisy)) * step
        return clean if self.span == full else clean * step

    def seen_levels(self, levels: ArrayLike, dtype: np.dtype) -> NDArray[np.float32]:
        """Noise levels in 8-bit units of that type's range as a network is told them."""
        return np.asarray(np.asarray(levels, np.float32) / np.float32(255 * self.span / full_range(dtype)))

    def is_whole(self, dtype: np.dtype) -> bool:
        """Whether it is that type's own."""
        return self.black == 0 and self.span == full_range(dtype)

    def in_units_of(self, full: float) -> ValueRange:
        """The same range where `full` is 1."""
        return ValueRange(self.black / full, self.span / full)

    def joined(self, other: ValueRange) -> ValueRange:
        """Both, from 0 on where one is."""
        black = min(self.black, other.black) if self.black and other.black else 0.0
        return ValueRange(black, max(self.white, other.white) - black)


WHOLE = ValueRange(0.0, 1.0)  # in units of a type's range


def full_range(dtype: np.dtype) -> float:
    """The value that stands for 1.0 in [0, 1]: 255, 65535, or 1 for floats."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


class Negative:
    """Scanlines of which white is black and black is white."""

    def __init__(self, inner: Scanlines) -> None:
        self.shape, self.dtype, self._inner = inner.shape, inner.dtype, inner

    def rows(self, start: int, stop: int) -> NDArray[np.generic]:
        return np.subtract(full_range(self.dtype), self._inner.rows(start, stop), dtype=self.dtype, casting="unsafe")


def value_range(source: Scanlines, level: ArrayLike | None = None) -> ValueRange:
    """From 0 to `white_level`; but of a deep image some of whose values lie below 0 by more than their noise, or all of
    them above it by more than they differ (counts with a large offset, tomograms, pictures of little contrast), from
    what is hardly gone below to what is hardly exceeded. That goes on to the darkest and brightest features that few
    pixels have (letters on a page, beads), as far as the noise stays one that networks know, and so much further at
    both ends that no noise is cut off. What the file cut off at white is seen as its negative, cut off at black, is.
    `level` is that of the noise, in 8-bit units, or else estimated."""
    low, high = (0.0, 0.0) if source.dtype == np.uint8 else _ends(source)
    if low >= -BELOW * (high - low) and (low <= high - low or high == low):
        return ValueRange(0.0, white_level(source, level))
    full = full_range(source.dtype)
    if low > 0 and high == full:
        span = white_level(Negative(source), level)
        return ValueRange(full - span, span)
    unit = full / 255
    levels = np.asarray(estimate_noise(source).level if level is None else level)
    strongest, usual = (unit * float(found) for found in (np.max(levels), np.median(levels)))
    low, high = _with_features(source, low, high, 255 / LEAST_LEVEL * (usual or math.inf))
    span, noise = high - low, NOISE_BEYOND * strongest
    if -BELOW * span - noise <= low <= span:
        return ValueRange(0.0, white_level(source, level))
    return ValueRange(low - noise, max(span + 2 * noise, 255 / MOST_LEVEL * strongest))


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
    least, largest = _features(source, DIM * full)
    peak = max(-least, largest)
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


def _with_features(source: Scanlines, low: float, high: float, most: float) -> tuple[float, float]:
    """From the least to the largest of the features, or as far from `low` to `high` to them as the range has `most`."""
    least, largest = _features(source)
    below, above = max(0.0, low - least), max(0.0, largest - high)
    if below + above == 0:
        return low, high
    share = min(1.0, max(0.0, most - (high - low)) / (below + above))
    return low - share * below, high + share * above


def _features(source: Scanlines, enough: float = math.inf) -> tuple[float, float]:
    """The least and the largest value of what is as large as three pixels or a line (medians of 3x3), of all or of so
    many rows that one is further than `enough` from 0."""
    import cv2

    least, largest = math.inf, -math.inf
    for _, rows in in_bands(source):
        if rows.min() < least or rows.max() > largest:
            values = np.ascontiguousarray(rows if rows.dtype.kind == "u" else rows.astype(np.float32))
            medians = cv2.medianBlur(values, 3)
            least, largest = min(least, float(medians.min())), max(largest, float(medians.max()))
        if max(-least, largest) > enough:
            break
    return least, largest


def _ends(source: Scanlines) -> tuple[float, float]:
    """The values that MOST_BEYOND of those of a sample lie below, and above."""
    height, width, _ = source.shape
    windows = (source.rows(r.start, r.stop)[:, c.slice].ravel() for r, c in sample_windows(height, width))
    values = np.concatenate([np.asarray(window, np.float32) for window in windows])
    few = int(MOST_BEYOND * len(values))
    ends = np.partition(values, (few, len(values) - 1 - few))
    return float(ends[few]), float(ends[len(values) - 1 - few])


def _exponent(source: Scanlines) -> int:
    """Of the least power of two, in units of the range, that at most MOST_BEYOND of the values exceed, whatever their
    sign; at most 128, as no float32 is above 2**128."""
    counts = np.zeros(257, np.int64)  # of the values up to 2**-128, ..., 1, 2, 4, ...
    for _, rows in in_bands(source):
        values = rows.astype(np.float32).ravel() / np.float32(full_range(rows.dtype))
        exponents = np.frexp(np.nextafter(values, np.float32(-np.inf)))[1]  # so that 2 itself counts as up to 2
        counts += np.bincount(exponents.clip(-128, 128) + 128, minlength=257)
    above = counts.sum() - counts.cumsum()
    return int(np.argmax(above <= MOST_BEYOND * counts.sum())) - 128
