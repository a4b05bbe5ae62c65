"""The record beside a batch's outputs of what each was made from, so that a resumed run knows what is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from denoise_se.errors import ImageError, UsageError, reason
from denoise_se.remote_files import Address, Location

NAME = ".denoise-se-manifest.jsonl"


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes; ImageError when it cannot be read or is no regular file."""
    try:
        if not path.is_file():  # opening a pipe would wait for a writer for ever
            path.stat()
            raise ImageError(path, "is a folder" if path.is_dir() else "is no regular file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(path, f"cannot be read ({reason(error)})") from error


def settings_digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()


def identity(path: Location) -> list[Any] | None:
    """What tells one file under a name from the next: inode, size and time of change, or size and tag of an object;
    None when there is none."""
    if isinstance(path, Address):
        return path.identity()
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_ino, status.st_size, status.st_mtime_ns]


@dataclass(frozen=True)
class Stamp:
    """What an input was when it was read: its sha256 and its `identity`. An object of a store has no sha256: its tag
    does, and saves reading it twice."""

    digest: str
    identity: list[Any] | None

    @classmethod
    def of(cls, path: Location) -> Stamp:
        """Taken before the file is decoded, so that a change in between is seen by the next run. Raises ImageError."""
        try:
            known = identity(path)
        except OSError as error:
            raise ImageError(path, f"cannot be read ({reason(error)})") from error
        return cls("" if isinstance(path, Address) else file_digest(path), known)


def _size(path: Location) -> int | None:
    """In bytes; None when there is none, or in an object store, which keeps objects whole."""
    found = None if isinstance(path, Address) else identity(path)
    return None if found is None else int(found[1])


Entry = dict[str, Any]
Facts = Mapping[str, Any]


class Ledger:
    """What is known of the outputs of a run with these settings: an entry each, by the output's relative name.

    An entry holds the input's digest and identity, the settings' digest, the identity of the file that the output
    replaces, and `facts` of how it was made, for the report of a resumed run. It is kept just before the output takes
    its place, and outputs appear whole or not at all, so an output is done when it exists, is not the file it was to
    replace, and its entry names the same input and settings. Afterwards it is kept again with the output's size, by
    which one that was damaged since is known.

    settings: their digest. keep: puts an entry where the next run finds it; it raises OSError.
    """

    def __init__(self, settings: str, entries: dict[str, Entry], keep: Callable[[Entry], None]) -> None:
        self.settings, self.entries, self.keep = settings, entries, keep

    def is_done(self, relative: PurePath, source: Location, target: Location) -> bool:
        """Whether `target` was made from this very `source` with these settings."""
        entry = self.entries.get(relative.as_posix())
        now = identity(target)
        if entry is None or now is None or entry.get("settings") != self.settings or entry.get("replaces") == now:
            return False
        if self.is_of_other_size(relative, target):
            return False
        if entry.get("input_identity") == identity(source):
            return True
        return not isinstance(source, Address) and entry.get("input") == file_digest(source)

    def is_of_other_settings(self, relative: PurePath) -> bool:
        """Whether an output of this name was made, but not as this run makes it."""
        entry = self.entries.get(relative.as_posix())
        return entry is not None and entry.get("settings") != self.settings

    def is_of_other_size(self, relative: PurePath, target: Location) -> bool:
        """Whether an output was cut or changed after it was made."""
        made = self.entries.get(relative.as_posix(), {}).get("bytes")
        return made is not None and _size(target) not in (made, None)

    def facts(self, relative: PurePath) -> dict[str, Any]:
        """What was told of how this output was made; empty where nothing was."""
        facts = self.entries.get(relative.as_posix(), {}).get("facts")
        return facts if isinstance(facts, dict) else {}

    def announce(self, relative: PurePath, target: Location, stamp: Stamp, facts: Facts) -> None:
        """Record that `target` is about to be replaced by the result of the input of `stamp`. Raises OSError."""
        entry = {
            "output": relative.as_posix(),
            "input": stamp.digest,
            "input_identity": stamp.identity,
            "settings": self.settings,
            "replaces": identity(target),
            "facts": dict(facts),
        }
        self.keep(entry)
        self.entries[relative.as_posix()] = entry

    def complete(self, relative: PurePath, target: Location, stamp: Stamp, facts: Facts) -> None:
        """Record that `target` has taken its place; `facts` may be more than there were before. Raises OSError."""
        entry = {**self.entries[relative.as_posix()], "facts": dict(facts), "bytes": _size(target)}
        self.keep(entry)
        self.entries[relative.as_posix()] = entry

    def close(self) -> None:
        """At the end of a run. Raises OSError."""


def entries_of(lines: Iterable[str]) -> dict[str, Entry]:
    """By their outputs, the last of each; a line that is none, as one that a kill cut short, is left out: its output is
    done again."""
    found: dict[str, Entry] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("output"), str):
            found[entry["output"]] = entry
    return found


class Manifest(Ledger):
    """The ledger in a file of the output folder: one JSON line per entry, appended and synced."""

    def __init__(self, home: Path, settings: Mapping[str, Any], *, read: bool = True) -> None:
        """`read` False is for who only appends."""
        super().__init__(settings_digest(settings), {}, self.append)
        self.path = home / NAME
        if read:
            self.entries.update(entries_of(self._lines()))

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read ({reason(error)}); remove it or mend it") from error

    def append(self, entry: Entry) -> None:
        """Raises OSError."""
        with self.path.open("ab") as file:
            # the line break comes first, so that a line that a kill cut short does not swallow this one
            file.write(b"\n" + json.dumps(entry).encode())
            file.flush()
            os.fsync(file.fileno())
