"""The camera model's parameters, fitted to noisy/clean pairs: from some photos of a camera to noise on any picture.

For each pair the gain, the read noise and the smoothing radii are sought (Nelder and Mead, 1965) with which
`denoise_se.camera_noise.Camera` puts noise on the clean picture that has the measures of the real noise: its level in
dark and bright parts, its level in colour, and its correlation over one to four pixels, in luma and in colour. The
ranges that most pairs lie in are the noise to train on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from denoise_se.camera_noise import Camera
from denoise_se.errors import UsageError
from denoise_se.loaded import centre, to_unit
from denoise_se.noise_model import Range, luma
from denoise_se.training_images import Pair

PARAMETERS = ("gain", "read", "luma", "chroma")
START = (0.001, 0.004, 0.6, 1.2)
LOWEST = (1e-6, 1e-5, 0.1, 0.1)
HIGHEST = (0.2, 0.2, 2.5, 4.0)
SMALLEST_SIDE = 64
SIDE = 192  # of the centre that is looked at
SMOOTH = 15  # pixels; slower differences are of the exposure and the scene, not noise
BANDS = 4  # of brightness, equally many pixels each
LAGS = (1, 2, 4)
CORRELATION = 2.0  # what a correlation counts for beside the binary logarithm of a level
EVALUATIONS = 140
SPREAD = (0.1, 0.9)  # quantiles over the pairs that make the ranges


@dataclass(frozen=True)
class CameraFit:
    """`parameters` [pairs, 4] in the order of PARAMETERS; `misfit` [pairs], the root mean square error of the levels in
    factors of two."""

    names: tuple[str, ...]
    parameters: np.ndarray
    misfit: np.ndarray

    def ranges(self) -> dict[str, Range]:
        low, high = np.quantile(self.parameters, SPREAD, axis=0)
        return {name: Range(float(low[i]), float(high[i])) for i, name in enumerate(PARAMETERS)}

    def spec(self) -> str:
        """The noise spec of the ranges."""
        return "camera:" + ",".join(f"{name}={_text(a)}-{_text(b)}" for name, (a, b) in self.ranges().items())


def fit_camera(pairs: Iterable[Pair]) -> CameraFit:
    """Fit each of some pairs [3, H, W], RGB and at least SMALLEST_SIDE pixels a side.

    Raises:
        UsageError: a pair's two sides are equal, or it is grey.
    """
    found = [(pair.name, *_fit_pair(pair)) for pair in pairs]
    names, parameters, misfit = zip(*found, strict=True)
    return CameraFit(names, np.array(parameters), np.array(misfit))


def measures(noise: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Levels [BANDS + 1], binary logarithms of standard deviations: luma from dark to bright, then colour; and
    correlations [2 * len(LAGS)] of luma and of colour. Of [1, 3, H, W] each, slow differences left out."""
    noise = noise - F.avg_pool2d(F.pad(noise, (SMOOTH // 2,) * 4, mode="reflect"), SMOOTH, stride=1)
    grey = luma(noise)
    colour = noise - grey
    order = luma(clean).flatten().argsort()
    levels = [band.square().mean() for band in grey.flatten()[order].chunk(BANDS)] + [colour.square().mean()]
    correlations = [_correlation(part, lag) for part in (grey, colour) for lag in LAGS]
    return 0.5 * torch.stack(levels).clamp_min(1e-12).log2(), torch.stack(correlations)


def _fit_pair(pair: Pair) -> tuple[np.ndarray, float]:
    assert pair.noisy is not None
    noisy, clean = (to_unit(centre(image, SIDE)[None]) for image in (pair.noisy, pair.clean))
    if torch.equal(noisy, clean):
        raise UsageError(f"{pair.name}: both sides are equal, so there is no noise to fit")
    if torch.equal(noisy, noisy[:, :1].expand_as(noisy)):
        raise UsageError(
            f"{pair.name}: grey, and the camera model is of a colour sensor; use denoise-se noise profile instead"
        )
    levels, correlations = measures(noisy - clean, clean)

    def distances(point: np.ndarray) -> tuple[Tensor, Tensor]:
        values = np.clip(np.exp(point), LOWEST, HIGHEST)
        model = Camera(*(Range(float(value), float(value)) for value in values))
        made = model(clean, torch.Generator().manual_seed(0)).image - clean
        made_levels, made_correlations = measures(made, clean)
        return made_levels - levels, made_correlations - correlations

    def error(point: np.ndarray) -> float:
        level, correlation = distances(point)
        return float(level.square().mean() + CORRELATION**2 * correlation.square().mean())

    with torch.no_grad():
        begin = np.log(START)
        simplex = np.stack([begin, *(begin + 0.7 * unit for unit in np.eye(len(START)))])
        options = {"maxfev": EVALUATIONS, "xatol": 0.01, "fatol": 1e-4, "initial_simplex": simplex}
        best = minimize(error, begin, method="Nelder-Mead", options=options).x
        misfit = math.sqrt(float(distances(best)[0].square().mean()))
    return np.clip(np.exp(best), LOWEST, HIGHEST), misfit


def _correlation(noise: Tensor, lag: int) -> Tensor:
    """Of pixels that lie `lag` apart across or down."""
    across = (noise[..., lag:] * noise[..., :-lag]).mean()
    down = (noise[..., lag:, :] * noise[..., :-lag, :]).mean()
    return 0.5 * (across + down) / noise.square().mean().clamp_min(1e-12)


def _text(value: float) -> str:
    """Two digits, without an exponent."""
    digits = max(0, 1 - math.floor(math.log10(value)))
    return f"{value:.{digits}f}"
