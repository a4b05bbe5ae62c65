"""White noise measured on the nearly flat patches of an image.

Patches with little energy in the low DCT coefficients are nearly flat, and their high coefficients hold nearly nothing
but noise; see `noise_estimation` for the method and its sources.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from denoise_se.clipping import clip_factor, clips
from denoise_se.noise_line import NoiseLine, fit_law
from denoise_se.noise_patches import Array, DctPatches

Float = NDArray[np.float64]

LOW, HIGH = 6, 9  # orders: flatness is judged up to the first, noise measured from the second on
TOP = 11  # order from which the final value is taken: what is left of the picture falls with the order
MIN_TOP = 3  # patches; fewer give chance more than the picture
FLAT_QUANTILE = 0.9  # share of the truly flat patches that the test of flatness lets pass
MIN_FLAT = 100  # patches used even when none is flat
MIN_CLIP_FACTOR = 0.25  # patches that lost more of their variance to clipping say little
BINS = 24  # of brightness, over all channels, for the gain


@dataclass(frozen=True)
class Variance:
    """A variance, its standard error (both in 8-bit units squared), how many patches it was measured on, which share of
    all patches was found flat beyond those that are measured on in any case, and how bright these patches are."""

    value: float
    error: float
    patches: int
    flat: float
    brightness: float


def variance(patches: DctPatches, mix: Float) -> Variance:
    """Variance of the noise in one mixture [C] of the channels, as it was before clipping."""
    energy = np.square(np.tensordot(mix, patches.dct, 1))
    # Not the lowest two: a slope is no reason to leave a patch out.
    low = energy[:, (patches.order >= 2) & (patches.order <= LOW)]
    high = energy[:, patches.order >= HIGH]
    top = patches.order[patches.order >= HIGH] >= TOP
    means, weights = patches.means[mix != 0], np.square(mix[mix != 0])
    bright = weights @ means
    found = flat_variance(low, high, top, np.ones(len(low)), bright, patches.overlap)
    for _ in range(12):  # the factor depends on sigma
        before = found.value
        if not clips(means, before**0.5, patches.low, patches.high):
            break
        factor = weights @ clip_factor(means, before**0.5, patches.low, patches.high)
        usable = factor >= MIN_CLIP_FACTOR
        if not usable.any():
            break
        found = flat_variance(low[usable], high[usable], top, factor[usable], bright[usable], patches.overlap)
        if abs(found.value - before) <= 0.004 * before:
            break
    return found


def flat_variance(
    low: Array, high: Array, top: NDArray[np.bool_], factor: Float, bright: Float, overlap: float
) -> Variance:
    """Variance of the noise from squared coefficients low [N, L] and high [N, K], of which `top` [K] gives the result,
    and from what clipping left of them [N]."""
    from scipy.special import chdtri

    score = low.sum(axis=1, dtype=np.float64) / factor
    ranks = np.argsort(score, kind="stable")
    ordered = score[ranks]
    limit = float(chdtri(low.shape[1], 1 - FLAT_QUANTILE))
    bound = np.inf
    best = Variance(0.0, 0.0, 0, 0.0, 0.0)
    sums, share = np.zeros(high.shape[1]), 0.0
    least = more = min(len(score), max(MIN_FLAT, len(score) // 200))
    # Upwards from the flattest: from above, an image full of texture may take its texture for noise.
    while more > best.patches:
        added = ranks[best.patches : more]
        sums += high[added].sum(axis=0, dtype=np.float64)
        share += float(factor[added].sum())
        each = sums / share
        samples = max(1.0, more / overlap)
        value, error = _middle_half(each, samples)
        if value > bound:  # more than chance: the patches added last are not flat
            break
        best = Variance(
            *_middle_half(each[top] if samples >= MIN_TOP else each, samples), more, (more - least) / len(score), 0.0
        )
        bound = min(bound, value + 2 * error)
        more = min(2 * more, int(np.searchsorted(ordered, value * limit)))
    return replace(best, brightness=float(bright[ranks[: best.patches]].mean())) if best.patches else best


def _middle_half(each: Float, samples: float) -> tuple[float, float]:
    """Mean and error of the middle half of the coefficients: what is left of the picture sits in a few of them."""
    each = np.sort(each)
    middle = each[len(each) // 4 : len(each) - len(each) // 4]
    value = float(middle.mean()) / (1 - 0.45 / samples)  # the middle of the skewed chi-square law is under its mean
    return value, 1.2 * value * (2 / (samples * len(each))) ** 0.5  # 1.2: the price of the middle half


def brightness_points(patches: DctPatches, channel: int) -> tuple[Float, Float, Float]:
    """Brightness [N], variance [N] (both for pixels in [0, 1]) and its relative error [N] in bins of brightness."""
    mix = np.eye(len(patches.means))[channel]
    points = []
    for members in np.array_split(np.argsort(patches.means[channel], kind="stable"), BINS // len(patches.means)):
        if len(members):
            found = variance(patches.select(members), mix)
            points.append((found.brightness * 255, found.value, found.error))
    x, v, error = np.array(points).T / 255**2
    return x, v, np.divide(error, v, out=np.ones_like(v), where=v > 0)


def noise_line(patches: DctPatches) -> NoiseLine:
    """Variance over brightness, one line or parabola through the points of all channels."""
    every = [brightness_points(patches, channel) for channel in range(len(patches.means))]
    x, v, relative = (np.concatenate(part) for part in zip(*every, strict=True))
    return fit_law(x, v, relative)
