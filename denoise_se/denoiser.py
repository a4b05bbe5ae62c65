"""The predictor: a numpy image in, the denoised image out, same shape and dtype."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from denoise_se.backends import Backend, make_backend
from denoise_se.checkpoint import Checkpoint, load_checkpoint
from denoise_se.errors import UsageError
from denoise_se.noise_estimation import estimate_sigma
from denoise_se.tiling import WHOLE_PIXELS, Span, squeeze_windows, tile_grid

AUTO_TILE = 768  # about 400 MB of activations; larger tiles re-read less of their margins
MIN_TILE = 32
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Denoised:
    """A result: `image` like the input, the `sigma` used (8-bit units; None for a blind network), `seconds` taken."""

    image: np.ndarray
    sigma: float | None
    seconds: float


def full_range(dtype: np.dtype) -> float:
    """The value that stands for 1.0: 255, 65535, or 1.0 for floats."""
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


class Denoiser:
    """Denoises numpy images with one checkpoint.

    Example:
        >>> denoiser = Denoiser.load("photo")            # doctest: +SKIP
        >>> clean = denoiser(noisy)                      # doctest: +SKIP
    """

    def __init__(self, checkpoint: Checkpoint, backend: Backend, tile: int | str = "auto") -> None:
        if tile != "auto" and not (type(tile) is int and (tile == 0 or tile >= MIN_TILE)):
            raise UsageError(f"--tile {tile!r}: give auto, 0 for the whole image at once, or at least {MIN_TILE}")
        channels = checkpoint.config.channels
        if channels not in (1, 3):
            raise UsageError(f"{checkpoint.name}: a network of {channels} channels; images have 1 or 3")
        self.checkpoint, self.backend = checkpoint, backend
        self.tile = AUTO_TILE if tile == "auto" else int(tile)
        self.network = checkpoint.config
        self.halo = checkpoint.network().halo

    @classmethod
    def load(
        cls,
        model: str | Path = "photo",
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        tile: int | str = "auto",
    ) -> Denoiser:
        """A denoiser from a catalogue name ("gray", "color", "photo") or the path of a .safetensors checkpoint.

        Args:
            device: "auto", "cpu", "cuda" or "mps".
            backend, precision: see `denoise_se.backends`.
            tile: side of the tiles in pixels, "auto", or 0 for the whole image at once; the result is the same.

        Raises:
            CheckpointError: no such checkpoint, or one that is refused.
            UsageError: a device, backend, precision or tile that cannot be had.
        """
        checkpoint = load_checkpoint(model)
        return cls(checkpoint, make_backend(checkpoint, backend, device, precision), tile)

    @property
    def blind(self) -> bool:
        """Whether the network takes no noise level."""
        return not self.network.noise_map

    def __call__(self, noisy: np.ndarray, sigma: float | np.ndarray | None = None, strength: float = 1.0) -> np.ndarray:
        """Denoise one image; see `denoise` for the arguments and errors. Returns the image alone."""
        return self.denoise(noisy, sigma, strength).image

    def denoise(
        self,
        noisy: np.ndarray,
        sigma: float | np.ndarray | None = None,
        strength: float = 1.0,
        progress: Progress | None = None,
    ) -> Denoised:
        """Denoise one image.

        Args:
            noisy: [H, W] or [H, W, C], C = 1 or 3 (RGB), uint8, uint16 or float. Integers stand for their full range,
                floats for [0, 1]; floats are clipped neither on the way in nor on the way out. A one-channel network
                treats the channels of a colour image one by one; a three-channel one sees a grey image in triplicate.
            sigma: standard deviation of the noise in 8-bit units (25 means 25/255 of the range) for the whole image,
                or a map [H, W] of it; None estimates it. Blind networks ignore it.
            strength: 0 gives the input back exactly, 1 the full result, between them a blend.
            progress: called with (tiles done, tiles in all); what it raises stops the work within a tile.

        Raises:
            UsageError: an array of another shape or dtype, with values that are not finite, or a negative sigma.
        """
        began = time.perf_counter()
        image = check_image(noisy)
        if not 0 <= strength <= 1:
            raise UsageError(f"strength is {strength!r}; it lies from 0 to 1")
        level = None if self.blind else self._level(noisy, sigma)
        output = noisy.copy()
        if strength > 0 and noisy.size:
            self._denoise_tiles(image, output.reshape(image.shape), 0.0 if level is None else level, strength, progress)
        used = None if level is None else float(np.mean(level)) * 255
        return Denoised(output, used, time.perf_counter() - began)

    def _level(self, noisy: np.ndarray, sigma: float | np.ndarray | None) -> float | np.ndarray:
        """`sigma` in units of [0, 1], checked, or estimated."""
        if sigma is None:
            return estimate_sigma(noisy) / 255
        try:
            level = np.asarray(sigma, np.float32) / 255
        except (TypeError, ValueError):
            level = np.full((), np.nan, np.float32)
        if not np.isfinite(level).all() or (level < 0).any():
            raise UsageError("sigma must be a finite number, 0 or above, in 8-bit units (25 means 25/255)")
        if level.ndim and level.shape != noisy.shape[:2]:
            raise UsageError(f"the map of sigma has shape {level.shape}, the image {noisy.shape[:2]}")
        return level if level.ndim else float(level)

    def _denoise_tiles(
        self,
        image: np.ndarray,
        output: np.ndarray,
        level: float | np.ndarray,
        strength: float,
        progress: Progress | None,
    ) -> None:
        height, width, channels = image.shape
        scale = full_range(image.dtype)
        multiple = self.network.multiple_of

        def read(row: Span, column: Span) -> tuple[np.ndarray, np.ndarray]:
            """A window as network input: [N, C, h, w] in [0, 1] and its noise levels [N, 1, h, w]."""
            pixels = image[row.slice, column.slice].astype(np.float32) / np.float32(scale)
            planes = pixels.transpose(2, 0, 1)[None]
            if channels != self.network.channels:
                planes = planes.repeat(3, axis=1) if channels == 1 else planes.transpose(1, 0, 2, 3)
            levels = level[row.slice, column.slice] if isinstance(level, np.ndarray) else level
            return planes, np.broadcast_to(np.float32(levels), (len(planes), 1, *planes.shape[2:]))

        tiles = tile_grid(height, width, self.tile, self.halo, multiple)
        gates = None
        if len(tiles) > 1 or height * width > WHOLE_PIXELS or self.network.channels < channels:
            samples = [read(*window) for window in squeeze_windows(height, width, multiple)]
            gates = self.backend.squeeze(*(np.concatenate(part) for part in zip(*samples, strict=True)))
            del samples
        for done, tile in enumerate(tiles):
            if progress is not None:
                progress(done, len(tiles))
            planes, levels = read(*tile.window)
            clean = np.concatenate(
                [self.backend.denoise(planes[i : i + 1], levels[i : i + 1], gates) for i in range(len(planes))]
            )
            if clean.shape[:2] != (1, channels):
                clean = clean.mean(axis=1, keepdims=True) if channels == 1 else clean.transpose(1, 0, 2, 3)
            inner = tuple(core.within(window) for core, window in zip(tile.core, tile.window, strict=True))
            core = tuple(span.slice for span in tile.core)
            result = clean[0].transpose(1, 2, 0)[inner]
            original = image[core]
            if strength < 1:
                before = original.astype(np.float32) / np.float32(scale)
                result = before + np.float32(strength) * (result - before)
            if image.dtype.kind == "u":
                result = np.clip(np.rint(result * np.float32(scale)), 0, scale)
            output[core] = result
        if progress is not None:
            progress(len(tiles), len(tiles))


def check_image(noisy: np.ndarray) -> np.ndarray:
    """The image as [H, W, C]; UsageError says what is wrong with the array."""
    if not isinstance(noisy, np.ndarray):
        raise UsageError(f"the image is a {type(noisy).__name__}; give a numpy array")
    if noisy.dtype not in (np.uint8, np.uint16) and noisy.dtype.kind != "f":
        raise UsageError(f"the image is {noisy.dtype}; give uint8, uint16 or a float type")
    if noisy.ndim not in (2, 3) or (noisy.ndim == 3 and noisy.shape[2] not in (1, 3)):
        raise UsageError(f"the image has shape {noisy.shape}; give [H, W] or [H, W, C], C = 1 or 3, alpha apart")
    if noisy.dtype.kind == "f" and not (np.abs(noisy) <= np.finfo(np.float32).max).all():
        raise UsageError("the image holds NaN or values that are infinite as float32; replace them first")
    return noisy[..., None] if noisy.ndim == 2 else noisy
