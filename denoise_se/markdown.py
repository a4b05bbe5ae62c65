"""Tables in markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; a `|` in a cell, as a noise spec or a file's name has it, ends no cell."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    return [f"| {' | '.join(row)} |" for row in (escaped[0], ["---"] * len(header), *escaped[1:])]
