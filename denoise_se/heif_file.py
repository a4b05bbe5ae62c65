"""HEIC (HEVC in HEIF, ISO/IEC 23008-12), as phones and cameras write it, through pillow-heif, an extra.

It is read and never written: the result goes to a PNG, which keeps its 8 bits, or its 10 or 12 in 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from denoise_se.decoder_process import data_of, decoded, facts_of
from denoise_se.exif import PREFIX as EXIF
from denoise_se.exif import made_upright
from denoise_se.image import FormatError, Image, Metadata, Probe

SUFFIXES = (".heic", ".heif", ".hif")
DECODING = "denoise_se.heif_decoding"
NOT_INSTALLED = (
    'is a HEIC image, which is read with an extra: pip install "denoise-se[heic]", or convert it to PNG or JPEG'
)
# of ITU-T H.273: the primaries of sRGB, or unspecified; the transfer functions PQ and HLG
SRGB_PRIMARIES = (0, 1, 2)
HDR = {16: "PQ", 18: "HLG"}


def probe(stream: BinaryIO) -> Probe:
    """The size as shown, without decoding. Raises FormatError, also where pillow-heif is not installed."""
    facts = facts_of(DECODING, _data(stream))
    height, width, planes = facts["shape"]
    depth = 8 if facts["depth"] == 8 else 16
    return Probe("heif", width, height, 1 if planes < 3 else 3, depth, facts["images"], alpha=planes % 2 == 0)


def read(stream: BinaryIO) -> Image:
    """Decodes the file; it is upright then, and its EXIF says so. Raises FormatError."""
    made = decoded(DECODING, _data(stream))
    icc = made.packets.get("icc")
    if icc is None and made.facts["transfer"] in HDR:
        name = HDR[made.facts["transfer"]]
        raise FormatError(
            f"its colours are HDR ({name}), which no format that is written can keep: convert it to PNG or TIFF with "
            "an application that shows HDR"
        )
    planes = made.pixels.shape[2]
    colours = np.ascontiguousarray(made.pixels[..., : 1 if planes < 3 else 3])
    alpha = np.ascontiguousarray(made.pixels[..., -1]) if planes % 2 == 0 else None
    exif = made.packets.get("exif")
    metadata = Metadata(
        exif=made_upright(exif.removeprefix(EXIF)) if exif else None,
        xmp=made.packets.get("xmp"),
        icc=icc,
        premultiplied=made.facts["premultiplied"],
    )
    return Image(colours, alpha, "heif", metadata, _notices(made.facts, icc))


def _notices(facts: Mapping[str, Any], icc: bytes | None) -> tuple[str, ...]:
    found = []
    if facts["maps"]:
        found.append("depth or gain map not kept")
    if icc is None and facts["primaries"] not in SRGB_PRIMARIES:
        primaries = facts["primaries"]
        found.append(f"its colours are not those of sRGB (primaries {primaries} of H.273): they may look paler")
    return tuple(found)


def _data(stream: BinaryIO) -> bytes:
    return data_of(stream, "pillow_heif", NOT_INSTALLED)
