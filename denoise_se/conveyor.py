"""Carries things from the thread that makes them to the one that takes them, a few at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
WAKE = 0.1  # seconds between two looks at whether the taker is still there


class AbandonedError(Exception):
    """The taker takes no more: it failed."""


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Conveyor(Generic[Item]):
    """The maker calls `put` and at last `end` or `fail`; the taker iterates, once; whoever sees it fail calls
    `abandon`."""

    def __init__(self, most: int = 2) -> None:
        self._queue: queue.Queue[Item | _End] = queue.Queue(most)
        self._abandoned = threading.Event()

    def put(self, item: Item) -> None:
        """Waits while `most` items are on the way. Raises AbandonedError."""
        self._put(item)

    def end(self) -> None:
        self._put(_End(None))

    def fail(self, error: BaseException) -> None:
        """Raises `error` in the taker."""
        try:
            self._put(_End(error))
        except AbandonedError:
            return

    def abandon(self) -> None:
        self._abandoned.set()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _put(self, item: Item | _End) -> None:
        while not self._abandoned.is_set():
            try:
                return self._queue.put(item, timeout=WAKE)
            except queue.Full:
                continue
        raise AbandonedError
