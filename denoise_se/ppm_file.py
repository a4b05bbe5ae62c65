"""Netpbm's PBM, PGM and PPM (P1 to P6), 8 and 16 bits.

A largest value other than 255 or 65,535 is kept: the pixels are spread over the whole range of their type when read
(so that sigma means the same for all files) and put back when written, as they were where nothing changed them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from denoise_se.image import Coding, FormatError, Image, Metadata, Probe

HEADER_LIMIT = 64 << 10
# white space and comments, then a number
FIELD = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])+(\d{1,10})")


@dataclass(frozen=True)
class PpmCoding(Coding):
    """The largest value of the file (255 for those of 8 bits unless it says otherwise)."""

    largest: int


@dataclass(frozen=True)
class _Header:
    kind: int
    width: int
    height: int
    largest: int
    start: int

    @property
    def channels(self) -> int:
        return 3 if self.kind in (3, 6) else 1


def probe(stream: BinaryIO) -> Probe:
    """Reads the header. Raises FormatError."""
    header = _header(stream)
    return Probe("ppm", header.width, header.height, header.channels, 8 if header.largest < 256 else 16)


def read(stream: BinaryIO) -> Image:
    """Reads the one image of the file; a file of several is refused. FormatError."""
    header = _header(stream)
    stream.seek(header.start)
    count = header.width * header.height * header.channels
    if header.kind in (1, 2, 3):
        samples = _plain(stream.read(), header, count)
    elif header.kind == 4:
        stride = (header.width + 7) // 8
        packed = np.frombuffer(_exactly(stream, stride * header.height), np.uint8).reshape(header.height, stride)
        samples = 1 - np.unpackbits(packed, axis=1, count=header.width)
    else:
        stored = np.dtype(np.uint8 if header.largest < 256 else ">u2")
        # into a bytearray, so that the pixels can be written to without another copy
        samples = np.frombuffer(_exactly(stream, count * stored.itemsize), stored)
        samples = samples.astype(stored.newbyteorder("="), copy=False)
    if header.kind in (4, 5, 6) and stream.read(HEADER_LIMIT).strip():
        raise FormatError("holds more than one image, or other data behind it: split it into one file an image")
    largest = 1 if header.kind in (1, 4) else header.largest
    if int(samples.max()) > largest:
        raise FormatError(f"is damaged: it has values over the {largest} that its header gives as the largest")
    pixels = _spread(samples.reshape(header.height, header.width, header.channels), largest)
    notices = ("1-bit image written as 8-bit grey",) if largest == 1 else ()
    coding = PpmCoding(255 if largest == 1 else largest)
    return Image(pixels, None, "ppm", Metadata(coding=coding), notices)


def write(image: Image, stream: BinaryIO) -> tuple[str, ...]:
    """Writes binary PGM or PPM of 8 or 16 bits."""
    coding = image.metadata.coding
    full = (1 << image.bit_depth) - 1
    largest = coding.largest if isinstance(coding, PpmCoding) and coding.largest <= full else full
    pixels = image.pixels
    if largest != full:
        pixels = ((pixels.astype(np.uint32) * largest + full // 2) // full).astype(pixels.dtype)
    kind = 5 if image.channels == 1 else 6
    stream.write(f"P{kind}\n{image.width} {image.height}\n{largest}\n".encode())
    stream.write(np.ascontiguousarray(pixels, np.uint8 if largest < 256 else ">u2").data)
    return ()


def _header(stream: BinaryIO) -> _Header:
    stream.seek(0)
    head = stream.read(HEADER_LIMIT)
    kind = int(head[1:2])
    numbers: list[int] = []
    position = 2
    for _ in range(2 if kind in (1, 4) else 3):
        found = FIELD.match(head, position)
        if found is None:
            raise FormatError("is truncated or damaged: no Netpbm header")
        numbers.append(int(found[1]))
        position = found.end()
    width, height, *rest = numbers
    largest = rest[0] if rest else 255
    if not 1 <= largest <= 65535 or not head[position : position + 1].isspace():
        raise FormatError("is truncated or damaged: no Netpbm header")
    return _Header(kind, width, height, largest, position + 1)


def _exactly(stream: BinaryIO, count: int) -> bytearray:
    position = stream.tell()
    available = stream.seek(0, 2) - position
    if available < count:
        raise FormatError("is truncated: it ends before the end of the image")
    stream.seek(position)
    data = bytearray(count)
    stream.readinto(data)  # type: ignore[attr-defined]
    return data


def _plain(text: bytes, header: _Header, count: int) -> np.ndarray:
    text = re.sub(rb"#[^\n\r]*", b"", text)
    if header.kind == 1:
        # the digits of a plain bitmap need no space between them
        digits = np.frombuffer(re.sub(rb"\s+", b"", text), np.uint8)
        samples = ord("1") - digits[:count]
        too_many = digits.size > count
    else:
        samples = np.fromstring(text, np.int64, sep=" ")
        too_many = samples.size > count
    if too_many:
        raise FormatError("holds more than one image, or other data behind it: split it into one file an image")
    if samples.size < count or int(samples.min()) < 0:
        raise FormatError("is truncated or damaged: it ends before the end of the image")
    return samples


def _spread(samples: np.ndarray, largest: int) -> np.ndarray:
    """Values of 0 to `largest` over the full range of uint8 or uint16, rounded."""
    full = 255 if largest < 256 else 65535
    dtype = np.uint8 if largest < 256 else np.uint16
    if largest == full:
        return samples.astype(dtype, copy=False)
    return ((samples.astype(np.uint32) * full + largest // 2) // largest).astype(dtype)
