"""The shipped model that a run starts from when it is not told one: of two, that which does better on its images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from denoise_se.channel_names import KINDS
from denoise_se.checkpoint import Checkpoint, load_checkpoint
from denoise_se.errors import ImageError, NoiseSpecError
from denoise_se.file_pairs import match_pairs
from denoise_se.image_folder import image_files
from denoise_se.image_io import DEFAULT_MAX_PIXELS, probe
from denoise_se.loaded import Reading, as_seen, centre, to_unit
from denoise_se.network_psnr import mean_psnr
from denoise_se.noise import NoiseChain, NoiseMixture, goes_on, is_gaussian
from denoise_se.noise_estimation import estimate_noise
from denoise_se.noisy_only import WHITE
from denoise_se.told_level import estimated_level
from denoise_se.training_images import thinned
from denoise_se.training_layout import Layout, is_stack, scene_folders
from denoise_se.warm_start import in_channels

MOST_SCENES = 4  # that are looked at, spread over the set
SIDE = 256  # pixels of their centres
LEAST_SIGMA = 1.0  # in 8-bit units: less says little about how noise is correlated
FOR_WHITE = {1: "gray", 3: "color"}  # noise that is independent from pixel to pixel
FOR_CAMERAS = "photo"


@dataclass(frozen=True)
class Start:
    """`checkpoint`, with the image channels of the run; its `name`, and `why` it was taken."""

    checkpoint: Checkpoint
    name: str
    why: str


def choose_start(
    layout: Layout,
    channels: int,
    noise: NoiseChain | NoiseMixture | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Start:
    """For clean images that get white Gaussian noise "gray" or "color". For pairs, bursts and clean images with other
    `noise` that or "photo", whichever has the higher PSNR on a few of them; for noisy pictures alone by whether
    neighbouring pixels share their noise."""
    white = FOR_WHITE[channels]
    if layout.kind == "clean" and (noise is None or is_gaussian(noise) or not goes_on(noise, channels)):
        return _start(white, channels, f"for {KINDS[channels]} images")
    if layout.kind == "noisy":
        estimates = [
            estimate_noise(noisy.permute(1, 2, 0).numpy()) for noisy, _ in _samples(layout, channels, None, max_pixels)
        ]
        strong = [max(map(abs, e.correlation)) for e in estimates if e.sigma >= LEAST_SIGMA]
        if strong and float(np.median(strong)) < WHITE:
            return _start(
                white, channels, f"for {KINDS[channels]} images whose noise is independent from pixel to pixel"
            )
        return _start(FOR_CAMERAS, channels, f"for {KINDS[channels]} images")
    samples = list(_samples(layout, channels, noise, max_pixels))
    if not samples:  # what is wrong with the images is told when all of them are read
        return _start(FOR_CAMERAS, channels, "")
    starts = [_start(name, channels, "") for name in (FOR_CAMERAS, white)]
    (best, start), (other, less) = sorted(
        ((_psnr(start.checkpoint, samples), start) for start in starts), key=lambda scored: scored[0], reverse=True
    )
    return replace(start, why=f"{best:.1f} dB on {len(samples)} of the images, where {less.name} has {other:.1f}")


def channels_of(layout: Layout, noise: NoiseChain | NoiseMixture | None) -> int:
    """1 when all images are grey by their headers, else 3; unless the noise goes on the other kind only."""
    found = set()
    for path in image_files(layout.folder if layout.files is None else layout.files.clean):
        with suppress(ImageError):
            found.add(probe(path).channels)
    usual, other = (1, 3) if found == {1} else (3, 1)
    if noise is not None and not goes_on(noise, usual) and goes_on(noise, other):
        return other
    return usual


def _start(name: str, channels: int, why: str) -> Start:
    return Start(in_channels(load_checkpoint(name), channels), name, why)


def _samples(
    layout: Layout, channels: int, noise: NoiseChain | NoiseMixture | None, max_pixels: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Centres [C, h, w], in [0, 1], of a few noisy images and of what they are compared with: their clean sides, where
    there is no `noise` to put on these, or other shots of the same scene. Files that cannot be used are passed over."""
    groups: list[Sequence[Path]] = []
    if layout.files is not None and layout.files.noisy is not None:
        groups += match_pairs(layout.files.noisy, layout.files.clean, layout.files.words)[0]
    elif layout.kind == "burst":
        for files in scene_folders(layout.folder):
            groups += [[file] for file in files if is_stack(file)] or [files[:2]]
    else:
        groups += [[file] for file in image_files(layout.folder)]
    for group in thinned(groups, MOST_SCENES):
        with suppress(ImageError, NoiseSpecError):
            pages = [Reading(max_pixels=max_pixels).decode(file, 2) for file in group]
            two = pages[0][:2] if layout.kind == "burst" and len(pages[0]) > 1 else [page[0] for page in pages]
            images = [image.pixels for image in as_seen(two, channels)]
            if len({image.shape for image in images}) == 1:
                noisy, clean = to_unit(centre(images[0], SIDE)), to_unit(centre(images[-1], SIDE))
                if noise is not None:
                    noisy = noise(clean[None], torch.Generator().manual_seed(0)).image[0].clamp(0, 1)
                yield noisy, clean


def _psnr(checkpoint: Checkpoint, samples: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Mean in dB; the noise level is estimated, as it is when a photo is denoised."""
    levels = (torch.full((1, 1, *noisy.shape[1:]), estimated_level(noisy)) for noisy, _ in samples)
    batches = ((noisy[None], level, clean[None]) for (noisy, clean), level in zip(samples, levels, strict=True))
    return mean_psnr(checkpoint.network(), batches)
