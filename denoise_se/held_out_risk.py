"""How far a denoiser is from the clean image that nobody has: Stein's risk estimate for noise of any covariance.

For y = x + n, n Gaussian with covariance S, and a denoiser f of N values,

    E |f(y) - x|^2 / N = E [ |f(y) - y|^2 - tr S + 2 tr(S J) ] / N,   J the Jacobian of f

(Eldar 2009, doi:10.1109/TSP.2008.2008212). With w a second noise of covariance S, w (f(y + e w) - f(y)) / e has the
mean tr(S J): the Monte-Carlo form of Ramani, Blu and Unser 2008, doi:10.1109/TIP.2008.2001404, with w in the place of
white noise. It is as good as the measured noise; an error in the level moves all denoisers alike in its first term, so
a comparison of two is surer than each figure. Pixels near black and white, where noise is cut off, are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from denoise_se.datasets import Example
from denoise_se.network_psnr import decibels
from denoise_se.noise_model import NoiseModel
from denoise_se.objectives import own_noise, with_noise
from denoise_se.removed_noise import flat_parts

Denoise = Callable[[Tensor, Tensor], Tensor]  # noisy [B, C, H, W] and its noise level [B, 1, H, W] to clean
STEP = 0.03  # e: above, the network bends; far below, float32 has too few digits
CLIPPING = 2.5  # standard deviations of the noise
LEAST_INSIDE = 0.05  # of the pixels; with fewer all count
SMALLEST = 1e-6  # an estimate can be below 0 by chance


class Risk(Protocol):
    """Judges a network on one noisy image [1, C, H, W] in [0, 1]: a mean squared error, as far as one can know it."""

    def __call__(self, network: Denoise, image: Example, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class HeldOutRisk:
    """Estimates for noisy images [1, C, H, W] in [0, 1] with the measured `noise`.

    Noise that is measured too low makes it look right to leave some in. Where that is to be feared, `start` is given:
    what it removes in flat parts is noise, so what another network leaves of it there counts as error too.
    """

    noise: NoiseModel
    start: Denoise | None = None

    def __call__(self, network: Denoise, image: Example, generator: torch.Generator) -> Tensor:
        """The mean squared error of `network` on the image, a scalar; below 0 by chance where it is very small."""
        noisy, told = with_noise(None, image, generator)
        added, level = own_noise(self.noise, noisy, generator)
        result = network(noisy, told)
        moved = network(noisy + STEP * added, told)
        each = (noisy - result).square() - level.square() + 2 * added * (moved - result) / STEP
        inside = ((result > CLIPPING * level) & (result < 1 - CLIPPING * level)).float()
        if float(inside.mean()) < LEAST_INSIDE:
            inside = torch.ones_like(inside)
        risk = (each * inside).sum() / inside.sum()
        if self.start is None:
            return risk
        before = placed(self.start, noisy.device)(noisy, told)
        flat = torch.from_numpy(flat_parts(before[0].permute(1, 2, 0).cpu().numpy())).to(noisy.device)
        left = (noisy - before).square() - (noisy - result).square()
        return risk + left[..., flat].mean().clamp_min(0)


def placed(denoise: Denoise, device: torch.device) -> Denoise:
    """`denoise`, its weights moved to `device` where it has any."""
    return denoise.to(device) if isinstance(denoise, nn.Module) else denoise


def as_psnr(risks: Tensor) -> Tensor:
    """The PSNR in dB of the mean of some estimates."""
    return decibels(risks.mean().clamp_min(SMALLEST))
