"""A stream that loses what cannot be written: its reader is gone or its disk full, and the work is worth more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO


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
