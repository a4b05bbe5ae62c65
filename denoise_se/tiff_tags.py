"""Directories of tags as TIFF and EXIF share them (TIFF 6.0, section 2; BigTIFF): parsed and built without trust.

Tag data stay raw bytes in the byte order of their file, so that what is not understood is still carried over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

# numbers of tags: of TIFF 6.0, EXIF 2.32, XMP part 3, ICC.1, and Photoshop's layers
IMAGE_DESCRIPTION, ORIENTATION, COLOR_MAP, SUB_IFDS = 270, 274, 320, 330
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
THUMBNAIL_OFFSET, THUMBNAIL_LENGTH = 513, 514
XMP, ICC, PHOTOSHOP_LAYERS = 700, 34675, 37724
PIXEL_X, PIXEL_Y = 40962, 40963
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
CHILD_POINTERS = frozenset({EXIF_IFD, GPS_IFD, INTEROP_IFD})
MAX_DEPTH = 3
MAX_TAGS = 4096
# what the tags of one directory may hold in all, so that a few bytes cannot claim the file many times over
MAX_TAG_BYTES = 256 << 20

# size in bytes and struct code of each TIFF type; the sub-IFD types read as unsigned integers
TYPES = {
    1: (1, "B"), 2: (1, "B"), 3: (2, "H"), 4: (4, "I"), 5: (8, "II"), 6: (1, "b"), 7: (1, "B"), 8: (2, "h"),
    9: (4, "i"), 10: (8, "ii"), 11: (4, "f"), 12: (8, "d"), 13: (4, "I"), 16: (8, "Q"), 17: (8, "q"), 18: (8, "Q"),
}  # fmt: skip
BYTE_ORDER: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}


class TagError(ValueError):
    """The structure is damaged."""


@dataclass(frozen=True)
class Tag:
    """One entry: TIFF type, number of values, raw data of `count` values in the byte order of its file."""

    type: int
    count: int
    data: bytes


@dataclass(frozen=True)
class Directory:
    """One IFD: its tags by code, the EXIF, GPS and interoperability directories below it by pointer tag."""

    tags: dict[int, Tag]
    children: dict[int, Directory] = field(default_factory=dict)
    next_offset: int = 0


@dataclass(frozen=True)
class TagFile:
    """A TIFF structure of `size` bytes that `fetch(offset, count)` reads from. order: "<" or ">"."""

    fetch: Callable[[int, int], bytes]
    size: int
    order: str
    big: bool
    first_offset: int

    @classmethod
    def open(cls, fetch: Callable[[int, int], bytes], size: int) -> TagFile:
        """Reads the header. Raises TagError when it is not one of a TIFF structure."""
        head = fetch(0, 16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 8:
            raise TagError("no TIFF header")
        magic = struct.unpack(order + "H", head[2:4])[0]
        if magic == 42:
            return cls(fetch, size, order, False, struct.unpack(order + "I", head[4:8])[0])
        if magic == 43 and len(head) == 16 and struct.unpack(order + "HH", head[4:8]) == (8, 0):
            return cls(fetch, size, order, True, struct.unpack(order + "Q", head[8:])[0])
        raise TagError("no TIFF header")

    @classmethod
    def of_bytes(cls, block: bytes) -> TagFile:
        return cls.open(lambda offset, count: block[offset : offset + count], len(block))

    def directory(self, offset: int, depth: int = 0) -> Directory:
        """The directory at `offset` with those below it; one below that is damaged is left out of `children`.

        Raises TagError when a value lies outside of the file.
        """
        tags: dict[int, Tag] = {}
        budget = MAX_TAG_BYTES >> (4 * depth)
        for code, kind, count, position in self.entries(offset):
            width = TYPES[kind][0] * count if kind in TYPES else 0
            inline = 8 if self.big else 4
            if width > inline:
                position = self._number(position, inline)
            if position + width > self.size:
                raise TagError(f"tag {code} lies beyond the end of the file")
            budget -= width
            if budget < 0:
                raise TagError("its tags claim too much memory")
            if width:
                tags.setdefault(code, Tag(kind, count, self._exactly(position, width)))
        children = {}
        for code in CHILD_POINTERS & tags.keys():
            if depth < MAX_DEPTH and (pointer := self.values(tags[code])):
                with suppress(TagError):
                    children[code] = self.directory(int(pointer[0]), depth + 1)
        return Directory(tags, children, self.next_offset(offset))

    def entries(self, offset: int) -> list[tuple[int, int, int, int]]:
        """(code, type, count, position of the value or of the offset to it) of each entry, as stored."""
        count = self._tag_count(offset)
        stride, start = (20, offset + 8) if self.big else (12, offset + 2)
        table = self._exactly(start, count * stride)
        layout = self.order + ("HHQ" if self.big else "HHI")
        width = struct.calcsize(layout)
        return [(*struct.unpack_from(layout, table, i * stride), start + i * stride + width) for i in range(count)]

    def next_offset(self, offset: int) -> int:
        """Where the next directory of the chain lies, 0 for none."""
        return self._number(self.next_pointer(offset), 8 if self.big else 4)

    def chain(self, most: int = 1 << 20) -> list[int]:
        """Where the directories of the chain lie. Raises TagError for a loop and for more than `most` of them."""
        offsets: dict[int, None] = {}
        offset = self.first_offset
        while offset or not offsets:
            if offset in offsets:
                raise TagError("its directories form a loop")
            if len(offsets) == most:
                raise TagError(f"it has more than {most:,} pages")
            offsets[offset] = None
            offset = self.next_offset(offset)
        return list(offsets)

    def next_pointer(self, offset: int) -> int:
        """Where the offset of the next directory is stored."""
        count = self._tag_count(offset)
        return offset + (8 + count * 20 if self.big else 2 + count * 12)

    def values(self, tag: Tag) -> tuple[float, ...]:
        """The tag's numbers; a rational is two of them."""
        code = TYPES[tag.type][1]
        return struct.unpack(f"{self.order}{tag.count * len(code)}{code[0]}", tag.data)

    def _tag_count(self, offset: int) -> int:
        if offset < 8:
            raise TagError("a directory lies inside the header")
        count = self._number(offset, 8 if self.big else 2)
        if count > MAX_TAGS:
            raise TagError(f"a directory claims {count} tags")
        return count

    def _number(self, offset: int, width: int) -> int:
        return int.from_bytes(self._exactly(offset, width), BYTE_ORDER[self.order])

    def _exactly(self, offset: int, count: int) -> bytes:
        data = self.fetch(offset, count) if offset + count <= self.size else b""
        if len(data) != count:
            raise TagError("a directory lies beyond the end of the file")
        return data


def built(directory: Directory, order: str, offset: int, *, big: bool = False) -> bytes:
    """A directory with those below it, of a classic TIFF or a BigTIFF, as bytes to be placed at the even `offset`.

    Raises TagError when it needs an offset over 4 GB, which classic TIFF cannot write.
    """
    entries = {code: tag for code, tag in directory.tags.items() if code not in CHILD_POINTERS}
    codes = sorted(entries.keys() | directory.children.keys())
    count_code, entry_code, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    table = bytearray(struct.pack(order + count_code, len(codes)))
    values = bytearray()
    start = offset + len(table) + (struct.calcsize("<" + entry_code) + inline) * len(codes) + inline
    for code in codes:
        if code in directory.children:
            position = start + len(values)
            values += built(directory.children[code], order, position, big=big)
            tag = Tag(16 if big else 4, 1, _offset(position, order, inline))
        else:
            tag = entries[code]
        if len(tag.data) <= inline:
            field_data = tag.data.ljust(inline, b"\0")
        else:
            field_data = _offset(start + len(values), order, inline)
            values += tag.data
        values += b"\0" * (len(values) % 2)
        table += struct.pack(order + entry_code, code, tag.type, tag.count) + field_data
    return bytes(table + bytes(inline) + values)


def built_file(directory: Directory, order: str) -> bytes:
    """A whole classic TIFF structure without pixels: an EXIF block."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "I", 8) + built(directory, order, 8)


def _offset(position: int, order: str, width: int) -> bytes:
    if position >= 1 << (8 * width):
        raise TagError("offset over 4 GB")
    return position.to_bytes(width, BYTE_ORDER[order])
