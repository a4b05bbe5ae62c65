"""Streams that lose what cannot be written: the reader is gone or the disk full, and the work is worth more."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO


def open_streams() -> None:
    """Standard streams that are closed lead nowhere. Else their numbers would be those of the next files that are
    opened, into which whatever is printed would go."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the least free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


class Forgiving:
    """A text stream in front of another; `lost` is told of what could not be written."""

    def __init__(self, stream: TextIO, lost: Callable[[], None] = lambda: None) -> None:
        self.stream, self.lost = stream, lost

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self.lost()
            return 0

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self.lost()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
