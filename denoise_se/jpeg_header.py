"""The segments of a JPEG file before its first scan, and where its last one ends (ITU T.81, annex B)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from denoise_se.image import FormatError

SOI, EOI, SOS, DQT, COM, APP0, APP1, APP2, APP14 = 0xD8, 0xD9, 0xDA, 0xDB, 0xFE, 0xE0, 0xE1, 0xE2, 0xEE
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# encoders write about ten; each one takes as long as a whole baseline image, so many of them are an attack
MAX_SCANS = 100
ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
])  # fmt: skip


@dataclass
class JpegHeader:
    """What the segments before the first scan say."""

    frame: int = 0
    width: int = 0
    height: int = 0
    components: list[tuple[int, int, int, int]] = field(default_factory=list)
    tables: dict[int, tuple[int, ...]] = field(default_factory=dict)
    segments: list[tuple[int, bytes]] = field(default_factory=list)
    scan_start: int = 0


def read_header(stream: BinaryIO) -> JpegHeader:
    """Raises FormatError."""
    header = JpegHeader()
    stream.seek(2)
    for marker, payload in _walked(stream):
        if marker in FRAMES:
            if header.frame or len(payload) < 6 or len(payload) < 6 + 3 * payload[5]:
                raise FormatError("is damaged: wrong JPEG frame header")
            precision, header.height, header.width, count = struct.unpack(">BHHB", payload[:6])
            if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) or precision != 8 or count not in (1, 3, 4):
                raise FormatError(
                    f"is a JPEG of a kind that is not supported ({precision} bits, {count} components, frame type "
                    f"{marker - 0xC0}): convert it to PNG or TIFF first"
                )
            header.frame = marker
            fields = [payload[6 + 3 * i : 9 + 3 * i] for i in range(count)]
            header.components = [(name, sampling >> 4, sampling & 15, table) for name, sampling, table in fields]
        elif marker == DQT:
            header.tables |= _tables(payload)
        elif marker == COM or APP0 <= marker <= 0xEF:
            header.segments.append((marker, payload))
    if not header.frame:
        raise FormatError("is truncated or damaged: no JPEG frame before the pixels")
    header.scan_start = stream.tell()
    return header


def _walked(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(marker, payload) of the segments up to the first scan; the stream is left behind the scan's header."""
    while True:
        mark = stream.read(2)
        while len(mark) == 2 and mark[0] == 0xFF and mark[1] == 0xFF:
            mark = mark[1:] + stream.read(1)
        if len(mark) < 2 or mark[0] != 0xFF or mark[1] in (0, SOI, EOI):
            raise FormatError("is truncated or damaged: no JPEG pixels")
        length = int.from_bytes(stream.read(2), "big")
        payload = stream.read(max(length - 2, 0))
        if length < 2 or len(payload) != length - 2:
            raise FormatError("is truncated or damaged: a JPEG segment is cut")
        if mark[1] == SOS:
            return
        yield mark[1], payload


def end_of_image(data: bytes, start: int) -> int:
    """Where the image ends. FormatError without an end marker: libjpeg would fill up what is missing with grey."""
    scans = 1
    position = start
    next_marker = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
    while (found := next_marker.search(data, position)) is not None:
        marker = data[found.end() - 1]
        if marker == EOI:
            return found.end()
        scans += marker == SOS
        if scans > MAX_SCANS:
            raise FormatError(f"has more than {MAX_SCANS} scans, which no camera or program writes")
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise FormatError("is truncated: it ends before the end of the image")


def _tables(payload: bytes) -> dict[int, tuple[int, ...]]:
    tables = {}
    while payload:
        wide, number = payload[0] >> 4, payload[0] & 15
        body = payload[1 : 129 if wide else 65]
        if len(body) != (128 if wide else 64):
            raise FormatError("is damaged: a JPEG quantization table is cut")
        natural = np.zeros(64, int)
        natural[ZIGZAG] = np.frombuffer(body, ">u2" if wide else "u1")
        tables[number] = tuple(int(value) for value in natural)
        payload = payload[1 + len(body) :]
    return tables
