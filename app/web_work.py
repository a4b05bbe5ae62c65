"""Work on threads of its own, followed from the event loop, stopped by the one who asked for it or when they leave."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from denoise_se.errors import UsageError
from denoise_se.watcher import CancelledError

T = TypeVar("T")
TICK = 0.2  # seconds between two looks at the progress


class FullError(UsageError):
    """So much waits already that nothing more is taken."""


class Work(Generic[T]):
    """A function that runs on a thread of a crew: how far it is, and how to stop it.

    asked: when its owner asked for it, by a clock of theirs.
    """

    def __init__(self, owner: str, asked: float = 0.0) -> None:
        self.owner, self.asked = owner, asked
        self.share = 0.0
        self.label = "Waiting for its turn"
        self.stopped = threading.Event()
        self.replaced = False  # by newer work of the same owner, which is what they look at
        self.future: Future[T] = Future()

    def step(self, share: float, label: str) -> None:
        """Called by the function itself: `share` of 1 is done. Raises CancelledError when it is to end here."""
        self.share, self.label = share, label
        if self.stopped.is_set():
            raise CancelledError

    async def progress(self) -> AsyncIterator[Work[T]]:
        """Yields at once and then at every tick, until the function has ended."""
        waited = asyncio.wrap_future(self.future)
        # seen, though nobody may wait any more: `result` raises it where it can be handled
        waited.add_done_callback(lambda future: future.cancelled() or future.exception())
        while not waited.done():
            yield self
            await asyncio.wait([waited], timeout=TICK)

    def result(self) -> T:
        """What the function returned. Raises what it raised, CancelledError included."""
        try:
            return self.future.result()
        except concurrent.futures.CancelledError as error:  # it had not begun
            raise CancelledError from error

    def stop(self) -> None:
        """Ends it within a tile, at once where it has not begun."""
        self.stopped.set()
        self.future.cancel()


class Crew:
    """So many `threads`, and all work that runs or waits for one, of which there may be so much `waiting`."""

    def __init__(self, threads: int, waiting: int = 64) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="denoise")
        self._most, self._most_waiting = threads + waiting, waiting
        self._lock = threading.RLock()  # a signal's handler may find it held by its own thread
        self._all: set[Work] = set()
        self._ended = False

    @contextmanager
    def started(
        self, function: Callable[[Work[T]], T], owner: str = "", *, replaces: bool = False, asked: float = 0.0
    ) -> Iterator[Work[T]]:
        """Runs `function(work)` as soon as a thread is free; leaving the block stops it within a tile. It may take the
        place of its owner's older work, which ends then, as it does itself where there is newer. FullError where too
        much waits already."""
        work: Work[T] = Work(owner, asked)
        with self._lock:
            older = self._of(owner, asked) if replaces else []
            work.replaced = replaces and self.has_newer(owner, asked)
            if sum(not (other.stopped.is_set() or other in older) for other in self._all) >= self._most:
                raise FullError(f"the queue is full, {self._most_waiting} requests wait in it: try again in a minute")
            for other in older:
                other.replaced = True
                other.stop()
            self._all.add(work)

        def run() -> T:
            work.step(0.0, "Starting")
            return function(work)

        try:
            work.future = self._threads.submit(run)
            if self._ended:  # the queue of a server that ends still hands over what waits in it
                work.stopped.set()
            if work.replaced:
                work.stop()
            yield work
        finally:
            work.stop()
            with self._lock:
                self._all.discard(work)

    def stop(self, owner: str, asked: float = math.inf) -> None:
        """Ends the work of one owner; what they asked for after this stays, as a request may overtake another."""
        for work in self._of(owner, asked):
            work.stop()

    def has_newer(self, owner: str, asked: float) -> bool:
        """Whether there is work that its owner asked for after that."""
        return len(self._of(owner)) > len(self._of(owner, asked))

    def end(self) -> None:
        """Ends all work within a tile, and what is started from now on at once."""
        self._ended = True
        with self._lock:
            every = list(self._all)
        for work in every:
            work.stop()

    def close(self) -> None:
        """Ends all work; returns when every thread is free."""
        self.end()
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def running(self) -> int:
        """How much work is on a thread."""
        with self._lock:
            return sum(work.future.running() for work in self._all)

    @property
    def waiting(self) -> int:
        """How much work waits for one."""
        with self._lock:
            return sum(not (work.future.running() or work.future.done()) for work in self._all)

    def _of(self, owner: str, asked: float = math.inf) -> list[Work]:
        with self._lock:
            return [work for work in self._all if work.owner == owner and work.asked <= asked]
