"""The names of image formats, without what reads and writes them (see formats.py), so that help can list them."""

from __future__ import annotations

from collections.abc import Mapping

# of those that are written; the first suffix is the one that is given to files of this format
FORMATS: Mapping[str, tuple[str, ...]] = {
    "png": (".png",),
    "jpg": (".jpg", ".jpeg"),
    "tiff": (".tiff", ".tif"),
    "webp": (".webp",),
    "bmp": (".bmp",),
    "ppm": (".ppm", ".pgm", ".pnm"),
}
LOSSY = frozenset({"jpg", "webp", "heif"})
UNCOMPRESSED = frozenset({"bmp", "ppm"})
