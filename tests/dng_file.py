"""A camera's raw file by hand: a DNG whose camera sees linear sRGB, so that what comes out can be computed."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import tifffile

BLACK, WHITE = 64, 4095
# what a white paper gives: the as-shot white balance
NEUTRAL = (0.5, 1.0, 0.75)
# XYZ to linear sRGB (IEC 61966-2-1)
COLOR_MATRIX = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
BYTE, ASCII, SHORT, LONG, RATIONAL, SIGNED_RATIONAL = 1, 2, 3, 4, 5, 10


def dng(linear: np.ndarray, *, orientation: int = 1) -> bytes:
    """The raw file of a scene `[H, W, 3]` of linear sRGB in [0, 1], even sides, through a filter of RGGB."""
    sensor = linear * np.array(NEUTRAL)
    mosaic = sensor[..., 1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = sensor[0::2, 0::2, 0], sensor[1::2, 1::2, 2]
    counts = np.rint(BLACK + mosaic * (WHITE - BLACK)).astype(np.uint16)

    def fractions(values: tuple[float, ...]) -> tuple[int, ...]:
        return tuple(part for value in values for part in (round(value * 10_000), 10_000))

    tags = [
        (271, ASCII, 0, "Maker", True),
        (272, ASCII, 0, "Model", True),
        (274, SHORT, 1, orientation, True),
        (306, ASCII, 0, "2024:01:02 03:04:05", True),
        (33421, SHORT, 2, (2, 2), True),
        (33422, BYTE, 4, bytes((0, 1, 1, 2)), True),
        (50706, BYTE, 4, bytes((1, 4, 0, 0)), True),
        (50707, BYTE, 4, bytes((1, 1, 0, 0)), True),
        (50708, ASCII, 0, "Maker Model", True),
        (50714, SHORT, 1, BLACK, True),
        (50717, LONG, 1, WHITE, True),
        (50721, SIGNED_RATIONAL, 9, fractions(COLOR_MATRIX), True),
        (50728, RATIONAL, 3, fractions(NEUTRAL), True),
        (50778, SHORT, 1, 21, True),
    ]
    buffer = BytesIO()
    tifffile.imwrite(buffer, counts, photometric=32803, metadata=None, software=False, extratags=tags)
    return buffer.getvalue()
