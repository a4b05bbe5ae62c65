"""Writing TIFF: the pixels and tags through tifffile, then the EXIF and GPS directories behind them."""

from __future__ import annotations

import logging
from typing import Any, BinaryIO

import numpy as np

from denoise_se.image import Image
from denoise_se.tiff_layout import (
    ASSOCIATED,
    DEFLATE,
    DESCRIPTIVE,
    LOSSLESS,
    MIN_IS_WHITE,
    NO_COMPRESSION,
    UNASSOCIATED,
    WITH_PREDICTOR,
    TiffCoding,
)
from denoise_se.tiff_tags import EXIF_IFD, GPS_IFD, Directory, TagError, TagFile, built

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, XMP = 282, 283, 296, 700
INCH = 2
BIG_FROM = (1 << 32) - (1 << 26)
POINTER_NAMES = {EXIF_IFD: "ExifTag", GPS_IFD: "GPSTag"}
HORIZONTAL, FLOATING_POINT = 2, 3
BYTE, LONG = 1, 4


def write(image: Image, stream: BinaryIO) -> tuple[str, ...]:
    """Writes the pixels losslessly, with the compression, byte order and tags of the TIFF it came from, else deflate.

    Gives the notices.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    coding = image.metadata.coding if isinstance(image.metadata.coding, TiffCoding) else None
    exif, notices = _parsed(image.metadata.exif)
    order = exif[0] if exif else coding.order if coding else "<"
    directory = exif[1] if exif else Directory({})
    big = image.pixels.nbytes >= BIG_FROM or (coding is not None and coding.big)
    children = {code: child for code, child in directory.children.items() if code in POINTER_NAMES}
    if big and children:
        notices.append("EXIF and GPS tags not kept: they are not written to BigTIFF")
        children = {}
    tags = _extra_tags(image, directory, coding, order)
    tags += [(POINTER_NAMES[code], LONG, 1, 0, True) for code in children]
    pixels, options = _stored(image, coding)
    if coding and coding.layout.compression not in LOSSLESS:
        notices.append("written with deflate, which is lossless, instead of the file's own compression")
    with tifffile.TiffWriter(stream, bigtiff=big, byteorder=order) as writer:  # type: ignore[arg-type]
        writer.write(
            pixels,
            planarconfig="contig" if pixels.ndim == 3 else None,
            iccprofile=image.metadata.icc,
            extratags=tags,
            software=False,
            metadata=None,
            **_resolution(image, directory, order),
            **options,
        )
    if children:
        _append(stream, children)
    return tuple(notices)


def _parsed(block: bytes | None) -> tuple[tuple[str, Directory] | None, list[str]]:
    """Byte order and content of the EXIF block."""
    if block is None:
        return None, []
    try:
        tag_file = TagFile.of_bytes(block)
        return (tag_file.order, tag_file.directory(tag_file.first_offset)), []
    except TagError:
        return None, ["damaged EXIF not kept"]


def _stored(image: Image, coding: TiffCoding | None) -> tuple[np.ndarray, dict[str, Any]]:
    """The array as it is stored, and how."""
    colours = image.pixels
    inverted = coding is not None and coding.layout.photometric == MIN_IS_WHITE
    if inverted:
        colours = np.iinfo(colours.dtype).max - colours
    compression = coding.layout.compression if coding and coding.layout.compression in LOSSLESS else DEFLATE
    predictor = 1
    if compression in WITH_PREDICTOR and (coding is None or coding.layout.predictor != 1):
        predictor = FLOATING_POINT if image.bit_depth == 32 else HORIZONTAL
    options: dict[str, Any] = {
        "photometric": "rgb" if image.channels == 3 else "miniswhite" if inverted else "minisblack",
        "compression": None if compression == NO_COMPRESSION else compression,
        "predictor": predictor if predictor != 1 else None,
    }
    tile = coding.layout.tile if coding else None
    if tile and tile[0] % 16 == tile[1] % 16 == 0:
        options["tile"] = tile
    if image.alpha is not None:
        extra = ASSOCIATED if image.metadata.premultiplied else UNASSOCIATED
        if coding and coding.layout.extra is not None:
            extra = coding.layout.extra
        return np.dstack([colours, image.alpha]), options | {"extrasamples": [extra]}
    return colours if image.channels == 3 else colours[..., 0], options


def _extra_tags(
    image: Image, directory: Directory, coding: TiffCoding | None, order: str
) -> list[tuple[int | str, int, int, bytes | int, bool]]:
    resolution = {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
    tags = {code: tag for code, tag in directory.tags.items() if code in DESCRIPTIVE - resolution and tag.type <= 12}
    if coding and coding.order == order:
        tags |= dict(coding.tags)
    extra: list[tuple[int | str, int, int, bytes | int, bool]] = [
        (code, tag.type, tag.count, tag.data, True) for code, tag in sorted(tags.items())
    ]
    if image.metadata.xmp is not None:
        extra.append((XMP, BYTE, len(image.metadata.xmp), image.metadata.xmp, True))
    return extra


def _resolution(image: Image, directory: Directory, order: str) -> dict[str, Any]:
    """The very fractions of the EXIF block, else those of the resolution, in pixels an inch."""
    tags = directory.tags
    if all(code in tags and len(tags[code].data) == 8 for code in (X_RESOLUTION, Y_RESOLUTION)):
        fractions = tuple(
            tuple(int(value) for value in np.frombuffer(tags[code].data, order + "u4"))
            for code in (X_RESOLUTION, Y_RESOLUTION)
        )
        unit = tags.get(RESOLUTION_UNIT)
        unit_value = int(np.frombuffer(unit.data, order + "u2")[0]) if unit and unit.type == 3 else INCH
        if unit_value in (1, 2, 3):
            return {"resolution": fractions, "resolutionunit": unit_value}
    if image.metadata.dpi:
        return {"resolution": tuple((round(dpi * 1000), 1000) for dpi in image.metadata.dpi), "resolutionunit": INCH}
    return {}


def _append(stream: BinaryIO, children: dict[int, Directory]) -> None:
    """Puts the directories at the end of the file, and their places into the tags that wait for them."""
    end = stream.seek(0, 2)
    stream.write(b"\0" * (end % 2))

    def fetch(offset: int, count: int) -> bytes:
        stream.seek(offset)
        return stream.read(count)

    tag_file = TagFile.open(fetch, stream.seek(0, 2))
    positions = {code: position for code, _, _, position in tag_file.entries(tag_file.first_offset)}
    for code, child in children.items():
        offset = stream.seek(0, 2)
        stream.write(built(child, tag_file.order, offset))
        stream.seek(positions[code])
        stream.write(offset.to_bytes(4, "little" if tag_file.order == "<" else "big"))
