"""Denoisers without a network, to measure against: BM3D, non-local means, wavelet shrinkage, total variation.

All take a noisy image `[H, W]` or `[H, W, 3]` (RGB), float32, nominally in [0, 1] and not clipped, and sigma in 8-bit
units or None when it is not known; they return the same shape, float32. Each knows its own way to deal with an unknown
sigma.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Denoise = Callable[[Pixels, float | None], Pixels]

# BM3D's blocks are 8x8; smaller images are mirrored up to this side.
_BM3D_SMALLEST_SIDE = 16
_WAVELET_SMALLEST_SIDE = 4

# Best on crops of BSDS500 training photos at sigma 15, 25 and 50, on a grid of step 0.1 to 0.2.
_NLM_H_PER_SIGMA_GRAY = 0.9
_NLM_H_PER_SIGMA_COLOR = 0.6
_TV_WEIGHT_PER_SIGMA = 1.0


@dataclass(frozen=True)
class ClassicalMethod:
    """A named classical denoiser; `channels` is None because it takes grey and colour images alike."""

    name: str
    denoise: Denoise
    channels: int | None = None

    def __call__(self, noisy: Pixels, sigma: float | None) -> Pixels:
        if sigma == 0:
            return noisy.copy()
        return self.denoise(noisy, sigma)


def wavelet_sigma(noisy: Pixels) -> float:
    """The standard deviation of the noise, in 8-bit units, from the median absolute finest wavelet coefficient.

    Donoho and Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage", doi:10.1093/biomet/81.3.425. Mean over
    the channels. Images too small for it (a side under 4 pixels) count as free of noise.
    """
    from skimage.restoration import estimate_sigma

    if min(noisy.shape[:2]) < _WAVELET_SMALLEST_SIDE:
        return 0.0
    planes = np.atleast_3d(noisy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a flat channel has no coefficients: NaN, counted as no noise
        sigmas = [float(estimate_sigma(planes[..., c])) for c in range(planes.shape[2])]
    return 255.0 * sum(sigma for sigma in sigmas if math.isfinite(sigma)) / len(sigmas)


def bm3d(noisy: Pixels, sigma: float | None) -> Pixels:
    """Block-matching and 3-D filtering; colour in the opponent colour space.

    Dabov, Foi, Katkovnik and Egiazarian 2007, doi:10.1109/TIP.2007.901238; the implementation is that of Makinen,
    Azzari and Foi 2020, doi:10.1109/TIP.2020.3014721 (the `bm3d` package, for non-commercial use). An unknown sigma is
    estimated with `wavelet_sigma`.
    """
    import bm3d as package

    sigma = wavelet_sigma(noisy) if sigma is None else sigma
    if sigma == 0:
        return noisy.copy()
    height, width = noisy.shape[:2]
    missing = [(0, max(0, _BM3D_SMALLEST_SIDE - side)) for side in (height, width)]
    padded = np.pad(noisy, missing + [(0, 0)] * (noisy.ndim - 2), mode="symmetric").astype(np.float64)
    planes = np.atleast_3d(padded)
    if noisy.ndim == 3 and _varies_in_every_opponent_color(planes):
        result = package.bm3d_rgb(padded, sigma / 255.0)
    else:
        result = np.dstack([package.bm3d(planes[..., c], sigma / 255.0) for c in range(planes.shape[2])])
    return np.asarray(result, dtype=np.float32).reshape(padded.shape)[:height, :width]


def nlm(noisy: Pixels, sigma: float | None) -> Pixels:
    """Non-local means of OpenCV: 7x7 patches in a 21x21 neighbourhood, on 8-bit values (so the input is clipped).

    Buades, Coll and Morel 2005, doi:10.1109/CVPR.2005.38. The filter strength h is in proportion to sigma. An
    unknown sigma is estimated with `wavelet_sigma`, which finds too little where noise is correlated as in photos, so h
    is then at least OpenCV's own default, 3.
    """
    import cv2

    codes = np.round(np.clip(noisy, 0.0, 1.0) * 255.0).astype(np.uint8)
    if noisy.ndim == 2:
        h = _nlm_strength(noisy, sigma, _NLM_H_PER_SIGMA_GRAY)
        result = cv2.fastNlMeansDenoising(codes, None, h, 7, 21)
    else:
        h = _nlm_strength(noisy, sigma, _NLM_H_PER_SIGMA_COLOR)
        result = cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(codes[..., ::-1]), None, h, h, 7, 21)[..., ::-1]
    return result.astype(np.float32) / np.float32(255.0)


def wavelet(noisy: Pixels, sigma: float | None) -> Pixels:
    """Soft wavelet shrinkage with the BayesShrink threshold, colour in YCbCr; scikit-image's implementation.

    Chang, Yu and Vetterli 2000, doi:10.1109/83.862633. An unknown sigma is estimated for
    each channel. An image too small for one level of the transform comes back as it is.
    """
    from skimage.restoration import denoise_wavelet

    if min(noisy.shape[:2]) < _WAVELET_SMALLEST_SIDE:
        return noisy.copy()
    color = noisy.ndim == 3

    def shrunk(sigma: float | None) -> Pixels:
        result = denoise_wavelet(
            noisy,
            sigma=None if sigma is None else sigma / 255.0,
            method="BayesShrink",
            mode="soft",
            rescale_sigma=True,
            convert2ycbcr=color,
            channel_axis=-1 if color else None,
        )
        return np.asarray(result, dtype=np.float32)

    if sigma is not None:
        return shrunk(sigma)
    overall = wavelet_sigma(noisy)
    if overall == 0:
        return noisy.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = shrunk(None)
    # A channel without any detail has no estimate of its own and comes back as NaN.
    return result if np.isfinite(result).all() else shrunk(overall)


def tv(noisy: Pixels, sigma: float | None) -> Pixels:
    """Total variation by Chambolle's projection; scikit-image's implementation. The weight is in proportion to sigma.

    Chambolle 2004, doi:10.1023/B:JMIV.0000011325.36760.1e. An unknown sigma is estimated with `wavelet_sigma`.
    """
    from skimage.restoration import denoise_tv_chambolle

    sigma = wavelet_sigma(noisy) if sigma is None else sigma
    if sigma == 0:
        return noisy.copy()
    weight = _TV_WEIGHT_PER_SIGMA * sigma / 255.0
    result = denoise_tv_chambolle(noisy, weight=weight, channel_axis=-1 if noisy.ndim == 3 else None)
    return np.asarray(result, dtype=np.float32)


def _nlm_strength(noisy: Pixels, sigma: float | None, per_sigma: float) -> float:
    return per_sigma * sigma if sigma is not None else max(3.0, per_sigma * wavelet_sigma(noisy))


def _varies_in_every_opponent_color(planes: NDArray[np.float64]) -> bool:
    # The package divides by the extent of each opponent colour, which is nothing in a grey or a flat colour image.
    red, green, blue = np.moveaxis(planes, -1, 0)
    return all(float(np.ptp(axis)) > 1e-6 for axis in (red + green + blue, red - blue, red - 2 * green + blue))
