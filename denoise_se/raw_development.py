"""A camera's raw file to 16-bit sRGB by LibRaw, which decodes hundreds of undocumented formats.

It runs in a process of its own, see `decoder_process`.
"""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

from denoise_se.decoder_process import Decoded, answer

# the transfer function of sRGB (IEC 61966-2-1) as LibRaw takes it: exponent, and slope near black
SRGB_GAMMA = (2.4, 12.92)
QUARTER_TURNS = (5, 6)  # LibRaw's turn of the sensor


def developed(data: bytes) -> Decoded:
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
        return Decoded({}, raw.postprocess(rawpy.Params(**parameters)), {})


def facts(data: bytes) -> dict[str, Any]:
    """The shape that `developed` will give, without developing; whatever rawpy raises."""
    import rawpy

    with rawpy.RawPy() as raw:
        raw.open_buffer(BytesIO(data))
        sides = raw.sizes.iheight, raw.sizes.iwidth
        height, width = reversed(sides) if raw.sizes.flip in QUARTER_TURNS else sides
    return {"shape": (height, width, 3)}


if __name__ == "__main__":
    sys.exit(answer(facts, developed))
