"""Where is printed: tables on standard output, what happens meanwhile on standard error. What cannot be printed, as the
reader is gone or the log's disk full, is no reason to end the work."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

from rich.console import Console
from rich.table import Table

WIDTH_OF_A_FILE = 160


def table_console() -> Console:
    """Standard output, without markup: names of files may hold brackets. As wide as the terminal; wide enough for all
    columns when a file or a pipe reads it."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE, markup=False, emoji=False)


def print_table(table: Table) -> None:
    """The table on standard output, if anybody reads it."""
    try:
        table_console().print(table)
        sys.stdout.flush()
    except OSError:
        nobody_reads()


def nobody_reads() -> None:
    """Standard output goes nowhere from now on, as what it still holds would be tried again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def message_console(**options: Any) -> Console:
    """Standard error, without markup and without line breaks."""
    file = cast(TextIO, _Forgiving(sys.stderr))
    return Console(file=file, soft_wrap=True, highlight=False, markup=False, emoji=False, **options)


class _Forgiving:
    """A stream that loses what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self.stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
