"""Pixels that are read by rows, so that an image need not be in memory to be denoised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

BAND = 768  # rows that are looked at a time


class Scanlines(Protocol):
    """An image `[H, W, C]` of uint8, uint16 or a float type that gives its rows in any order, best in ascending one."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def rows(self, start: int, stop: int) -> np.ndarray:
        """`[stop - start, W, C]`, perhaps a view of what others hold too: not to be changed."""
        ...


class ArrayScanlines:
    """The scanlines of an array `[H, W, C]`."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.pixels.shape
        return height, width, channels

    @property
    def dtype(self) -> np.dtype:
        return self.pixels.dtype

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.pixels[start:stop]


def in_bands(source: Scanlines) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of an image, BAND at a time, `[n, W, C]`, each with where it starts."""
    for start in range(0, source.shape[0], BAND):
        yield start, source.rows(start, min(start + BAND, source.shape[0]))
