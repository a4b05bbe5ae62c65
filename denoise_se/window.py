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
from denoise_se.value_range import ValueRange, full_range

# Times white: values beyond are not given to a network, which knows none. Of a picture that is not seen in its type's
# own range they may lie so many standard deviations of the noise above white, and below a black that is not 0.
MOST_SEEN, NOISE_ABOVE = 2.0, 4.0
Grid = tuple[list[tuple[Span, Span]], list[tuple[Span, Span]]]


@dataclass(frozen=True)
class Window:
    """A tile to be: its core's `rows` and `columns` and their `noisy` pixels; what the network reads, `planes`
    [N, C, h, w] and `levels` [N, 1, h, w], with its `place`; `kept`, the rows and columns that the network gives;
    `told` [h, w], the core's levels as the network is told them; `unseen` [h, w, C], the part of the core's
    values that it is not given, as a network would see it, None where it is given all."""

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

    Levels are the noise levels of an image in 8-bit units, as `Denoiser.noise_level` gives them; `seen` is the range
    of values that the network sees.
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

    def windows(self, source: Scanlines, level: Level | None, seen: ValueRange) -> Iterator[Window]:
        """What the network is given of an image, row by row."""
        height, width, _ = source.shape
        rows_and_windows, columns_and_windows = self.grid(height, width)
        held, start = source.rows(0, 0), 0  # the rows from `start` on that have been read and are still needed
        for rows, above in rows_and_windows:
            fresh = source.rows(start + len(held), above.stop)
            held, start = np.concatenate([held[above.start - start :], fresh]), above.start
            for columns, beside in columns_and_windows:
                planes, levels = self._input(held[:, beside.slice], level, seen, above, beside)
                cut = above.start > 0, above.stop < height, beside.start > 0, beside.stop < width
                kept = self._kept(above, height), self._kept(beside, width)
                uncut = level.uncut_window(above, beside) if isinstance(level, LevelGrid) else None
                if uncut is not None:
                    uncut = seen.seen_levels(uncut, held.dtype)
                ends = float(seen.seen(0)), float(seen.seen(full_range(held.dtype)))
                place = WindowPlace(cut, kept[0].start, kept[1].start, uncut, ends)
                noisy = held[rows.within(above), columns.slice].copy()  # a view would keep all rows
                told = levels[0, 0][rows.within(above), columns.within(beside)]
                unseen = _unseen(noisy, seen, self._ends(told, level, seen, noisy.dtype))
                yield Window(rows, columns, kept, noisy, planes, levels, place, told, unseen)

    def samples(self, source: Scanlines, level: Level | None, seen: ValueRange) -> tuple[np.ndarray, np.ndarray]:
        """What the gates of the whole image are found on, all of it or its sample windows: [N, C, h, w] and their
        levels [N, 1, h, w]."""
        height, width, _ = source.shape
        samples = []
        held, held_rows = source.rows(0, 0), Span(0, 0)
        for rows, columns in squeeze_windows(height, width, self.network.multiple_of):
            if rows != held_rows:
                held, held_rows = source.rows(rows.start, rows.stop), rows
            samples.append(self._input(held[:, columns.slice], level, seen, rows, columns))
        planes, levels = (np.concatenate(part) for part in zip(*samples, strict=True))
        return planes, levels

    def _kept(self, window: Span, size: int) -> Span:
        """What the network keeps of a window along an axis: not the margins at the sides where the image goes on."""
        margin = in_cells(self.halo, self.network.multiple_of)
        return Span(window.start + margin * (window.start > 0), window.stop - margin * (window.stop < size))

    def _input(
        self, pixels: np.ndarray, level: Level | None, seen: ValueRange, rows: Span, columns: Span
    ) -> tuple[np.ndarray, np.ndarray]:
        """A window [h, w, C] as network input: [N, C, h, w], and its noise levels [N, 1, h, w]."""
        planes = seen.seen(pixels.transpose(2, 0, 1))[None]
        if planes.shape[1] != self.network.channels:
            planes = planes.repeat(3, axis=1) if planes.shape[1] == 1 else planes.transpose(1, 0, 2, 3)
        values: float | np.ndarray
        if isinstance(level, LevelGrid):
            values = level.window(rows, columns)
        else:
            values = level[rows.slice, columns.slice] if isinstance(level, np.ndarray) else level or 0.0
        levels = seen.seen_levels(values, pixels.dtype)
        if pixels.dtype.kind == "f" or not seen.is_whole(pixels.dtype):
            planes = planes.clip(*self._ends(levels, level, seen, pixels.dtype))
        return planes, np.broadcast_to(levels, (len(planes), 1, *planes.shape[2:]))

    def _ends(
        self, levels: np.ndarray, level: Level | None, seen: ValueRange, dtype: np.dtype
    ) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest values that the network is given where it is told these levels."""
        if level is None or seen.is_whole(dtype):
            most = np.asarray(MOST_SEEN, np.float32)
            return -most, most
        most = 1 + np.float32(NOISE_ABOVE) * levels
        return 1 - most if seen.black else -most, most


def _unseen(noisy: np.ndarray, seen: ValueRange, ends: tuple[np.ndarray, np.ndarray]) -> np.ndarray | None:
    """`Window.unseen` for these `ends`, each [h, w] or the same everywhere."""
    if noisy.dtype.kind == "u" and seen.is_whole(noisy.dtype):
        return None
    values = seen.seen(noisy)
    unseen = values - values.clip(*(end[..., None] for end in ends))
    return unseen if unseen.any() else None
