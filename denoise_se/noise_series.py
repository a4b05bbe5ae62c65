"""Noise without the picture: from a burst of one scene, or from evenly lit frames.

In both the picture is known better than a single frame shows it, so that what is left of a frame is noise and nothing
else. A pattern that is the same in all frames (dust, pixels of unequal gain) cancels and is not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from denoise_se.errors import UsageError
from denoise_se.likeness import COMPARED, of_other_scene
from denoise_se.noise_line import NoiseLine, fit_line

Array = NDArray[np.float32]
Float = NDArray[np.float64]

BINS = 32  # of brightness, a channel
MIN_SAMPLES = 200  # pixels of a bin
SAME_LEVEL = 0.02  # evenly lit frames whose means differ by less, relatively, are taken as one exposure
MAX_CLIPPED = 0.01  # share of clipped pixels that a bin of brightness may hold
SMOOTH = 5  # pixels, of the brightness
REACH = 8  # pixels, of the correlation


@dataclass(frozen=True)
class Residual:
    """One frame's noise [H, W, C] scaled to its full variance, the brightness [H, W, C] beneath it (both in units of
    the range [0, 1]), where it was not clipped [H, W, C], its share of independent numbers (below 1 where the
    brightness was taken from the frame itself), and which pixels count [H, W, C], None for all."""

    noise: Array
    brightness: Array
    whole: NDArray[np.bool_]
    share: float
    counts: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Points:
    """Variance [N] at brightness [N] (0 to 1) of one channel, and its relative standard error [N]."""

    brightness: Float
    variance: Float
    relative: Float

    def line(self) -> NoiseLine:
        return fit_line(self.brightness, self.variance, self.relative)


def burst_residuals(frames: Sequence[Array]) -> list[Residual]:
    """Each frame [H, W, C] less the mean of all, brightness evened out first.

    Raises UsageError for fewer than two frames, or frames of different sizes. The scene and the camera must not move.
    """
    from scipy.ndimage import uniform_filter

    if len(frames) < 2:
        raise UsageError("a burst needs at least two shots of the same scene; give more files, or leave --series out")
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) > 1:
        sizes = " and ".join(f"{width}x{height} with {channels} channel(s)" for height, width, channels in shapes[:2])
        raise UsageError(f"the shots of a burst are of one size, these are {sizes}; leave --series out")
    planes = [_centre(frame) for frame in frames]
    if strangers := [number for number, plane in enumerate(planes, 1) if of_other_scene(plane, planes[0])]:
        raise UsageError(
            f"shot {strangers[0]} of {len(frames)} shows another scene than the first; a burst is of one: measure each "
            "scene's folder by itself, or leave --series out"
        )
    whole = np.all([_unclipped(frame) for frame in frames], axis=0)
    inside = whole | ~whole.any(axis=(0, 1))  # all of a channel that is clipped all over
    levels = np.array([frame.mean(axis=(0, 1), dtype=np.float64, where=inside) for frame in frames])
    factors = np.divide(levels.mean(axis=0), levels, out=np.ones_like(levels), where=levels > 1e-3)
    even = [(frame * factor).astype(np.float32) for frame, factor in zip(frames, factors, strict=True)]
    mean = np.mean(even, axis=0)
    count = len(frames)
    # noise in the brightness would flatten the line, noise in the mean of few frames most
    smooth = uniform_filter(mean, size=(SMOOTH, SMOOTH, 1))
    scale = np.float32((count / (count - 1)) ** 0.5)
    for frame in even:  # in place, as a burst of a camera is large
        frame -= mean
        frame *= scale
    return [Residual(noise, smooth, whole, (count - 1) / count) for noise in even]


def _centre(frame: Array) -> Array:
    """The mean over the channels of the middle [h, w]."""
    top, left = (max(0, (side - COMPARED) // 2) for side in frame.shape[:2])
    middle: Array = frame[top : top + COMPARED, left : left + COMPARED].mean(axis=2)
    return middle


def flat_residuals(frames: Sequence[Array]) -> list[Residual]:
    """From evenly lit frames [H, W, C] at several exposures, dark ones among them.

    Frames of the same exposure are compared with each other, which leaves out the sensor's fixed pattern; one that is
    alone is compared with a smooth surface through it.
    Raises UsageError for frames of different sizes.
    """
    if len({frame.shape for frame in frames}) > 1:
        raise UsageError("evenly lit frames are of one size; give those of one camera in one mode")
    ordered = sorted(frames, key=lambda frame: float(frame.mean()))
    groups = [[ordered[0]]]
    for frame in ordered[1:]:
        level, last = float(frame.mean()), float(groups[-1][0].mean())
        if level - last <= SAME_LEVEL * max(level, 0.05):
            groups[-1].append(frame)
        else:
            groups.append([frame])
    found: list[Residual] = []
    for group in groups:
        if len(group) > 1:
            found += burst_residuals(group)
        else:
            surface = quadratic_surface(group[0])
            found.append(Residual(group[0] - surface, surface, _unclipped(group[0]), 1.0))
    return found


def _unclipped(frame: Array) -> NDArray[np.bool_]:
    return (frame > 0) & (frame < 1)


def quadratic_surface(frame: Array) -> Array:
    """The quadratic surface through a frame [H, W, C]: vignetting and uneven light."""
    height, width, channels = frame.shape
    y, x = (np.linspace(-1, 1, n) for n in (height, width))
    terms = [np.outer(y**i, x**j).ravel() for i in range(3) for j in range(3 - i)]
    design = np.stack(terms, axis=1)
    flat = frame.reshape(-1, channels).astype(np.float64)
    weights = np.linalg.solve(design.T @ design, design.T @ flat)
    return (design @ weights).reshape(frame.shape).astype(np.float32)


def without_bands(residuals: Sequence[Residual], *, rows: bool, columns: bool) -> list[Residual]:
    """The residuals less the means of their rows, of their columns, or both."""
    cleared = []
    for residual in residuals:
        noise = residual.noise
        if rows:
            noise = noise - noise.mean(axis=1, keepdims=True)
        if columns:
            noise = noise - noise.mean(axis=0, keepdims=True)
        cleared.append(replace(residual, noise=noise))
    return cleared


def share_of_means(correlation: Float, height: int, width: int, *, rows: bool, columns: bool) -> float:
    """What `without_bands` takes from the variance of grain of this correlation [2R+1, 2R+1]; coarse grain loses more.

    The variance of the mean of n numbers of variance 1 is the sum of their correlations over the lags, by n.
    """
    reach = correlation.shape[-1] // 2
    across, down = correlation[reach].sum() / width, correlation[:, reach].sum() / height
    return float(np.clip(rows * across + columns * down, 0, 0.5))


def series_points(residuals: Sequence[Residual], channel: int, correlation: Float) -> Points:
    """Variance in bins of brightness; `correlation` [2R+1, 2R+1] says how many pixels make one independent sample."""
    every: slice | NDArray[np.bool_] = slice(None)
    counted = [(r, every if r.counts is None else r.counts[..., channel].ravel()) for r in residuals]
    x = np.concatenate([r.brightness[..., channel].ravel()[used] for r, used in counted])
    square = np.concatenate([np.square(r.noise[..., channel]).ravel()[used] for r, used in counted])
    whole = np.concatenate([r.whole[..., channel].ravel()[used] for r, used in counted])
    share = float(np.mean([r.share for r in residuals]))
    points = []
    bins = max(1, min(BINS, len(x) // (2 * MIN_SAMPLES)))
    for members in np.array_split(np.argsort(x, kind="stable"), bins):
        kept = members[whole[members]]
        if len(kept) < MIN_SAMPLES or len(kept) < (1 - MAX_CLIPPED) * len(members):
            continue
        independent = len(kept) * share / max(1.0, float(np.square(correlation).sum()))
        points.append((x[kept].mean(), square[kept].mean(dtype=np.float64), (2 / max(1.0, independent)) ** 0.5))
    if len(x) < MIN_SAMPLES:
        raise UsageError("the images are too small to measure their noise; take larger ones, or more of them")
    if not points:
        raise UsageError("the images are clipped to black or white nearly everywhere; take them with less contrast")
    brightness, variance, relative = np.array(points, dtype=np.float64).T
    return Points(brightness, variance, relative)


def series_correlation(residuals: Sequence[Residual], lines: Sequence[NoiseLine]) -> Float:
    """[C, C, 2R+1, 2R+1], R = 8 or what the frames allow, of the residuals divided by the lines' deviations."""
    from scipy.fft import irfft2, next_fast_len, rfft2

    height, width, channels = residuals[0].noise.shape
    reach = min(REACH, (min(height, width) - 1) // 2)
    size = (next_fast_len(height + reach), next_fast_len(width + reach))
    total = np.zeros((channels, channels, 2 * reach + 1, 2 * reach + 1))
    count = np.zeros_like(total)
    lags = np.ix_(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    for residual in residuals:
        deviation = np.stack(
            [line.at(residual.brightness[..., c].astype(np.float64)) for c, line in enumerate(lines)], axis=-1
        )
        deviation = np.sqrt(np.maximum(deviation, 1e-12))
        used = residual.whole if residual.counts is None else residual.whole & residual.counts
        for target, values in ((total, residual.noise / deviation * used), (count, used.astype(np.float64))):
            spectrum = rfft2(values.transpose(2, 0, 1), size)
            # a plane at a time, of which a few lags are kept: there are C x C of them
            for a in range(channels):
                for b in range(channels):
                    target[a, b] += irfft2(spectrum[a].conj() * spectrum[b], size)[lags]
    return normalised(total / np.maximum(count, 1))


def normalised(table: Float) -> Float:
    """Covariances [C, C, 2R+1, 2R+1] as correlations, exactly symmetric; of channels without noise those of white."""
    reach = table.shape[-1] // 2
    table = (table + table.transpose(1, 0, 2, 3)[..., ::-1, ::-1]) / 2
    scale = np.sqrt(np.maximum(np.diagonal(table[..., reach, reach]), 1e-12))
    correlation = np.clip(table / (scale[:, None] * scale)[..., None, None], -1, 1)
    each = np.arange(len(table))
    correlation[each, each, reach, reach] = 1
    return correlation
