"""How an image is cut into the windows that a network reads, and these made its input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from denoise_se.backends import WindowPlace
from denoise_se.level_grid import Level, LevelGrid
from denoise_se.network_config import NetworkConfig
from denoise_se.scanlines import Scanlines
from denoise_se.tiling import WHOLE_PIXELS, Span, in_cells, spans, squeeze_windows, tile_shape
from denoise_se.white_level import full_range

# Times white: values beyond are not given to a network, which knows none. In a brightened picture they may lie so many
# standard deviations of the noise above white.
MOST_SEEN, NOISE_ABOVE = 2.0, 4.0
Grid = tuple[list[tuple[Span, Span]], list[tuple[Span, Span]]]


@dataclass(frozen=True)
class Window:
    """A tile to be: its core's `rows` and `columns` and their `noisy` pixels; what the network reads, `planes`
    [N, C, h, w] and `levels` [N, 1, h, w], with its `place`; `kept`, the rows and columns that the network gives;
    `told` [h, w], the core's levels as the network is told them; `unseen` [h, w, C], the part of the core's
    values that it is not given, in units of white, None where it is given all."""

    rows: Span
    columns: Span
    kept: tuple[Span, Span]
    noisy: np.ndarray
    planes: np.ndarray
    levels: np.ndarray
    place: WindowPlace
    told: np.ndarray
    unseen: np.ndarray | None


class Cutter:
    """Cuts images for a network of this `halo`; `tile` is the cores' side, filled up to whole blocks, "auto", or 0 for
    one core.

    Levels are the noise levels of an image in 8-bit units, as `Denoiser.noise_level` gives them; `white` is what
    `white_level` gives.
    """

    def __init__(self, network: NetworkConfig, halo: int, tile: int | str) -> None:
        self.network, self.halo, self.tile = network, halo, tile

    def grid(self, height: int, width: int) -> Grid:
        """Cores and windows of the rows and the columns."""
        multiple = self.network.multiple_of
        if self.tile != "auto":
            shape = int(self.tile), int(self.tile)
        elif height * width <= WHOLE_PIXELS:  # the gates are pooled over all of it at once, so tiles save no memory
            shape = 0, 0
        else:
            shape = tile_shape(height, width, self.halo, multiple, self.network.features)
        return spans(height, shape[0], self.halo, multiple), spans(width, shape[1], self.halo, multiple)

    def windows(self, source: Scanlines, level: Level | None, white: float) -> Iterator[Window]:
        """What the network is given of an image, row by row."""
        height, width, _ = source.shape
        rows_and_windows, columns_and_windows = self.grid(height, width)
        held, start = source.rows(0, 0), 0  # the rows from `start` on that have been read and are still needed
        for rows, above in rows_and_windows:
            fresh = source.rows(start + len(held), above.stop)
            held, start = np.concatenate([held[above.start - start :], fresh]), above.start
            for columns, beside in columns_and_windows:
                planes, levels = self._input(held[:, beside.slice], level, white, above, beside)
                cut = above.start > 0, above.stop < height, beside.start > 0, beside.stop < width
                kept = self._kept(above, height), self._kept(beside, width)
                uncut = level.uncut_window(above, beside) if isinstance(level, LevelGrid) else None
                if uncut is not None:
                    uncut = _in_units(uncut, white, held.dtype)
                one = float(np.float32(full_range(held.dtype)) / np.float32(white))
                place = WindowPlace(cut, kept[0].start, kept[1].start, uncut, one)
                noisy = held[rows.within(above), columns.slice].copy()  # a view would keep all rows
                told = levels[0, 0][rows.within(above), columns.within(beside)]
                unseen = _unseen(noisy, white, self._most(told, level, white, noisy.dtype))
                yield Window(rows, columns, kept, noisy, planes, levels, place, told, unseen)

    def samples(self, source: Scanlines, level: Level | None, white: float) -> tuple[np.ndarray, np.ndarray]:
        """What the gates of the whole image are found on, all of it or its sample windows: [N, C, h, w] and their
        levels [N, 1, h, w]."""
        height, width, _ = source.shape
        samples = []
        held, held_rows = source.rows(0, 0), Span(0, 0)
        for rows, columns in squeeze_windows(height, width, self.network.multiple_of):
            if rows != held_rows:
                held, held_rows = source.rows(rows.start, rows.stop), rows
            samples.append(self._input(held[:, columns.slice], level, white, rows, columns))
        planes, levels = (np.concatenate(part) for part in zip(*samples, strict=True))
        return planes, levels

    def _kept(self, window: Span, size: int) -> Span:
        """What the network keeps of a window along an axis: not the margins at the sides where the image goes on."""
        margin = in_cells(self.halo, self.network.multiple_of)
        return Span(window.start + margin * (window.start > 0), window.stop - margin * (window.stop < size))

    def _input(
        self, pixels: np.ndarray, level: Level | None, white: float, rows: Span, columns: Span
    ) -> tuple[np.ndarray, np.ndarray]:
        """A window [h, w, C] as network input: [N, C, h, w], `white` as 1, and its noise levels [N, 1, h, w]."""
        planes = np.empty((1, pixels.shape[2], *pixels.shape[:2]), np.float32)
        np.divide(pixels.transpose(2, 0, 1), np.float32(white), out=planes[0], dtype=np.float32, casting="unsafe")
        if planes.shape[1] != self.network.channels:
            planes = planes.repeat(3, axis=1) if planes.shape[1] == 1 else planes.transpose(1, 0, 2, 3)
        values: float | np.ndarray
        if isinstance(level, LevelGrid):
            values = level.window(rows, columns)
        else:
            values = level[rows.slice, columns.slice] if isinstance(level, np.ndarray) else level or 0.0
        levels = _in_units(np.float32(values), white, pixels.dtype)
        if pixels.dtype.kind == "f" or white < full_range(pixels.dtype):
            most = self._most(levels, level, white, pixels.dtype)
            planes = planes.clip(-most, most)
        return planes, np.broadcast_to(levels, (len(planes), 1, *planes.shape[2:]))

    def _most(self, levels: np.ndarray, level: Level | None, white: float, dtype: np.dtype) -> np.ndarray:
        """In units of white, the largest values that the network is given where it is told these levels."""
        if level is None or white == full_range(dtype):
            return np.asarray(MOST_SEEN, np.float32)
        return 1 + np.float32(NOISE_ABOVE) * levels


def _unseen(noisy: np.ndarray, white: float, most: np.ndarray) -> np.ndarray | None:
    """`Window.unseen` for at `most` so much, [h, w] or the same everywhere."""
    if noisy.dtype.kind == "u" and white == full_range(noisy.dtype):
        return None
    values = noisy.astype(np.float32) / np.float32(white)
    unseen = values - values.clip(-most[..., None], most[..., None])
    return unseen if unseen.any() else None


def _in_units(levels: np.ndarray | np.float32, white: float, dtype: np.dtype) -> np.ndarray:
    """Levels in 8-bit units, for pixels of which `white` is 1."""
    return np.asarray(levels / np.float32(255 * white / full_range(dtype)))
