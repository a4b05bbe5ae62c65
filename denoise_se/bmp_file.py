"""Windows bitmaps: all kinds are read through Pillow; 8-bit grey, RGB and RGB with alpha are written."""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from denoise_se.exif import METRES_PER_INCH
from denoise_se.image import FormatError, Image, Metadata, Probe

HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
RUN_LENGTHS = frozenset({1, 2})
END_OF_BITMAP = b"\0\1"
EMBEDDED_PROFILE = b"DEBM"


def probe(stream: BinaryIO) -> Probe:
    """Reads the header. Raises FormatError. Channels are an upper bound: grey palettes are only seen when read."""
    stream.seek(14)
    head = stream.read(40)
    size = int.from_bytes(head[:4], "little")
    if len(head) < 12 or size not in HEADER_SIZES or (size > 12 and len(head) < 16):
        raise FormatError("is truncated or damaged: no BMP header")
    if size == 12:
        width, height = struct.unpack("<HH", head[4:8])
    else:
        width, height = struct.unpack("<ii", head[4:12])
    return Probe("bmp", width, abs(height), 3, 8)


def read(stream: BinaryIO) -> Image:
    """Reads the file. A palette is widened to RGB, 1-bit to grey, with a notice. FormatError."""
    import PIL.Image
    from PIL import BmpImagePlugin

    probed = probe(stream)
    stream.seek(0)
    head = stream.read(74)
    _check_whole(head, stream, probed)
    stream.seek(0)
    notices = []
    # the plugin itself and not Image.open: no other format can get hold of the bytes
    with BmpImagePlugin.BmpImageFile(stream) as decoded:
        if decoded.size != (probed.width, probed.height):
            raise FormatError("its pixels do not have the size that the header gives")
        decoded.load()
        converted: PIL.Image.Image = decoded
        if decoded.mode == "P":
            converted = decoded.convert("RGB")
            notices.append("palette image written as RGB")
        elif decoded.mode == "1":
            converted = decoded.convert("L")
            notices.append("1-bit image written as 8-bit grey")
        elif decoded.mode not in ("L", "RGB", "RGBA"):
            raise FormatError(f"is a BMP of a kind that is not supported ({decoded.mode}): convert it to PNG first")
        samples = np.array(converted).reshape(probed.height, probed.width, -1)
        dpi = decoded.info.get("dpi")
    pixels, alpha = samples, None
    if samples.shape[2] == 4:
        pixels, alpha = np.ascontiguousarray(samples[..., :3]), np.ascontiguousarray(samples[..., 3])
    if int.from_bytes(head[14:18], "little") == 124 and head[70:74] == EMBEDDED_PROFILE:
        notices.append("colour profile not kept: it is not read from BMP")
    return Image(pixels, alpha, "bmp", Metadata(dpi=dpi if dpi and min(dpi) > 0 else None), tuple(notices))


def _check_whole(head: bytes, stream: BinaryIO, probed: Probe) -> None:
    """Refuses what is cut; Pillow fills up run-length encoded pixels that are missing."""
    start = int.from_bytes(head[10:14], "little")
    core = int.from_bytes(head[14:18], "little") == 12
    bits = int.from_bytes(head[24:26] if core else head[28:30], "little")
    compression = 0 if core else int.from_bytes(head[30:34], "little")
    available = stream.seek(0, 2) - start
    if compression in RUN_LENGTHS:
        size = int.from_bytes(head[34:38], "little") or available
        stream.seek(start + max(min(size, available) - 4, 0))
        whole = size <= available and END_OF_BITMAP in stream.read(4)
    else:
        whole = (probed.width * bits + 31) // 32 * 4 * probed.height <= available
    if not whole:
        raise FormatError("is truncated: it ends before the end of the image")


def write(image: Image, stream: BinaryIO) -> tuple[str, ...]:
    """Writes 8-bit pixels uncompressed, bottom row first; alpha in a version 4 header with its mask."""
    if image.alpha is not None:
        colours = image.pixels[..., ::-1] if image.channels == 3 else image.pixels.repeat(3, axis=2)
        samples = np.dstack([colours, image.alpha])
    else:
        samples = image.pixels[..., ::-1]
    channels = samples.shape[2]
    row = image.width * channels
    padding = bytes(-row % 4)
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256)) if channels == 1 else b""
    header_size = 108 if channels == 4 else 40
    start = 14 + header_size + len(palette)
    pixel_bytes = (row + len(padding)) * image.height
    per_metre = (round(dpi / METRES_PER_INCH) for dpi in image.metadata.dpi or (0, 0))
    stream.write(struct.pack("<2sIHHI", b"BM", min(start + pixel_bytes, 0xFFFFFFFF), 0, 0, start))
    stream.write(struct.pack("<IiiHHI", header_size, image.width, image.height, 1, 8 * channels, 3 * (channels == 4)))
    stream.write(struct.pack("<IiiII", min(pixel_bytes, 0xFFFFFFFF), *per_metre, 256 * (channels == 1), 0))
    if channels == 4:
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        stream.write(masks + b"BGRs" + bytes(48))
    stream.write(palette)
    for line in samples[::-1]:
        stream.write(np.ascontiguousarray(line).tobytes() + padding)
    return ("grey image written as RGB: BMP has no grey with alpha",) if channels == 4 and image.channels == 1 else ()
