"""int8 that is computed again in fp32 where its result cannot be right.

The ranges of int8 are those of the calibration's pictures. A picture of another kind may leave them, and then comes out
as something else altogether: checks of one pixel under noise of sigma 5 at 12 dB instead of 40. The noise level tells:
a result that is right lies no further from the noisy picture than the noise that was in it, which is less where
it was cut off at black and white.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from denoise_se.backends import WHOLE, Backend, WindowPlace
from denoise_se.tiling import BLOCK

log = logging.getLogger(__name__)

# Times the noise's standard deviation that the root mean square of what is taken out of a block may reach: right
# results came to 1.19, on photographs with a sigma that was right, too low or too high; checks and lines of a pixel to
# between 1.3 and 8.
MOST = 1.3
SURE = 8.0  # standard deviations of the mean square of few values, in the smallest blocks
CODE = 1 / 255
Made = TypeVar("Made")


class _Once(Generic[Made]):
    """Calls `make` at its first call, whichever thread it comes from."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self.make, self.making = make, threading.Lock()
        self.made: Made | None = None

    def __call__(self) -> Made:
        with self.making:
            if self.made is None:
                self.made = self.make()
            return self.made


@dataclass(frozen=True)
class Gates:
    """Those of either backend; the exact ones are found when they are needed."""

    quick: np.ndarray
    exact: _Once[np.ndarray]


class GuardedBackend:
    """A `quick` backend, and in its place, block by block, the `exact` one, which is made at its first use.

    The blocks lie where they lie in the image, whatever the windows. `margin` is the network's, see `Network.forward`.
    """

    def __init__(self, quick: Backend, exact: Callable[[], Backend], margin: int) -> None:
        self.quick, self.exact, self.margin = quick, _Once(exact), margin
        self.description, self.halo, self.lanes = quick.description, quick.halo, quick.lanes

    def in_lanes(self) -> GuardedBackend:
        return GuardedBackend(self.quick.in_lanes(), self.exact, self.margin)

    def fine(self) -> GuardedBackend:
        return GuardedBackend(self.quick.fine(), self.exact, self.margin)

    def unquantised(self) -> Backend:
        return self.exact()

    def each(self, change: Callable[[Backend], Backend]) -> GuardedBackend:
        """The same of both backends after a change."""
        return GuardedBackend(change(self.quick), lambda: change(self.exact()), self.margin)

    def squeeze(self, windows: np.ndarray, level: np.ndarray) -> Gates:
        return Gates(self.quick.squeeze(windows, level), _Once(lambda: self.exact().squeeze(windows, level)))

    def denoise(
        self, window: np.ndarray, level: np.ndarray, gates: Gates | None, place: WindowPlace = WHOLE
    ) -> np.ndarray:
        restored = self.quick.denoise(window, level, None if gates is None else gates.quick, place)
        top, bottom, left, right = (self.margin * side for side in place.cut)
        height, width = window.shape[-2:]
        core = (..., slice(top, height - bottom), slice(left, width - right))
        at = place.row, place.column
        uncut = None if place.uncut is None else place.uncut[core]
        broken = takes_too_much(window[core], restored, level[core], at, uncut, place.ends)
        if broken.any():
            better = self.exact().denoise(window, level, None if gates is None else gates.exact(), place)
            rows, columns = (edges(start, length) for start, length in zip(at, restored.shape[2:], strict=True))
            for row, column in np.argwhere(broken):
                block = (..., slice(*rows[row : row + 2]), slice(*columns[column : column + 2]))
                restored[block] = better[block]
        return restored


def takes_too_much(
    noisy: np.ndarray,
    restored: np.ndarray,
    level: np.ndarray,
    at: tuple[int, int] = (0, 0),
    uncut: np.ndarray | None = None,
    ends: tuple[float, float] = (0.0, 1.0),
) -> NDArray[np.bool_]:
    """In which blocks, [rows, columns] of them, more is taken out of [1, C, h, w] than noise of `level` [1, 1, h, w],
    which files cut off at these `ends`; `at` is where its first pixel lies in the image, whose blocks these are.
    `uncut` [h, w] are the levels before noise was cut off where `level` says what is left of it."""
    _, channels, height, width = noisy.shape
    rows, columns = edges(at[0], height), edges(at[1], width)
    same = not any(level.strides[2:])  # one level, repeated
    broken = np.zeros((len(rows) - 1, len(columns) - 1), bool)
    for found, top, bottom in zip(broken, rows, rows[1:], strict=False):
        strip = (0, slice(None), slice(top, bottom))
        pixels = (bottom - top) * np.diff(columns)
        most = np.maximum(MOST**2, 1 + SURE * np.sqrt(2 / (channels * pixels)))
        change = noisy[strip] - restored[strip]
        with np.errstate(over="ignore"):  # of values beyond 1e19 the square is infinite, which is too much
            square = np.square(change, out=change)
        taken = np.add.reduceat(square.sum((0, 1)), columns[:-1]) / (channels * pixels)
        if same:
            told = np.square(level[0, 0, 0, :1])
        else:
            told = np.add.reduceat(np.square(level[strip]).sum((0, 1)), columns[:-1]) / pixels
        # noise that was cut off at black or white left about as much less of its energy as there are such pixels
        whole = np.logical_and.reduce([noisy[strip] != np.float32(end) for end in ends]).sum((0, 1))
        left = np.add.reduceat(whole, columns[:-1]) / (channels * pixels)
        if uncut is None:
            told = told * left
        else:  # of a block that is half black and half white the mean tells nothing of that
            before = np.add.reduceat(np.square(uncut[top:bottom]).sum(0), columns[:-1]) / pixels
            told = np.minimum(told, before * left)
        found[:] = taken > most * (told + CODE**2)
    return broken


def edges(start: int, length: int) -> NDArray[np.int64]:
    """Where the blocks of an image's axis begin and end in a part of it, counted from the part's `start`."""
    inner = np.arange(start // BLOCK * BLOCK + BLOCK, start + length, BLOCK)
    return np.concatenate([[start], inner, [start + length]]) - start
