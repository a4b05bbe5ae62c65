"""int8 that is computed again in fp32 where its result cannot be right.

The ranges of int8 are those of the calibration's pictures. A picture of another kind may leave them, and then comes out
as something else altogether: checks of one pixel under noise of sigma 5 at 12 dB instead of 40. The noise level tells:
a result that is right lies no further from the noisy picture than the noise that was in it.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable

import numpy as np

from denoise_se.backends import WHOLE, Backend, Sides

log = logging.getLogger(__name__)

# Times the noise's standard deviation that the root mean square of what is taken out of a block may reach: right
# results came to 1.17, on photographs with a sigma that was right, too low or too high, and checks of a pixel to 4.8.
MOST = 1.5
BLOCK = 32  # pixels, a block's side
FEWEST = 256  # values whose root mean square means something
CODE = 1 / 255


class GuardedBackend:
    """A `quick` backend, and in its place, window by window, the `exact` one, which is made at its first use.

    `margin` is the network's, see `Network.forward`.
    """

    def __init__(self, quick: Backend, exact: Callable[[], Backend], margin: int) -> None:
        self.quick, self.exact, self.margin = quick, _Once(exact), margin
        self.description, self.halo, self.lanes = quick.description, quick.halo, quick.lanes

    def in_lanes(self) -> GuardedBackend:
        shared = copy.copy(self)
        shared.quick = self.quick.in_lanes()
        return shared

    def squeeze(self, windows: np.ndarray, level: np.ndarray) -> np.ndarray:
        return self.quick.squeeze(windows, level)

    def denoise(
        self, window: np.ndarray, level: np.ndarray, gates: np.ndarray | None, cut: Sides = WHOLE
    ) -> np.ndarray:
        restored = self.quick.denoise(window, level, gates, cut)
        top, bottom, left, right = (self.margin * side for side in cut)
        height, width = window.shape[-2:]
        core = (..., slice(top, height - bottom), slice(left, width - right))
        if not takes_too_much(window[core], restored, level[core]):
            return restored
        return self.exact().denoise(window, level, gates, cut)


class _Once:
    """Calls `make` at its first call, whichever thread it comes from."""

    def __init__(self, make: Callable[[], Backend]) -> None:
        self.make, self.making = make, threading.Lock()
        self.made: Backend | None = None

    def __call__(self) -> Backend:
        with self.making:
            if self.made is None:
                log.warning("note: int8 does not know what is in this picture; such parts are computed in fp32")
                self.made = self.make()
            return self.made


def takes_too_much(noisy: np.ndarray, restored: np.ndarray, level: np.ndarray) -> bool:
    """Whether somewhere more is taken out of [1, C, h, w] than noise of `level` [1, 1, h, w], all in [0, 1]."""
    _, channels, height, width = noisy.shape
    if noisy.size < FEWEST:
        return False
    same = not any(level.strides[2:])  # one level, repeated
    columns, widths = _blocks(width)
    for row, rows in zip(*_blocks(height), strict=True):
        strip = (0, slice(None), slice(row, row + rows))
        change = noisy[strip] - restored[strip]
        taken = np.add.reduceat(np.square(change, out=change).sum((0, 1)), columns) / (channels * rows * widths)
        if same:
            told = np.square(level[0, 0, 0, :1])
        else:
            told = np.add.reduceat(np.square(level[strip]).sum((0, 1)), columns) / (rows * widths)
        if (taken > MOST**2 * (told + CODE**2)).any():
            return True
    return False


def _blocks(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of the blocks that an axis is cut into; the last is up to twice as long as BLOCK."""
    starts = np.arange(0, max(1, length - BLOCK + 1), BLOCK)
    return starts, np.diff(starts, append=length)
