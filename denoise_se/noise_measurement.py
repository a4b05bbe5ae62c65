"""Measuring a NoiseProfile: on single noisy images, on a burst of one scene, or on evenly lit frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise_se.banding import halves_covariance, row_covariance, row_halves
from denoise_se.errors import UsageError
from denoise_se.noise_estimation import OPPONENT
from denoise_se.noise_line import NoiseLine, roots
from denoise_se.noise_patches import DctPatches, cut, lag_weights
from denoise_se.noise_profile import NoiseProfile
from denoise_se.noise_series import (
    Points,
    Residual,
    burst_residuals,
    flat_residuals,
    normalised,
    series_correlation,
    series_points,
    share_of_means,
    without_bands,
)
from denoise_se.patch_noise import HIGH, brightness_points
from denoise_se.patch_spectrum import PatchSpectrum, completed, correlation_weight, spectra
from denoise_se.scanlines import ArrayScanlines
from denoise_se.value_range import WHOLE, ValueRange, full_range, value_range, white_level

Array = NDArray[np.float32]
Float = NDArray[np.float64]

MIN_SIDE = 64
MAX_PATCHES = 60_000  # of all images together; bounds the memory
PATCH_REACH = 6  # pixels: what an 8x8 patch can say about the correlation
SERIES: dict[str, Callable[[Sequence[Array]], list[Residual]]] = {"burst": burst_residuals, "flats": flat_residuals}


@dataclass(frozen=True)
class Measurement:
    """A profile, and for each channel the points that its line was drawn through."""

    profile: NoiseProfile
    points: tuple[Points, ...]


def measure_noise(
    images: Iterable[NDArray[np.generic]], series: str | None = None, *, used: ValueRange | None = None
) -> Measurement:
    """The noise of one device.

    Args:
        images: [H, W] or [H, W, C], C = 1 or 3 for all of them, uint8, uint16 or float in [0, 1]; at least 64x64.
        series: None for any noisy pictures, "burst" for shots of one scene that does not move, "flats" for evenly lit
            frames at several exposures (dark ones among them). A series says more: pictures hide weak noise, and the
            grain of single images is known no further than 6 pixels.
        used: what is measured as 0 to 1, in units of their range; all that they use (`used_range`) unless given.
            With it, pictures are taken one after the other, and need not be in memory together.

    Raises:
        UsageError: no images, too small, of mixed kinds, or with nothing in them that can be measured.

    >>> noisy = np.random.default_rng(0).normal(0.5, 0.1, (2, 128, 128)).astype(np.float32)
    >>> round(float(measure_noise(noisy, "burst").profile.variance(0.5)[0]) ** 0.5, 2)
    0.1
    """
    if series is not None and series not in SERIES:
        raise UsageError(f"--series {series!r}: give {' or '.join(SERIES)}, or leave it out for any noisy pictures")
    if used is None:
        images = [_checked(image) for image in images]
        used = reduce(ValueRange.joined, (used_range(image, series) for image in images)) if images else None
    frames = Frames(images, used or WHOLE)
    if series is None:
        return _of_pictures(frames)
    residuals = SERIES[series](list(frames))  # not kept here: of a camera's burst there is no room for both
    return measure_residuals(residuals, f"{series}: {frames.said()}", frames.rounding)


def used_range(image: NDArray[np.generic], series: str | None = None) -> ValueRange:
    """In units of an image's range [H, W, C], what is used of it, see `value_range`; from 0 on of evenly lit frames."""
    source, full = ArrayScanlines(image), full_range(image.dtype)
    seen = ValueRange(0.0, white_level(source)) if series == "flats" else value_range(source)
    return seen.in_units_of(full)


class Frames:
    """Images as frames [H, W, C] of float32, of whose range `used` is 0 to 1; checked as they go by.

    Attributes:
        count, size: of those that went by, of the first (width, height).
        rounding: the variance of their files' rounding, mean over them.
    """

    def __init__(self, images: Iterable[NDArray[np.generic]], used: ValueRange) -> None:
        self.images, self.used = images, used
        self.count, self.size, self.steps = 0, (0, 0), 0.0

    def __iter__(self) -> Iterator[Array]:
        kinds = set()
        for image in self.images:
            frame = _checked(image)
            kinds.add(frame.shape[2])
            if len(kinds) > 1:
                raise UsageError("some of the images are grey and some are colour; profile them apart")
            full = full_range(frame.dtype)
            self.size = self.size if self.count else (frame.shape[1], frame.shape[0])
            self.count += 1
            self.steps += 0.0 if frame.dtype.kind == "f" else 1 / (self.used.span * full) ** 2
            yield ValueRange(self.used.black * full, self.used.span * full).seen(frame)
        if not self.count:
            raise UsageError("no image to measure the noise of")

    @property
    def rounding(self) -> float:
        return self.steps / self.count / 12

    def said(self) -> str:
        """What they are, in words."""
        text = f"{self.count} image(s), the first {self.size[0]}x{self.size[1]}"
        if self.used.black:
            text += f", in units of {self.used.span:.3g} of their range from {self.used.black:.3g} on, which they use"
        elif self.used.span < 1:
            text += f", in units of 1/{round(1 / self.used.span)} of their range, of which they use no more"
        return text


def _checked(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """[H, W, C]"""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise UsageError(f"noise is measured on images [H, W] or [H, W, C] with C = 1 or 3, not {image.shape}")
    if image.dtype.kind not in "uf":
        raise UsageError(f"noise is measured on uint8, uint16 or float images, not {image.dtype}; convert it first")
    if min(image.shape[:2]) < MIN_SIDE:
        raise UsageError(f"a noise profile needs images of at least {MIN_SIDE}x{MIN_SIDE} pixels")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UsageError("an image holds NaN or infinite values; replace them first")
    return image.reshape(*image.shape[:2], -1)


def measure_residuals(residuals: list[Residual], source: str, rounding: float) -> Measurement:
    """The noise that frames were split into, all of one size; `rounding` is the variance of their files' rounding."""
    rows = row_covariance([r.noise for r in residuals])
    columns = row_covariance([r.noise.swapaxes(0, 1) for r in residuals])
    banded = {"rows": bool(rows.any()), "columns": bool(columns.any())}
    grain = without_bands(residuals, **banded)
    height, width, channels = grain[0].noise.shape
    white = np.ones((1, 1))
    correlation = series_correlation(grain, [series_points(grain, c, white).line() for c in range(channels)])
    points = []
    for c in range(channels):
        found = series_points(grain, c, correlation[c, c])
        left = 1 - share_of_means(correlation[c, c], height, width, **banded)
        points.append(replace(found, variance=found.variance / left))
    return Measurement(
        _profile(source, [p.line() for p in points], rounding, rows, columns, correlation), tuple(points)
    )


def _of_pictures(frames: Frames) -> Measurement:
    across, down, every = [], [], []
    for frame in frames:
        across.append(row_halves(frame))
        down.append(row_halves(frame.swapaxes(0, 1)))
        if (own := cut(ArrayScanlines(frame), 255.0)) is not None:
            every.append(own)
            if sum(p.means.shape[1] for p in every) > 2 * MAX_PATCHES:
                every = _thinned(every)
    source, rounding = f"pictures: {frames.said()}", frames.rounding
    rows, columns = halves_covariance(across), halves_covariance(down)
    patches = _pooled(every)
    channels = len(rows)
    mix = OPPONENT if channels == 3 else np.eye(1)
    white = [Points(*brightness_points(patches, c)) for c in range(channels)]
    correlation = np.eye(channels)[..., None, None]
    high = [patches.dct[c][:, patches.order >= HIGH].ravel() for c in range(channels)]
    if channels == 3:
        with np.errstate(invalid="ignore", divide="ignore"):
            relation = np.corrcoef(_flattest(patches, high))
        # constant channels have none
        correlation = np.where(np.isnan(relation), np.eye(channels), relation)[..., None, None]
    found = spectra(patches, mix)
    weight = correlation_weight(found, patches) if found else 0.0
    lines = [points.line() for points in white]
    if weight == 0:
        return Measurement(_profile(source, lines, rounding, rows, columns, correlation), tuple(white))
    tables = [_table(s, patches, mix, rows, columns) for s in found]
    middle = PATCH_REACH
    grain = []
    for c, (plain, line) in enumerate(zip(white, lines, strict=True)):
        x = np.array([s.brightness[c] for s in found]) / 255
        v = np.array([table[c, c, middle, middle] for table in tables])
        v = np.maximum(line.at(x), (1 - weight) * line.at(x) + weight * v)
        relative = np.full(len(x), max(0.1, float(np.median(plain.relative))))
        grain.append(Points(x, v, relative))
    coloured = np.mean([normalised(table) for table in tables], axis=0)
    mixed = weight * coloured
    mixed[..., middle, middle] += (1 - weight) * correlation[..., 0, 0]
    fitted = [points.line() for points in grain]
    profile = _profile(source, fitted, rounding, rows, columns, normalised(mixed))
    return Measurement(profile, tuple(grain))


def _thinned(every: Sequence[DctPatches]) -> list[DctPatches]:
    """At most MAX_PATCHES of all images together, evenly spread over each."""
    share = max(1, MAX_PATCHES // len(every))
    return [
        p if len(p.equal) <= share else p.select(np.linspace(0, len(p.equal) - 1, share).round().astype(int))
        for p in every
    ]


def _pooled(every: Sequence[DctPatches]) -> DctPatches:
    """The patches of all images, thinned out to a bounded number."""
    if not every:
        raise UsageError("nothing in these images says what their noise is: they are constant or clipped")
    parts = _thinned(every)
    return replace(
        parts[0],
        dct=np.concatenate([p.dct for p in parts], axis=1),
        equal=np.concatenate([p.equal for p in parts]),
        joined=np.concatenate([p.joined for p in parts]),
        spread=np.concatenate([p.spread for p in parts]),
        means=np.concatenate([p.means for p in parts], axis=1),
        overlap=max(p.overlap for p in parts),
        low=max(p.low for p in parts),
        high=min(p.high for p in parts),
    )


def _flattest(patches: DctPatches, high: list[NDArray[np.float32]]) -> Float:
    """High coefficients [C, n] of the tenth of the patches with the least energy below them."""
    energy = np.square(patches.dct[..., patches.order < HIGH]).sum(axis=(0, 2))
    keep = np.argsort(energy, kind="stable")[: max(100, len(energy) // 10)]
    return np.array([h.reshape(len(energy), -1)[keep].ravel() for h in high], dtype=np.float64)


def _table(spectrum: PatchSpectrum, patches: DctPatches, mix: Float, rows: Float, columns: Float) -> Float:
    """Autocovariance [C, C, 2R+1, 2R+1] of the channels (range [0, 1]) in one bin of brightness, without banding."""
    order = np.round(patches.order)
    height, width = patches.shape
    covariance = spectrum.covariance.copy()
    # a shifted row is constant along it: it fills the coefficients of horizontal frequency 0, and no others
    for axis, banding, length in ((1, rows, width), (0, columns, height)):
        along = patches.index[axis] == 0
        covariance[..., along] -= (mix @ banding @ mix.T * 255**2 * length)[..., None]
    channels = len(mix)
    diagonal = np.maximum(np.einsum("aak->ak", covariance), 0)
    cleared = np.empty((channels, len(order) + 1))
    for a in range(channels):
        cleared[a, 1:], cleared[a, 0] = completed(diagonal[a], order)
    # below, the mixtures are taken to be related as they are above, where the picture is weak
    above = (order >= 4) & (order <= 6)
    level = np.sqrt(np.maximum(diagonal[:, above].mean(axis=1), 1e-9))
    relation = covariance[..., above].mean(axis=-1) / (level[:, None] * level)
    np.fill_diagonal(relation, 1)
    full = np.sqrt(cleared[:, None] * cleared[None]) * relation[..., None]
    upper = np.concatenate([[False], order >= 4])
    full[..., upper] = covariance[..., order >= 4]
    for a in range(channels):
        full[a, a] = cleared[a]
    lags = lag_weights(patches, PATCH_REACH)
    table = np.einsum("abk,kyx->abyx", full, lags) / 255**2
    back = np.linalg.inv(mix)
    return np.einsum("ca,abyx,db->cdyx", back, table, back)


def _profile(
    source: str, lines: Sequence[NoiseLine], rounding: float, rows: Float, columns: Float, correlation: Float
) -> NoiseProfile:
    floors = [replace(line, floor=max(0.0, line.floor - rounding)) for line in lines]
    table = correlation.round(4)
    return NoiseProfile(
        source=source,
        gain=tuple(min(1.0, line.gain) for line in floors),
        gain_interval=tuple(line.gain_interval() for line in floors),
        read_noise=tuple(min(1.0, line.floor**0.5) for line in floors),
        read_noise_interval=tuple(roots(line.floor, line.floor_error) for line in floors),
        black=tuple(line.black for line in floors),
        row_covariance=_nested(rows),
        column_covariance=_nested(columns),
        correlation=_nested(table),
    )


def _nested(array: Float) -> tuple[Any, ...]:
    return tuple(_nested(part) if part.ndim else float(part) for part in array)
