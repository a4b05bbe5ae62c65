"""Ctrl-C, SIGTERM and SIGHUP: the end of a program, or a wish that long work looks at between two tiles."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from denoise_se.errors import PREFIX, exit_code_of

SIGNALS = (signal.SIGINT, signal.SIGTERM)
HANG_UP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # the terminal is gone
Handler = Callable[[int, FrameType | None], None]


def end(number: int, frame: FrameType | None) -> None:
    """Ends the program, with a word and the code of the signal."""
    with suppress(OSError):  # who reads it may be gone, by the same Ctrl-C
        os.write(2, f"{PREFIX}interrupted\n".encode())  # straight away: the signal may have come amid a print
    raise SystemExit(exit_code_of(number))


@contextmanager
def ending_at_signals() -> Iterator[None]:
    """Signals end what is in the block; those that a shell had this program ignore stay ignored."""
    with _handling(dict.fromkeys(_heeded((*SIGNALS, *HANG_UP)), end)):
        yield


def _heeded(numbers: Sequence[signal.Signals]) -> list[signal.Signals]:
    """Without those that are ignored, as SIGHUP is under nohup."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Changes nothing outside of the main thread, where Python takes no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stop:
    """Turns SIGINT, SIGTERM and SIGHUP into a wish to stop soon; a second one ends the program at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        with _handling(dict.fromkeys((*SIGNALS, *_heeded(HANG_UP)), self._note)):
            yield self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            end(number, frame)
        self.signal = number
