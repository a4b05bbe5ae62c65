"""JPEG (ITU T.81, JFIF 1.02, EXIF 2.32): pixels through libjpeg-turbo, segments through a copier of our own.

Writing a JPEG again is lossy. The quantization tables, the chroma subsampling and the scan order of the file are used
again, so that its quality and its size stay about what they were.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

import numpy as np

from denoise_se import exif as exif_block
from denoise_se.image import Coding, FormatError, Image, Metadata, Probe

SOI, EOI, SOS, DQT, COM, APP0, APP1, APP2, APP14 = 0xD8, 0xD9, 0xDA, 0xDB, 0xFE, 0xE0, 0xE1, 0xE2, 0xEE
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE_FRAMES = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
JFIF, EXIF, ICC, MPF = b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0", b"MPF\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP, THUMBNAILS = b"Photoshop 3.0\0", (0x0409, 0x040C)  # and the numbers of its resources that are small pictures
MAX_SEGMENT = 65533
# encoders write about ten; each one takes as long as a whole baseline image, so many of them are an attack
MAX_SCANS = 100
# for images that were no JPEG before; measured on Kodak's photos: over 41 dB at a third of the size of the PNG
QUALITY = 95
ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
])  # fmt: skip


@dataclass(frozen=True)
class JpegCoding(Coding):
    """How the file was coded.

    tables: the quantization table of each component, 64 values in natural order. sampling: horizontal and vertical
    factor of each component. stored_rgb: RGB without the step to YCbCr. density: JFIF's unit, which may be none, and
    the two numbers, as they are. segments: the application segments and comments that are written again, as (marker,
    payload).
    """

    tables: tuple[tuple[int, ...], ...] = ()
    sampling: tuple[tuple[int, int], ...] = ()
    progressive: bool = False
    stored_rgb: bool = False
    density: bytes | None = None
    segments: tuple[tuple[int, bytes], ...] = ()

    def lost_elsewhere(self, has_profile: bool) -> tuple[str, ...]:
        names = {"comment" if marker == COM else f"APP{marker - APP0} data" for marker, _ in self.segments}
        return tuple(sorted(f"JPEG {name}" for name in names))


@dataclass
class _Header:
    """What the segments before the first scan say."""

    frame: int = 0
    width: int = 0
    height: int = 0
    components: list[tuple[int, int, int, int]] = field(default_factory=list)
    tables: dict[int, tuple[int, ...]] = field(default_factory=dict)
    segments: list[tuple[int, bytes]] = field(default_factory=list)
    scan_start: int = 0


def probe(stream: BinaryIO) -> Probe:
    """Reads the segments before the first scan. Raises FormatError."""
    header = _header(stream)
    channels = 1 if len(header.components) == 1 else 3
    return Probe("jpg", header.width, header.height, channels, 8)


def read(stream: BinaryIO) -> Image:
    """Decodes deterministically (libjpeg-turbo, accurate integer DCT). CMYK goes through its profile. FormatError."""
    import imagecodecs

    header = _header(stream)
    stream.seek(0)
    data = stream.read()
    end = _checked_scans(data, header.scan_start)
    metadata = _metadata(header)
    notices = []
    if len(header.components) == 4:
        pixels, icc = _rgb_of_cmyk(data, metadata.icc)
        coding = JpegCoding(progressive=header.frame in PROGRESSIVE_FRAMES)
        metadata = Metadata(metadata.exif, metadata.xmp, icc, metadata.dpi, coding=coding)
        notices.append("CMYK image written as sRGB, converted through its colour profile")
    else:
        pixels = imagecodecs.jpeg8_decode(data)
    if pixels.shape[:2] != (header.height, header.width) or pixels.dtype != np.uint8:
        raise FormatError("its pixels do not have the size that the header gives")
    if any(marker == APP2 and payload.startswith(MPF) for marker, payload in header.segments):
        notices.append("additional images in the file (preview, depth or gain map) not kept")
    elif end < len(data) and data[end:].strip(b"\0\xff"):
        notices.append(f"{len(data) - end:,} bytes after the end of the image not kept")
    return Image(pixels.reshape(header.height, header.width, -1), None, "jpg", metadata, tuple(notices))


def write(image: Image, stream: BinaryIO) -> tuple[str, ...]:
    """Encodes 8-bit pixels with the tables of the file they came from, else at QUALITY without chroma subsampling.

    Lossy. Gives notices for metadata that a JPEG segment cannot hold.
    """
    import PIL.Image

    coding = image.metadata.coding if isinstance(image.metadata.coding, JpegCoding) else JpegCoding()
    options: dict[str, object] = {"quality": QUALITY, "subsampling": "4:4:4", "progressive": coding.progressive}
    if len(coding.tables) == image.channels:
        tables = list(coding.tables)
        # Pillow gives the last table to the components that have none
        while len(tables) > 1 and tables[-1] == tables[-2]:
            tables.pop()
        del options["quality"]
        options |= {"qtables": tables, "subsampling": _subsampling(coding.sampling), "keep_rgb": coding.stored_rgb}
    samples = image.pixels if image.channels == 3 else image.pixels[..., 0]
    buffer = BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(samples)).save(buffer, "JPEG", **options)
    encoded = buffer.getbuffer()
    segments, notices = _segments_to_write(image.metadata, coding)
    start = 2
    if encoded[2:4] == bytes((0xFF, APP0)):
        # a file without JFIF header (RGB, told by its Adobe header) must not get one: it would be read as YCbCr
        segments.insert(0, (APP0, _jfif(coding.density or _density(image.metadata.dpi))))
        start = 4 + int.from_bytes(encoded[4:6], "big")
    stream.write(encoded[:2])
    for marker, payload in segments:
        stream.write(struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload)
    stream.write(encoded[start:])
    return tuple(notices)


def _header(stream: BinaryIO) -> _Header:
    header = _Header()
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


def _checked_scans(data: bytes, start: int) -> int:
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


def _metadata(header: _Header) -> Metadata:
    exif = xmp = dpi = density = None
    stored_rgb = False
    profile: dict[int, bytes] = {}
    kept: list[tuple[int, bytes]] = []
    for marker, payload in header.segments:
        if marker == APP0:
            dpi = _dpi(payload) or dpi
            density = payload[7:12] if payload.startswith(JFIF) and len(payload) >= 12 else density
        elif marker == APP1 and payload.startswith(EXIF) and exif is None:
            exif = payload[len(EXIF) :]
        elif marker == APP1 and payload.startswith(XMP) and xmp is None:
            xmp = payload[len(XMP) :]
        elif marker == APP2 and payload.startswith(ICC) and len(payload) > len(ICC) + 2:
            profile[payload[len(ICC)]] = payload[len(ICC) + 2 :]
        elif marker == APP14 and payload.startswith(b"Adobe"):
            stored_rgb = len(header.components) == 3 and len(payload) >= 12 and payload[11] == 0
        elif not payload.startswith(MPF):
            kept.append((marker, _without_thumbnail(payload) if payload.startswith(PHOTOSHOP) else payload))
    coding = JpegCoding(
        tuple(header.tables[table] for *_, table in header.components if table in header.tables),
        tuple((across, down) for _, across, down, _ in header.components),
        header.frame in PROGRESSIVE_FRAMES,
        stored_rgb,
        density,
        tuple(kept),
    )
    icc = b"".join(profile[number] for number in sorted(profile)) or None
    return Metadata(exif=exif, xmp=xmp, icc=icc, dpi=dpi or exif_block.dpi(exif), coding=coding)


def _without_thumbnail(payload: bytes) -> bytes:
    """Photoshop's resources without the small picture, which would still be noisy; damaged ones as they are."""
    kept, at = payload[: len(PHOTOSHOP)], len(PHOTOSHOP)
    while at < len(payload):
        name = at + 6  # after "8BIM" and the number; a length and so many letters, filled up to an even count
        size_at = name + (payload[name] + 2) // 2 * 2 if name < len(payload) else len(payload)
        size = int.from_bytes(payload[size_at : size_at + 4], "big")
        end = size_at + 4 + (size + 1) // 2 * 2
        if payload[at : at + 4] != b"8BIM" or end > len(payload) + size % 2:
            return payload
        if int.from_bytes(payload[at + 4 : at + 6], "big") not in THUMBNAILS:
            kept += payload[at:end]
        at = end
    return kept


def _dpi(jfif: bytes) -> tuple[float, float] | None:
    if not jfif.startswith(JFIF) or len(jfif) < 12:
        return None
    unit, across, down = struct.unpack(">BHH", jfif[7:12])
    scale = {1: 1.0, 2: exif_block.CM_PER_INCH}.get(unit, 0.0)
    return (across * scale, down * scale) if across and down and scale else None


def _density(dpi: tuple[float, float] | None) -> bytes:
    """JFIF's unit and numbers; without a resolution that they can hold, the aspect ratio 1:1."""
    if dpi and max(dpi) > 65535:  # EXIF may have it
        dpi = None
    across, down = (min(max(round(value), 1), 65535) for value in dpi or (1, 1))
    return struct.pack(">BHH", 1 if dpi else 0, across, down)


def _jfif(density: bytes) -> bytes:
    """JFIF 1.01 without thumbnail."""
    return JFIF + bytes((1, 1)) + density + bytes(2)


def _subsampling(sampling: tuple[tuple[int, int], ...]) -> str:
    """Pillow's name for it; what it cannot write (4:4:0, 4:1:1) becomes 4:4:4, which loses nothing."""
    if len(sampling) == 3 and sampling[1] == sampling[2] == (1, 1):
        return {(2, 1): "4:2:2", (2, 2): "4:2:0"}.get(sampling[0], "4:4:4")
    return "4:4:4"


def _rgb_of_cmyk(data: bytes, icc: bytes | None) -> tuple[np.ndarray, bytes]:
    """sRGB pixels and profile. Pillow undoes Adobe's inversion of the inks."""
    from PIL import JpegImagePlugin

    from denoise_se.cmyk import srgb

    # the plugin itself and not Image.open: no other format can get hold of the bytes
    with JpegImagePlugin.JpegImageFile(BytesIO(data)) as decoded:
        decoded.load()
        return srgb(decoded, icc)


def _segments_to_write(metadata: Metadata, coding: JpegCoding) -> tuple[list[tuple[int, bytes]], list[str]]:
    segments: list[tuple[int, bytes]] = []
    notices: list[str] = []
    for name, prefix, packet in (("EXIF", EXIF, metadata.exif), ("XMP", XMP, metadata.xmp)):
        if packet is not None and len(prefix) + len(packet) > MAX_SEGMENT:
            notices.append(f"{name} not kept: {len(packet):,} bytes are more than JPEG can hold")
        elif packet is not None:
            segments.append((APP1, prefix + packet))
    if metadata.icc is not None:
        room = MAX_SEGMENT - len(ICC) - 2
        parts = [metadata.icc[i : i + room] for i in range(0, len(metadata.icc), room)]
        if len(parts) <= 255:
            segments += [(APP2, ICC + bytes((i + 1, len(parts))) + part) for i, part in enumerate(parts)]
        else:
            notices.append("colour profile not kept: it is larger than JPEG can hold")
    return segments + list(coding.segments), notices
