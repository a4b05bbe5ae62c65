"""The images of a folder that is only read: for training, calibration and measuring."""

from __future__ import annotations

import os
from pathlib import Path

from denoise_se.errors import DatasetError, reason
from denoise_se.formats import READABLE_SUFFIXES


def image_files(folder: Path) -> list[Path]:
    """All readable image files below `folder` that are not hidden, sorted.

    Links to folders are followed, and each folder is read once, so that links may lead round in a circle.

    Raises:
        DatasetError: no such folder, one below it that cannot be read, or no images.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is a file; give its folder" if folder.is_file() else f"{folder}: no such folder")

    def refuse(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: cannot be read ({reason(error)}); check its rights") from error

    files: list[Path] = []
    seen: set[str] = set()
    for base, subfolders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(base)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        paths = [Path(base, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if path.suffix.lower() in READABLE_SUFFIXES and path.is_file()]
    if not files:
        raise DatasetError(f"{folder}: holds no image ({', '.join(sorted(READABLE_SUFFIXES))})")
    return sorted(files)
