"""What the command line tells of a batch while it works: problems and notes, JSON lines, a bar or lines of progress."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from denoise_se.alike import Alike
from denoise_se.app.console import output
from denoise_se.report import Row, without_infinity
from denoise_se.watcher import Watcher

SECONDS = 60.0  # between two lines of progress where there is no bar


class ConsoleWatcher(Watcher):
    """Prints notes and problems to `console`, JSON lines to standard output, and moves `bar`.

    total: images. told: a sigma was given. quiet: no lines of progress.
    """

    def __init__(
        self, console: Console, bar: Progress, total: int, *, told: bool, quiet: bool, json_lines: bool
    ) -> None:
        self.console, self.bar, self.total = console, bar, total
        self.told, self.quiet, self.json_lines = told, quiet, json_lines
        self.task = bar.add_task("denoising", total=total)
        self.finished, self.spoke = 0, time.monotonic()
        self.lines = output()  # what an engine prints goes elsewhere
        self.blind: set[str] = set()  # models that were named as such
        self.alike = Alike(" files")

    def row(self, row: Row) -> None:
        self.finished += 1
        if self.told and row.status == "done" and row.sigma is None and row.model not in self.blind:
            self.blind.add(row.model)
            self.notice(f"{row.model} is blind and does not use --sigma; --model color and gray do")
        self.bar.update(self.task, completed=self.finished, description=Path(row.input).name[-40:])
        if row.status == "failed":
            self.console.print(f"{row.input}: failed: {row.error}")
        for text in row.notices if row.status != "skipped" else ():  # told when it was done
            if self.alike.is_told(text):
                self.notice(f"{row.input}: {text}")
        if self.json_lines:
            self._tell(row)
        elif not (self.quiet or self.console.is_terminal) and time.monotonic() - self.spoke > SECONDS:
            self.spoke = time.monotonic()
            self.console.print(f"{self.finished:,} of {self.total:,} images")

    def notice(self, text: str) -> None:
        self.console.print(f"note: {text}")

    def tiles(self, done: int, total: int) -> None:
        if total > 1:
            self.bar.update(self.task, completed=self.finished + done / total)

    def end(self) -> None:
        """Says how many notes were alike and not printed."""
        for line in self.alike.rest():
            self.notice(line)

    def _tell(self, row: Row) -> None:
        print(json.dumps(without_infinity(asdict(row))), file=self.lines, flush=True)
