"""Where is printed: tables on standard output, what happens meanwhile on standard error. What cannot be printed, as the
reader is gone or the log's disk full, is no reason to end the work."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any, TextIO, cast

from rich.console import Console

from denoise_se.forgiving import Forgiving

WIDTH_OF_A_FILE = 160


def table_console() -> Console:
    """Standard output, without markup: names of files may hold brackets. As wide as the terminal; wide enough for all
    columns when a file or a pipe reads it."""
    width = None if sys.stdout.isatty() else WIDTH_OF_A_FILE
    return Console(file=output(), width=width, markup=False, emoji=False)


def line_console() -> Console:
    """Standard output for sentences: without markup and without line breaks."""
    return Console(file=output(), soft_wrap=True, highlight=False, markup=False, emoji=False)


def output() -> TextIO:
    """Standard output as it is now, whatever takes its place later."""
    return cast(TextIO, Forgiving(sys.stdout, partial(nobody_reads, sys.stdout)))


def nobody_reads(stream: TextIO) -> None:
    """The stream goes nowhere from now on, as what it still holds would be tried again at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def message_console(**options: Any) -> Console:
    """Standard error, without markup and without line breaks."""
    file = cast(TextIO, Forgiving(sys.stderr))
    return Console(file=file, soft_wrap=True, highlight=False, markup=False, emoji=False, **options)
