"""A bounded sample of an image that passes by in bands: what is measured on it costs the same for every large image."""

from __future__ import annotations

import numpy as np

from denoise_se.tiling import Span

SAMPLE_PIXELS = 1 << 20  # up to this size an image is its own sample
WINDOW_SIDE = 256
WINDOW_COUNT = 16


def sample_windows(height: int, width: int) -> list[tuple[Span, Span]]:
    """All of a small image, else 16 windows of 256x256 spread evenly over it (less square in a narrow image); they
    depend on its size alone."""
    if height * width <= SAMPLE_PIXELS:
        return [(Span(0, height), Span(0, width))]
    area = WINDOW_SIDE**2
    high = min(height, max(WINDOW_SIDE, area // width))
    wide = min(width, area // high)
    across = min(width // wide, WINDOW_COUNT, max(1, round((WINDOW_COUNT * width / height) ** 0.5)))
    down = min(height // high, WINDOW_COUNT // across)
    rows, columns = (
        [Span(start, start + side) for start in ((size - side) * (2 * i + 1) // (2 * n) for i in range(n))]
        for size, side, n in ((height, high, down), (width, wide, across))
    )
    return [(row, column) for row in rows for column in columns]


class Sample:
    """Keeps the sample windows of an image before and after; `add` takes its bands in any order.

    `noisy` and `clean` are [N, h, w, C] of the image's dtype, N windows.
    """

    def __init__(self, height: int, width: int, channels: int, dtype: np.dtype) -> None:
        self.windows = sample_windows(height, width)
        rows, columns = self.windows[0]
        shape = (len(self.windows), rows.stop - rows.start, columns.stop - columns.start, channels)
        self.noisy, self.clean = np.zeros(shape, dtype), np.zeros(shape, dtype)

    def add(self, start_row: int, noisy: np.ndarray, clean: np.ndarray) -> None:
        """Rows from `start_row` on, [n, W, C] each."""
        for index, (rows, columns) in enumerate(self.windows):
            first, last = max(rows.start, start_row), min(rows.stop, start_row + len(noisy))
            if first < last:
                taken = slice(first - start_row, last - start_row)
                placed = slice(first - rows.start, last - rows.start)
                self.noisy[index, placed] = noisy[taken, columns.slice]
                self.clean[index, placed] = clean[taken, columns.slice]


def as_one(windows: np.ndarray) -> np.ndarray:
    """Windows [N, h, w, C] as one image [N * h, w, C], to measure small patches: few of them lie across a seam."""
    return windows.reshape(-1, *windows.shape[2:])
