"""The noise level at each place of an image: it may grow with brightness, as that of photons, and be cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias, Union

import cv2
import numpy as np
from numpy.typing import NDArray

from denoise_se.clipping import ClippedNoise, ends_reached
from denoise_se.noise_estimation import NoiseEstimate, estimate_noise
from denoise_se.noise_line import NoiseLaw
from denoise_se.scanlines import Scanlines, in_bands
from denoise_se.tiling import Span
from denoise_se.value_range import full_range

Level: TypeAlias = Union[float, NDArray[np.float32], "LevelGrid"]  # in 8-bit units: of a whole image, or of each pixel
# What is known of an image's noise: the level that a network is told, or for a blind one how it was cut off.
Known: TypeAlias = Level | ClippedNoise

NORMAL_MEDIAN = 0.6745  # of the absolute values of a standard normal distribution
LOOKED_AT = 100_000  # blocks
CELL = 4  # pixels a side, of which BAND is a multiple; their mean says how bright it is there
# variance over brightness is believed when its growth is this sure, and raises the brightest tenth this far
SURE = 0.7  # of the growth, the lower end of its 95 % interval
CONTRAST = 1.5  # between the standard deviations of the brightest and of the darkest tenth
# Noise counts as cut off at black or white where this share of the values lies there, and this much of the share that
# noise of its level would bring there.
LEAST_CUT, EXPECTED_CUT = 1e-4, 0.5
LEAST_SEEN = 4.0  # 8-bit units: weaker noise, cut off, moves a blind network's result by next to nothing
UNCUT = ClippedNoise(NoiseLaw(0.0, 0.0), black=False, white=False)
INDEPENDENT = 0.5  # of a level: the least part that is independent from pixel to pixel, as in no camera's JPEG


@dataclass(frozen=True)
class LevelGrid:
    """Standard deviations in 8-bit units at the centres of cells of CELL pixels, `values` [h, w]; between them they are
    interpolated, so that a window gets the same whatever the tiles. As an array it is its values. `law` gives the
    variance of a cell from its brightness, which is told `scale` times. `uncut` [h, w] are the levels before noise was
    cut off, where it was.
    """

    values: NDArray[np.float32]
    law: NoiseLaw | ClippedNoise
    scale: float = 1.0
    uncut: NDArray[np.float32] | None = None

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> NDArray[np.float32]:
        return np.array(self.values, dtype) if copy else np.asarray(self.values, dtype)

    @classmethod
    def of(cls, source: Scanlines, law: NoiseLaw | ClippedNoise, scale: float = 1.0) -> LevelGrid:
        """For an image [H, W, C] with that noise: of the mean variance of a cell's channels."""
        height, width, _ = source.shape
        values = np.empty((-(-height // CELL), -(-width // CELL)), np.float32)
        uncut = np.empty_like(values) if isinstance(law, ClippedNoise) else None
        for start, rows in in_bands(source):
            means, part = _means(rows), slice(start // CELL, -(-(start + len(rows)) // CELL))
            values[part] = scale * _level(law.at(means))
            if isinstance(law, ClippedNoise) and uncut is not None:
                uncut[part] = scale * _level(law.before(means))
        return cls(values, law, scale, uncut)

    def like(self, source: Scanlines) -> LevelGrid:
        """The same noise in another image [H, W, C], as in a part of this one."""
        return self.of(source, self.law, self.scale)

    @property
    def mean(self) -> float:
        """Over the image, before anything was cut off."""
        values = self.values if self.uncut is None else self.uncut
        return float(f"{np.mean(values, dtype=np.float64):.7g}")  # float32 has no more digits

    def window(self, rows: Span, columns: Span) -> NDArray[np.float32]:
        """The level of each pixel of a window."""
        return _interpolated(self.values, rows, columns)

    def uncut_window(self, rows: Span, columns: Span) -> NDArray[np.float32] | None:
        """The same of `uncut`."""
        return None if self.uncut is None else _interpolated(self.uncut, rows, columns)


def _interpolated(values: NDArray[np.float32], rows: Span, columns: Span) -> NDArray[np.float32]:
    above, below, down = _between(rows, values.shape[0])
    left, right, along = _between(columns, values.shape[1])
    lines = values[above] * (1 - down[:, None]) + values[below] * down[:, None]
    return np.asarray(lines[:, left] * (1 - along) + lines[:, right] * along, np.float32)


def _between(span: Span, cells: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each pixel of a span the cells before and behind it, and how far it is on the way."""
    place = np.clip((np.arange(span.start, span.stop) + 0.5) / CELL - 0.5, 0, cells - 1)
    first = place.astype(np.intp)
    return first, np.minimum(first + 1, cells - 1), (place - first).astype(np.float32)


def level_by_brightness(source: Scanlines, noise: NoiseEstimate) -> float | LevelGrid:
    """What a network for known noise is to be told of an image [H, W, C]: one level, or where the noise that was found
    in it surely grows with brightness a grid of them, of the same mean variance."""
    surely = noise.gain_interval[0] + noise.speckle_interval[0] ** 2
    if noise.level == 0 or surely == 0 or surely < SURE * (noise.gain + noise.speckle**2):
        return noise.level
    found = LevelGrid.of(source, noise.law)
    darkest, brightest = np.quantile(found.values, (0.1, 0.9))
    if brightest < CONTRAST * darkest or darkest == 0:
        return noise.level
    scale = noise.level / float(np.square(found.values).mean(dtype=np.float64)) ** 0.5
    return replace(found, values=found.values * np.float32(scale), scale=scale)


def level_in_file(source: Scanlines, level: float | LevelGrid, noise: NoiseEstimate | None = None) -> float | LevelGrid:
    """`level`, above 0, as it is left where an image [H, W, C] shows that its noise was cut off at black or white, else
    as it is. `noise` is what was found in it, or is estimated: what was cut off is what pixels have independently.
    """
    found = _cut_off(source, level, noise)
    return level if found is None else LevelGrid.of(source, *found)


def _cut_off(
    source: Scanlines, level: float | LevelGrid, noise: NoiseEstimate | None
) -> tuple[ClippedNoise, float] | None:
    """The noise as it was cut off, and how many times its level is told; None where it was not. Counts of photons and
    multiples of the brightness are never below black."""
    reached = [share >= LEAST_CUT for share in ends_reached(source)]
    if not any(reached):
        return None
    noise = noise or estimate_noise(source)
    grows = isinstance(level, LevelGrid) or isinstance(level_by_brightness(source, noise), LevelGrid)
    reached[0] &= not grows
    independent, over_all = noise.white_sigma, level.mean if isinstance(level, LevelGrid) else level
    if not any(reached) or independent < INDEPENDENT * min(over_all, noise.sigma) or independent == 0:
        return None
    if isinstance(level, LevelGrid):
        law, scale = level.law, level.scale
    else:
        sigma = min(level, independent)
        law, scale = NoiseLaw(0.0, (sigma / 255) ** 2), level / sigma
    if isinstance(law, ClippedNoise):
        return None
    black, white = _are_cut(source, ClippedNoise(law, black=reached[0], white=reached[1]))
    return (ClippedNoise(law, black, white), scale) if black or white else None


def noise_cut_off(source: Scanlines, noise: NoiseEstimate | None = None) -> ClippedNoise:
    """The noise of an image [H, W, C] where it shows that it was cut off, else UNCUT. `noise` is what was found in it,
    or is estimated where a first look finds that worth its time."""
    if max(ends_reached(source)) < LEAST_CUT or _finest(source) < LEAST_SEEN:
        return UNCUT
    noise = noise or estimate_noise(source)
    found = _cut_off(source, level_by_brightness(source, noise), noise) if noise.level else None
    return UNCUT if found is None else found[0]


def _finest(source: Scanlines) -> float:
    """A first look at the noise, in 8-bit units: from the median absolute value of the finest wavelet's (Haar)
    diagonal coefficients, of about LOOKED_AT blocks of 2 pixels a side. Blocks that are wholly black or white, as
    what is overexposed, do not count. (`classical.wavelet_sigma` needs the whole image in memory and PyWavelets.)"""
    height, width, _ = source.shape
    step = max(1, height * width // (4 * LOOKED_AT)) * 2  # from one pair of rows to the next
    full = full_range(source.dtype)
    found = []
    for _, rows in in_bands(source):
        whole = rows[: len(rows) // 2 * 2, : width // 2 * 2]
        above, below = (whole[start::step].astype(np.float32) for start in (0, 1))
        first, second, third, fourth = above[:, ::2], above[:, 1::2], below[:, ::2], below[:, 1::2]
        highest = np.maximum(np.maximum(first, second), np.maximum(third, fourth))
        lowest = np.minimum(np.minimum(first, second), np.minimum(third, fourth))
        found.append(np.abs(first - second - third + fourth)[(highest > 0) & (lowest < full)])
    values = np.concatenate(found)
    return 255 / full * float(np.median(values)) / 2 / NORMAL_MEDIAN if values.size else 0.0


def cut_off_by(known: Known) -> ClippedNoise:
    """How the noise was cut off; UNCUT if it was not."""
    law = known.law if isinstance(known, LevelGrid) else known
    return law if isinstance(law, ClippedNoise) else UNCUT


def told(known: Known) -> Level | None:
    """The level that a network is told, None if it is told none."""
    return None if isinstance(known, ClippedNoise) else known


def _are_cut(source: Scanlines, noise: ClippedNoise) -> tuple[bool, bool]:
    """Whether black and white have values enough for such noise. Cells that are wholly there tell nothing: what is
    overexposed has no noise."""
    found, expected = np.zeros(2), np.zeros(2)
    for _, rows in in_bands(source):
        for index, (end, share) in enumerate(
            zip((0, full_range(source.dtype)), noise.cut_off(_means(rows)), strict=True)
        ):
            there = _averaged(rows == end)
            partly = there < 1
            found[index] += there[partly].sum(dtype=np.float64)
            expected[index] += share[partly].sum(dtype=np.float64)
    least = np.maximum(LEAST_CUT / CELL**2 * math.prod(source.shape), EXPECTED_CUT * expected)
    black, white = (found > least).tolist()
    return black and noise.black, white and noise.white


def mean_level(known: Known) -> float | None:
    """The level of an image as one number, in 8-bit units, before anything was cut off; None if none was told."""
    if isinstance(known, ClippedNoise):
        return None
    return known.mean if isinstance(known, LevelGrid) else float(np.mean(known))


def held(known: Known, source: Scanlines) -> Known:
    """What is known for a part of the same image, or for it a little changed, which is not to be looked at anew."""
    if isinstance(known, LevelGrid):
        return known.like(source)
    if isinstance(known, float):
        cells = [-(-side // CELL) for side in source.shape[:2]]
        return LevelGrid(np.full(cells, known, np.float32), NoiseLaw(0.0, (known / 255) ** 2))
    return known


def _means(rows: NDArray[np.generic]) -> NDArray[np.float32]:
    """Of cells [h, w, C], in units of the range from 0 to 1."""
    return np.clip(_averaged(rows) / np.float32(full_range(rows.dtype)), 0, 1)


def _averaged(rows: NDArray[np.generic]) -> NDArray[np.float32]:
    """[n, W, C] over cells."""
    below, beside = -rows.shape[0] % CELL, -rows.shape[1] % CELL
    means = np.empty((-(-rows.shape[0] // CELL), -(-rows.shape[1] // CELL), rows.shape[2]), np.float32)
    for channel in range(rows.shape[2]):  # one by one, to hold less
        pixels = rows[..., channel].astype(np.float32)
        band = cv2.copyMakeBorder(pixels, 0, below, 0, beside, cv2.BORDER_REPLICATE)
        means[..., channel] = cv2.resize(band, means.shape[1::-1], interpolation=cv2.INTER_AREA)
    return means


def _level(variance: NDArray[np.floating]) -> NDArray[np.float32]:
    """Of cells [h, w, C], [h, w] in 8-bit units."""
    return np.asarray(255 * np.sqrt(variance.mean(axis=2)), np.float32)
