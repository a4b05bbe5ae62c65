"""The noise of pictures as far as a denoiser removes it where there is nothing else to remove.

Coarse grain and camera JPEGs' noise hide behind a picture's own detail, and are then measured far too low on it
(`measure_noise`). In the flat parts of a picture what a trained denoiser takes away is noise, so it is a lower bound of
it, and its correlation is the noise's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from denoise_se.checkpoint import Checkpoint
from denoise_se.loaded import middle
from denoise_se.noise_measurement import measure_residuals
from denoise_se.noise_model import NoiseModel
from denoise_se.noise_profile import NoiseProfile
from denoise_se.noise_series import Residual
from denoise_se.objectives import own_noise

IMAGES = 8  # are enough
SIDE = 256  # of their centres
FLAT = 0.4  # share of the pixels, those of the weakest gradient
STEEP = 0.2  # likewise of the strongest
SMOOTH = 1.5  # pixels, of that gradient

Array = NDArray[np.float32]


@torch.no_grad()
def removed_noise(images: Sequence[Array], start: Checkpoint, noise: NoiseModel) -> list[Residual]:
    """What `start` removes from images [H, W, C] (float32 in [0, 1]; IMAGES of them are enough), flat parts marked.

    `noise` tells a network with a noise map the level.
    """
    from scipy.ndimage import uniform_filter

    network = start.network()
    side = min(SIDE, *(min(image.shape[:2]) for image in images))
    found = []
    for image in images:
        noisy = np.ascontiguousarray(image[middle(image.shape[:2], side)])
        batch = torch.from_numpy(noisy.transpose(2, 0, 1).copy())[None]
        level = own_noise(noise, batch, torch.Generator().manual_seed(0))[1]
        result = network(batch, level)[0].numpy().transpose(1, 2, 0)
        flat = flat_parts(result)[..., None].repeat(result.shape[2], axis=2)
        brightness = uniform_filter(result, size=(5, 5, 1)).clip(0, 1)
        found.append(Residual(noisy - result, brightness, (noisy > 0) & (noisy < 1), 1.0, flat))
    return found


def flat_parts(result: Array) -> NDArray[np.bool_]:
    """[H, W]: the 40 % of a denoised image [H, W, C] whose brightness changes least from pixel to pixel."""
    steep = _steepness(result)
    return np.asarray(steep <= np.quantile(steep, FLAT))


def steep_parts(result: Array) -> NDArray[np.bool_]:
    """[H, W]: the 20 % where it changes most."""
    steep = _steepness(result)
    return np.asarray(steep >= np.quantile(steep, 1 - STEEP))


def _steepness(result: Array) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_gradient_magnitude

    return np.asarray(gaussian_gradient_magnitude(result.mean(axis=2), SMOOTH))


def excess(residuals: Sequence[Residual], profile: NoiseProfile) -> float:
    """The variance that was removed in flat parts, as a multiple of what `profile` says there is."""
    removed = expected = 0.0
    for residual in residuals:
        assert residual.counts is not None
        used = residual.counts & residual.whole
        removed += float(np.square(residual.noise)[used].sum(dtype=np.float64))
        expected += float(profile.variance(residual.brightness)[used].sum())
    return removed / max(expected, 1e-12)


def removed_profile(residuals: list[Residual]) -> NoiseProfile:
    """Its profile; raises UsageError where all is clipped."""
    return measure_residuals(residuals, f"what the start removes from {len(residuals)} images", 0.0).profile
