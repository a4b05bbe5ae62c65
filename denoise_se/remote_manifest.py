"""The ledger of a run whose outputs go to an object store, where nothing can be appended to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any
from uuid import uuid4

from denoise_se.errors import UsageError, reason
from denoise_se.manifest import Entry, Facts, Ledger, Manifest, Stamp, entries_of, identity, settings_digest
from denoise_se.remote_files import Address, Location

FOLDER = ".denoise-se-manifest"
MOST_ENTRIES, MOST_SECONDS = 500, 30.0  # of a part
MOST_PARTS = 50  # more are put together


class RemoteLedger(Ledger):
    """Entries are kept after the output is there and hold its identity, so they need not be kept at once: what a kill
    loses of them is done again."""

    def is_done(self, relative: PurePath, source: Location, target: Location) -> bool:
        entry = self.entries.get(relative.as_posix())
        if entry is None or entry.get("settings") != self.settings:
            return False
        return entry.get("input_identity") == identity(source) and entry.get("made") == identity(target) is not None

    def announce(self, relative: PurePath, target: Location, stamp: Stamp, facts: Facts) -> None:
        """Nothing is kept before the output is there."""

    def complete(self, relative: PurePath, target: Location, stamp: Stamp, facts: Facts) -> None:
        """Record that `target` was made from the input of `stamp`. Raises OSError."""
        entry = {
            "output": relative.as_posix(),
            "input": stamp.digest,
            "input_identity": stamp.identity,
            "settings": self.settings,
            "made": identity(target),
            "facts": dict(facts),
        }
        self.keep(entry)
        self.entries[relative.as_posix()] = entry


class RemoteManifest(RemoteLedger):
    """The ledger as objects of a folder below the outputs, each with some hundred JSON lines."""

    def __init__(self, home: Address, settings: Mapping[str, Any], *, read: bool = True) -> None:
        """`read` False is for who only appends."""
        super().__init__(settings_digest(settings), {}, self.append)
        self.folder = home / FOLDER
        self.lock = threading.Lock()
        self._forget()
        try:
            parts = sorted(self.folder.names()) if read else []
            for part in parts:
                content = (self.folder / part).read_bytes()
                self.entries.update(entries_of(content.decode(errors="replace").splitlines()))
            if len(parts) > MOST_PARTS:
                self._write(list(self.entries.values()))
                for part in parts:
                    (self.folder / part).unlink()
        except OSError as error:
            raise UsageError(f"{error.filename or self.folder}: cannot be used ({reason(error)})") from error

    def append(self, entry: Entry) -> None:
        """Raises OSError."""
        with self.lock:
            self.pending.append(entry)
            if len(self.pending) >= MOST_ENTRIES or time.monotonic() - self.since > MOST_SECONDS:
                self._write(self.pending)
                self._forget()

    def close(self) -> None:
        """Raises OSError."""
        with self.lock:
            if self.pending:
                self._write(self.pending)
                self._forget()

    def _forget(self) -> None:
        self.pending: list[Entry] = []
        self.since = time.monotonic()

    def _write(self, entries: list[Entry]) -> None:
        # sorted by time, so that the later of two entries for one output counts
        name = f"{time.time_ns():020d}-{uuid4().hex[:8]}.jsonl"
        (self.folder / name).write_bytes("\n".join(map(json.dumps, entries)).encode())


def open_manifest(home: Location, settings: Mapping[str, Any], *, read: bool = True) -> Manifest | RemoteManifest:
    """The manifest of an output folder. Raises UsageError when it cannot be read."""
    if isinstance(home, Address):
        return RemoteManifest(home, settings, read=read)
    return Manifest(home, settings, read=read)


def ledger(home: Location, settings: str, entries: dict[str, Entry], keep: Callable[[Entry], None]) -> Ledger:
    """One for a part of a run, as `open_manifest` would give it; `settings` is their digest."""
    return (Ledger if isinstance(home, Path) else RemoteLedger)(settings, entries, keep)
