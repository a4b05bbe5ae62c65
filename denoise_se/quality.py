"""How good a result is without a reference: its PSNR, estimated from the noisy image and the denoiser alone.

With noise n of variance v_i at pixel i, independent from pixel to pixel, and a denoiser f, Stein's unbiased risk
estimate of the mean squared error over N values is

    SURE = mean((y_i - f_i(y))^2 - v_i + 2 v_i df_i/dy_i)

and the derivatives come from one more run on an image disturbed by b, random signs: b_i (f_i(y + e b) - f_i(y)) / e has
the mean df_i/dy_i. Ramani, Blu, Unser 2008, "Monte-Carlo SURE", doi:10.1109/TIP.2008.2001404; for noise that grows
with brightness, v_i is that of the unknown x_i (`NoiseLaw`): in the last term that of f_i, and in the other a function
of y_i that has its mean.

It holds where the noise is independent from pixel to pixel, not clipped, and of the level that is assumed: a level
wrong by 1 % moves the estimate of a good denoiser by 10 % of its error or more, 0.4 dB. Where the image shows that one
of these does not hold, there is a reason instead of a number. Noise whose neighbours correlate by less than about a
third does not show; the estimate is then 1 to 2 dB too high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from denoise_se.noise_estimation import NoiseEstimate
from denoise_se.noise_line import NORMAL_95, NoiseLaw

Pixels = NDArray[np.float32]

STEP = 0.03  # e, as a share of sigma: above, the network bends; far below, float32 has too few digits
WHITE = 0.9  # the highest frequencies hold at least this share of sigma in white noise
MOST_CORRELATION = 0.35
GIVEN = (0.8, 1.05)  # a given sigma lies between these multiples of the ends of the estimated interval
BRIGHTNESS_SHARE = 0.3  # of the variance; from here on noise counts as growing with brightness
CLIPPING = 2.5  # standard deviations from black and white within which clipping changes the noise
MOST_CLIPPED = 0.15  # of the pixels; the others stand for all
MOST_MARGIN = 2.0  # dB


@dataclass(frozen=True)
class QualityEstimate:
    """`psnr` in dB and the half width of its 95 % interval, `margin`; or None and a reason.

    The interval is of chance alone: texture that was taken for noise is not in it.
    """

    psnr: float | None
    margin: float | None = None
    reason: str = ""


def estimate_psnr(
    denoise: Callable[[Pixels], Pixels],
    windows: Sequence[Pixels],
    noise: NoiseEstimate,
    *,
    sigma: float | None = None,
    clipped: bool = True,
    seed: int = 0,
) -> QualityEstimate:
    """The PSNR that `denoise` reaches on `windows`.

    Args:
        denoise: gives the result [h, w, C] for pixels [h, w, C], not rounded; run twice on each window, with one and
            the same noise level.
        windows: float32 [h, w, C] or [h, w] in units of the range, the noisy image or a sample of it.
        noise: what `estimate_noise` found in it.
        sigma: the level in 8-bit units where it is known; None takes that of `noise`.
        clipped: whether values below 0 and above 1 were cut off, as all files of whole numbers have it.
    """
    reason = _unfit(noise, sigma)
    if reason:
        return QualityEstimate(None, reason=reason)
    level = (noise.sigma if sigma is None else sigma) / 255
    brightness = float(np.mean([window.mean() for window in windows]))
    grown = NoiseLaw(noise.gain_interval[0], 0.0, noise.speckle_interval[0]).at(np.asarray(brightness))
    law = noise.law if grown > BRIGHTNESS_SHARE * level**2 else NoiseLaw(0.0, level**2)
    results = [denoise(window) for window in windows]
    variances = [law.at(np.clip(result, 0, 1)) for result in results]
    # judged by the result, which the pixel's own noise hardly moves
    inside = [_inside(result, variance) | (not clipped) for result, variance in zip(results, variances, strict=True)]
    kept = sum(int(mask.sum()) for mask in inside)
    share = 1 - kept / sum(mask.size for mask in inside)
    if share > MOST_CLIPPED:
        return QualityEstimate(
            None, reason=f"{share:.0%} of the pixels are so near black or white that noise is cut off"
        )
    random = np.random.default_rng(seed)
    step = np.float32(STEP * level)
    error = total = trace = squares = 0.0
    for noisy, result, variance, mask in zip(windows, results, variances, inside, strict=True):
        signs = random.integers(0, 2, noisy.shape).astype(np.float32) * 2 - 1
        slopes = signs * (denoise(noisy + step * signs) - result) / step
        error += float(np.square(noisy - result, dtype=np.float64)[mask].sum())
        total += float(law.unbiased(noisy)[mask].sum(dtype=np.float64))
        traces = (variance * slopes)[mask].astype(np.float64)
        trace += float(traces.sum())
        squares += float(traces @ traces)
    risk = (error - total + 2 * trace) / kept
    known = sigma is not None and law.gain == law.speckle == 0  # else it is what was estimated that counts
    spread = 0.0 if known else (noise.sigma_interval[1] - noise.sigma_interval[0]) / (2 * NORMAL_95 * noise.sigma)
    # By chance: the noise's energy and, with it, the level, which count by 1 - 2 df/dy; and the signs.
    energy = math.hypot((2 / kept) ** 0.5, 2 * spread) * abs(total - 2 * trace) / kept
    uncertain = math.hypot(energy, 2 * squares**0.5 / kept)
    margin = NORMAL_95 * uncertain / risk * 10 / math.log(10) if risk > 0 else math.inf
    if margin > MOST_MARGIN:
        return QualityEstimate(
            None, reason="the error left is too small to tell from the uncertainty of the noise level"
        )
    return QualityEstimate(-10 * math.log10(risk), margin)


def looks_clipped(pixels: NDArray[np.generic]) -> bool:
    """Whether values were cut off at the ends of the range: always in whole numbers, in floats where some lie there."""
    return pixels.dtype.kind == "u" or bool((pixels.min() == 0) | (pixels.max() == 1))


def _inside(result: Pixels, variance: Pixels) -> NDArray[np.bool_]:
    """Where noise of that variance is hardly clipped."""
    reach = CLIPPING * np.sqrt(variance)
    return (result > reach) & (result < 1 - reach)


def _unfit(noise: NoiseEstimate, sigma: float | None) -> str:
    """Why no estimate can be made for such noise; nothing when it can."""
    if noise.patches == 0:
        return "the image is too small or too plain to measure its noise"
    if noise.sigma == 0 or sigma == 0:
        return "no noise was found"
    if noise.white_sigma < WHITE * noise.sigma or max(noise.correlation) > MOST_CORRELATION:
        return "the noise is correlated from pixel to pixel, as in camera JPEGs, or texture hides it"
    low, high = (bound * share for bound, share in zip(noise.sigma_interval, GIVEN, strict=True))
    if sigma is not None and not low <= sigma <= high:
        return f"the given sigma {sigma:g} does not fit the image, whose noise looks like {noise.sigma:.1f}"
    return ""
