"""Pairs out of noisy pictures: what a denoiser makes of them, at half the size, with noise like theirs put back.

For noise that hides behind the picture, so that only a lower bound of its level is known but its correlation well
(`removed_noise`). What the denoiser left of the noise mostly goes when four pixels become one, so the half-size result
stands for a clean picture; the noise put on it is 1 to 2 times the bound, and a network without a noise map learns to
tell how much there is. Training on denoised pictures is self-training, as in "Noisy Student", Xie et al. 2020,
arXiv:1911.04252.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from denoise_se.checkpoint import Checkpoint
from denoise_se.datasets import Example, example
from denoise_se.held_out_risk import Denoise, placed
from denoise_se.loaded import middle
from denoise_se.noise_model import AddNoise, NoiseModel, Noisy, Range
from denoise_se.objectives import with_noise
from denoise_se.removed_noise import flat_parts, steep_parts
from denoise_se.training_images import Pair

TIMES = Range(1, 2)
SIDE = 1024  # of the pictures' centres that are denoised
MOST_PIXELS = 8_000_000  # of all of them; half a minute on two cores


@dataclass(frozen=True)
class Scaled:
    """``y = x + k * n(x)``, k drawn for each image: noise of known kind and unsure level."""

    noise: NoiseModel
    times: Range = TIMES

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        times = self.times.draw(clean, generator)
        noisy, level = self.noise(clean, generator)
        return Noisy(clean + times * (noisy - clean), times * level)


@torch.no_grad()
def half_size(denoise: Denoise, noisy: Tensor, told: Tensor) -> Tensor:
    """[1, C, H/2, W/2] of [1, C, H, W]: denoised, then the means of 2x2 pixels, in [0, 1]."""
    return F.avg_pool2d(denoise(noisy, told), 2).clamp(0, 1)


def resynthesised(images: Sequence[Pair], start: Checkpoint, minimum: int) -> list[Pair]:
    """Clean images (uint16, without noisy sides) of at least `minimum` pixels a side; none where all are too small."""
    network, found, pixels = start.network(), [], 0
    for pair in images:
        part = example(pair, (slice(None), *middle(pair.clean.shape[1:], SIDE))).in_unit()
        if min(part.noisy.shape[1:]) // 2 < minimum:
            continue
        half = half_size(network, part.noisy[None], part.told.expand_as(part.noisy[:1])[None])[0]
        found.append(Pair(pair.name, None, (half * 65535).round().to(torch.uint16)))
        pixels += part.noisy[0].numel()
        if pixels > MOST_PIXELS:
            break
    return found


@dataclass(frozen=True)
class ResynthesisRisk:
    """Judges a network on held-out noisy images [1, C, H, W] in [0, 1].

    The mean squared error on their half-size results with noise put back; on the images themselves, so that nobody is
    praised for what is not there, two things count as error besides: noise that `start` removes in flat parts and the
    network does not, and what it removes beyond `start` where the picture is steep and not where it is flat, which is
    the picture itself.
    """

    noise: AddNoise
    start: Denoise

    def __call__(self, network: Denoise, image: Example, generator: torch.Generator) -> Tensor:
        noisy, told = with_noise(None, image, generator)
        start = placed(self.start, noisy.device)
        clean = half_size(start, noisy, told)
        made, level = self.noise(clean, generator)
        error = (network(made, level) - clean).square().mean()
        before = start(noisy, told)
        picture = before[0].permute(1, 2, 0).cpu().numpy()
        flat, steep = (torch.from_numpy(find(picture)).to(noisy.device) for find in (flat_parts, steep_parts))
        more = (noisy - network(noisy, told)).square() - (noisy - before).square()
        in_flat, in_steep = more[..., flat].mean(), more[..., steep].mean()
        return error + (-in_flat).clamp_min(0) + (in_steep - in_flat.clamp_min(0)).clamp_min(0)
