"""A network's result for one image kept on disk: another strength or format then needs no second run of the network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from denoise_se.denoiser import Denoiser
from denoise_se.errors import ImageError, reason
from denoise_se.level_grid import Known
from denoise_se.restorer import Progress, RestoredTile, Restorer
from denoise_se.scanlines import Scanlines
from denoise_se.tiling import Span

_ROWS = 256  # given at a time


class Recorded(Restorer):
    """For the one image that was recorded: gives what the network gave, without running it, to the last bit."""

    def __init__(self, denoiser: Denoiser, level: Known, path: Path) -> None:
        super().__init__(denoiser.checkpoint)
        self.level, self.path = level, path

    def noise_level(self, source: Scanlines, sigma: Known | None = None) -> Known:
        """The level that the recorded run used."""
        return self.level

    def tiles(self, source: Scanlines, known: Known, progress: Progress | None = None) -> Iterator[RestoredTile]:
        """Rows over the full width. Raises ImageError when the record is gone or of another image."""
        try:
            restored = np.load(self.path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ImageError(self.path, "the kept result is gone; denoise the image again") from error
        if restored.shape != source.shape:
            raise ImageError(self.path, f"is of an image of shape {restored.shape}, not {source.shape}")
        height, width, _ = source.shape
        for start in range(0, height, _ROWS):
            rows = Span(start, min(start + _ROWS, height))
            noisy = source.rows(rows.start, rows.stop)
            yield RestoredTile(rows, Span(0, width), noisy, np.array(restored[rows.slice]))


def record(
    denoiser: Denoiser, source: Scanlines, path: Path, sigma: Known | None = None, progress: Progress | None = None
) -> Recorded:
    """Run the network over an image and keep its full result as a .npy file `[H, W, C]` float32 in units of the range.

    Args:
        sigma, progress: as for `Denoiser.denoise`; what `progress` raises stops the work within a tile.

    Raises:
        UsageError: a sigma that is no noise level.
        ImageError: the file cannot be written.
    """
    level = denoiser.noise_level(source, sigma)
    try:
        restored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=source.shape)
        if hasattr(os, "posix_fallocate"):  # writing to a mapped page that finds no space would end the process
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ImageError(path, f"cannot be written ({reason(error)})") from error
    for tile in denoiser.tiles(source, level, progress):
        restored[tile.rows.slice, tile.columns.slice] = tile.restored
    restored.flush()
    return Recorded(denoiser, level, path)
