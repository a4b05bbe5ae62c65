"""What a training run was worth on the images it did not train on, beside its start and BM3D, in words and pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise_se.atomic_file import replacing
from denoise_se.checkpoint import Checkpoint
from denoise_se.crops import Crop, best_crops, crops_png, cut_crop
from denoise_se.datasets import Example, WholeImages, generator_of
from denoise_se.errors import TrainingError
from denoise_se.loaded import centre, middle
from denoise_se.metrics import mean_finite, psnr, ssim
from denoise_se.network import Denoising
from denoise_se.noise_model import AddNoise, NoiseModel
from denoise_se.objectives import own_noise, with_noise
from denoise_se.rehearsal import old_noise, old_psnr, sample_images
from denoise_se.training_images import Pair

BM3D_SECONDS = 20.0  # no new crop is begun after this
BM3D_SIDE = 128
BM3D_CROPS = 8
SAMPLES = "samples.png"

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class MeasuredImage:
    """A validation image, [H, W, C] float32 in [0, 1]; `clean` None where nobody has it; results rounded to 8 bits."""

    name: str
    noisy: Pixels
    clean: Pixels | None
    results: Mapping[str, Pixels]


@dataclass(frozen=True)
class OutcomeReport:
    """Measures a finished run.

    Attributes:
        validation: its validation images.
        start: the weights it started from, None for random ones.
        noise: what is put on clean validation images, see `told_level.to_judge`; None where they bring their own.
        measured: the noise model of noisy images without clean ones; None where there are clean ones.
        seed: the run's, so that the noise is that of its validation.
        remarks: further lines for the card.
    """

    validation: Sequence[Pair]
    start: Checkpoint | None
    noise: AddNoise | None
    measured: NoiseModel | None
    seed: int = 0
    remarks: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, folder: Path, tuned: Checkpoint, heed: Callable[[], None] = lambda: None) -> dict[str, str]:
        """Lines for the card; writes samples.png into `folder`. `heed` is called between images; what it raises ends
        the work.

        Raises:
            TrainingError: the picture cannot be written.
        """
        networks = {} if self.start is None else {"start": self.start.network()}
        networks["tuned"] = tuned.network()
        cases = []
        for index in range(len(self.validation)):
            heed()
            cases.append(self._case(index, networks))
        heed()
        lines = dict(self.remarks)
        lines |= self._removed(cases) if self.measured is not None else self._scores(cases, heed)
        heed()
        lines |= self._forgotten(tuned)
        crops = [_crop(case) for case in cases]
        try:
            with replacing(folder / SAMPLES) as file:
                file.write(crops_png(best_crops(crops)))
        except OSError as error:
            raise TrainingError(f"{folder / SAMPLES}: cannot be written ({error.strerror}); make room") from error
        return lines

    def batches(self, pairs: Sequence[Pair], most: int, side: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Noisy, level and clean [1, C, h, w] of the middle of at most `most` of `pairs`, evenly chosen: what the
        network gets of such images. `pairs` have clean sides."""
        found, images = [], WholeImages(pairs)
        for index in sorted({round(place) for place in np.linspace(0, len(pairs) - 1, most)}):
            whole = images[index].in_unit()
            part = Example(centre(whole.noisy, side)[None], centre(whole.clean, side)[None], whole.told[None])
            noise, generator = self._noise_of(pairs[index]), generator_of(self.seed, 3, index)
            noisy, level = with_noise(noise, part, generator)
            found.append((noisy, level.expand_as(noisy[:, :1]), part.clean))
        return found

    def _noise_of(self, pair: Pair) -> AddNoise | None:
        """What is put on an image; nothing on one that brings its own."""
        return None if pair.noisy is not None else self.noise

    @torch.no_grad()
    def _case(self, index: int, networks: Mapping[str, Denoising]) -> MeasuredImage:
        pair = self.validation[index]
        image = Example(*(part[None] for part in WholeImages(self.validation)[index].in_unit()))
        noisy, level = with_noise(self._noise_of(pair), image, generator_of(self.seed, 1, index))

        def restored(network: Denoising) -> Pixels:
            return _pixels((network(noisy, level).clamp(0, 1) * 255).round() / 255)

        results = {name: restored(network) for name, network in networks.items()}
        clean = None if self.measured is not None else _pixels(image.clean)
        return MeasuredImage(pair.name, _pixels(noisy), clean, results)

    def _scores(self, cases: Sequence[MeasuredImage], heed: Callable[[], None]) -> dict[str, str]:
        """PSNR and SSIM of the noisy images, the start and the result; BM3D beside them on a few crops."""
        lines = {}
        for name in ("noisy", *cases[0].results):
            both = [(case.clean, _of(case, name)) for case in cases if case.clean is not None]
            value = mean_finite([psnr(clean, image, data_range=1.0) for clean, image in both])
            similarity = mean_finite([ssim(clean, image, data_range=1.0) for clean, image in both])
            lines[f"{name} (PSNR, SSIM)"] = f"{_decibels(value)}, {similarity or math.nan:.4f}"
        return lines | self._bm3d(cases, heed)

    def _bm3d(self, cases: Sequence[MeasuredImage], heed: Callable[[], None]) -> dict[str, str]:
        if find_spec("bm3d") is None:
            return {"BM3D": 'not installed, so not compared: pip install "denoise-se[peers]"'}
        from denoise_se.classical import bm3d

        began, values = time.monotonic(), []
        for case in cases[:BM3D_CROPS]:
            if time.monotonic() - began > BM3D_SECONDS:
                break
            heed()
            assert case.clean is not None
            window = middle(case.noisy.shape[:2], BM3D_SIDE)
            noisy, clean = case.noisy[window], case.clean[window]
            flat = noisy.shape[2] == 1
            restored = bm3d(noisy[..., 0] if flat else noisy, None).reshape(noisy.shape)
            compared = {"BM3D": np.round(restored.clip(0, 1) * 255).astype(np.float32) / np.float32(255)}
            compared |= {name: result[window] for name, result in case.results.items()}
            values.append({name: psnr(clean, image, data_range=1.0) for name, image in compared.items()})
        means = {name: _decibels(mean_finite([value[name] for value in values])) for name in values[0]}
        said = ", ".join(f"{name} {value}" for name, value in means.items())
        return {f"PSNR on the centres ({BM3D_SIDE}x{BM3D_SIDE}) of {len(values)} of them": said}

    def _removed(self, cases: Sequence[MeasuredImage]) -> dict[str, str]:
        """Whether what each network takes away looks like the measured noise: its level and its correlation."""
        assert self.measured is not None
        generator = torch.Generator().manual_seed(self.seed)
        made = [own_noise(self.measured, _batch(case.noisy), generator)[0] for case in cases]
        taken = {name: [_batch(case.noisy - case.results[name]) for case in cases] for name in cases[0].results}
        lines = {}
        for name, parts in {"the measured noise": made, **{f"what {n} removes": p for n, p in taken.items()}}.items():
            across, down = (float(np.mean([_neighbours(part, axis) for part in parts])) for axis in (-1, -2))
            level = 255 * float(np.mean([float(part.square().mean()) for part in parts])) ** 0.5
            lines[name] = f"sigma {level:.2f}, correlation at one pixel {across:.2f} across, {down:.2f} down"
        return lines

    def _forgotten(self, tuned: Checkpoint) -> dict[str, str]:
        own = self.measured is None
        images = [pair.clean for pair in self.validation] if own else sample_images(tuned.config.channels)
        old = old_noise(self.start, min(min(image.shape[1:]) for image in images))
        if old is None or self.start is None:
            return {}
        before, after = old_psnr(self.start, old, images), old_psnr(tuned, old, images)
        where = "" if own else ", on the program's sample pictures"
        return {f"on the noise that {self.start.name} knew{where}": f"{before:.1f} -> {after:.1f} dB"}


def _crop(case: MeasuredImage) -> Crop:
    def plane(pixels: Pixels) -> Pixels:
        return pixels[..., 0] if pixels.shape[2] == 1 else pixels

    clean = None if case.clean is None else plane(case.clean)
    return cut_crop("", case.name, clean, plane(case.noisy), {name: plane(r) for name, r in case.results.items()})


def _of(case: MeasuredImage, name: str) -> Pixels:
    if name != "noisy":
        return case.results[name]
    codes: Pixels = np.round(case.noisy.clip(0, 1) * 255).astype(np.float32)
    return codes / np.float32(255)


def _pixels(image: Tensor) -> Pixels:
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


def _batch(pixels: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def _neighbours(noise: Tensor, axis: int) -> float:
    """The correlation of each pixel of [1, C, H, W] with the next along `axis`."""
    size = noise.shape[axis]
    one, other = noise.narrow(axis, 0, size - 1), noise.narrow(axis, 1, size - 1)
    return float((one * other).mean() / noise.square().mean().clamp_min(1e-12))


def _decibels(value: float | None) -> str:
    return "identical" if value is None else f"{value:.2f} dB"
