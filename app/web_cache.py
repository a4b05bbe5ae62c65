"""The folder of what people upload and get back: unguessable names, a limit, and nothing older than it may be."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path

from denoise_se.atomic_file import lock
from denoise_se.errors import UsageError
from denoise_se.remote_files import real_path

PREFIX = "denoise-se-web-"
MARK = "in-use"  # a file that a running server holds locked; it names the machine
YOUNG = 10  # seconds
FULL = "the server's space for uploads and results is used up; try again in a few minutes"


class Cache:
    """`root` holds `files`, uploads and results, each in a folder of its own, and `samples`. All of it goes when the
    server ends; what a killed one left in the same parent goes when the next one starts.

    Results lie where Gradio keeps uploads, as it would copy them there otherwise, with its event loop waiting.
    """

    def __init__(self, parent: Path | None, keep_seconds: float, max_bytes: int) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
        self._mark = (self.root / MARK).open("x+b")
        lock(self._mark)
        self._mark.write(socket.gethostname().encode())
        self._mark.flush()
        remove_abandoned(self.root.parent)
        self.files = self.root / "files"
        self.keep_seconds, self.max_bytes = keep_seconds, max_bytes
        self._closed = threading.Event()
        self.files.mkdir()
        self.samples = self.root / "samples"
        with resources.as_file(resources.files("denoise_se.examples")) as shipped:
            for kind in ("noisy", "clean"):
                shutil.copytree(shipped / kind, self.samples / kind)

    def folder(self) -> Path:
        """A new folder for the results of one request. UsageError when there is no room for any."""
        if self.full:
            raise UsageError(FULL)
        return Path(tempfile.mkdtemp(dir=self.files))

    def size(self) -> int:
        """Bytes in all uploads and results; a file of several names counts once."""
        return sum({key: size for key, size, _ in map(_status, _below(self.files))}.values())

    @property
    def full(self) -> bool:
        return self.size() > self.max_bytes

    def holds(self, path: str) -> bool:
        """Whether a path, links followed, lies in here."""
        try:
            return real_path(Path(path)).is_relative_to(self.root)
        except (OSError, ValueError):
            return False

    def keep(self, path: str) -> None:
        """Counts a file's age from now."""
        with suppress(OSError):
            os.utime(path)

    def clean(self, now: float | None = None) -> None:
        """Deletes every upload and result in which nothing has changed for `keep_seconds`."""
        oldest = (time.time() if now is None else now) - self.keep_seconds
        for entry in self.files.iterdir():
            if max(_status(path)[2] for path in (entry, *_below(entry))) >= oldest:
                continue
            shutil.rmtree(entry, ignore_errors=True)
            with suppress(OSError):  # a file by itself: an upload that was broken off
                entry.unlink()

    def clean_regularly(self) -> None:
        """Cleans on a thread of its own until `close`."""

        def run() -> None:
            while not self._closed.wait(max(1.0, min(60.0, self.keep_seconds / 4))):
                self.clean()

        threading.Thread(target=run, name="cache", daemon=True).start()

    def close(self) -> None:
        """Deletes all of it."""
        self._closed.set()
        self._mark.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def without_folders(self, message: str) -> str:
        """A message for people: with the names of their files, without those of our folders."""
        return re.sub(rf"{re.escape(str(self.root))}/files/[^/\s]+/(?:photos/|denoised/)?", "", message)


def linked(source: Path, target: Path) -> Path:
    """`target`, another name of the file, or a copy where there are no links. Raises UsageError."""
    try:
        os.link(source, target)
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise UsageError(f"{source.name}: cannot be read ({error.strerror}); upload it again") from error
    return target


def remove_abandoned(parent: Path) -> None:
    """Deletes this user's caches of this machine that no server holds any more, where there are locks to tell by."""
    if not hasattr(os, "getuid"):  # Windows, which has no such locks either
        return
    for root in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it has just gone, or is being made
            status = root.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            with (root / MARK).open("rb") as mark:
                age = time.time() - os.fstat(mark.fileno()).st_mtime
                # a young one may be about to be locked
                if age > YOUNG and mark.read() == socket.gethostname().encode() and lock(mark):
                    for entry in root.iterdir():  # the mark last, for the next try
                        if entry.name != MARK:
                            shutil.rmtree(entry, ignore_errors=True)
                    shutil.rmtree(root, ignore_errors=True)


def _below(folder: Path) -> Iterator[Path]:
    """Files and links; folders that another thread deletes meanwhile are passed over, which `Path.rglob` does not."""
    for base, _, names in os.walk(folder):
        yield from (Path(base, name) for name in names)


def _status(path: Path) -> tuple[tuple[int, int], int, float]:
    """Device and inode, size and time of change; nothing for what another thread has just deleted."""
    try:
        status = path.lstat()
    except OSError:
        return (0, 0), 0, 0.0
    return (status.st_dev, status.st_ino), status.st_size, status.st_mtime
