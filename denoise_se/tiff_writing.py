"""Writing TIFF: the pixels and tags through tifffile, then the EXIF and GPS directories behind them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from denoise_se.image import Image
from denoise_se.page import ImagePage, Page, stored_bytes
from denoise_se.tiff_layout import DESCRIPTIVE, LOSSLESS, TiffCoding
from denoise_se.tiff_storage import Rows, TiffStorage
from denoise_se.tiff_tags import (
    BYTE_ORDER,
    EXIF_IFD,
    GPS_IFD,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    XMP,
    Y_RESOLUTION,
    Directory,
    TagError,
    TagFile,
    built,
)

INCH = 2
BIG_FROM = (1 << 32) - (1 << 26)
POINTER_NAMES = {EXIF_IFD: "ExifTag", GPS_IFD: "GPSTag"}
BYTE, LONG, LONG8 = 1, 4, 16
LOSSY = "written with deflate, which is lossless, instead of the file's own compression"


def write(image: Image, stream: BinaryIO) -> tuple[str, ...]:
    """Writes one image; see `write_pages`."""
    return write_pages([ImagePage(image)], iter([(image.pixels, image.alpha)]), stream)


def write_pages(pages: Sequence[Page], bands: Iterator[Rows], stream: BinaryIO) -> tuple[str, ...]:
    """Writes pixels losslessly, with the compression, byte order and tags of the TIFF they came from, else deflate.

    pages: what is to be written of each but its pixels. bands: those, from the first page's top to the last one's
    bottom, as (colours `[n, W, C]`, alpha `[n, W]` or None); no band spans two pages. Gives the notices.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    first, notices = _parsed(pages[0].metadata.exif)
    coding = _coding(pages[0])
    order = first[0] if first else coding.order if coding else "<"
    big = sum(map(stored_bytes, pages)) >= BIG_FROM or (coding is not None and coding.big)
    appended: list[tuple[int, dict[int, Directory]]] = []
    with tifffile.TiffWriter(stream, bigtiff=big, byteorder=order) as writer:  # type: ignore[arg-type]
        for number, page in enumerate(pages):
            exif, problems = _parsed(page.metadata.exif)
            notices += [notice for notice in problems if notice not in notices]
            directory = exif[1] if exif else Directory({})
            coding = _coding(page)
            if coding and coding.layout.compression not in LOSSLESS and LOSSY not in notices:
                notices.append(LOSSY)
            children = {code: child for code, child in directory.children.items() if code in POINTER_NAMES}
            if children:
                appended.append((number, children))
            tags = _extra_tags(page, directory, coding, order)
            tags += [(POINTER_NAMES[code], LONG8 if big else LONG, 1, 0, True) for code in children]
            storage = TiffStorage.of(page, coding, order)
            writer.write(
                storage.segments(bands),
                shape=storage.shape,
                dtype=storage.dtype,
                iccprofile=page.metadata.icc,
                extratags=tags,
                software=False,
                metadata=None,
                subfiletype=coding.subfile_type if coding else 0,
                **_resolution(page, directory, order),
                **storage.options(),
            )
    if appended:
        _append(stream, appended)
    return tuple(notices)


def _coding(page: Page) -> TiffCoding | None:
    return page.metadata.coding if isinstance(page.metadata.coding, TiffCoding) else None


def _parsed(block: bytes | None) -> tuple[tuple[str, Directory] | None, list[str]]:
    """Byte order and content of the EXIF block."""
    if block is None:
        return None, []
    try:
        tag_file = TagFile.of_bytes(block)
        return (tag_file.order, tag_file.directory(tag_file.first_offset)), []
    except TagError:
        return None, ["damaged EXIF not kept"]


def _extra_tags(
    page: Page, directory: Directory, coding: TiffCoding | None, order: str
) -> list[tuple[int | str, int, int, bytes | int, bool]]:
    resolution = {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
    tags = {code: tag for code, tag in directory.tags.items() if code in DESCRIPTIVE - resolution and tag.type <= 12}
    if coding and coding.order == order:
        tags |= dict(coding.tags)
    extra: list[tuple[int | str, int, int, bytes | int, bool]] = [
        (code, tag.type, tag.count, tag.data, True) for code, tag in sorted(tags.items())
    ]
    if page.metadata.xmp is not None:
        extra.append((XMP, BYTE, len(page.metadata.xmp), page.metadata.xmp, True))
    return extra


def _resolution(page: Page, directory: Directory, order: str) -> dict[str, Any]:
    """The very fractions of the EXIF block, else those of the resolution, in pixels an inch; none for 1/0."""
    tags = directory.tags
    if all(code in tags and len(tags[code].data) == 8 for code in (X_RESOLUTION, Y_RESOLUTION)):
        fractions = tuple(
            tuple(int(value) for value in np.frombuffer(tags[code].data, order + "u4"))
            for code in (X_RESOLUTION, Y_RESOLUTION)
        )
        if not all(denominator for _, denominator in fractions):
            return {}
        unit = tags.get(RESOLUTION_UNIT)
        unit_value = int(np.frombuffer(unit.data, order + "u2")[0]) if unit and unit.type == 3 else INCH
        if unit_value in (1, 2, 3):
            return {"resolution": fractions, "resolutionunit": unit_value}
    if page.metadata.dpi:
        scale = 1000 if max(page.metadata.dpi) < 1_000_000 else 1
        return {"resolution": tuple((round(dpi * scale), scale) for dpi in page.metadata.dpi), "resolutionunit": INCH}
    return {}


def _append(stream: BinaryIO, pages: list[tuple[int, dict[int, Directory]]]) -> None:
    """Puts the directories of the pages of these numbers at the end of the file, and their places into the tags that
    wait for them."""
    end = stream.seek(0, 2)
    stream.write(b"\0" * (end % 2))

    def fetch(offset: int, count: int) -> bytes:
        stream.seek(offset)
        return stream.read(count)

    tag_file = TagFile.open(fetch, stream.seek(0, 2))
    offsets = tag_file.chain()
    width, byte_order = (8 if tag_file.big else 4), BYTE_ORDER[tag_file.order]
    for number, children in pages:
        positions = {code: position for code, _, _, position in tag_file.entries(offsets[number])}
        for code, child in children.items():
            offset = stream.seek(0, 2)
            stream.write(built(child, tag_file.order, offset, big=tag_file.big))
            stream.seek(positions[code])
            stream.write(offset.to_bytes(width, byte_order))
