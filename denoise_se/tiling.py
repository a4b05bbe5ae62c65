"""Cutting an image into tiles whose results equal the whole image's.

With its gates held fixed the network is a plain convolution: a pixel's result depends on the pixels within `halo` of
its cell of the network's down-sampling grid, whose step is `multiple_of`. So a tile is a `core` that is kept and a
`window` around it that is read; both start at multiples of `multiple_of`, and end there too unless they end with the
image, where the network's own padding is the same as the whole image's. Where a window ends within the image the
network lets go of its margin on the way (`Network.forward`), which saves nearly half of the work on it.
"""

from __future__ import annotations

import builtins
import math
from dataclasses import dataclass

import numpy as np

from denoise_se.errors import UsageError

BLOCK = 32  # pixels: a tile's core starts at multiples of it, for what is decided by blocks of an image
WHOLE_PIXELS = 1024 * 1024  # up to this size an image's gates are pooled over all of it
SHORTEST_CORE = 256  # pixels
FEATURE_BYTES = 23  # of activations at a time, for each of the network's features of a pixel of a window
PLANE_BYTES = 64  # a pixel of a window: the network's inputs and its result, and copies of them
IMAGE_BYTES = 8  # a pixel of an image that is read and written
MEMORY = 1_200_000_000  # bytes that a window and an image may come to, as long as the window stays in these bounds:
SMALLEST_WINDOW, LARGEST_WINDOW = 430_000_000, 1_083_000_000  # bytes
LANES_WINDOWS = 208_000_000  # bytes that the windows of all lanes may come to, besides the window of a large image
WINDOW_STEP = 8  # pixels that windows' sides are multiples of: with other widths AMX took up to 23 % longer
SAMPLE_SIDE = 128
SAMPLE_COUNT = 16


@dataclass(frozen=True)
class Span:
    """Rows or columns from `start` to before `stop`."""

    start: int
    stop: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)

    def within(self, outer: Span) -> builtins.slice:
        """This span's slice in an array that holds `outer` only."""
        return slice(self.start - outer.start, self.stop - outer.start)


def in_cells(length: int, multiple: int) -> int:
    """`length` filled up to whole cells of the grid."""
    return -(-length // multiple) * multiple


def spans(size: int, tile: int, halo: int, multiple: int) -> list[tuple[Span, Span]]:
    """(core, window) along one axis; cores of equal length but the last, all starting at multiples of `multiple`.

    `tile` is the cores' length, filled up to whole blocks; 0 means one core, all of the axis. A window is the core and
    `halo` around it, and more where that makes its length a multiple of WINDOW_STEP.
    """
    tile = tile or max(size, 1)
    tile = in_cells(tile, math.lcm(multiple, BLOCK))
    halo = in_cells(halo, multiple)
    cores = [Span(start, min(start + tile, size)) for start in range(0, size, tile)]
    return [(core, _window(core, size, halo, multiple)) for core in cores]


def _window(core: Span, size: int, halo: int, multiple: int) -> Span:
    start, stop = max(0, core.start - halo), min(size, core.stop + halo)
    missing = -in_cells(stop - start, multiple) % math.lcm(multiple, WINDOW_STEP)
    before = min(missing, start)
    return Span(start - before, min(size, stop + missing - before))


def window_bytes(features: float) -> float:
    """The memory that a pixel of a window takes while the network works on it, by `NetworkConfig.features`."""
    return FEATURE_BYTES * features + PLANE_BYTES


def tile_shape(height: int, width: int, halo: int, multiple: int, features: float) -> tuple[int, int]:
    """Height and width of equal cores that cut an image with the least work on margins, as far as memory allows.

    They depend on the image's size and the network (`features`: `NetworkConfig.features`) alone, so that results do not
    depend on the machine.
    """
    halo, step = in_cells(halo, multiple), math.lcm(multiple, WINDOW_STEP)
    memory = min(LARGEST_WINDOW, max(SMALLEST_WINDOW, MEMORY - IMAGE_BYTES * height * width))
    most = max(int(memory / window_bytes(features)), (max(SHORTEST_CORE, 2 * halo) + multiple + 2 * halo) ** 2)

    def cuts(size: int) -> list[tuple[int, int, int]]:
        """An axis in one part, two, and so on: the core, the largest window, and the sum of the windows."""
        parts = range(1, -(-size // SHORTEST_CORE) + 1)
        cores = [in_cells(-(-size // count), math.lcm(multiple, BLOCK)) for count in parts]
        windows = [
            min(size, in_cells(core + min(count - 1, 2) * halo, step)) for core, count in zip(cores, parts, strict=True)
        ]
        return [
            (core, window, size + 2 * (count - 1) * halo)
            for core, window, count in zip(cores, windows, parts, strict=True)
        ]

    columns = cuts(width)
    shapes = []
    for core_height, window_height, all_height in cuts(height):
        fits = next((cut for cut in columns if cut[1] * window_height <= most), None)
        if fits:
            shapes.append((all_height * fits[2], core_height, fits[0]))
    if not shapes:  # nothing is as small as the memory asks for
        return cuts(height)[-1][0], columns[-1][0]
    _, core_height, core_width = min(shapes, key=lambda shape: shape[0])
    return core_height, core_width


def squeeze_windows(height: int, width: int, multiple: int) -> list[tuple[Span, Span]]:
    """The windows over which the gates are pooled: all of a small image, else evenly spread samples of equal size.

    They depend on the image's size alone, so every tile size sees the same gates.
    """
    if height * width <= WHOLE_PIXELS:
        return [(Span(0, height), Span(0, width))]
    sides = (min(height, SAMPLE_SIDE), min(width, SAMPLE_SIDE))
    across = min(SAMPLE_COUNT, max(1, round((SAMPLE_COUNT * width / height) ** 0.5)))
    counts = (max(1, SAMPLE_COUNT // across), across)
    rows, columns = (
        [Span(start, start + side) for start in _starts(size, side, count, multiple)]
        for size, side, count in zip((height, width), sides, counts, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def _starts(size: int, side: int, count: int, multiple: int) -> list[int]:
    """`count` positions in the middle of as many equal parts of `size`, at multiples of `multiple`, without repeats."""
    middles = (np.arange(count) + 0.5) * size / count - side / 2
    aligned = (np.clip(middles, 0, size - side) // multiple * multiple).astype(int)
    return sorted(set(aligned.tolist()))


def check_tile(tile: int | str) -> None:
    """UsageError for a side of tiles that cannot be."""
    if tile != "auto" and not (type(tile) is int and tile >= 0):
        raise UsageError(f"--tile {tile!r}: give auto, 0 for the whole image at once, or a number of pixels")
