"""What a start could do before: the noise it was trained on, to rehearse it and to measure what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources

import torch
from torch import Tensor

from denoise_se.checkpoint import Checkpoint, made_noise
from denoise_se.datasets import Patches
from denoise_se.errors import NoiseSpecError, ProfileError, UsageError
from denoise_se.image_io import read
from denoise_se.loaded import centre, from_pixels, to_unit
from denoise_se.network_config import NetworkConfig
from denoise_se.network_psnr import Batch, mean_psnr
from denoise_se.noise import NoiseChain, NoiseMixture, parse_noise_spec, refuse_unfit
from denoise_se.objectives import Objective, Rehearsed, Supervised
from denoise_se.told_level import to_judge, to_learn

MOST_IMAGES = 6
SIDE = 256  # of their centres


def old_noise(start: Checkpoint | None, side: int) -> NoiseChain | NoiseMixture | None:
    """The noise that `start` was trained on; None without a start, or where its record names none that can be made
    here, on pictures of `side` pixels with the start's channels."""
    spec = None if start is None else made_noise(start.training)
    if start is None or spec is None:
        return None
    try:
        noise = parse_noise_spec(spec)
        refuse_unfit(noise, start.config.channels, side)
    except (NoiseSpecError, ProfileError):  # a profile that lies on another machine, a camera's on grey pictures
        return None
    return noise


def rehearsed(
    objective: Objective,
    start: Checkpoint | None,
    share: float,
    patch: int,
    network: NetworkConfig,
    clean: Sequence[Tensor],
    pictures: Patches | None = None,
) -> Objective:
    """`objective` with that `share` of the steps on the start's old noise, where there is one that goes on patches of
    `patch` pixels: of `pictures`, or of the training images' clean sides. `network` is trained; `clean` are images of
    those patches.

    Raises:
        UsageError: there are pictures, but nothing to rehearse on them.
    """
    old = old_noise(start, patch)
    if pictures is not None and (old is None or share == 0):
        raise UsageError("--rehearse needs a start (--init) that was trained on made noise, and a rehearsal above 0")
    if old is None or share == 0:
        return objective
    practised = to_learn(old, network, clean)
    if pictures is None and objective == Supervised(practised):
        return objective
    return Rehearsed(objective, practised, share, pictures)


def sample_images(channels: int) -> list[Tensor]:
    """The clean samples that come with the program, [channels, H, W] each: for runs that have none of their own."""
    folder = resources.files("denoise_se.examples").joinpath("clean")
    names = sorted(entry.name for entry in folder.iterdir())
    with resources.as_file(folder) as path:
        return [from_pixels(read(path / name).pixels, channels) for name in names]


def old_psnr(
    checkpoint: Checkpoint, noise: NoiseChain | NoiseMixture, images: Sequence[Tensor], seed: int = 0
) -> float:
    """PSNR in dB, mean over the centres of at most 6 clean images [C, H, W] with `noise`, the same for each network."""
    judged = to_judge(noise, checkpoint.config)

    def batches() -> Iterator[Batch]:
        for index, image in enumerate(images[:MOST_IMAGES]):
            clean = to_unit(centre(image, SIDE)[None])
            yield *judged(clean, torch.Generator().manual_seed(seed + index)), clean

    return mean_psnr(checkpoint.network(), batches())
