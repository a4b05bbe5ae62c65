"""What a network is told of noise while it learns: what `Denoiser` will tell it of such an image, and not the truth.

`Denoiser` estimates one level for a whole image (`NoiseEstimate.level`). For white Gaussian noise that is nearly its
standard deviation. For noise that is correlated it may be twice as much, for noise that depends on the brightness it is
a mean, and the difference to the mean of other shots holds the noise of these, too. A network that has learnt with such
levels takes the estimate for more or less noise than there is: `gray`, tuned for a minute on bursts of two shots with
sigma 25, lost 3 dB.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from denoise_se.checkpoint import Checkpoint
from denoise_se.loaded import centre, to_unit
from denoise_se.network_config import NetworkConfig
from denoise_se.noise import NoiseChain, NoiseMixture, is_gaussian
from denoise_se.noise_estimation import estimate_noise
from denoise_se.noise_model import AddNoise, Noisy
from denoise_se.training_images import Pair, thinned

IMAGES, SIDE = 16, 512  # that estimates are compared with the truth on, twice each, and how much of their middle
LEAST = 1 / 255  # of noise; of less an estimate says little
NEAREST = 4  # samples that a patch is told one of


def estimated_level(image: Tensor) -> float:
    """The standard deviation, in [0, 1], that `Denoiser` tells a network for an image [C, H, W], uint8, uint16 or float
    in [0, 1]."""
    return estimate_noise(image.permute(1, 2, 0).cpu().numpy()).level / 255


def with_told(pairs: Sequence[Pair], network: NetworkConfig, start: Checkpoint | None = None) -> list[Pair]:
    """The pairs that bring their own noise with what is told of it; as they are where network and start are blind."""

    def complete(pair: Pair) -> Pair:
        if pair.noisy is None or pair.told is not None:
            return pair
        return pair._replace(told=estimated_level(pair.noisy))

    if not (network.noise_map or (start is not None and start.config.noise_map)):
        return list(pairs)
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(complete, pairs))


@dataclass(frozen=True)
class AsEstimated:
    """`noise`, told as an estimate would say. For patches, which are too small for estimates of their own.

    samples: of some images with such noise, the root mean square of what it changed, and the estimate as a multiple of
    that. A patch is told its own root mean square times the multiple of one of the samples that come nearest to it.
    """

    noise: AddNoise
    samples: tuple[tuple[float, float], ...]

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        image, _ = self.noise(clean, generator)
        strength = (image - clean).square().mean(dim=(1, 2, 3)).sqrt()
        strengths, multiples = clean.new_tensor(self.samples).unbind(1)
        ratio = (strength.clamp_min(1e-6).log()[:, None] - strengths.log()).abs()
        near = ratio.topk(min(NEAREST, len(strengths)), largest=False).indices
        drawn = torch.randint(near.shape[1], (len(clean), 1), generator=generator, device=clean.device)
        level = strength * multiples[near.gather(1, drawn)[:, 0]]
        return Noisy(image, level[:, None, None, None].expand_as(clean[:, :1]))


@dataclass(frozen=True)
class Estimated:
    """`noise`, told as it is estimated on each image."""

    noise: AddNoise

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        image, _ = self.noise(clean, generator)
        level = clean.new_tensor([estimated_level(each) for each in image])[:, None, None, None]
        return Noisy(image, level.expand_as(clean[:, :1]))


def to_learn(noise: AddNoise, network: NetworkConfig, images: Sequence[Tensor]) -> AddNoise:
    """`noise` as a step puts it on patches; `images` [C, H, W], uint8 or uint16, are clean ones of the training."""
    if not _is_estimated(noise, network):
        return noise
    if isinstance(noise, NoiseMixture):
        return NoiseMixture(tuple(to_learn(model, network, images) for model in noise.models))
    samples = []
    chosen = thinned(images, IMAGES)
    for index, image in enumerate([*chosen, *chosen]):
        clean = to_unit(centre(image, SIDE)[None])
        noisy = noise(clean, torch.Generator().manual_seed(index)).image
        found, truth = estimate_noise(noisy[0].permute(1, 2, 0).numpy()), float((noisy - clean).square().mean().sqrt())
        if found.patches and truth > LEAST:
            samples.append((truth, found.level / 255 / truth))
    return AsEstimated(noise, tuple(samples) or ((1.0, 1.0),))


def to_judge(noise: AddNoise, network: NetworkConfig) -> AddNoise:
    """`noise` as it is put on whole validation images."""
    return Estimated(noise) if _is_estimated(noise, network) else noise


def _is_estimated(noise: AddNoise, network: NetworkConfig) -> bool:
    """Not the level of white Gaussian noise: estimates of it are right, and whoever knows it may say it."""
    return network.noise_map and not (isinstance(noise, NoiseChain | NoiseMixture) and is_gaussian(noise))
