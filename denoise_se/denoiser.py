"""The predictor: a numpy image in, the denoised image out, same shape and dtype."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from denoise_se.backends import Backend, make_backend
from denoise_se.blending import Strength
from denoise_se.checkpoint import CheckpointFile, learnt_uncut, most_sigma, open_checkpoint
from denoise_se.clipping import ClippedNoise
from denoise_se.errors import DenoiseError, UsageError
from denoise_se.guarded_backend import GuardedBackend
from denoise_se.image import MOST_FAR_OUT, coarse, far_out
from denoise_se.level_grid import (
    UNCUT,
    Known,
    Level,
    LevelGrid,
    cut_off_by,
    level_by_brightness,
    level_in_file,
    mean_level,
    noise_cut_off,
    told,
)
from denoise_se.noise_estimation import NoiseEstimate, estimate_noise
from denoise_se.restorer import Progress, RestoredTile, Restorer, as_they_are
from denoise_se.scanlines import BAND, ArrayScanlines, Scanlines
from denoise_se.self_ensemble import SelfEnsemble
from denoise_se.tiling import LANES_WINDOWS, WHOLE_PIXELS, Span, check_tile, window_bytes
from denoise_se.value_range import ValueRange, full_range, value_range
from denoise_se.window import Cutter, Window

FINE = 1.5  # 8-bit units: below, int8 adds to the error of deep images (at 0.5 by 13 %, at 1 by 3 %)
# Of noise weaker than the first a network takes less than it adds, from the second on all of its result is believed.
# Shares of the change that come nearest to clean pictures, `gray` and `color` in fp32 at sigma 0.1 / 0.25 / 0.5 / 0.75:
# 0.01 / 0.11 / 0.66 / 0.98 and 0.05 / 0.36 / 0.85 / 0.94.
BELIEVED = (0.15, 0.7)


@dataclass(frozen=True)
class Denoised:
    """A result: `image` like the input, the `sigma` used (8-bit units; None for a blind network), `seconds` taken."""

    image: np.ndarray
    sigma: float | None
    seconds: float


class Denoiser(Restorer):
    """Denoises numpy images with one checkpoint.

    Example:
        >>> denoiser = Denoiser.load("photo")            # doctest: +SKIP
        >>> clean = denoiser(noisy)                      # doctest: +SKIP
    """

    def __init__(
        self, checkpoint: CheckpointFile, backend: Backend, tile: int | str = "auto", *, rounded: bool = False
    ) -> None:
        """`rounded`: that results will be rounded to 8 bits, even if images are not, so that `Backend.fine` is not
        needed."""
        check_tile(tile)
        channels = checkpoint.config.channels
        if channels not in (1, 3):
            raise UsageError(f"{checkpoint.name}: a network of {channels} channels; images have 1 or 3")
        super().__init__(checkpoint)
        self.backend = backend
        self.tile, self.rounded = tile, rounded
        self.network = checkpoint.config
        self.cutter = Cutter(self.network, backend.halo, tile)
        self.load_again: Callable[[], Denoiser] | None = None

    @classmethod
    def load(
        cls,
        model: str | Path = "photo",
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        tile: int | str = "auto",
        self_ensemble: bool = False,
    ) -> Denoiser:
        """A denoiser from a name of `CHECKPOINTS` ("gray", ...) or the path of a .safetensors checkpoint.

        Args:
            device: "auto", "cpu", "cuda" or "mps".
            backend, precision: see `denoise_se.backends`.
            tile: side of the tiles in pixels, filled up to a multiple of 32, "auto", or 0 for the whole image at once;
                the result is the same.
            self_ensemble: the mean over the eight symmetries of the picture: a little better at four to eight times the
                time.

        Raises:
            CheckpointError: no such checkpoint, or one that is refused.
            UsageError: a device, backend, precision or tile that cannot be had.
        """
        checkpoint = open_checkpoint(model)
        engine = make_backend(checkpoint, backend, device, precision)
        if self_ensemble:
            multiple = checkpoint.config.multiple_of
            if isinstance(engine, GuardedBackend):  # looks at the image as it lies
                engine = engine.each(lambda part: SelfEnsemble(part, multiple))
            else:
                engine = SelfEnsemble(engine, multiple)
        made = cls(checkpoint, engine, tile)
        made.load_again = partial(
            cls.load,
            model,
            device=device,
            backend=backend,
            precision=precision,
            tile=tile,
            self_ensemble=self_ensemble,
        )
        return made

    def __reduce__(self) -> tuple[Callable[[], Denoiser], tuple[()]]:
        """Pickled, as for a process of its own, it is how it was loaded. Raises TypeError for one that was not."""
        if self.load_again is None:
            raise TypeError("only a Denoiser from Denoiser.load can be pickled; load it in each process")
        return self.load_again, ()

    def in_lanes(self) -> Denoiser:
        """This denoiser for `backend.lanes` threads at once, each with an image of its own that fits in a lane; the
        results are the same. It holds a network and memory of its own."""
        return type(self)(self.checkpoint, self.backend.in_lanes(), self.tile, rounded=self.rounded)

    def for_8_bits(self) -> Denoiser:
        """This denoiser as it works on 8-bit images, for floats that stand for such ones."""
        return type(self)(self.checkpoint, self.backend, self.tile, rounded=True)

    def fits_in_lane(self, height: int, width: int, channels: int) -> bool:
        """Whether an image is so small that lanes are worth it, and that their memory is bounded; False without."""
        most = LANES_WINDOWS / (window_bytes(self.network.features) * self.backend.lanes)
        pixels = height * width * max(1, channels // self.network.channels)  # such planes are squeezed together
        return self.backend.lanes > 1 and self.tile in ("auto", 0) and pixels <= min(most, WHOLE_PIXELS)

    def __call__(self, noisy: np.ndarray, sigma: Known | None = None, strength: float | Strength = 1.0) -> np.ndarray:
        """Denoise one image; see `denoise` for the arguments and errors. Returns the image alone."""
        return self._denoised(noisy, sigma, strength, None).image

    def denoise(
        self,
        noisy: np.ndarray,
        sigma: Known | None = None,
        strength: float | Strength = 1.0,
        progress: Progress | None = None,
    ) -> Denoised:
        """Denoise one image.

        Args:
            noisy: [H, W] or [H, W, C], C = 1 or 3 (RGB), uint8, uint16 or float. Integers stand for their full range,
                floats for [0, 1], but may lie anywhere: what deep images use of their range is what the network sees
                (`denoise_se.value_range`). Floats are not clipped on the way out (but where noise was cut off at an
                end, nothing goes beyond it). With many far outside of [0, 1] a sigma brings a UserWarning, and so do
                float64 that float32, in which all is computed, can hardly tell apart. A one-channel network treats the
                channels of a colour image one by one; a three-channel one sees a grey image in triplicate.
            sigma: standard deviation of the noise in 8-bit units (25 means 25/255 of the range) for the whole image, or
                a map [H, W] of it; None estimates it (`NoiseEstimate.level`, more than sigma where noise is correlated
                as in camera JPEGs; pixel by pixel where noise grows with brightness). Where it is 0 all over, the input
                comes back (float64 as float32 values). Blind networks take none. It is that of the noise before a file
                cut it off at black and white (`denoise_se.clipping`); the levels of a map that is not the same
                all over are taken as what was left.
            strength: 0 gives the input back exactly, 1 the full result, between them a blend; `Strength` sets it for
                luma and chroma apart.
            progress: called with (tiles done, tiles in all); what it raises stops the work within a tile.

        Raises:
            UsageError: an array of another shape or dtype, with values that are not finite, or a negative sigma.
            DenoiseError: the network's result is not finite, as its weights are too large.
        """
        return self._denoised(noisy, sigma, strength, progress)

    def _denoised(
        self,
        noisy: np.ndarray,
        sigma: Known | None,
        strength: float | Strength,
        progress: Progress | None,
    ) -> Denoised:
        began = time.perf_counter()
        source = ArrayScanlines(check_image(noisy))
        if sigma is not None and noisy.dtype.kind == "f" and far_out(noisy) > MOST_FAR_OUT * noisy.size:
            told = "the image has float values far outside of 0 to 1; sigma takes 1 for white"
            warnings.warn(told, stacklevel=3)  # where the public method is called
        if noisy.dtype == np.float64 and coarse(noisy):
            told = "the image has values larger than 32-bit floats can tell apart well; subtract an offset first"
            warnings.warn(told, stacklevel=3)
        if not isinstance(strength, Strength):
            strength = Strength(strength, strength)
        level = self.noise_level(source, sigma)
        output = np.empty_like(source.pixels)
        for band in self.bands(source, level, strength, progress):
            output[band.rows.slice] = band.clean
        output = output.reshape(noisy.shape).astype(noisy.dtype, copy=False)  # of its byte order, too
        return Denoised(output, mean_level(level), time.perf_counter() - began)

    def noise_level(self, source: Scanlines, sigma: Known | None = None) -> Known:
        """What is known of an image's noise: for a blind network how it was cut off, for another the level that it is
        told, in 8-bit units: one, a map [H, W], or a grid where it grows with brightness or was cut off. It is `sigma`
        checked, or estimated; what this gave once is taken as it is. Raises UsageError."""
        if isinstance(sigma, ClippedNoise) and not self.blind:
            raise UsageError(
                f"{self.checkpoint.name} is told a noise level; how noise was cut off is for blind networks"
            )
        if isinstance(sigma, LevelGrid | ClippedNoise):
            return sigma
        if sigma is None and not self.blind:
            return self.level_for(source, estimate_noise(source))
        try:
            level = np.asarray(0.0 if sigma is None else sigma, np.float32)
        except (TypeError, ValueError):
            level = np.full((), np.nan, np.float32)
        most = np.float32(255 if source.dtype.kind == "u" else np.finfo(np.float32).max)  # floats may lie anywhere
        if not ((level >= 0) & (level <= most)).all():
            raise UsageError("sigma must be a number from 0 to 255, in 8-bit units (25 means 25/255)")
        if level.ndim and level.shape != source.shape[:2]:
            raise UsageError(f"the map of sigma has shape {level.shape}, the image {source.shape[:2]}")
        if self.blind:
            return self._left_of(noise_cut_off(source), source)
        if level.size and (level != level.flat[0]).any():
            return level
        one = float(level.flat[0]) if level.size else 0.0
        return level_in_file(source, one) if one and self._undoes_cutting(source) else one

    def level_for(self, source: Scanlines, noise: NoiseEstimate) -> Known:
        """What the network is told of an image with that noise, see `level_by_brightness`; one level where it learnt of
        other noise than white Gaussian, as one level is what it was told then."""
        if self.blind:
            return self._left_of(noise_cut_off(source, noise), source)
        if most_sigma(self.checkpoint.training) is None:
            return noise.level
        level = level_by_brightness(source, noise)
        return level_in_file(source, level, noise) if self._undoes_cutting(source) else level

    def _left_of(self, cut: ClippedNoise, source: Scanlines) -> ClippedNoise:
        """That noise of an image as this blind network leaves it, which a small picture shows: it may have learnt to
        undo it."""
        if not (cut.black or cut.white):
            return UNCUT
        page = ArrayScanlines(cut.page(source.shape[2], source.dtype))
        restored = np.empty(page.shape, np.float32)
        for tile in self.tiles(page, UNCUT):
            restored[tile.rows.slice, tile.columns.slice] = tile.restored
        return cut.as_left(restored)

    def _undoes_cutting(self, source: Scanlines) -> bool:
        """Whether noise that was cut off is told as what is left of it: not to a network that has learnt such noise,
        nor to one that is given channels one by one, which may be cut off differently."""
        return learnt_uncut(self.checkpoint.training) and self.network.channels >= source.shape[2]

    def tiles(self, source: Scanlines, known: Known, progress: Progress | None = None) -> Iterator[RestoredTile]:
        """The tiles of `bands`, row by row, with the network's result as it is."""
        level, cut = told(known), cut_off_by(known)
        height, width, channels = source.shape
        if height * width == 0:
            return
        report = progress or (lambda done, total: None)
        if level is not None and not np.any(level):  # no noise, so nothing to take out
            total = -(-height // BAND)
            report(0, total)
            for done, (rows, noisy) in enumerate(as_they_are(source), 1):
                restored = noisy.astype(np.float32) / np.float32(full_range(noisy.dtype))
                yield RestoredTile(rows, Span(0, width), noisy, restored)
                report(done, total)
            return
        total = math.prod(map(len, self.cutter.grid(height, width)))
        seen, gates, backend = self._seen(source, level), None, self.backend
        if not (self.rounded or source.dtype == np.uint8):
            strongest = FINE if level is None else 255 * float(seen.seen_levels(level, source.dtype).max())
            backend = backend.fine() if strongest >= FINE else backend.unquantised()
        if total > 1 or height * width > WHOLE_PIXELS or self.network.channels < channels:
            gates = backend.squeeze(*self.cutter.samples(source, level, seen))
        report(0, total)
        network = ThreadPoolExecutor(1)  # works on a tile while the next is read and the one before is used
        try:
            running: tuple[Window, Future[np.ndarray]] | None = None
            for done, window in enumerate(self.cutter.windows(source, level, seen)):
                started = window, network.submit(self._restored, backend, window, gates)
                if running:
                    yield self._tile(*running, channels, seen, cut)
                    report(done, total)
                running = started
            assert running  # there is at least one
            yield self._tile(*running, channels, seen, cut)
            report(total, total)
        finally:
            network.shutdown(cancel_futures=True)

    def _seen(self, source: Scanlines, level: Level | None) -> ValueRange:
        """The range of values that the network sees of an image: 8 bits are not stretched. Noise stronger than any of
        the training becomes as strong as that: a network makes little of levels that it never saw; a picture of less
        contrast is a picture, too."""
        eight_bits = source.dtype == np.uint8 or (self.rounded and source.dtype.kind == "f")
        seen = ValueRange(0.0, full_range(source.dtype)) if eight_bits else value_range(source, level)
        most = most_sigma(self.checkpoint.training)
        least = full_range(source.dtype) * float(np.max(level)) / most if level is not None and most else 0.0
        return replace(seen, span=max(seen.span, least))

    def _restored(self, backend: Backend, window: Window, gates: Any) -> np.ndarray:
        """What the network makes of a window [N, C, h, w], less the margins that are cut."""
        results = [
            backend.denoise(planes[None], levels[None], gates, window.place)
            for planes, levels in zip(window.planes, window.levels, strict=True)
        ]
        return results[0] if len(results) == 1 else np.concatenate(results)

    def _tile(
        self, window: Window, result: Future[np.ndarray], channels: int, seen: ValueRange, cut: ClippedNoise
    ) -> RestoredTile:
        """The core of a window, when the network is done with it. Raises DenoiseError."""
        clean = result.result()
        if not np.isfinite(clean).all():
            raise DenoiseError(
                f"{self.checkpoint.name}: its result is not finite; train it again, or take another model"
            )
        if clean.shape[:2] != (1, channels):
            clean = clean.mean(axis=1, keepdims=True) if channels == 1 else clean.transpose(1, 0, 2, 3)
        rows, columns = window.rows, window.columns
        inner = rows.within(window.kept[0]), columns.within(window.kept[1])
        restored: np.ndarray = seen.given_back(clean[0].transpose(1, 2, 0)[inner], window.noisy)
        if cut.black or cut.white:
            restored = cut.unclipped(restored)
        full = np.float32(full_range(window.noisy.dtype))
        if window.unseen is not None:
            restored = restored + window.unseen * np.float32(seen.span / full)
        least, believed = (np.float32(end / 255) for end in BELIEVED)
        if not self.blind and window.told.min(initial=1) < believed:
            noisy = window.noisy.astype(np.float32) / full
            share = np.clip((window.told - least) / (believed - least), 0, 1)[..., None]
            restored = noisy + share * (restored - noisy)
        return RestoredTile(rows, columns, window.noisy, restored)


def check_image(noisy: np.ndarray) -> np.ndarray:
    """The image as [H, W, C]; UsageError says what is wrong with the array."""
    if not isinstance(noisy, np.ndarray):
        raise UsageError(f"the image is a {type(noisy).__name__}; give a numpy array")
    if not noisy.dtype.isnative:  # of the other byte order, as some files have them
        noisy = noisy.astype(noisy.dtype.newbyteorder("="))
    if noisy.dtype not in (np.uint8, np.uint16) and noisy.dtype.kind != "f":
        raise UsageError(f"the image is {noisy.dtype}; give uint8, uint16 or a float type")
    if noisy.ndim not in (2, 3) or (noisy.ndim == 3 and noisy.shape[2] not in (1, 3)):
        raise UsageError(f"the image has shape {noisy.shape}; give [H, W] or [H, W, C], C = 1 or 3, alpha apart")
    # row by row, as the comparison of a large image takes several times its memory
    if noisy.dtype.kind == "f" and not all((np.abs(row) <= np.finfo(np.float32).max).all() for row in noisy):
        raise UsageError("the image holds NaN or values that are infinite as float32; replace them first")
    return noisy[..., None] if noisy.ndim == 2 else noisy
