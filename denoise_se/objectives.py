"""What a training step minimises: with clean images, with noisy ones alone, and with the start's old noise between.

An objective maps a batch of patches to a loss; it does not know where the patches come from. Random numbers come from
the generator of the step, so a resumed run repeats them; they are drawn for the whole batch, of which a process then
takes its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from denoise_se.datasets import Example, Patches
from denoise_se.loaded import to_unit
from denoise_se.noise_model import AddNoise, NoiseModel, Noisy, luma

if TYPE_CHECKING:
    from denoise_se.training import DenoisingTask

STRENGTHS = (0.3, 0.7)  # of the noise that Recorrupted-to-Recorrupted adds, as a multiple of the image's own
SMOOTH = 5  # pixels; the brightness beneath the noise
STOPS = 3.0  # that patches are made darker by, at most
REGULARISER = 2.0  # Neighbor2Neighbor's weight at the end of training (Huang et al., gamma)


class Objective(Protocol):
    """`patches` are floats [B, C, p, p] in [0, 1]; the loss is a scalar."""

    def __call__(self, task: DenoisingTask, patches: Example, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Supervised:
    """From noisy to clean; `noise` is added to the clean patches, None takes the noisy ones as they are."""

    noise: AddNoise | None

    def __call__(self, task: DenoisingTask, patches: Example, generator: torch.Generator) -> Tensor:
        patches = darkened(patches, task.config.darkened, generator)
        made = with_noise(self.noise, patches, generator)
        noisy, level, clean = task.share(*greyed(made, patches.clean, task.config.greyed, generator))
        return task.loss(task.predict(noisy, level), clean)


@dataclass(frozen=True)
class Rehearsed:
    """`objective`, but in a `share` of the steps the noise that the start was trained on, on the clean patches, or on
    patches of other `pictures`."""

    objective: Objective
    old: AddNoise
    share: float
    pictures: Patches | None = None

    def __call__(self, task: DenoisingTask, patches: Example, generator: torch.Generator) -> Tensor:
        if float(torch.rand((), generator=generator, device=generator.device)) < self.share:
            if self.pictures is not None:
                first, count = task.global_step * len(patches.clean), len(patches.clean)
                drawn = [to_unit(self.pictures[index].clean) for index in range(first, first + count)]
                patches = patches._replace(clean=torch.stack(drawn).to(patches.clean.device))
            return Supervised(self.old)(task, patches, generator)
        return self.objective(task, patches, generator)


@dataclass(frozen=True)
class Recorrupted:
    """Recorrupted-to-Recorrupted (Pang et al., CVPR 2021): for y = x + n and z with the covariance of n,

        loss(f(y + a z), y - z / a)

    has the same minimum as with x as the target, as y + a z and y - z/a have independent noise when both are Gaussian.
    It needs no clean image and any covariance will do, so banding and grain are removed too; it is only as good as
    `noise`, the measured one. a is drawn from STRENGTHS for each patch, so that the network also sees noise near n's.
    """

    noise: NoiseModel

    def __call__(self, task: DenoisingTask, patches: Example, generator: torch.Generator) -> Tensor:
        noisy, (low, high) = patches.noisy, STRENGTHS
        unit = torch.rand(len(noisy), 1, 1, 1, generator=generator, device=noisy.device)
        strength = low + (high - low) * unit
        added, _ = own_noise(self.noise, noisy, generator)
        level = (patches.told * (1 + strength**2).sqrt()).expand_as(noisy[:, :1])
        noisier, level, target = task.share(noisy + strength * added, level, noisy - added / strength)
        return task.loss(task.predict(noisier, level), target)


@dataclass(frozen=True)
class Neighbours:
    """Neighbor2Neighbor (Huang et al., CVPR 2021, arXiv:2101.02824): of each 2x2 cell two pixels that touch go into two
    images of half the size, g1 and g2; with D = f(y) taken as constant,

        mean((f(g1) - g2)^2) + w mean((f(g1) - g2 - (D1 - D2))^2)

    where D1, D2 are D at the same pixels, and w grows to REGULARISER. It holds for noise that is independent from pixel
    to pixel and of mean 0, whatever its distribution, without a noise model.
    """

    def __call__(self, task: DenoisingTask, patches: Example, generator: torch.Generator) -> Tensor:
        level = patches.told.expand_as(patches.noisy[:, :1])
        noisy, level, first, second = task.share(patches.noisy, level, *neighbours(patches.noisy, generator))
        with torch.no_grad():
            whole = task.predict(noisy, level).float()
        one, other = pick(noisy, first), pick(noisy, second)
        difference = task.predict(one, F.avg_pool2d(level, 2)).float() - other
        consistent = difference - (pick(whole, first) - pick(whole, second))
        return difference.square().mean() + REGULARISER * task.progress * consistent.square().mean()


def with_noise(noise: AddNoise | None, images: Example, generator: torch.Generator) -> Noisy:
    """`noise` on the clean images [B, C, H, W]; without it the noisy ones, and what is told of them."""
    if noise is None:
        return Noisy(images.noisy, images.told.expand_as(images.clean[:, :1]))
    with torch.autocast(images.clean.device.type, enabled=False):
        return noise(images.clean, generator)


def darkened(images: Example, share: float, generator: torch.Generator) -> Example:
    """A `share` of the images [B, C, H, W] times a number from 1 down to 1 / 2**STOPS, with the noise they have."""
    if share == 0:
        return images
    chosen, unit = torch.rand(2, len(images.clean), 1, 1, 1, generator=generator, device=images.clean.device)
    factor = torch.where(chosen < share, torch.exp2(-STOPS * unit), 1.0)
    return Example(images.noisy * factor, images.clean * factor, images.told * factor)


def greyed(noisy: Noisy, clean: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(noisy, level, clean), a `share` of them with the luma of their noise in all channels, half of these grey."""
    image, level = noisy
    if share == 0 or clean.shape[1] == 1:
        return image, level, clean
    draws = torch.rand(2, len(clean), 1, 1, 1, generator=generator, device=clean.device)
    chosen, whole = draws[0] < share, draws[1] < 0.5
    noise = image - clean
    in_grey = luma(noise)
    weaker = in_grey.square().mean(dim=(1, 2, 3), keepdim=True) / noise.square().mean(dim=(1, 2, 3), keepdim=True)
    clean = torch.where(chosen & whole, luma(clean), clean)
    return (
        torch.where(chosen, clean + in_grey, image),
        torch.where(chosen, level * weaker.nan_to_num(1.0).sqrt(), level),
        clean,
    )


def own_noise(noise: NoiseModel, noisy: Tensor, generator: torch.Generator) -> Noisy:
    """Noise [B, C, H, W] like that of the images themselves, and its level map; the brightness is that of `noisy`,
    smoothed, so that it hardly depends on the noise."""
    reach = SMOOTH // 2
    beneath = F.avg_pool2d(noisy, SMOOTH, stride=1, padding=reach, count_include_pad=False).clamp(0, 1)
    with torch.autocast(noisy.device.type, enabled=False):
        made, level = noise(beneath, generator)
    return Noisy(made - beneath, level)


def neighbours(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two indices [B, 1, H/2 * W/2] into the pixels 0 1 / 2 3 of each 2x2 cell of [B, C, H, W], side by side or one
    above the other."""
    shape = (len(images), 1, (images.shape[2] // 2) * (images.shape[3] // 2))
    first = torch.randint(4, shape, generator=generator, device=images.device)
    across = torch.randint(2, shape, generator=generator, device=images.device).bool()
    return first, torch.where(across, first ^ 1, first ^ 2)


def pick(images: Tensor, index: Tensor) -> Tensor:
    """[B, C, H/2, W/2]: of each 2x2 cell of [B, C, H, W] the pixel that `index` names."""
    batch, channels, height, width = images.shape
    cells = F.unfold(images[:, :, : height // 2 * 2, : width // 2 * 2], 2, stride=2).unflatten(1, (channels, 4))
    picked = cells.gather(2, index.unsqueeze(1).expand(-1, channels, -1, -1))
    return picked.reshape(batch, channels, height // 2, width // 2)
