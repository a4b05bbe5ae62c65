"""Where tables are printed: as wide as the terminal; wide enough for all columns when a file or a pipe reads them."""

from __future__ import annotations

import sys

from rich.console import Console

WIDTH_OF_A_FILE = 160


def table_console() -> Console:
    """Standard output, without markup: names of files may hold brackets."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE, markup=False, emoji=False)
