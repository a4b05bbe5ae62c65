"""HEIC to pixels by libheif, in a process of its own, see `decoder_process`."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

import numpy as np

from denoise_se.decoder_process import Decoded, answer


def facts(data: bytes) -> dict[str, Any]:
    """Of the upright image; `shape` with alpha. Whatever pillow_heif raises."""
    return _facts(_opened(data))


def decode(data: bytes) -> Decoded:
    """`[H, W, C]` with C = 1 to 4, uint8, or uint16 of the full range, upright; and the packets exif, xmp and icc."""
    images = _opened(data)
    image = images[images.primary_index]
    depth = image.info["bit_depth"]
    pixels = np.asarray(image).reshape(_facts(images)["shape"])
    if pixels.dtype == np.uint16:  # of which only the upper bits are used
        used = (pixels >> (16 - depth)).astype(np.uint32)
        most = (1 << depth) - 1
        pixels = ((used * 65535 + most // 2) // most).astype(np.uint16)
    names = {"exif": "exif", "xmp": "xmp", "icc_profile": "icc"}
    return Decoded(_facts(images), pixels, {names[key]: image.info[key] for key in names if image.info.get(key)})


def _opened(data: bytes) -> Any:
    import pillow_heif

    return pillow_heif.open_heif(BytesIO(data), convert_hdr_to_8bit=False)


def _facts(images: Any) -> dict[str, Any]:
    image = images[images.primary_index]
    planes = len(image.mode.split(";")[0])  # "L", "LA", "RGB" or "RGBA", with ";16" where they are deep
    nclx = image.info.get("nclx_profile") or {}
    return {
        "shape": (*image.size[::-1], planes),
        "depth": image.info["bit_depth"],
        "images": len(images),
        "premultiplied": bool(image.premultiplied_alpha),
        "maps": bool(image.info["depth_images"] or image.info["aux"]),
        "primaries": int(nclx.get("color_primaries", 0)),
        "transfer": int(nclx.get("transfer_characteristics", 0)),
    }


if __name__ == "__main__":
    sys.exit(answer(facts, decode))
