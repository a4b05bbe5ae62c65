"""The seven passes of an interlaced PNG (W3C PNG, third edition, section 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

# first row and column, and the steps to the next
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


@dataclass(frozen=True)
class Pass:
    """One pass: its size, the bytes that its rows inflate to, and where its pixels lie in the whole image."""

    width: int
    height: int
    raw_bytes: int
    places: tuple[slice, slice]


def passes(width: int, height: int, bits: int, *, interlaced: bool) -> tuple[Pass, ...]:
    """Those that hold a pixel, of an image with so many bits a pixel; one that is not interlaced has a single pass."""
    found = []
    for row, column, down, across in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((column - width) // across), -((row - height) // down)
        if columns > 0 and rows > 0:
            # each row starts with a byte that names its filter
            raw_bytes = rows * (1 + (columns * bits + 7) // 8)
            found.append(Pass(columns, rows, raw_bytes, (slice(row, None, down), slice(column, None, across))))
    return tuple(found)


def deinterlaced(
    raw: memoryview, parts: tuple[Pass, ...], decode: Callable[[Pass, memoryview], np.ndarray]
) -> np.ndarray:
    """The whole image `[H, W, C]` of the inflated bytes of its passes; `decode` gives the pixels of one of them."""
    decoded = [decode(part, rows) for part, rows in zip(parts, _split(raw, parts), strict=True)]
    height = max(part.places[0].start + part.places[0].step * (part.height - 1) for part in parts) + 1
    width = max(part.places[1].start + part.places[1].step * (part.width - 1) for part in parts) + 1
    pixels = np.empty((height, width, decoded[0].shape[2]), decoded[0].dtype)
    for part, samples in zip(parts, decoded, strict=True):
        pixels[part.places] = samples
    return pixels


def _split(raw: memoryview, parts: tuple[Pass, ...]) -> Iterator[memoryview]:
    position = 0
    for part in parts:
        yield raw[position : position + part.raw_bytes]
        position += part.raw_bytes
