"""Cameras' raw files (DNG and those of the makers), developed to 16-bit sRGB through rawpy, an extra.

They are read and never written: the result goes to a TIFF. `raw_development` says how they are developed.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from denoise_se.decoder_process import data_of, decoded, facts_of
from denoise_se.exif import made_upright
from denoise_se.image import FormatError, Image, Metadata, Probe
from denoise_se.srgb_profile import srgb_profile
from denoise_se.tiff_layout import split_tags
from denoise_se.tiff_tags import TagError, TagFile, built_file

SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef")
# most are TIFF files inside; Olympus and Panasonic give them a signature of their own
OWN_SIGNATURES = {b"IIRO": b"II*\0", b"IIRS": b"II*\0", b"MMOR": b"MM\0*", b"IIU\0": b"II*\0"}
_HEADS = re.compile(rb"II\*\0|MM\0\*|IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|.{4}ftypcrx ", re.DOTALL)
DEVELOPMENT = "denoise_se.raw_development"
NOT_INSTALLED = (
    'is a camera\'s raw file, which is read with an extra: pip install "denoise-se[raw]", or develop it to TIFF'
)


def is_raw(head: bytes, suffix: str) -> bool:
    """Whether a file of these first bytes under this suffix is a raw file; only the name tells one from a TIFF."""
    return suffix.lower() in SUFFIXES and _HEADS.match(head) is not None


def probe(stream: BinaryIO) -> Probe:
    """The developed size, without developing. Raises FormatError, also where rawpy is not installed."""
    height, width, _ = facts_of(DEVELOPMENT, _data(stream))["shape"]
    return Probe("raw", width, height, 3, 16)


def read(stream: BinaryIO) -> Image:
    """Develops the file. Its EXIF is kept where it is stored as in a TIFF, with the orientation undone. FormatError."""
    data = _data(stream)
    pixels = decoded(DEVELOPMENT, data).pixels
    if pixels.shape[2] != 3:
        raise FormatError("is a raw file of a kind that is not supported: it has no three colours")
    exif = _exif(data)
    notices = ["camera's raw file developed to 16-bit sRGB"]
    if exif is None:
        notices.append("EXIF not kept: it is not read from this kind of raw file")
    return Image(pixels, None, "raw", Metadata(exif=made_upright(exif), icc=srgb_profile()), tuple(notices))


def _data(stream: BinaryIO) -> bytes:
    return data_of(stream, "rawpy", NOT_INSTALLED)


def _exif(data: bytes) -> bytes | None:
    """The EXIF block, None where there is none or it is stored in another way."""
    head = OWN_SIGNATURES.get(data[:4], data[:4])

    def fetch(offset: int, count: int) -> bytes:
        return (head + data[4:16])[offset:count] if offset == 0 else data[offset : offset + count]

    try:
        tag_file = TagFile.open(fetch, len(data))
        described, _ = split_tags(tag_file.directory(tag_file.first_offset))
        return built_file(described, tag_file.order) if described.tags or described.children else None
    except TagError:
        return None
