"""The few things that are read or changed inside an EXIF block, in place, so that every other byte stays.

In place because a maker's note holds offsets into the block that a rebuilt block would break.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress

from denoise_se.tiff_tags import (
    BYTE_ORDER,
    EXIF_IFD,
    ORIENTATION,
    PIXEL_X,
    PIXEL_Y,
    RESOLUTION_UNIT,
    THUMBNAIL_LENGTH,
    THUMBNAIL_OFFSET,
    TYPES,
    X_RESOLUTION,
    Y_RESOLUTION,
    TagError,
    TagFile,
)

PREFIX = b"Exif\0\0"  # before the block in a JPEG segment, and in some WebP and HEIF files
CM_PER_INCH = 2.54
METRES_PER_INCH = 0.0254


def orientation(block: bytes | None) -> int:
    """1 to 8; 1 where the block has none, a wrong one, or is damaged."""
    value = _short(block, ORIENTATION)
    return value if value is not None and 1 <= value <= 8 else 1


def on_its_side(orientation: int) -> bool:
    """Whether an image of this orientation is shown turned by a quarter."""
    return orientation >= 5


def dpi(block: bytes | None) -> tuple[float, float] | None:
    """Resolution in pixels an inch (X, Y), None where the block does not say."""
    try:
        tag_file = TagFile.of_bytes(block or b"")
        tags = tag_file.directory(tag_file.first_offset).tags
        x, y = (tag_file.values(tags[code]) for code in (X_RESOLUTION, Y_RESOLUTION))
        unit = tag_file.values(tags[RESOLUTION_UNIT])[0] if RESOLUTION_UNIT in tags else 2
        scale = {2: 1.0, 3: CM_PER_INCH}[int(unit)]
        resolution = (x[0] / x[1] * scale, y[0] / y[1] * scale)
    except (ValueError, OverflowError, KeyError, IndexError, ZeroDivisionError):  # damaged, or a unit that is no number
        return None
    return resolution if min(resolution) > 0 else None


def made_upright(block: bytes | None) -> bytes | None:
    """The block with orientation 1, and the pixel dimensions it states swapped where the image was on its side."""
    if block is None:
        return None
    changed = bytearray(block)
    try:
        tag_file = TagFile.of_bytes(block)
        entries = {code: (kind, position) for code, kind, _, position in tag_file.entries(tag_file.first_offset)}
        if on_its_side(orientation(block)) and EXIF_IFD in entries:
            with suppress(TagError):  # the dimensions are lost there, and the picture is upright all the same
                _swap_dimensions(tag_file, changed, entries[EXIF_IFD][1])
        kind, position = entries[ORIENTATION]
        width = TYPES[kind][0]
        changed[position : position + width] = (1).to_bytes(width, BYTE_ORDER[tag_file.order])
    except (TagError, KeyError):
        return block
    return bytes(changed)


def without_thumbnail(block: bytes | None) -> bytes | None:
    """The block without its thumbnail: the second directory is unlinked and the thumbnail's bytes are blanked.

    A damaged block is given back as it is.
    """
    if block is None:
        return None
    changed = bytearray(block)
    try:
        tag_file = TagFile.of_bytes(block)
        second = tag_file.next_offset(tag_file.first_offset)
        if second == 0:
            return block
        pointer = tag_file.next_pointer(tag_file.first_offset)
        changed[pointer : pointer + 4] = bytes(4)
        tags = tag_file.directory(second).tags
        start, length = (int(tag_file.values(tags[code])[0]) for code in (THUMBNAIL_OFFSET, THUMBNAIL_LENGTH))
    except (ValueError, OverflowError, KeyError, IndexError):
        return bytes(changed)
    if min(start, length) < 0:
        return bytes(changed)
    if second < start and start + length >= len(block) - 1:
        return bytes(changed[:start])
    if start + length <= len(block):
        changed[start : start + length] = bytes(length)
    return bytes(changed)


def xmp_made_upright(packet: bytes | None) -> bytes | None:
    """The XMP packet with tiff:Orientation 1, written as an attribute or as an element."""
    if packet is None:
        return None
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8](?=[\"'<])", rb"\g<1>1", packet)


def _short(block: bytes | None, code: int) -> int | None:
    try:
        tag_file = TagFile.of_bytes(block or b"")
        for found, kind, count, position in tag_file.entries(tag_file.first_offset):
            if found == code and kind in (3, 4) and count == 1 and block is not None:
                return int(struct.unpack_from(tag_file.order + TYPES[kind][1], block, position)[0])
    except TagError:
        pass
    return None


def _swap_dimensions(tag_file: TagFile, changed: bytearray, pointer: int) -> None:
    offset = struct.unpack_from(tag_file.order + "I", changed, pointer)[0]
    entries = {code: position - 8 for code, _, _, position in tag_file.entries(offset)}
    if PIXEL_X in entries and PIXEL_Y in entries:
        # everything of an entry but its code: type, count and value
        x, y = entries[PIXEL_X] + 2, entries[PIXEL_Y] + 2
        changed[x : x + 10], changed[y : y + 10] = changed[y : y + 10], changed[x : x + 10]
