"""Which format a file is, told by its first bytes and never by its name."""

from __future__ import annotations

import re

from denoise_se.image import FormatError

HEAD_SIZE = 64

_READ = (
    ("png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("jpg", re.compile(rb"\xff\xd8\xff")),
    ("tiff", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    # the size of the second header tells a bitmap from a text that starts with BM
    ("bmp", re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
    ("ppm", re.compile(rb"P[1-6][\s#]")),
    ("heif", re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)),
)

_KNOWN = (
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "PostScript (EPS)"),
    (re.compile(rb"%PDF"), "a PDF document"),
    (re.compile(rb"GIF8"), "a GIF image"),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "an AVIF image"),
    (re.compile(rb".{4}ftypcrx ", re.DOTALL), "a camera's raw file"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "a video"),
    (re.compile(rb"8BPS"), "a Photoshop document"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 image"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "a JPEG XL image"),
    (re.compile(rb"\x76\x2f\x31\x01"), "an OpenEXR image"),
    (re.compile(rb"P7\n|P[Ff]\n"), "a PAM or PFM image"),
    (re.compile(rb"#\?R"), "a Radiance image"),
    (re.compile(rb"SIMPLE  ="), "a FITS file"),
    (re.compile(rb"\x93NUMPY|PK\x03\x04.*\.npy", re.DOTALL), "a NumPy array"),
    (re.compile(rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!"), "a packed archive"),
    (re.compile(rb"\s*<(\?xml|svg|html|!DOCTYPE)", re.IGNORECASE), "an XML or web page"),
)


def format_of(head: bytes) -> str:
    """The format's name from the first HEAD_SIZE bytes. Raises FormatError that says what the file is instead."""
    for name, pattern in _READ:
        if pattern.match(head):
            return name
    if not head:
        raise FormatError("is empty")
    readable = "PNG, JPEG, TIFF, WebP, BMP, PPM or HEIC"
    for pattern, what in _KNOWN:
        if pattern.match(head):
            raise FormatError(f"is {what}, which is not read here: convert it to {readable}")
    if all(byte in b"\t\n\r\f" or 0x20 <= byte < 0x7F or byte >= 0x80 for byte in head):
        raise FormatError(f"is text and not an image ({readable})")
    raise FormatError(f"is not an image that can be read here ({readable}), whatever its name says")
