"""Files that appear under their name whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from denoise_se.errors import DenoiseError, reason
from denoise_se.remote_files import Address, Location

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# short, so that it fits beside any name, and hidden; what a killed run leaves behind can be told by it
TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{8}\.tmp")


def temporary_path(folder: Path) -> Path:
    """A new name in a folder that TEMPORARY_NAME knows."""
    return folder / f".{secrets.token_hex(4)}.tmp"


@contextmanager
def replacing(path: str | Location) -> Iterator[BinaryIO]:
    """A new file, open for reading and writing, that takes the place of `path` when the block ends without an error.

    It is written under a temporary name in the same folder and synced to the disk, then renamed and the folder synced,
    so that a kill or a power cut at any moment leaves either the old file or the new one. After an error nothing is
    left behind. An object of a store is uploaded at the end. Raises OSError.
    """
    if isinstance(path, Address):
        with path.replacing() as stream:
            yield stream
        return
    path = Path(path)
    temporary = temporary_path(path.parent)
    try:
        with temporary.open("x+b") as stream:
            lock(stream)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def write_whole(path: str | Path, content: bytes, kind: type[DenoiseError] = DenoiseError, mend: str = "") -> None:
    """Write a file, whole or not at all. Raises an error of that kind with its name, the reason and the mend."""
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise kind(f"{path}: cannot be written ({reason(error)}){mend and f'; {mend}'}") from error


def remove_temporary_files(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder, as far as that may be done; those that are
    being written stay, where files can be locked."""
    with suppress(OSError):
        found = [path for path in folder.iterdir() if TEMPORARY_NAME.fullmatch(path.name) and path.is_file()]
        for path in found:
            with suppress(OSError):
                with path.open("rb") as stream:
                    abandoned = lock(stream) is not False
                if abandoned:  # closed first, as Windows deletes no file that is open
                    path.unlink()


def lock(stream: BinaryIO) -> bool | None:
    """Lock a file as long as it is open; False if it is locked already, by another process or through another stream.
    None, and nothing happens, where there are no such locks, as on Windows and some network drives."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sync_folder(folder: Path) -> None:
    # some systems and network drives cannot sync a folder; the file itself is safe by then
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
