"""TIFF and BigTIFF (TIFF 6.0, Adobe technical notes): pixels through tifffile, tags through a parser of our own.

The parser comes first and checks what the tags claim against the file, so that tifffile only sees sound directories.
"""

from __future__ import annotations

import logging
import re
from typing import BinaryIO

from denoise_se.image import FormatError, Image, Probe
from denoise_se.tiff_layout import NO_COMPRESSION, layout_of
from denoise_se.tiff_page import TiffPage
from denoise_se.tiff_segments import TiffSegments
from denoise_se.tiff_tags import BYTE_ORDER, IMAGE_DESCRIPTION, SUB_IFDS, Directory, TagError, TagFile

NEW_SUBFILE_TYPE, DNG_VERSION = 254, 50706
REDUCED_RESOLUTION = 1
MAX_PAGES = 100_000


def probe(stream: BinaryIO) -> Probe:
    """Reads the directories, not the pixels. Raises FormatError."""
    tag_file, chain = _opened(stream)
    directory = _directory(tag_file, chain.full[0][1])
    layout = layout_of(tag_file, directory)
    frames = len(chain.full) if len(chain.full) > 1 else _images_of_imagej(directory)
    depth = 32 if layout.as_float else 16 if layout.bits > 8 else 8
    return Probe("tiff", layout.width, layout.height, layout.channels, depth, frames, layout.extra is not None)


def read(stream: BinaryIO) -> Image:
    """Reads the file's one page; see `TiffPage` for what is converted. Raises FormatError."""
    (page,) = pages(stream)
    return page.image()


def pages(stream: BinaryIO) -> list[TiffPage]:
    """The file's pages, whose pixels are read from `stream` when they are asked for.

    Reduced copies (previews, pyramids) are left out with a notice. Raises FormatError for what is damaged or of a kind
    that is not supported, in any of them.
    """
    import tifffile

    # its messages are for programmers; whatever matters is found by the checks here
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    tag_file, chain = _opened(stream)
    stream.seek(0)
    tiff = tifffile.TiffFile(stream)
    found = []
    for number, (index, offset) in enumerate(chain.full):
        try:
            directory = _directory(tag_file, offset)
            layout = layout_of(tag_file, directory)
            images = _images_of_imagej(directory) if len(chain.full) == 1 else 1
            if images > 1 and layout.compression != NO_COMPRESSION:
                raise FormatError(f"is damaged: it claims {images:,} images in one compressed page")
            for image in range(images):
                skipped = image * layout.stored_bytes
                segments = TiffSegments(stream, layout, tiff.pages[index], skipped)
                found.append(TiffPage(tag_file, directory, segments, chain.subfile_types[index], first=image == 0))
        except FormatError as error:
            raise FormatError(f"{error} (page {number + 1})" if len(chain.full) > 1 else str(error)) from error
    if chain.reduced or any(SUB_IFDS in page.directory.tags for page in found):
        found[0].add_notice("reduced copies of the image in the file (preview, pyramid) not kept")
    return found


class _Chain:
    """The file's directories: (index, offset) of the full images, and how many are reduced copies."""

    def __init__(self, tag_file: TagFile) -> None:
        self.full: list[tuple[int, int]] = []
        self.subfile_types: list[int] = []
        for index, offset in enumerate(tag_file.chain(MAX_PAGES)):
            self.subfile_types.append(_subfile_type(tag_file, offset))
            if not self.subfile_types[-1] & REDUCED_RESOLUTION:
                self.full.append((index, offset))
        self.reduced = len(self.subfile_types) - len(self.full)


def _opened(stream: BinaryIO) -> tuple[TagFile, _Chain]:
    size = stream.seek(0, 2)

    def fetch(offset: int, count: int) -> bytes:
        stream.seek(offset)
        return stream.read(min(count, size))

    try:
        tag_file = TagFile.open(fetch, size)
        chain = _Chain(tag_file)
        first = tag_file.directory(tag_file.first_offset)
    except TagError as error:
        raise FormatError(f"is truncated or damaged: {error}") from error
    if DNG_VERSION in first.tags or chain.subfile_types[0] & REDUCED_RESOLUTION:
        raise FormatError(
            "is a camera's raw file under the name of a TIFF: give it its own suffix (.dng) or develop it first"
        )
    return tag_file, chain


def _directory(tag_file: TagFile, offset: int) -> Directory:
    try:
        return tag_file.directory(offset)
    except TagError as error:
        raise FormatError(f"is truncated or damaged: {error}") from error


def _subfile_type(tag_file: TagFile, offset: int) -> int:
    for code, _, _, position in tag_file.entries(offset):
        if code == NEW_SUBFILE_TYPE:
            return int.from_bytes(tag_file.fetch(position, 4), BYTE_ORDER[tag_file.order])
    return 0


def _images_of_imagej(directory: Directory) -> int:
    """ImageJ writes large stacks as one directory and tells the number of images in the description only."""
    tag = directory.tags.get(IMAGE_DESCRIPTION)
    if tag is None or not tag.data.startswith(b"ImageJ="):
        return 1
    found = re.search(rb"\nimages=(\d{1,9})\s", tag.data + b"\n")
    return int(found[1]) if found else 1
