"""WebP (RFC 9649). A lossless file is written lossless again, a lossy one in high quality; alpha is always exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from denoise_se import exif as exif_block
from denoise_se.format_names import LOSSY
from denoise_se.image import Coding, FormatError, Image, Metadata, Probe

HAS_ALPHA = 0x10
MAX_CHUNKS = 100_000
# for images that were lossy before; measured on Kodak's photos: over 42 dB at 1.4 times the size of a quality 85 JPEG
QUALITY = 95
LOSSY_BEFORE = LOSSY - {"webp"}  # whose files say it themselves


@dataclass(frozen=True)
class WebpCoding(Coding):
    """Whether the file's pixels were coded without loss."""

    lossless: bool = True


def probe(stream: BinaryIO) -> Probe:
    """Reads the chunk headers and the first bytes of the picture. Raises FormatError."""
    size: tuple[int, int] | None = None
    alpha, frames = False, 0
    for name, length in _walked(stream):
        head = stream.read(min(length, 10))
        if name == b"VP8X" and len(head) == 10:
            alpha = bool(head[0] & HAS_ALPHA)
            size = (int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1)
        elif name == b"VP8L" and len(head) >= 5 and head[0] == 0x2F:
            bits = int.from_bytes(head[1:5], "little")
            alpha |= bool(bits >> 28 & 1)
            size = size or ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif name == b"VP8 " and len(head) == 10:
            width, height = (int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (6, 8))
            size = size or (width, height)
        elif name == b"ANMF":
            frames += 1
    if size is None:
        raise FormatError("is truncated or damaged: no picture in the WebP file")
    return Probe("webp", *size, channels=3, bit_depth=8, frames=max(frames, 1), alpha=alpha)


def read(stream: BinaryIO) -> Image:
    """Reads the file; an image whose alpha is opaque everywhere may come without alpha. FormatError."""
    import imagecodecs

    probed = probe(stream)
    lossless = False
    packets: dict[bytes, bytes] = {}
    for name, length in _walked(stream):
        lossless |= name == b"VP8L"
        if name in (b"EXIF", b"XMP ", b"ICCP"):
            packets[name] = stream.read(length)
    stream.seek(0)
    pixels = imagecodecs.webp_decode(stream.read())
    if pixels.ndim != 3 or pixels.shape[:2] != (probed.height, probed.width):
        raise FormatError("its pixels do not have the size that the header gives")
    alpha = None
    if pixels.shape[2] == 4:
        alpha = np.ascontiguousarray(pixels[..., 3])
        pixels = np.ascontiguousarray(pixels[..., :3])
    exif = packets.get(b"EXIF")
    metadata = Metadata(
        exif=exif.removeprefix(exif_block.PREFIX) if exif else None,
        xmp=packets.get(b"XMP "),
        icc=packets.get(b"ICCP"),
        coding=WebpCoding(lossless),
    )
    return Image(pixels, alpha, "webp", metadata)


def write(image: Image, stream: BinaryIO) -> tuple[str, ...]:
    """Writes 8-bit RGB; the colour of transparent pixels is kept as well. Gives the notices."""
    import PIL.Image

    coding = image.metadata.coding
    lossless = coding.lossless if isinstance(coding, WebpCoding) else image.format not in LOSSY_BEFORE
    colours = np.broadcast_to(image.pixels, (image.height, image.width, 3))
    samples = colours if image.alpha is None else np.dstack([colours, image.alpha])
    icc, notices = image.metadata.icc, ["grey image written as RGB: WebP has no grey"][: image.channels == 1]
    if icc is not None and icc[16:20] == b"GRAY":
        icc = None
        notices.append("grey colour profile not kept: it does not go with RGB")
    packets = {"exif": image.metadata.exif, "xmp": image.metadata.xmp, "icc_profile": icc}
    PIL.Image.fromarray(np.ascontiguousarray(samples)).save(
        stream,
        "WEBP",
        lossless=lossless,
        quality=80 if lossless else QUALITY,
        exact=True,
        **{name: packet for name, packet in packets.items() if packet is not None},
    )
    return tuple(notices)


def _walked(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """(name, length) of each chunk, the stream being at its body."""
    position = 12
    for _ in range(MAX_CHUNKS):
        stream.seek(position)
        head = stream.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        yield head[:4], length
        position += 8 + length + length % 2
