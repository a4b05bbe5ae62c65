"""Cameras' raw files (DNG and those of the makers), developed to 16-bit sRGB through rawpy, an extra.

They are read and never written: the result goes to a TIFF. `raw_development` says how they are developed.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from importlib.util import find_spec
from typing import BinaryIO

import numpy as np

from denoise_se.exif import made_upright
from denoise_se.image import FormatError, Image, Metadata, Probe
from denoise_se.srgb_profile import srgb_profile
from denoise_se.tiff_layout import split_tags
from denoise_se.tiff_tags import TagError, TagFile, built_file

SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef")
# most are TIFF files inside; Olympus and Panasonic give them a signature of their own
OWN_SIGNATURES = {b"IIRO": b"II*\0", b"IIRS": b"II*\0", b"MMOR": b"MM\0*", b"IIU\0": b"II*\0"}
_HEADS = re.compile(rb"II\*\0|MM\0\*|IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|.{4}ftypcrx ", re.DOTALL)
# far more than the largest sensors take
DEVELOPMENT_SECONDS = 900
MOST_SIZES = 10_000
_SIZES: dict[bytes, tuple[int, int]] = {}  # by the sha256 of a file


def is_raw(head: bytes, suffix: str) -> bool:
    """Whether a file of these first bytes under this suffix is a raw file; only the name tells one from a TIFF."""
    return suffix.lower() in SUFFIXES and _HEADS.match(head) is not None


def probe(stream: BinaryIO) -> Probe:
    """The developed size, without developing. Raises FormatError, also where rawpy is not installed."""
    stream.seek(0)
    data = stream.read()
    digest = hashlib.sha256(data).digest()
    size = _SIZES.get(digest)
    if size is None:  # a file is asked for several times, and a process costs a quarter of a second
        (height, width, _), _ = _developed(data, "--size")
        if len(_SIZES) >= MOST_SIZES:
            _SIZES.clear()
        size = _SIZES[digest] = height, width
    height, width = size
    return Probe("raw", width, height, 3, 16)


def read(stream: BinaryIO) -> Image:
    """Develops the file. Its EXIF is kept where it is stored as in a TIFF, with the orientation undone. FormatError."""
    stream.seek(0)
    data = stream.read()
    shape, values = _developed(data)
    pixels = np.frombuffer(values, np.uint16).reshape(shape).copy()
    if pixels.shape[2] != 3:
        raise FormatError("is a raw file of a kind that is not supported: it has no three colours")
    exif = _exif(data)
    notices = ["camera's raw file developed to 16-bit sRGB"]
    if exif is None:
        notices.append("EXIF not kept: it is not read from this kind of raw file")
    return Image(pixels, None, "raw", Metadata(exif=made_upright(exif), icc=srgb_profile()), tuple(notices))


def _developed(data: bytes, *options: str) -> tuple[list[int], bytes]:
    """What `raw_development` says of a file: the shape, and what follows it. Raises FormatError."""
    if find_spec("rawpy") is None:
        raise FormatError(
            'is a camera\'s raw file, which is read with an extra: pip install "denoise-se[raw]", or develop it to TIFF'
        )
    # -P: nothing is imported from the folder that the command runs in
    command = [sys.executable, "-P", "-m", "denoise_se.raw_development", *options]
    try:
        ended = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=DEVELOPMENT_SECONDS,
            check=False,
            # Ctrl-C stops the batch after this image, not this image
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise FormatError(f"cannot be developed within {DEVELOPMENT_SECONDS} s") from error
    if ended.returncode:
        raise _damaged(ended.stdout or f"its decoder ended with {ended.returncode}")
    shape, _, values = ended.stdout.partition(b"\n")
    return [int(side) for side in shape.split()], values


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


def _damaged(reason: object) -> FormatError:
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return FormatError(f"cannot be developed, it is damaged or of an unknown camera ({text.strip()[:100]})")
