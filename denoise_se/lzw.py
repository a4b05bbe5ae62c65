"""LZW data of TIFF (TIFF 6.0, section 13), checked before they are decoded.

The first code after a clear code must be a plain byte. imagecodecs (2026.3.6) takes any other one there for an entry of
the table that it just cleared, and reads memory that is not its own.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from denoise_se.image import FormatError

CLEAR, END, FIRST_ENTRY = 256, 257, 258
TABLE_SIZE = 4096
# encoders clear a table of thousands of entries when it is full; each clear code costs the check a step of its own
MIN_BYTES_A_CLEAR = 32
FREE_CLEARS = 64


def check_lzw(data: bytes) -> None:
    """Raises FormatError for a strip or tile that the decoder must not see."""
    if len(data) < 2:
        raise FormatError("is truncated or damaged: an LZW strip or tile is cut")
    # old writers put the lowest bit first
    low_first = data[0] == 0 and bool(data[1] & 1)
    starts, widths = _table(low_first)
    padded = np.frombuffer(data + bytes(4), np.uint8)
    position, clears = 0, 0
    while True:
        ends = position + starts + widths
        inside = int(np.searchsorted(ends, 8 * len(data), side="right"))
        codes = _codes(padded, position + starts[:inside], widths[:inside], low_first)
        if codes.size and clears and codes[0] >= FIRST_ENTRY:
            raise FormatError("is damaged: LZW data that do not start with a plain value")
        special = np.flatnonzero((codes == CLEAR) | (codes == END))
        if not special.size or codes[special[0]] == END:
            return
        position = int(ends[special[0]])
        clears += 1
        if clears > FREE_CLEARS + len(data) // MIN_BYTES_A_CLEAR:
            raise FormatError("is damaged: LZW data of nothing but clear codes")


@cache
def _table(low_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bit offset and width of each code after a clear code, until the table is full."""
    entries = np.maximum(np.arange(TABLE_SIZE - FIRST_ENTRY + 1) - 1, 0) + FIRST_ENTRY
    # the width grows one code earlier where the highest bit comes first
    limits = np.array([512, 1024, 2048]) - (0 if low_first else 1)
    widths = 9 + np.searchsorted(limits, entries, side="right")
    return np.cumsum(widths) - widths, widths


def _codes(padded: np.ndarray, positions: np.ndarray, widths: np.ndarray, low_first: bool) -> np.ndarray:
    places, shifts = positions >> 3, positions & 7
    window = [padded[places + i].astype(np.int64) for i in range(3)]
    if low_first:
        return (window[0] | window[1] << 8 | window[2] << 16) >> shifts & ((1 << widths) - 1)
    return (window[0] << 16 | window[1] << 8 | window[2]) >> (24 - shifts - widths) & ((1 << widths) - 1)
