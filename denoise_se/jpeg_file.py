"""JPEG (ITU T.81, JFIF 1.02, EXIF 2.32): pixels through libjpeg-turbo, segments through a copier of our own.

Writing a JPEG again is lossy. The quantization tables, the chroma subsampling and the scan order of the file are used
again, so that its quality and its size stay about what they were.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import numpy as np

from denoise_se import exif as exif_block
from denoise_se.image import Coding, FormatError, Image, Metadata, Probe
from denoise_se.jpeg_header import APP0, APP1, APP2, APP14, COM, JpegHeader, end_of_image, read_header

PROGRESSIVE_FRAMES = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
JFIF, EXIF, ICC, MPF = b"JFIF\0", exif_block.PREFIX, b"ICC_PROFILE\0", b"MPF\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP, THUMBNAILS = b"Photoshop 3.0\0", (0x0409, 0x040C)  # and the numbers of its resources that are small pictures
MAX_SEGMENT = 65533
# for images that were no JPEG before; measured on Kodak's photos: over 41 dB at a third of the size of the PNG
QUALITY = 95


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


def probe(stream: BinaryIO) -> Probe:
    """Reads the segments before the first scan. Raises FormatError."""
    header = read_header(stream)
    channels = 1 if len(header.components) == 1 else 3
    return Probe("jpg", header.width, header.height, channels, 8)


def read(stream: BinaryIO) -> Image:
    """Decodes deterministically (libjpeg-turbo, accurate integer DCT). CMYK goes through its profile. FormatError."""
    import imagecodecs

    header = read_header(stream)
    stream.seek(0)
    data = stream.read()
    end = end_of_image(data, header.scan_start)
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


def _metadata(header: JpegHeader) -> Metadata:
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
