"""PNG (W3C PNG, third edition): pixels through libpng, chunks through a copier of our own.

No one library gives 16-bit RGB together with the metadata, so the ancillary chunks are taken from the file as they are
and put back into the encoded file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from denoise_se.adam7 import Pass, deinterlaced, passes
from denoise_se.exif import METRES_PER_INCH
from denoise_se.image import Coding, FormatError, Image, Metadata, Probe

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
# of tRNS: a grey or colour that is transparent, or the alpha of each entry of the palette
KEY_LENGTHS = {GREY: (2,), RGB: (6,), PALETTE: range(1, 257)}
INFLATE_STEP = 1 << 20
COLOUR_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 3, GREY_ALPHA: 1, RGB_ALPHA: 3}
# says how to show the pixels or describes the file, and still holds when the pixels change
COLOUR_CHUNKS = frozenset({b"cHRM", b"gAMA", b"sRGB", b"cICP", b"mDCV", b"cLLI"})
# what they hold for sRGB, which is what files without them are taken for
SRGB_CHUNKS = {
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    b"cICP": bytes([1, 13, 0, 1]),
}
TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
KEPT_CHUNKS = COLOUR_CHUNKS | TEXT_CHUNKS | {b"pHYs", b"tIME", b"oFFs", b"sCAL"}
# given in samples of the stored layout, so they only hold when that layout is written again
LAYOUT_CHUNKS = frozenset({b"bKGD", b"sBIT"})
XMP_KEYWORD = b"XML:com.adobe.xmp"
MAX_CHUNKS = 1_000_000
# a limit on what a few bytes may inflate to; the largest press profiles are about 4 MB
MAX_INFLATED = 16 << 20
# runs and Huffman codes only, no search for matches, which filtered rows of a photo hardly have: denoised noisy samples
# become 1 % smaller than at zlib's level 3 in 0.56 of its time, Kodak's photos 2.5 % larger
RLE = 3  # zlib's Z_RLE


@dataclass(frozen=True)
class PngCoding(Coding):
    """The ancillary chunks that are written again, in their order, as (name, body)."""

    chunks: tuple[tuple[bytes, bytes], ...] = ()

    def lost_elsewhere(self, has_profile: bool) -> tuple[str, ...]:
        chunks = dict(self.chunks)
        overruled = {b"gAMA", b"cHRM"} if has_profile or b"sRGB" in chunks else set()
        odd = {name for name in COLOUR_CHUNKS & chunks.keys() if chunks[name] != SRGB_CHUNKS.get(name)} - overruled
        colours = ", ".join(sorted(name.decode() for name in odd - {b"sRGB"}))
        lost = [f"PNG colour space ({colours})"] if colours else []
        return (*lost, "PNG text") if TEXT_CHUNKS & chunks.keys() else tuple(lost)


@dataclass(frozen=True)
class _Header:
    probe: Probe
    depth: int
    colour: int
    interlaced: bool

    @property
    def passes(self) -> tuple[Pass, ...]:
        samples = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}[self.colour]
        return passes(self.probe.width, self.probe.height, samples * self.depth, interlaced=self.interlaced)

    @property
    def raw_bytes(self) -> int:
        """What the pixels inflate to."""
        return sum(part.raw_bytes for part in self.passes)


def probe(stream: BinaryIO) -> Probe:
    """Reads the header and walks over the chunks before the pixels. Raises FormatError."""
    return _header(stream).probe


def read(stream: BinaryIO) -> Image:
    """Reads the file. Palette, 1-, 2- and 4-bit images and colour keys are widened, with a notice. FormatError."""
    header = _header(stream)
    height, width = header.probe.height, header.probe.width
    stream.seek(0)
    data = stream.read()
    chunks = _checked_chunks(data)
    _check_amount(data, chunks, header.raw_bytes)
    ancillary = [(name, data[start : start + length]) for name, start, length in chunks if name[0] & 0x20]
    left_over = len(data) - chunks[-1][1] - 4
    needed = _needed_chunks(chunks, header.colour)
    pixels = _interlaced(data, needed, header) if header.interlaced else _straight(data, needed)
    if pixels.shape[:2] != (height, width):
        raise FormatError("its pixels do not have the size that the header gives")
    pixels = pixels.reshape(height, width, -1)
    alpha = None
    if pixels.shape[2] in (2, 4):
        alpha = np.ascontiguousarray(pixels[..., -1])
        pixels = np.ascontiguousarray(pixels[..., :-1])
    has_key = alpha is not None and header.colour in (GREY, RGB)
    notices = []
    if header.colour == PALETTE:
        notices.append("palette image written as RGB" + (" with alpha" if alpha is not None else ""))
    elif header.depth < 8:
        notices.append(f"{header.depth}-bit image written as 8-bit grey")
    if has_key:
        notices.append("transparent colour (tRNS) written as an alpha channel")
    if left_over:
        notices.append(f"{left_over:,} bytes after the end of the image not kept")
    same_layout = header.depth >= 8 and header.colour != PALETTE and not has_key
    metadata, dropped = _metadata(ancillary, same_layout)
    return Image(pixels, alpha, "png", metadata, (*notices, *dropped))


def write(image: Image, stream: BinaryIO) -> tuple[str, ...]:
    """Writes 8- or 16-bit pixels losslessly with the metadata; gives the notices."""
    import imagecodecs

    samples = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
    raw = samples.nbytes + len(samples)  # each row begins with the number of its filter
    # by itself the encoder does not reckon with these: tall images of few columns did not fit into what it allocated
    room = raw + raw // 64 + 4096
    encoded = memoryview(imagecodecs.png_encode(np.ascontiguousarray(samples), strategy=RLE, out=room))
    header_end = len(SIGNATURE) + 25
    stream.write(encoded[:header_end])
    for name, body in _chunks_to_write(image.metadata):
        stream.write(_chunk(name, body))
    stream.write(encoded[header_end:])
    return ()


def _header(stream: BinaryIO) -> _Header:
    stream.seek(len(SIGNATURE))
    head = stream.read(25)
    if len(head) < 25 or head[4:8] != b"IHDR" or head[:4] != b"\0\0\0\r":
        raise FormatError("is truncated or damaged: no PNG header")
    width, height, depth, colour, compression, filtering, interlaced = struct.unpack(">IIBBBBB", head[8:21])
    if depth not in DEPTHS.get(colour, ()):
        raise FormatError(f"is damaged: colour type {colour} with {depth} bits does not exist in PNG")
    if compression or filtering or interlaced > 1:
        raise FormatError("is damaged: its header names a way of coding that does not exist in PNG")
    frames, alpha = 1, colour in (GREY_ALPHA, RGB_ALPHA)
    for _ in range(MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            break
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"acTL":
            frames = int.from_bytes(stream.read(4), "big")
            length -= 4
        alpha |= head[4:] == b"tRNS"
        stream.seek(length + 4, 1)
    bit_depth = 16 if depth == 16 else 8
    probed = Probe("png", width, height, COLOUR_CHANNELS[colour], bit_depth, max(frames, 1), alpha)
    return _Header(probed, depth, colour, interlaced != 0)


def _checked_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """(name, start of the body, length) of the chunks up to IEND. FormatError when one is cut or wrong."""
    view = memoryview(data)
    chunks: list[tuple[bytes, int, int]] = []
    position = len(SIGNATURE)
    while len(chunks) < MAX_CHUNKS:
        length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        start, position = position + 8, position + length + 12
        if position > len(data):
            break
        if zlib.crc32(view[start - 4 : position - 4]) != int.from_bytes(data[position - 4 : position], "big"):
            raise FormatError(f"is damaged: wrong checksum in its {name.decode('latin-1')} chunk")
        chunks.append((name, start, length))
        if name == b"IEND":
            return chunks
    raise FormatError("is truncated: it ends before the end of the image")


def _check_amount(data: bytes, chunks: list[tuple[bytes, int, int]], expected: int) -> None:
    """Inflates the pixels piece by piece, to refuse too few of them, and a bomb of too many that libpng would inflate.

    Costs about a quarter of the time of reading, and is the only way to know before decoding.
    """
    inflater = zlib.decompressobj()
    view, amount = memoryview(data), 0
    try:
        for name, start, length in chunks:
            pending: bytes | memoryview = view[start : start + length] if name == b"IDAT" else b""
            while len(pending) and not inflater.eof and amount <= expected:
                amount += len(inflater.decompress(pending, INFLATE_STEP))
                pending = inflater.unconsumed_tail
    except zlib.error as error:
        raise FormatError(f"is damaged: {error}") from error
    if amount > expected:
        raise FormatError("is damaged: it holds more pixels than its header gives")
    if amount < expected or not inflater.eof:
        raise FormatError("is truncated or damaged: it holds fewer pixels than its header gives")


def _needed_chunks(chunks: list[tuple[bytes, int, int]], colour: int) -> list[tuple[bytes, int, int]]:
    """Only the chunks that the pixels need: about others libpng would print warnings of its own."""
    needed = []
    seen = set[bytes]()
    for name, start, length in chunks:
        wanted = name in (b"IHDR", b"IDAT", b"IEND")
        wanted |= name == b"PLTE" and colour == PALETTE
        wanted |= name == b"tRNS" and b"IDAT" not in seen and length in KEY_LENGTHS.get(colour, ())
        if wanted and not (name in seen and name != b"IDAT"):
            needed.append((name, start, length))
        seen.add(name)
    return needed


def _straight(data: bytes, chunks: list[tuple[bytes, int, int]]) -> np.ndarray:
    import imagecodecs

    view = memoryview(data)
    return imagecodecs.png_decode(
        b"".join([SIGNATURE, *(view[start - 8 : start + length + 4] for _, start, length in chunks)])
    )


def _interlaced(data: bytes, chunks: list[tuple[bytes, int, int]], header: _Header) -> np.ndarray:
    """Each pass is decoded as an image of its own: whole interlaced files make libpng print a warning."""
    import imagecodecs

    bodies = [(name, data[start : start + length]) for name, start, length in chunks]
    colours = [(name, body) for name, body in bodies if name in (b"PLTE", b"tRNS")]

    def decode(part: Pass, rows: memoryview) -> np.ndarray:
        head = struct.pack(">IIBBBBB", part.width, part.height, header.depth, header.colour, 0, 0, 0)
        whole = [(b"IHDR", head), *colours, (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]
        decoded = imagecodecs.png_decode(SIGNATURE + b"".join(_chunk(name, body) for name, body in whole))
        return decoded.reshape(part.height, part.width, -1)

    raw = zlib.decompress(b"".join(body for name, body in bodies if name == b"IDAT"))
    return deinterlaced(memoryview(raw), header.passes, decode)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _metadata(chunks: list[tuple[bytes, bytes]], same_layout: bool) -> tuple[Metadata, list[str]]:
    exif = xmp = icc = dpi = None
    kept: list[tuple[bytes, bytes]] = []
    notices: list[str] = []
    for name, body in chunks:
        if name == b"eXIf":
            exif = body
        elif name == b"iCCP":
            icc = _inflated(body[body.find(b"\0") + 2 :])
            if icc is None:
                notices.append("damaged or oversized colour profile not kept")
        elif name == b"iTXt" and xmp is None and (packet := _xmp(body)) is not None:
            xmp = packet
        elif name == b"pHYs" and len(body) == 9 and body[8] == 1:
            across, down = struct.unpack(">II", body[:8])
            dpi = (across * METRES_PER_INCH, down * METRES_PER_INCH)
        elif name in KEPT_CHUNKS or (name in LAYOUT_CHUNKS and same_layout) or _is_safe_to_copy(name):
            kept.append((name, body))
    return Metadata(exif=exif, xmp=xmp, icc=icc, dpi=dpi, coding=PngCoding(tuple(kept))), notices


def _is_safe_to_copy(name: bytes) -> bool:
    """An unknown chunk that holds whatever becomes of the pixels says so by a small fourth letter (PNG 5.4)."""
    return bool(name[3] & 0x20) and name not in LAYOUT_CHUNKS


def _xmp(body: bytes) -> bytes | None:
    keyword, _, rest = body.partition(b"\0")
    if keyword != XMP_KEYWORD or len(rest) < 2:
        return None
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None
    return _inflated(parts[2]) if rest[0] == 1 else parts[2]


def _inflated(body: bytes) -> bytes | None:
    """None where it is damaged or larger than MAX_INFLATED."""
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(body, MAX_INFLATED)
    except zlib.error:
        return None
    return inflated if inflater.eof else None


def _chunks_to_write(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    if metadata.icc is not None:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc, 9)
    coding = metadata.coding
    if isinstance(coding, PngCoding):
        yield from coding.chunks
    if metadata.dpi is not None:
        yield b"pHYs", struct.pack(">IIB", *(round(dpi / METRES_PER_INCH) for dpi in metadata.dpi), 1)
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif
    if metadata.xmp is not None:
        yield b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp
