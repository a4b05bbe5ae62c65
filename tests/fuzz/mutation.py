"""Damage: what may become of a file on a bad disk, in a broken program or at the hands of an attacker.

Blind changes (bits, bytes, cuts, insertions) and informed ones that come past the first check: fields with extreme
values, chunks in another order, the tail of another file, checksums and lengths made right again.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

import numpy as np

from fuzz.samples import Sample

EXTREMES = (
    0,
    1,
    2,
    3,
    8,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    2**64 - 1,
)
PNG_START, TIFF_ENTRY, BIG_ENTRY = 8, 12, 20
JSON_BYTES = b'0123456789"{}[],:\\-.e '
SHAPE_TAGS = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339)

Mutation = Callable[[bytearray, np.random.Generator], None]


def mutated_file(sample: Sample, other: Sample, rng: np.random.Generator) -> bytes:
    """`sample` with one to three kinds of damage; `other` gives what is spliced in."""
    data = bytearray(sample.data)
    informed = INFORMED.get(sample.suffix)
    for _ in range(rng.choice([1, 1, 2, 3])):
        if rng.random() < 0.1:
            _splice(data, other.data, rng)
        elif informed is not None and rng.random() < 0.5:
            informed(data, rng)
        else:
            BLIND[rng.integers(len(BLIND))](data, rng)
    # without it, a checksum refuses nearly all of them before a decoder is reached
    if sample.suffix == ".png" and rng.random() < 0.8:
        _mend_png(data)
    return bytes(data)


def mutated_header(checkpoint: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file whose header is damaged; in half of them the length before it is made right again."""
    weights = 8 + int.from_bytes(checkpoint[:8], "little")
    header, rest = bytearray(checkpoint[:weights]), checkpoint[weights:]
    for _ in range(rng.choice([1, 1, 2, 6])):
        kind = rng.integers(8)
        place = int(rng.integers(0, max(len(header), 1)))
        if kind == 0:
            header[place : place + 1] = bytes([rng.choice(list(JSON_BYTES))])
        elif kind == 1:
            header[place : place + 1] = str(EXTREMES[rng.integers(len(EXTREMES))]).encode()
        elif kind == 2:
            header[:8] = int(EXTREMES[rng.integers(len(EXTREMES))]).to_bytes(8, "little")
        elif kind == 3:
            _change_number(header, rng)
        else:
            BLIND[rng.integers(len(BLIND))](header, rng)
    if rng.random() < 0.5:
        header[:8] = max(len(header) - 8, 0).to_bytes(8, "little")
    if rng.random() < 0.1:
        rest = rest[: rng.integers(0, len(rest))]
    return bytes(header) + rest


def _change_number(header: bytearray, rng: np.random.Generator) -> None:
    """Another number in place of one of the JSON text, so that shapes, offsets and the config are reached."""
    digits = [i for i in range(8, len(header)) if chr(header[i]).isdigit() and not chr(header[i - 1]).isdigit()]
    if digits:
        place = digits[rng.integers(len(digits))]
        end = place
        while end < len(header) and chr(header[end]).isdigit():
            end += 1
        values = (*EXTREMES, -1, 1e308, "NaN", "Infinity", "null", '"x"', "[]", 10**400)
        header[place:end] = str(values[rng.integers(len(values))]).encode()


# --- blind -----------------------------------------------------------------------------------------------------------


def _places(data: bytearray, rng: np.random.Generator) -> list[int]:
    # the first bytes hold what decides most
    span = min(len(data), 200) if rng.random() < 0.5 else len(data)
    return [int(place) for place in rng.integers(0, max(span, 1), rng.integers(1, 9)) if place < len(data)]


def _flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    for place in _places(data, rng):
        data[place] ^= 1 << int(rng.integers(8))


def _set_bytes(data: bytearray, rng: np.random.Generator) -> None:
    for place in _places(data, rng):
        data[place] = int(rng.integers(256))


def _truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(0, len(data) + 1)) :]


def _insert(data: bytearray, rng: np.random.Generator) -> None:
    place, start = (int(value) for value in rng.integers(0, len(data) + 1, 2))
    length = int(rng.integers(1, 400))
    data[place:place] = data[start : start + length] if rng.random() < 0.5 else rng.bytes(length)


def _delete(data: bytearray, rng: np.random.Generator) -> None:
    place = int(rng.integers(0, len(data) + 1))
    del data[place : place + int(rng.integers(1, 64))]


def _overwrite(data: bytearray, rng: np.random.Generator) -> None:
    """A number of 2, 4 or 8 bytes becomes an extreme one, or the file's own length."""
    for place in _places(data, rng)[:2]:
        width = int(rng.choice([2, 4, 8]))
        value = int(rng.choice([len(data), 0])) or EXTREMES[rng.integers(len(EXTREMES))]
        order = "little" if rng.random() < 0.5 else "big"
        data[place : place + width] = (value % (1 << (8 * width))).to_bytes(width, order)


def _swap_blocks(data: bytearray, rng: np.random.Generator) -> None:
    first, second = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    length = int(rng.integers(1, 65))
    if second - first >= length and second + length <= len(data):
        _swap(data, slice(first, first + length), slice(second, second + length))


def _swap(data: bytearray, first: slice, second: slice) -> None:
    """Exchanges two stretches of any lengths, the first before the second."""
    data[first.start : second.stop] = data[second] + data[first.stop : second.start] + data[first]


def _splice(data: bytearray, other: bytes, rng: np.random.Generator) -> None:
    start = int(rng.integers(0, len(data) + 1))
    data[start:] = other[min(start, len(other)) if rng.random() < 0.5 else int(rng.integers(0, len(other))) :]


BLIND: tuple[Mutation, ...] = (_flip_bits, _set_bytes, _truncate, _insert, _delete, _overwrite, _swap_blocks)


# --- informed --------------------------------------------------------------------------------------------------------


def _change_chunks(data: bytearray, chunks: list[slice], body: int, rng: np.random.Generator) -> None:
    """Swaps two chunks, doubles or drops one, or damages one's body, which starts `body` bytes in."""
    if len(chunks) < 2:
        return
    first, second = sorted(rng.choice(len(chunks), 2, replace=False))
    kind = rng.integers(4)
    if kind == 0:
        _swap(data, chunks[first], chunks[second])
    elif kind == 1:
        data[chunks[first].start : chunks[first].start] = data[chunks[second]]
    elif kind == 2:
        del data[chunks[first]]
    else:
        part = data[chunks[first].start + body : chunks[first].stop]
        if part:
            BLIND[rng.choice([0, 1, 5])](part, rng)
            data[chunks[first].start + body : chunks[first].start + body + len(part)] = part


def _png_chunks(data: bytearray) -> list[slice]:
    found, position = [], PNG_START
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data):
            break
        found.append(slice(position, end))
        position = end
    return found


def _change_png(data: bytearray, rng: np.random.Generator) -> None:
    chunks = _png_chunks(data)
    pixels = [chunk for chunk in chunks if data[chunk.start + 4 : chunk.start + 8] == b"IDAT"]
    if len(pixels) != 1 or rng.random() < 0.6:
        _change_chunks(data, chunks, 8, rng)
        return
    # damaged below the compression: wrong filters, too many rows or too few
    try:
        raw = bytearray(zlib.decompress(data[pixels[0].start + 8 : pixels[0].stop - 4]))
    except zlib.error:
        return
    BLIND[rng.integers(len(BLIND))](raw, rng)
    body = zlib.compress(bytes(raw))
    data[pixels[0]] = struct.pack(">I", len(body)) + b"IDAT" + body + bytes(4)


def _mend_png(data: bytearray) -> None:
    for chunk in _png_chunks(data):
        data[chunk.stop - 4 : chunk.stop] = struct.pack(">I", zlib.crc32(data[chunk.start + 4 : chunk.stop - 4]))


def _change_jpeg(data: bytearray, rng: np.random.Generator) -> None:
    found, position = [], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        found.append(slice(position, min(end, len(data))))
        position = end
    _change_chunks(data, found, 4, rng)


def _change_webp(data: bytearray, rng: np.random.Generator) -> None:
    found, position = [], 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length + length % 2
        found.append(slice(position, min(end, len(data))))
        position = end
    _change_chunks(data, found, 8, rng)
    if rng.random() < 0.5:
        data[4:8] = struct.pack("<I", max(len(data) - 8, 0))


def _change_tiff(data: bytearray, rng: np.random.Generator) -> None:
    """Another code, type, count or value in one entry of one of the directories, or two entries exchanged."""
    if len(data) < 16:
        return
    order = ">" if data[:2] == b"MM" else "<"
    big = data[2:4] in (b"+\0", b"\0+")
    offset = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    head, stride, number = (8, BIG_ENTRY, "Q") if big else (2, TIFF_ENTRY, "I")
    directories = []
    while 0 < offset < len(data) - head and len(directories) < 8:
        count = int.from_bytes(data[offset : offset + head], "little" if order == "<" else "big")
        end = offset + head + count * stride
        if count == 0 or end + struct.calcsize(number) > len(data):
            break
        directories.append((offset + head, count))
        offset = struct.unpack_from(order + number, data, end)[0]
    if not directories:
        return
    start, count = directories[rng.integers(len(directories))]
    entry = start + int(rng.integers(count)) * stride
    value = EXTREMES[rng.integers(len(EXTREMES))]
    kind = rng.integers(5)
    if kind == 0:
        struct.pack_into(order + "H", data, entry, SHAPE_TAGS[rng.integers(len(SHAPE_TAGS))])
    elif kind == 1:
        struct.pack_into(order + "H", data, entry + 2, int(rng.integers(0, 20)))
    elif kind == 2:
        struct.pack_into(order + number, data, entry + 4, value % (1 << (64 if big else 32)))
    elif kind == 3:
        place = entry + 4 + struct.calcsize(number)
        struct.pack_into(order + number, data, place, int(rng.choice([0, len(data) - 1])) or value % (1 << 32))
    else:
        other = start + int(rng.integers(count)) * stride
        if other != entry:
            _swap(data, *(slice(place, place + stride) for place in sorted((entry, other))))


def _change_heif(data: bytearray, rng: np.random.Generator) -> None:
    """Another number in one of the boxes before the coded picture, or another length or name of a box there."""
    end = bytes(data).find(b"mdat")
    if end < 16:
        return
    names = [match.start() for match in re.finditer(rb"[a-z][a-zA-Z0-9 ]{3}", data[:end])]
    if rng.random() < 0.5:
        place = int(rng.integers(0, end - 4))
    else:  # the length before a name, or the number behind it
        place = max(0, names[rng.integers(len(names))] + int(rng.choice([-4, 4, 8])))
    struct.pack_into(">I", data, place, EXTREMES[rng.integers(len(EXTREMES))] % (1 << 32))


INFORMED: dict[str, Mutation] = {
    ".png": _change_png,
    ".jpg": _change_jpeg,
    ".tif": _change_tiff,
    ".dng": _change_tiff,
    ".webp": _change_webp,
    ".heic": _change_heif,
}
