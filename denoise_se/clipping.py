"""Gaussian noise that was cut off at black and at white, as files cut it: what that leaves of its mean and variance.

Noise can only darken a white page, whose mean becomes grey, 0.4 standard deviations below white, and of the noise's
standard deviation 0.58 are left. A network that learnt noise which was not cut off takes that mean for the picture.
Both follow from the noise alone, so that the network can be told what is left of it, and its result be put right: Foi
2009, "Clipped noisy images: heteroskedastic modeling and practical denoising", doi:10.1016/j.sigpro.2009.04.035.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from denoise_se.noise_line import Float, NoiseLaw
from denoise_se.scanlines import Scanlines, in_bands

FAR = 5.0  # standard deviations from an end of the range, where clipping takes under a millionth
ENDLESS = 1e6  # standard deviations to an end that nothing reaches; products with its probability stay finite
POINTS = 1025  # brightnesses from 0 to 1 in a table
STEPS = 65536  # of means from 0 to 1; what they move by changes by less than 2e-5 from one to the next
SLIGHT = 1e-4  # of the range: changes below it, of 0.03 codes of 8 bits, are not made
AT_ONCE = 65536  # values, which stay in a core's cache
PAGE = 64  # pixels: the side of the black square and of the white one that a network is shown


class _Table(NamedTuple):
    """Of each `brightness` that a picture can have: the `mean` and the `variance` of its pixels with noise that is cut
    off, and how probable it is that a pixel lies at `black` and at `white`."""

    brightness: Float
    mean: Float
    variance: Float
    black: Float
    white: Float


@dataclass(frozen=True)
class ClippedNoise:
    """Noise of the variance `law` over brightnesses in [0, 1], cut off below 0 if `black`, and above 1 if `white`.

    `left` are the shares of what cutting off moves a mean by that a network leaves, at black and at white: all of it if
    it learnt noise that was not cut off.
    """

    law: NoiseLaw
    black: bool
    white: bool
    left: tuple[float, float] = (1.0, 1.0)

    def at(self, mean: NDArray[np.floating]) -> NDArray[np.floating]:
        """The variance that is left where pixels have this mean, as that of a few noisy ones."""
        return self._of(self._table.variance, mean)

    def before(self, mean: NDArray[np.floating]) -> NDArray[np.floating]:
        """The variance there before anything was cut off."""
        return self.law.at(self._of(self._table.brightness, mean))

    def cut_off(self, mean: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """The shares of pixels that lie at black and at white where they have these means."""
        return self._of(self._table.black, mean), self._of(self._table.white, mean)

    def unclipped(self, clean: NDArray[np.float32]) -> NDArray[np.float32]:
        """The brightness before the noise, for the means `clean` of any shape, as a network gives them."""
        brightness, shift = self._table.brightness, self._table.mean - self._table.brightness
        shift = shift * np.where(shift > 0, *self.left)
        mean = np.maximum.accumulate(brightness + shift)
        strong = np.abs(shift) > SLIGHT
        below = mean[strong & (shift > 0)].max(initial=0) if self.black else -np.inf
        above = mean[strong & (shift < 0)].min(initial=1) if self.white else np.inf
        steps = np.interp(np.linspace(0, 1, STEPS + 1), mean, shift).astype(np.float32)
        result = clean.copy()
        values = result.reshape(-1)
        for start in range(0, values.size, AT_ONCE):
            part = values[start : start + AT_ONCE]
            near = (part < below) | (part > above)
            means = part[near]
            # np.interp takes ten times as long
            means -= steps.take((means.clip(0, 1) * np.float32(STEPS) + np.float32(0.5)).astype(np.int32))
            part[near] = means.clip(0 if self.black else -np.inf, 1 if self.white else np.inf)
        return result

    def page(self, channels: int, dtype: np.dtype) -> NDArray[np.generic]:
        """Such noise on a black square and a white one beside it, [PAGE, 2 PAGE, channels] of a file's `dtype`."""
        clean = np.repeat(np.array([0.0, 1.0]), PAGE)[:, None]
        noise = np.random.default_rng(0).normal(size=(PAGE, 2 * PAGE, channels)) * np.sqrt(self.law.at(clean))
        values = np.clip(clean + noise, 0 if self.black else -np.inf, 1 if self.white else np.inf)
        if dtype.kind == "f":
            return values.astype(dtype)
        return (values * np.iinfo(dtype).max).round().clip(0, np.iinfo(dtype).max).astype(dtype)

    def as_left(self, restored: NDArray[np.floating]) -> ClippedNoise:
        """This noise for a network that makes `restored` of its `page`, in units of the range."""
        inner = slice(PAGE // 4, -PAGE // 4)  # away from the edge between the two
        black, white = restored[inner, :PAGE][:, inner].mean(), restored[inner, PAGE:][:, inner].mean()
        shift = self._table.mean - self._table.brightness
        return replace(self, left=(_share(black, shift[0]), _share(white - 1, shift[-1])))

    @cached_property
    def _table(self) -> _Table:
        from scipy.special import ndtr

        x = np.linspace(0, 1, POINTS)
        sigma = np.sqrt(np.maximum(self.law.at(x), 1e-12))
        low = -x / sigma if self.black else np.full(POINTS, -ENDLESS)
        high = (1 - x) / sigma if self.white else np.full(POINTS, ENDLESS)
        shift, share = clipped_moments(low, high)
        mean = np.maximum.accumulate(x + sigma * shift)
        return _Table(x, mean, np.square(sigma) * share, ndtr(low), ndtr(-high))

    def _of(self, values: Float, mean: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.interp(mean, self._table.mean, values).astype(mean.dtype)


def _share(part: float, whole: float) -> float:
    """From 0 to 1; 1 of next to nothing."""
    return min(1.0, max(0.0, float(part / whole))) if abs(whole) > SLIGHT else 1.0


def ends_reached(source: Scanlines) -> tuple[float, float]:
    """The shares of an image's values that lie at black and at white; 0 where others lie beyond, as floats may."""
    one = np.iinfo(source.dtype).max if source.dtype.kind == "u" else 1
    counts = np.zeros(2, np.int64)
    beyond = np.zeros(2, bool)
    total = 0
    for _, rows in in_bands(source):
        counts += np.count_nonzero(rows == 0), np.count_nonzero(rows == one)
        total += rows.size
        if source.dtype.kind == "f":
            beyond |= (rows < 0).any(), (rows > one).any()
    black, white = np.where(beyond, 0, counts / max(1, total)).tolist()
    return black, white


def clips(means: NDArray[np.float32], sigma: float, low: float, high: float) -> bool:
    """Whether clipping to [low, high] takes anything from noise of sigma around any of the means."""
    return sigma > 0 and bool((means < low + FAR * sigma).any() or (means > high - FAR * sigma).any())


def clip_factor(means: NDArray[np.float32], sigma: float, low: float, high: float) -> NDArray[np.float32]:
    """What clipping leaves of the variance of Gaussian noise, as a share: Var(clip(y + noise)) / sigma**2.

    y is taken such that the clipped pixels have the given means; all in the same units.
    """
    if not clips(means, sigma, low, high):
        return np.ones_like(means)
    low, high = max(low, -1e6), min(high, 1e6)  # products with a vanishing probability must stay finite
    spread = sigma * np.linspace(-FAR, FAR, 81)
    y = np.sort(np.concatenate([end + spread for end in (low, high)]))
    mean, variance = clipped_moments((low - y) / sigma, (high - y) / sigma)
    factor = np.interp(means, y + sigma * mean, np.clip(variance, 1e-6, 1))
    return np.asarray(factor, dtype=np.float32)


def clipped_moments(low: Float, high: Float) -> tuple[Float, Float]:
    """Mean and variance of standard normal noise that is clipped to [low, high], both finite."""
    from scipy.special import ndtr

    below, inside, above = ndtr(low), ndtr(high) - ndtr(low), ndtr(-high)
    density_low, density_high = (np.exp(-(end**2) / 2) / np.sqrt(2 * np.pi) for end in (low, high))
    mean = low * below + density_low - density_high + high * above
    square = low**2 * below + inside + low * density_low - high * density_high + high**2 * above
    return mean, square - mean**2
