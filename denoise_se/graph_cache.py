"""Converted and compiled networks kept on disk between runs: making one takes seconds, reading one a moment.

An entry is one file that appears whole or not at all: a line of JSON with its sha256 and facts, then the bytes. The
cache is never needed: an entry that is damaged, and a folder that cannot be written, are said and gone on without.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from denoise_se.atomic_file import remove_temporary_files, replacing
from denoise_se.errors import reason

ENVIRONMENT = "DENOISE_SE_CACHE"
MOST_ENTRIES = 48  # about 17 MB each; the oldest go first
SUFFIX = ".graph"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What was kept: the bytes, and facts about them that JSON can hold."""

    facts: Mapping[str, Any]
    data: bytes


def cache_folder() -> Path | None:
    """$DENOISE_SE_CACHE, or `denoise-se` in the user's cache folder; None when there is no home, or it is set to ""."""
    named = os.environ.get(ENVIRONMENT)
    if named is not None:
        return Path(named) if named else None
    try:
        if os.environ.get("XDG_CACHE_HOME"):
            base = Path(os.environ["XDG_CACHE_HOME"])
        elif sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        else:
            base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:
        return None
    return base / "denoise-se"


def cached(parts: Mapping[str, Any], make: Callable[[], Entry], accept: Callable[[Entry], bool]) -> Entry:
    """The entry for `parts`, everything that it depends on, taken into use by `accept`; or what `make` makes and uses.

    What is made is kept. When `accept` gives False the entry is made again.
    """
    folder = cache_folder()
    path = None if folder is None else folder / (hashlib.sha256(_json(parts).encode()).hexdigest() + SUFFIX)
    entry = None if path is None else _read(path)
    if entry is not None:
        if accept(entry):
            return entry
        log.warning("note: %s: cannot be used here; made again", path)
    entry = make()
    if path is not None:
        _write(path, entry)
    return entry


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True)


def _read(path: Path) -> Entry | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("note: %s: the cached network cannot be read (%s); made again", path, reason(error))
        return None
    head, _, data = content.partition(b"\n")
    try:
        facts = json.loads(head)
        whole = isinstance(facts, dict) and facts.pop("sha256", None) == _digest(facts, data)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        log.warning("note: %s: the cached network is damaged; made again", path)
        return None
    return Entry(facts, data)


def _digest(facts: Mapping[str, Any], data: bytes) -> str:
    digest = hashlib.sha256(_json(facts).encode())
    digest.update(data)
    return digest.hexdigest()


def _write(path: Path, entry: Entry) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(_json({**entry.facts, "sha256": _digest(entry.facts, entry.data)}).encode() + b"\n")
            file.write(entry.data)
    except OSError as error:
        log.warning(
            "note: %s: cannot be written (%s), so the next start will be slow too; free space, or set %s to a folder "
            'that can be written, or to "" for no cache',
            path.parent,
            reason(error),
            ENVIRONMENT,
        )
        return
    remove_temporary_files(path.parent)
    with suppress(OSError):  # another run may be clearing up too
        entries = sorted(path.parent.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime)
        for old in entries[:-MOST_ENTRIES]:
            old.unlink()
