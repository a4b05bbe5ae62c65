"""The geometric self-ensemble: the mean of a network's results on the eight symmetries of a picture.

Timofte, Rothe and Van Gool, "Seven ways to improve example-based single image super resolution", CVPR 2016. It costs
eight times the time and no more memory.
"""

from __future__ import annotations

import numpy as np

from denoise_se.backends import WHOLE, Backend, Sides, WindowPlace

SYMMETRIES = [(turns, flipped) for flipped in (False, True) for turns in range(4)]


class SelfEnsemble:
    """A backend that runs another one eight times; the gates are those of all eight, [1, 8 G] where those
    of one are [1, G].

    `multiple` is the step of the network's down-sampling grid: windows are filled up to it by their last row and
    column, as the network itself does, before they are turned, so that a tile's grid is that of the whole image.
    """

    def __init__(self, backend: Backend, multiple: int) -> None:
        self.backend, self.multiple = backend, multiple
        self.description = f"{backend.description}, self-ensemble of 8"
        self.halo, self.lanes = backend.halo, backend.lanes

    def in_lanes(self) -> SelfEnsemble:
        return SelfEnsemble(self.backend.in_lanes(), self.multiple)

    def fine(self) -> SelfEnsemble:
        return SelfEnsemble(self.backend.fine(), self.multiple)

    def unquantised(self) -> SelfEnsemble:
        return SelfEnsemble(self.backend.unquantised(), self.multiple)

    def squeeze(self, windows: np.ndarray, level: np.ndarray) -> np.ndarray:
        windows, level = self._filled(windows), self._filled(level)
        gates = [self.backend.squeeze(turned(windows, *how), turned(level, *how)) for how in SYMMETRIES]
        return np.concatenate(gates, axis=1)

    def denoise(
        self, window: np.ndarray, level: np.ndarray, gates: np.ndarray | None, place: WindowPlace = WHOLE
    ) -> np.ndarray:
        height, width = window.shape[2:]
        window, level = self._filled(window), self._filled(level)
        parts = [None] * len(SYMMETRIES) if gates is None else np.split(gates, len(SYMMETRIES), axis=1)
        results = (
            turned_back(
                self.backend.denoise(
                    turned(window, *how), turned(level, *how), part, WindowPlace(turned_sides(place.cut, *how))
                ),
                *how,
            )
            for how, part in zip(SYMMETRIES, parts, strict=True)
        )
        total = next(results)
        for result in results:
            total += result
        filled = window.shape[2] - height, window.shape[3] - width
        return total[:, :, : total.shape[2] - filled[0], : total.shape[3] - filled[1]] / np.float32(len(SYMMETRIES))

    def _filled(self, planes: np.ndarray) -> np.ndarray:
        below, right = (-size % self.multiple for size in planes.shape[2:])
        return np.pad(planes, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")


def turned(planes: np.ndarray, turns: int, flipped: bool) -> np.ndarray:
    """[N, C, H, W] turned by quarters to the left, then mirrored from left to right or not."""
    planes = np.rot90(planes, turns, axes=(2, 3))
    return np.ascontiguousarray(planes[..., ::-1] if flipped else planes)


def turned_back(planes: np.ndarray, turns: int, flipped: bool) -> np.ndarray:
    """The inverse of `turned`."""
    return np.rot90(planes[..., ::-1] if flipped else planes, -turns, axes=(2, 3))


def turned_sides(sides: Sides, turns: int, flipped: bool) -> Sides:
    """Where the sides of a window come to lie in `turned`."""
    top, bottom, left, right = sides
    for _ in range(turns):
        top, bottom, left, right = right, left, top, bottom
    return (top, bottom, right, left) if flipped else (top, bottom, left, right)
