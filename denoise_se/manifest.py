"""The record beside a batch's outputs of what each was made from, so that a resumed run knows what is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from denoise_se.errors import ImageError, UsageError

NAME = ".denoise-se-manifest.jsonl"


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes; ImageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})") from error


def settings_digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()


def identity(path: Path) -> list[int] | None:
    """What tells one file under a name from the next: inode, size and time of change; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_ino, status.st_size, status.st_mtime_ns]


@dataclass(frozen=True)
class Stamp:
    """What an input was when it was read: its sha256 and its `identity`."""

    digest: str
    identity: list[int] | None

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Taken before the file is decoded, so that a change in between is seen by the next run. Raises ImageError."""
        known = identity(path)
        return cls(file_digest(path), known)


class Manifest:
    """One JSON line per output, appended and synced just before the output takes its place.

    A line holds the input's digest and identity, the settings' digest, and the identity of the file that the output
    replaces. Outputs appear whole or not at all, so an output is done when it exists, is not the file it was to
    replace, and its line names the same input and settings.
    """

    def __init__(self, home: Path, settings: Mapping[str, Any]) -> None:
        self.path = home / NAME
        self.settings = settings_digest(settings)
        self.entries: dict[str, dict[str, Any]] = {}
        for line in self._lines():
            try:
                entry = json.loads(line)
                self.entries[entry["output"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # a line that a kill cut short: its output is done again

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read ({error.strerror}); remove it or mend it") from error

    def is_done(self, relative: Path, source: Path, target: Path) -> bool:
        """Whether `target` was made from this very `source` with these settings."""
        entry = self.entries.get(relative.as_posix())
        now = identity(target)
        if entry is None or now is None or entry.get("settings") != self.settings or entry.get("replaces") == now:
            return False
        return entry.get("input_identity") == identity(source) or entry.get("input") == file_digest(source)

    def announce(self, relative: Path, target: Path, stamp: Stamp) -> None:
        """Record that `target` is about to be replaced by the result of the input of `stamp`. Raises OSError."""
        entry = {
            "output": relative.as_posix(),
            "input": stamp.digest,
            "input_identity": stamp.identity,
            "settings": self.settings,
            "replaces": identity(target),
        }
        with self.path.open("ab") as file:
            # the line break comes first, so that a line that a kill cut short does not swallow this one
            file.write(b"\n" + json.dumps(entry).encode())
            file.flush()
            os.fsync(file.fileno())
        self.entries[relative.as_posix()] = entry
