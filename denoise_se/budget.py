"""How much of a training run is used up, and whether it was asked to stop: the same answer on all of its processes."""

from __future__ import annotations

import time

from denoise_se.ranks import Ranks
from denoise_se.stop import Stop


class Budget:
    """The steps and minutes of a run, and the wish to stop it.

    Everything that a run does by the clock or on a signal is decided from the last `agree`. Were it decided by each
    process alone, one would stop, save or validate a step before the others, which would wait for it forever.

    Attributes:
        seconds: of training at the last `agree`, those before a resume included.
        signal: what asked for the end, on whichever process; None as long as nothing did.
    """

    def __init__(self, steps: int, minutes: float, *, stop: Stop | None = None, ranks: Ranks | None = None) -> None:
        self.steps, self.minutes = steps, minutes
        self.stop, self.ranks = stop or Stop(), ranks or Ranks()
        self.seconds = 0.0
        self.signal: int | None = None
        self._before = 0.0
        self._began: float | None = None

    def begin(self) -> None:
        """The clock goes on from `seconds`."""
        self._before, self._began = self.seconds, time.monotonic()

    def agree(self) -> None:
        """Read the clocks and signals of all processes: the latest time, any signal. All of them call it together."""
        ours = self._before + (0.0 if self._began is None else time.monotonic() - self._began)
        self.seconds, number = self.ranks.largest(ours, float(self.stop.signal or 0))
        self.signal = int(number) or None

    def progress(self, steps: int) -> float:
        """The used share after `steps` steps, 0 to 1."""
        by_steps = steps / self.steps if self.steps else 0.0
        by_time = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))
