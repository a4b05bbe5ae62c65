"""How far a denoiser is from the clean image that nobody has: Stein's risk estimate for noise of any covariance.

For y = x + n, n Gaussian with covariance S, and a denoiser f of N values,

    E |f(y) - x|^2 / N = E [ |f(y) - y|^2 - tr S + 2 tr(S J) ] / N,   J the Jacobian of f

(Eldar 2009, doi:10.1109/TSP.2008.2008212). With w a second noise of covariance S, w (f(y + e w) - f(y)) / e has the
mean tr(S J): the Monte-Carlo form of Ramani, Blu and Unser 2008, doi:10.1109/TIP.2008.2001404, with w in the place of
white noise. It is as good as the measured noise; an error in the level moves all denoisers alike in its first term, so
a comparison of two is surer than each figure. Pixels near black and white, where noise is cut off, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from denoise_se.datasets import Example
from denoise_se.network_psnr import decibels
from denoise_se.noise_model import NoiseModel, Noisy
from denoise_se.objectives import own_noise, with_noise
from denoise_se.removed_noise import flat_parts

Denoise = Callable[[Tensor, Tensor], Tensor]  # noisy [B, C, H, W] and its noise level [B, 1, H, W] to clean
STEP = 0.03  # e: above, the network bends; far below, float32 has too few digits
CLIPPING = 2.5  # standard deviations of the noise
LEAST_INSIDE = 0.05  # of the pixels; with fewer all count
LEAST_LEFT = 0.1  # of the variance that the start removes in flat parts
SMALLEST = 1e-6  # an estimate below it says that the measured noise is not that of the images


class Risk(Protocol):
    """Judges a network on one noisy image [1, C, H, W] in [0, 1]: a mean squared error, as far as one can know it."""

    def __call__(self, network: Denoise, image: Example, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class HeldOutRisk:
    """Estimates for noisy images [1, C, H, W] in [0, 1] with the measured `noise`.

    Noise that is measured too low, or that differs from what was measured, makes it look right to leave some in. Where
    that is to be feared, `start` is given: what it removes in flat parts is noise, so what another network leaves of it
    there counts as error too, and with more than a LEAST_LEFT of it left a network counts as no better than the start.
    """

    noise: NoiseModel
    start: Denoise | None = None

    def __call__(self, network: Denoise, image: Example, generator: torch.Generator) -> Tensor:
        """The mean squared error of `network` on the image, a scalar; below 0 by chance where it is very small."""
        noisy, told = with_noise(None, image, generator)
        made = own_noise(self.noise, noisy, generator)
        result, risk = _stein(network, noisy, told, made)
        if self.start is None:
            return risk
        before, risk_before = _stein(placed(self.start, noisy.device), noisy, told, made)
        flat = torch.from_numpy(flat_parts(before[0].permute(1, 2, 0).cpu().numpy())).to(noisy.device)
        removed, removed_before = ((noisy - clean).square()[..., flat].mean() for clean in (result, before))
        left = (removed_before - removed).clamp_min(0)
        return (torch.maximum(risk, risk_before) if left > LEAST_LEFT * removed_before else risk) + left


def _stein(network: Denoise, noisy: Tensor, told: Tensor, made: Noisy) -> tuple[Tensor, Tensor]:
    """What a network makes of the image, and Stein's estimate of its mean squared error, with `made` as more noise."""
    added, level = made
    result = network(noisy, told)
    moved = network(noisy + STEP * added, told)
    each = (noisy - result).square() - level.square() + 2 * added * (moved - result) / STEP
    inside = ((result > CLIPPING * level) & (result < 1 - CLIPPING * level)).float()
    if float(inside.mean()) < LEAST_INSIDE:
        inside = torch.ones_like(inside)
    return result, (each * inside).sum() / inside.sum()


def placed(denoise: Denoise, device: torch.device) -> Denoise:
    """`denoise`, its weights moved to `device` where it has any."""
    return denoise.to(device) if isinstance(denoise, nn.Module) else denoise


def as_psnr(risks: Tensor) -> Tensor:
    """The PSNR in dB of the mean of some estimates; NaN where it is below SMALLEST, which nothing can be."""
    mean = risks.mean()
    return decibels(mean) if mean >= SMALLEST else torch.full_like(mean, math.nan)
