"""The formats of image files: their suffixes, who reads and writes them, and what each can hold.

A new format is a module with `probe`, `read` and `write`, its signature in signatures.py, and an entry in the tables
here and in format_names.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from denoise_se import bmp_file, heif_file, jpeg_file, png_file, ppm_file, raw_file, tiff_file, tiff_writing, webp_file
from denoise_se.conversion import Limits
from denoise_se.exif import METRES_PER_INCH
from denoise_se.format_names import FORMATS as FORMATS
from denoise_se.image import Image, Probe
from denoise_se.remote_files import Location, parse_location


@dataclass(frozen=True)
class Reader:
    """probe: the header of an open file. read: all of it. Both raise FormatError."""

    probe: Callable[[BinaryIO], Probe]
    read: Callable[[BinaryIO], Image]


@dataclass(frozen=True)
class Writer:
    """write: puts an image that fits the limits into an open file and gives the notices."""

    write: Callable[[Image, BinaryIO], tuple[str, ...]]
    limits: Limits


# of formats that are only read, and what is written for them
ONLY_READ = {
    **dict.fromkeys(raw_file.SUFFIXES, "tiff"),
    **dict.fromkeys(heif_file.SUFFIXES, "png"),
    ".pbm": "ppm",  # of 1 bit, read as 8
    ".mpo": "jpg",  # a camera's JPEG with further pictures behind it
}
# of images that are not written, so that a name with one is a mistake and no folder's
FOREIGN = (".avif", ".eps", ".exr", ".fits", ".gif", ".hdr", ".jp2", ".jxl", ".npy", ".pdf", ".psd", ".svg")
NOT_WRITTEN = frozenset((*ONLY_READ, *FOREIGN))
READABLE_SUFFIXES = frozenset((*(suffix for suffixes in FORMATS.values() for suffix in suffixes), *ONLY_READ))

READERS: Mapping[str, Reader] = {
    "png": Reader(png_file.probe, png_file.read),
    "jpg": Reader(jpeg_file.probe, jpeg_file.read),
    "tiff": Reader(tiff_file.probe, tiff_file.read),
    "webp": Reader(webp_file.probe, webp_file.read),
    "bmp": Reader(bmp_file.probe, bmp_file.read),
    "ppm": Reader(ppm_file.probe, ppm_file.read),
    "heif": Reader(heif_file.probe, heif_file.read),
    "raw": Reader(raw_file.probe, raw_file.read),
}
FINEST_32 = 2.0**32 - 2  # of a number of 32 bits
WRITERS: Mapping[str, Writer] = {
    "png": Writer(
        png_file.write, Limits((8, 16), alpha=True, largest_side=1_000_000, finest=FINEST_32 * METRES_PER_INCH)
    ),
    "jpg": Writer(jpeg_file.write, Limits((8,), alpha=False, largest_side=65_500, finest=65_535)),
    "tiff": Writer(tiff_writing.write, Limits((8, 16, 32), alpha=True, largest_side=2**31 - 1, finest=FINEST_32)),
    "webp": Writer(webp_file.write, Limits(depths=(8,), alpha=True, largest_side=16_383, finest=0)),
    "bmp": Writer(
        bmp_file.write,
        Limits((8,), alpha=True, largest_side=2**31 - 1, packets=False, finest=FINEST_32 / 2 * METRES_PER_INCH),
    ),
    "ppm": Writer(ppm_file.write, Limits(depths=(8, 16), alpha=False, largest_side=2**31 - 1, packets=False, finest=0)),
}


def format_of_suffix(path: str | Location) -> str | None:
    """The format that a file's suffix names, None for none of ours."""
    suffix = parse_location(path).suffix.lower()
    return next((name for name, suffixes in FORMATS.items() if suffix in suffixes), None)


def output_suffix(path: str | Location, format: str) -> str:
    """The suffix of the file written for `path`: its own, letter for letter, for "same", else that of the format.

    A raw file, which is not written, becomes a TIFF, a HEIC a PNG.
    """
    suffix = parse_location(path).suffix
    if format == "same" and suffix.lower() not in ONLY_READ:
        return suffix
    return FORMATS[ONLY_READ[suffix.lower()] if format == "same" else format][0]
