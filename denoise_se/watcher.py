"""What long work tells about its progress, and how it is told to stop."""

from __future__ import annotations

from denoise_se.report import Row


class CancelledError(Exception):
    """Raised by a watcher, ends a batch at once: images at work are not written, those told as finished are."""


class Watcher:
    """Told what happens; the command line and the web app each have their own. What it raises stops the work."""

    def row(self, row: Row) -> None:
        """An image is finished, skipped or failed; the row has what there is to know of it."""

    def notice(self, text: str) -> None:
        """Something the user should know of the run."""

    def tiles(self, done: int, total: int) -> None:
        """The share of the current image that is done; of several, from several threads, where many are small."""
