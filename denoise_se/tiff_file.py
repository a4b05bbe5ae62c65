"""TIFF and BigTIFF (TIFF 6.0, Adobe technical notes): pixels through tifffile, tags through a parser of our own.

The parser comes first and checks what the tags claim against the file, so that tifffile only sees sound directories.
"""

from __future__ import annotations

import logging
import math
import re
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

from denoise_se import jpeg_file
from denoise_se.exif import dpi as exif_dpi
from denoise_se.image import FormatError, Image, Metadata, Probe
from denoise_se.lzw import check_lzw
from denoise_se.tiff_layout import (
    ASSOCIATED,
    CMYK,
    IMAGE_DESCRIPTION,
    JPEG,
    JPEG_EOI,
    LZW,
    MIN_IS_WHITE,
    PALETTE,
    TiffCoding,
    TiffLayout,
    layout_of,
    split_tags,
)
from denoise_se.tiff_tags import CHILD_POINTERS, Directory, TagError, TagFile, built_file

COLOR_MAP, NEW_SUBFILE_TYPE, SUB_IFDS, DNG_VERSION, XMP, ICC = 320, 254, 330, 50706, 700, 34675
PHOTOSHOP_LAYERS = 37724
REDUCED_RESOLUTION = 1
MAX_PAGES = 10_000
JPEG_BLOCK = 16
READ_AHEAD = 16 << 20


def probe(stream: BinaryIO) -> Probe:
    """Reads the directories, not the pixels. Raises FormatError."""
    tag_file, directory, frames, _ = _opened(stream)
    layout = layout_of(tag_file, directory)
    frames = max(frames, _images_of_imagej(directory))
    depth = 32 if layout.is_float else 16 if layout.bits > 8 else 8
    return Probe("tiff", layout.width, layout.height, layout.channels, depth, frames, layout.extra is not None)


def read(stream: BinaryIO) -> Image:
    """Reads the file's one page. Raises FormatError for what is damaged or of a kind that is not supported.

    Palette, CMYK with a profile, samples of other sizes than 8 and 16 bits, and float16 and float64 are converted with
    a notice. Grey that is stored as 0 = white is turned round, and turned back when it is written.
    """
    tag_file, directory, _, previews = _opened(stream)
    layout = layout_of(tag_file, directory)
    planes = _decoded(stream, layout)
    notices: list[str] = []
    colours = planes[0]
    icc = directory.tags[ICC].data if ICC in directory.tags else None
    if layout.photometric == PALETTE:
        colours = _looked_up(tag_file, directory, colours[..., 0])
        notices.append("palette image written as RGB")
    elif layout.photometric == CMYK:
        colours, icc = _rgb_of_cmyk(colours, icc)
        notices.append("CMYK image written as sRGB, converted through its colour profile")
    elif layout.bits not in (8, 16) and not layout.is_float:
        full = 255 if layout.bits < 8 else 65535
        largest = (1 << layout.bits) - 1
        planes = [((plane.astype(np.uint32) * full + largest // 2) // largest).astype(plane.dtype) for plane in planes]
        colours = planes[0]
        notices.append(f"{layout.bits}-bit samples written as {8 if layout.bits < 8 else 16}-bit")
    elif layout.is_float and layout.bits != 32:
        notices.append(f"{layout.bits}-bit float samples written as 32-bit float")
    if layout.photometric == MIN_IS_WHITE:
        colours = np.iinfo(colours.dtype).max - colours
    if previews or SUB_IFDS in directory.tags:
        notices.append("reduced copies of the image in the file (preview, pyramid) not kept")
    if PHOTOSHOP_LAYERS in directory.tags:
        notices.append("Photoshop layers not kept")
    if CHILD_POINTERS & directory.tags.keys() - directory.children.keys():
        notices.append("damaged EXIF not kept")
    described, kept = split_tags(directory)
    exif = built_file(described, tag_file.order) if described.tags or described.children else None
    metadata = Metadata(
        exif=exif,
        xmp=directory.tags[XMP].data if XMP in directory.tags else None,
        icc=icc,
        dpi=exif_dpi(exif),
        premultiplied=layout.extra == ASSOCIATED,
        coding=TiffCoding(layout, tag_file.order, tag_file.big, tuple(sorted(kept.items()))),
    )
    alpha = planes[1][..., 0] if len(planes) > 1 else None
    return Image(colours, alpha, "tiff", metadata, tuple(notices))


def _opened(stream: BinaryIO) -> tuple[TagFile, Directory, int, int]:
    """The file, its first directory, and how many full images and reduced copies the chain of directories holds."""
    size = stream.seek(0, 2)

    def fetch(offset: int, count: int) -> bytes:
        stream.seek(offset)
        return stream.read(min(count, size))

    try:
        tag_file = TagFile.open(fetch, size)
        directory = tag_file.directory(tag_file.first_offset)
        full, reduced = _counted(tag_file)
    except TagError as error:
        raise FormatError(f"is truncated or damaged: {error}") from error
    if DNG_VERSION in directory.tags or _subfile_type(tag_file, tag_file.first_offset) & REDUCED_RESOLUTION:
        raise FormatError(
            "is a camera's raw file under the name of a TIFF: give it its own suffix (.dng) or develop it first"
        )
    return tag_file, directory, full, reduced


def _counted(tag_file: TagFile) -> tuple[int, int]:
    offset, seen = tag_file.first_offset, set[int]()
    full = reduced = 0
    while offset and len(seen) < MAX_PAGES:
        if offset in seen:
            raise TagError("its directories form a loop")
        seen.add(offset)
        if _subfile_type(tag_file, offset) & REDUCED_RESOLUTION:
            reduced += 1
        else:
            full += 1
        offset = tag_file.next_offset(offset)
    return full, reduced


def _subfile_type(tag_file: TagFile, offset: int) -> int:
    for code, _, _, position in tag_file.entries(offset):
        if code == NEW_SUBFILE_TYPE:
            return int.from_bytes(tag_file.fetch(position, 4), "little" if tag_file.order == "<" else "big")
    return 0


def _images_of_imagej(directory: Directory) -> int:
    """ImageJ writes large stacks as one directory and tells the number of images in the description only."""
    tag = directory.tags.get(IMAGE_DESCRIPTION)
    if tag is None or not tag.data.startswith(b"ImageJ="):
        return 1
    found = re.search(rb"\nimages=(\d{1,9})\s", tag.data + b"\n")
    return int(found[1]) if found else 1


def _decoded(stream: BinaryIO, layout: TiffLayout) -> list[np.ndarray]:
    """The colour samples `[H, W, C]` and, if there is a further sample, that as `[H, W, 1]`."""
    import tifffile

    # its messages are for programmers; whatever matters is found by the checks here
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    dtype = np.dtype(np.float32) if layout.is_float else np.dtype(np.uint16 if layout.bits > 8 else np.uint8)
    stored_colours = layout.samples - (layout.extra is not None)
    planes = [np.empty((layout.height, layout.width, stored_colours), dtype)]
    if layout.extra is not None:
        planes.append(np.empty((layout.height, layout.width, 1), dtype))
    size = stream.seek(0, 2)
    stream.seek(0)
    with tifffile.TiffFile(stream) as tiff:
        page: Any = tiff.pages.first
        if (page.imagelength, page.imagewidth, page.samplesperpixel) != (layout.height, layout.width, layout.samples):
            raise FormatError("is damaged: its tags contradict each other")
        segments = math.prod(page.chunked)
        offsets, counts = page.dataoffsets[:segments], page.databytecounts[:segments]
        if len(offsets) != segments or len(counts) != segments or not (min(offsets) > 0 and min(counts) > 0):
            raise FormatError("is truncated or damaged: some of its strips or tiles are missing")
        if max(offset + count for offset, count in zip(offsets, counts, strict=True)) > size:
            raise FormatError("is truncated: it ends before the end of the image")
        if layout.compression == JPEG:
            _check_jpegs(stream, offsets, counts, _segment_pixels(layout, page.rowsperstrip))
        elif layout.compression == LZW:
            for offset, count in zip(offsets, counts, strict=True):
                stream.seek(offset)
                check_lzw(stream.read(count))
        for segment, (plane, _, row, column, _), _ in page.segments(maxworkers=1, buffersize=READ_AHEAD):
            data = segment[0, : layout.height - row, : layout.width - column]
            rows, columns = slice(row, row + data.shape[0]), slice(column, column + data.shape[1])
            if data.shape[2] == layout.samples:
                planes[0][rows, columns] = data[..., :stored_colours]
                if layout.extra is not None:
                    planes[1][rows, columns] = data[..., stored_colours:]
            elif plane < stored_colours:
                planes[0][rows, columns, plane] = data[..., 0]
            else:
                planes[1][rows, columns] = data
    return planes


def _segment_pixels(layout: TiffLayout, rows: int) -> int:
    if layout.tile:
        return layout.tile[0] * layout.tile[1]
    # the last strip may be coded in whole blocks
    return layout.width * min(rows, layout.height + JPEG_BLOCK - 1)


def _check_jpegs(stream: BinaryIO, offsets: tuple[int, ...], counts: tuple[int, ...], pixels: int) -> None:
    """Refuses what is cut, which libjpeg would fill up with grey, and what claims more than `pixels`."""
    for offset, count in zip(offsets, counts, strict=True):
        stream.seek(offset)
        segment = stream.read(count)
        if JPEG_EOI not in segment[-16:]:
            raise FormatError("is truncated or damaged: a JPEG strip or tile is cut")
        header = jpeg_file.probe(BytesIO(segment))
        if header.width * header.height > pixels:
            raise FormatError("is damaged: a JPEG strip or tile claims more pixels than there are")


def _looked_up(tag_file: TagFile, directory: Directory, indices: np.ndarray) -> np.ndarray:
    """`[H, W, 3]` uint8. Old writers gave 8-bit colours where 16 bits are due."""
    values = np.array(tag_file.values(directory.tags[COLOR_MAP])) if COLOR_MAP in directory.tags else np.zeros(0)
    if values.size == 0 or values.size % 3 or int(indices.max()) >= values.size // 3:
        raise FormatError("is damaged: its palette is missing or too short")
    if values.max() > 255:
        values //= 256
    return np.ascontiguousarray(values.reshape(3, -1).T.astype(np.uint8)[indices])


def _rgb_of_cmyk(inks: np.ndarray, icc: bytes | None) -> tuple[np.ndarray, bytes]:
    import PIL.Image

    from denoise_se.cmyk import srgb

    height, width = inks.shape[:2]
    return srgb(PIL.Image.frombuffer("CMYK", (width, height), inks, "raw", "CMYK", 0, 1), icc)
