"""Files that a command was asked to write: refused before any work where they cannot be written."""

from __future__ import annotations

import errno
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from denoise_se.errors import UsageError, reason
from denoise_se.remote_files import real_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_output(option: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """UsageError for a file of `option` whose suffix is none of these, or that cannot be made in an existing folder."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {path}: unknown kind of file; use {', '.join(suffixes)}")
    check_writable(option, path)
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: cannot be written there; name a file in a folder that exists")


def check_writable(option: str, path: Path) -> None:
    """UsageError where no file of this name can be made, its folder with it if need be."""
    check_name(option, path)
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; give a file name")


def check_name(option: str, path: Path) -> None:
    """UsageError where no file or folder of this name can be made: it is too long, a file stands where its folder
    should be, or there may nothing be written."""
    try:
        if any(parent.exists() and not parent.is_dir() for parent in path.parents):
            raise NotADirectoryError(errno.ENOTDIR, "a file stands where its folder should be")
        with suppress(FileNotFoundError):
            path.stat()
        with TemporaryFile(dir=next(parent for parent in path.absolute().parents if parent.exists())):
            pass
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written ({reason(error)}); choose another place") from error


def refuse_among(option: str, picture: Path | None, measured: Sequence[Path]) -> None:
    """UsageError for a picture that would lie in one of the folders that are measured."""
    for folder in measured:
        if picture is not None and real_path(picture).is_relative_to(real_path(folder)):
            raise UsageError(f"{option} {picture}: lies in {folder}, whose pictures are measured; name another place")


def drawn(figure: Figure, suffix: str) -> bytes:
    """A file of one of PLOT_SUFFIXES."""
    picture = io.BytesIO()
    figure.savefig(picture, format=suffix.lower()[1:], dpi=120)
    return picture.getvalue()
