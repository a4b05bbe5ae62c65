"""The noise level at each place of an image whose noise grows with brightness, as that of photons does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, Union

import cv2
import numpy as np
from numpy.typing import NDArray

from denoise_se.noise_estimation import NoiseEstimate
from denoise_se.noise_line import NoiseLaw
from denoise_se.scanlines import Scanlines, in_bands
from denoise_se.tiling import Span
from denoise_se.white_level import full_range

Level: TypeAlias = Union[float, NDArray[np.float32], "LevelGrid"]  # in 8-bit units: of a whole image, or of each pixel

CELL = 4  # pixels a side, of which BAND is a multiple; their mean says how bright it is there
# variance over brightness is believed when its growth is this sure, and raises the brightest tenth this far
SURE = 0.7  # of the growth, the lower end of its 95 % interval
CONTRAST = 1.5  # between the standard deviations of the brightest and of the darkest tenth


@dataclass(frozen=True)
class LevelGrid:
    """Standard deviations in 8-bit units at the centres of cells of CELL pixels, `values` [h, w]; between them they are
    interpolated, so that a window gets the same whatever the tiles. As an array it is its values. `law` gives the
    variance of a cell from its brightness.
    """

    values: NDArray[np.float32]
    law: NoiseLaw

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> NDArray[np.float32]:
        return np.array(self.values, dtype) if copy else np.asarray(self.values, dtype)

    @classmethod
    def of(cls, brightness: NDArray[np.float32], law: NoiseLaw) -> LevelGrid:
        """For cells [h, w] of that mean, in units of the range."""
        return cls(255 * np.sqrt(law.at(np.clip(brightness, 0, 1))), law)

    def like(self, source: Scanlines) -> LevelGrid:
        """The same noise in another image [H, W, C], as in a part of this one."""
        return self.of(brightness(source), self.law)

    def window(self, rows: Span, columns: Span) -> NDArray[np.float32]:
        """The level of each pixel of a window."""
        above, below, down = _between(rows, self.values.shape[0])
        left, right, along = _between(columns, self.values.shape[1])
        lines = self.values[above] * (1 - down[:, None]) + self.values[below] * down[:, None]
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
    cells = brightness(source)
    found = LevelGrid.of(cells, noise.law)
    darkest, brightest = np.quantile(found.values, (0.1, 0.9))
    if brightest < CONTRAST * darkest or darkest == 0:
        return noise.level
    share = noise.level**2 / float(np.square(found.values).mean(dtype=np.float64))
    return LevelGrid.of(cells, noise.law.times(share))


def brightness(source: Scanlines) -> NDArray[np.float32]:
    """The mean of each cell over its pixels and channels, in units of the range."""
    height, width, _ = source.shape
    cells = np.empty((-(-height // CELL), -(-width // CELL)), np.float32)
    for start, rows in in_bands(source):
        band = rows.mean(axis=2, dtype=np.float32)
        below, beside = -band.shape[0] % CELL, -band.shape[1] % CELL
        band = cv2.copyMakeBorder(band, 0, below, 0, beside, cv2.BORDER_REPLICATE)
        size = band.shape[1] // CELL, band.shape[0] // CELL
        cells[start // CELL : start // CELL + size[1]] = cv2.resize(band, size, interpolation=cv2.INTER_AREA)
    return cells / np.float32(full_range(source.dtype))
