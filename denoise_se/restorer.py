"""What makes a clean image of a noisy one band by band: the network of a `Denoiser`, or its kept result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from denoise_se.blending import Strength, blended
from denoise_se.checkpoint import CheckpointFile
from denoise_se.level_grid import Known
from denoise_se.scanlines import Scanlines, in_bands
from denoise_se.tiling import Span

Progress = Callable[[int, int], None]
FULL_STRENGTH = Strength()


@dataclass(frozen=True)
class RestoredTile:
    """A tile: the pixels of the image `[h, w, C]` in their own dtype, and the network's full result for them, float32
    in units of the range, not clipped."""

    rows: Span
    columns: Span
    noisy: np.ndarray
    restored: np.ndarray


@dataclass(frozen=True)
class Band:
    """Some rows over the image's full width, before and after: both `[n, W, C]` of the image's dtype."""

    rows: Span
    noisy: np.ndarray
    clean: np.ndarray


class Restorer(ABC):
    """`checkpoint` is that of the network whose results it gives."""

    def __init__(self, checkpoint: CheckpointFile) -> None:
        self.checkpoint = checkpoint

    @property
    def blind(self) -> bool:
        """Whether the network takes no noise level."""
        return not self.checkpoint.config.noise_map

    @abstractmethod
    def noise_level(self, source: Scanlines, sigma: Known | None = None) -> Known:
        """What is known of an image's noise: the level that the network is told, in 8-bit units, or for a blind one how
        the noise was cut off. Raises UsageError."""

    @abstractmethod
    def tiles(self, source: Scanlines, known: Known, progress: Progress | None = None) -> Iterator[RestoredTile]:
        """The tiles of `bands`, row by row, with the network's result as it is."""

    def bands(
        self,
        source: Scanlines,
        known: Known,
        strength: Strength = FULL_STRENGTH,
        progress: Progress | None = None,
    ) -> Iterator[Band]:
        """Denoise an image that is read by rows, from top to bottom; `known` as `noise_level` gives it.

        When a band is given, all that the later ones need of its rows has been read: the caller may overwrite them.
        """
        _, width, channels = source.shape
        if strength.is_zero:
            for rows, noisy in as_they_are(source):
                yield Band(rows, noisy, noisy)
            return
        for tile in self.tiles(source, known, progress):
            if tile.columns.start == 0:
                noisy, clean = (np.empty((len(tile.noisy), width, channels), source.dtype) for _ in range(2))
            columns = tile.columns.slice
            noisy[:, columns] = tile.noisy
            clean[:, columns] = blended(tile.noisy, tile.restored, strength)
            if tile.columns.stop == width:
                yield Band(tile.rows, noisy, clean)


def as_they_are(source: Scanlines) -> Iterator[tuple[Span, np.ndarray]]:
    """The rows of an image, BAND at a time, `[n, W, C]` of its dtype."""
    for start, rows in in_bands(source):
        yield Span(start, start + len(rows)), np.array(rows)
