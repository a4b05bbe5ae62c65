"""A camera's raw file to 16-bit sRGB, in a process of its own: `python -m denoise_se.raw_development [--size]`.

LibRaw decodes hundreds of undocumented formats and prints what it does not like. A file that brings it down must cost
one image and not a night's batch, so it runs apart: the file on the standard input; on the standard output height,
width and channels as a line of text and, but with --size, the values in the machine's byte order, or the reason and
exit code 1.
"""

from __future__ import annotations

import os
import sys
from io import BytesIO
from typing import Any

import numpy as np

# the transfer function of sRGB (IEC 61966-2-1) as LibRaw takes it: exponent, and slope near black
SRGB_GAMMA = (2.4, 12.92)
QUARTER_TURNS = (5, 6)  # LibRaw's turn of the sensor


def developed(data: bytes) -> np.ndarray:
    """`[H, W, 3]` uint16 sRGB, upright, demosaiced with AHD (Hirakawa and Parks, 2005), whatever rawpy raises.

    The white balance is the camera's, and nothing depends on the rest of the picture: no automatic brightening, and
    white is the file's own white level, so that the frames of a series come out alike.
    """
    import rawpy

    with rawpy.imread(BytesIO(data)) as raw:
        parameters: dict[str, Any] = {
            "demosaic_algorithm": rawpy.DemosaicAlgorithm.AHD,
            "use_camera_wb": True,
            "no_auto_bright": True,
            "adjust_maximum_thr": 0.0,
            "output_color": rawpy.ColorSpace.sRGB,
            "gamma": SRGB_GAMMA,
            "output_bps": 16,
        }
        return raw.postprocess(rawpy.Params(**parameters))


def size(data: bytes) -> tuple[int, int, int]:
    """Height, width and channels that `developed` will give, without developing; whatever rawpy raises."""
    import rawpy

    with rawpy.RawPy() as raw:
        raw.open_buffer(BytesIO(data))
        sides = raw.sizes.iheight, raw.sizes.iwidth
        height, width = reversed(sides) if raw.sizes.flip in QUARTER_TURNS else sides
    return height, width, 3


def main() -> int:
    """Nothing but the answer reaches the standard output, whatever LibRaw prints."""
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)
        try:
            data = sys.stdin.buffer.read()
            pixels = None if "--size" in sys.argv[1:] else developed(data)
            shape = size(data) if pixels is None else pixels.shape
        except Exception as error:
            reason = error.args[0] if error.args else error
            answer.write((reason if isinstance(reason, bytes) else str(reason).encode())[:200])
            return 1
        answer.write(b"%d %d %d\n" % shape)
        if pixels is not None:
            answer.write(np.ascontiguousarray(pixels).data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
