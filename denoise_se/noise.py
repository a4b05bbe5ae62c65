"""Noise models on batches of clean images, and chains and mixtures of them.

A model maps clean images ``[B, C, H, W]`` (float32, RGB, [0, 1]) to noisy ones of the same shape, not clipped, together
with a noise-level map ``[B, 1, H, W]``: the standard deviation of the noise it added, in the same units, as far as a
closed form exists. Parameters given as a range are drawn uniformly, once per image. The cameras are in `camera_noise`,
measured noise in `profile_noise`; `noise_spec` names them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from denoise_se.errors import NoiseSpecError
from denoise_se.noise_model import AddNoise, NoiseModel, Noisy, Range, level_of, standard_normal
from denoise_se.noise_spec import FILE_BITS, NOISE_MODELS, parse_noise_spec

__all__ = [
    "NOISE_MODELS",
    "Banding",
    "Correlated",
    "Gaussian",
    "Jpeg",
    "NoiseChain",
    "NoiseMixture",
    "NoiseModel",
    "Noisy",
    "PoissonGaussian",
    "Quantise",
    "Range",
    "SaltPepper",
    "Speckle",
    "is_gaussian",
    "parse_noise_spec",
    "refuse_unfit",
]

NO_BANDING = Range(0, 0)
AT_ZERO = Range(0, 0)
JPEG_SIDE = 65_500  # pixels, libjpeg's JPEG_MAX_DIMENSION


@dataclass(unsafe_hash=True)
class Gaussian(NoiseModel):
    """``y = x + n``, ``n ~ N(0, (sigma/255)^2)``, independent of pixel and channel. `sigma` in 8-bit units."""

    sigma: Range
    limits: ClassVar[Mapping[str, Range]] = {"sigma": Range(0, 255)}

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        sigma = self.sigma.draw(clean, generator) / 255
        return Noisy(clean + sigma * standard_normal(clean, generator), level_of(sigma**2, clean))


@dataclass(unsafe_hash=True)
class PoissonGaussian(NoiseModel):
    """``y = x + n``, ``n ~ N(0, gain * max(0, x - black) + read^2)``: photon and read noise of a linear sensor.

    The normal approximation of Foi et al., "Practical Poissonian-Gaussian noise modeling", TIP 2008, eq. 3; it holds
    above about ten photons a pixel, that is x - black > 10 * gain. `gain`, `read` and `black`, the brightness of a
    pixel without light (0 unless given), in units of the range [0, 1].
    """

    gain: Range
    read: Range
    black: Range = AT_ZERO
    limits: ClassVar[Mapping[str, Range]] = {"gain": Range(0, 1), "read": Range(0, 1), "black": Range(0, 1)}

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        gain, read = self.gain.draw(clean, generator), self.read.draw(clean, generator)
        variance = gain * (clean - self.black.draw(clean, generator)).clamp_min(0) + read**2
        return Noisy(clean + variance.sqrt() * standard_normal(clean, generator), level_of(variance, clean))


@dataclass(unsafe_hash=True)
class Speckle(NoiseModel):
    """``y = x + x * n``, ``n ~ N(0, sigma^2)``: multiplicative noise of coherent imaging. `sigma` relative to x."""

    sigma: Range
    limits: ClassVar[Mapping[str, Range]] = {"sigma": Range(0, 2)}

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        sigma = self.sigma.draw(clean, generator)
        return Noisy(clean + clean * sigma * standard_normal(clean, generator), level_of((sigma * clean) ** 2, clean))


@dataclass(unsafe_hash=True)
class SaltPepper(NoiseModel):
    """A fraction `amount` of the pixels, all channels at once, becomes 0 or 1 with equal chance: dead and hot pixels.

    The level map is the root of the mean squared change, ``amount * ((1 - x)^2 + x^2) / 2``.
    """

    amount: Range
    limits: ClassVar[Mapping[str, Range]] = {"amount": Range(0, 1)}

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        amount = self.amount.draw(clean, generator)
        unit = torch.rand(clean[:, :1].shape, generator=generator, device=clean.device)
        image = torch.where(unit < amount / 2, 0.0, torch.where(unit < amount, 1.0, clean))
        return Noisy(image, level_of(amount * ((1 - clean) ** 2 + clean**2) / 2, clean))


@dataclass(unsafe_hash=True)
class Banding(NoiseModel):
    """``y = x + r + c``, ``r ~ N(0, (row/255)^2)`` one number a row, ``c ~ N(0, (column/255)^2)`` one a column.

    What the read-out of a sensor or a scanner's line adds; all channels get the same. `row` and `column` in 8-bit
    units, 0 unless given. It holds where a line is read out as one: shot and read noise come as a model of their own.
    """

    row: Range = NO_BANDING
    column: Range = NO_BANDING
    limits: ClassVar[Mapping[str, Range]] = {"row": Range(0, 255), "column": Range(0, 255)}

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        row, column = self.row.draw(clean, generator) / 255, self.column.draw(clean, generator) / 255
        rows = standard_normal(clean[:, :1, :, :1], generator)
        columns = standard_normal(clean[:, :1, :1, :], generator)
        return Noisy(clean + row * rows + column * columns, level_of(row**2 + column**2, clean))


@dataclass(unsafe_hash=True)
class Quantise(NoiseModel):
    """``y = round(x * n) / n``, clipped to [0, 1], with ``n = 2^bits - 1`` (rounded where a range draws half bits).

    The level map is that of an error uniform in one step, ``1 / (n * sqrt(12))``; it holds where x varies, or other
    noise does, by more than half a step (Widrow and Kollar, "Quantization Noise", 2008). Pixels outside [0, 1] lose
    more.
    """

    bits: Range
    limits: ClassVar[Mapping[str, Range]] = {"bits": Range(1, 16)}

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        steps = torch.exp2(self.bits.draw(clean, generator)).round() - 1
        return Noisy((clean.clamp(0, 1) * steps).round() / steps, level_of(1 / (12 * steps**2), clean))


@dataclass(unsafe_hash=True)
class Correlated(NoiseModel):
    """Gaussian noise filtered by a Gaussian of `radius` pixels and scaled back to `sigma` (8-bit units).

    What demosaicing and a camera's own smoothing leave: noise of a few pixels' grain. One radius per batch.
    """

    sigma: Range
    radius: Range
    limits: ClassVar[Mapping[str, Range]] = {"sigma": Range(0, 255), "radius": Range(0.1, 8)}

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        sigma = self.sigma.draw(clean, generator) / 255
        radius = float(self.radius.draw(clean[:1], generator))
        reach = max(1, round(3 * radius))
        offsets = torch.arange(-reach, reach + 1, device=clean.device)
        kernel = torch.exp(-0.5 * (offsets / radius) ** 2)
        kernel = (kernel / kernel.norm()).repeat(clean.shape[1], 1, 1, 1)
        batch, channels, height, width = clean.shape
        white = torch.randn(
            (batch, channels, height + 2 * reach, width + 2 * reach), generator=generator, device=clean.device
        )
        grain = F.conv2d(F.conv2d(white, kernel, groups=channels), kernel.mT, groups=channels)
        return Noisy(clean + sigma * grain, level_of(sigma**2, clean))


@dataclass(unsafe_hash=True)
class Jpeg(NoiseModel):
    """JPEG compression at `quality` (libjpeg's scale, rounded), chroma at half size, by OpenCV's libjpeg.

    As a file is: pixels outside [0, 1] are clipped, and rounded to 8 bits before and after. The level map is zero: what
    JPEG takes away is no noise of a known size. NoiseSpecError above 65,500 pixels a side, which libjpeg refuses.
    """

    quality: Range
    limits: ClassVar[Mapping[str, Range]] = {"quality": Range(1, 100)}

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        if max(clean.shape[-2:]) > JPEG_SIDE:
            height, width = clean.shape[-2:]
            raise NoiseSpecError(f"jpeg: a JPEG has at most {JPEG_SIDE} pixels a side, not {width}x{height}")
        qualities = self.quality.draw(clean, generator).flatten().round().int().tolist()
        codes = (255 * clean.clamp(0, 1)).round().byte().movedim(1, -1).cpu().numpy()
        coded = np.stack([_through_jpeg(each, quality) for each, quality in zip(codes, qualities, strict=True)])
        image = torch.from_numpy(coded).to(clean.device).movedim(-1, 1).to(clean.dtype) / 255
        return Noisy(image.contiguous(), torch.zeros_like(clean[:, :1]))


def _through_jpeg(codes: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """[H, W, 1] or [H, W, 3], coded and decoded."""
    import cv2

    how = [cv2.IMWRITE_JPEG_QUALITY, quality]
    how += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    coded = cv2.imencode(".jpg", np.ascontiguousarray(codes[..., ::-1]), how)[1]
    decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED), np.uint8)
    return decoded.reshape(codes.shape)[..., ::-1]


@dataclass(unsafe_hash=True)
class NoiseChain(NoiseModel):
    """Noise models one after the other; the level map is the root of the sum of their squares."""

    models: tuple[NoiseModel, ...]

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        image, variance = clean, torch.zeros_like(clean[:, :1])
        for model in self.models:
            image, level = model(image, generator)
            variance = variance + level**2
        return Noisy(image, variance.sqrt())


@dataclass(unsafe_hash=True)
class NoiseMixture(NoiseModel):
    """Alternatives of equal chance; each image of the batch gets one of them."""

    models: tuple[AddNoise, ...]

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        choice = torch.randint(len(self.models), (clean.shape[0],), generator=generator, device=clean.device)
        image, level = torch.empty_like(clean), torch.empty_like(clean[:, :1])
        for index, model in enumerate(self.models):
            chosen = choice == index
            if chosen.any():
                image[chosen], level[chosen] = model(clean[chosen], generator)
        return Noisy(image, level)


def is_gaussian(noise: NoiseChain | NoiseMixture) -> bool:
    """Whether it, or each of its alternatives, is white Gaussian noise, as it is or as a file of at least FILE_BITS
    holds it, rounded and clipped."""
    if isinstance(noise, NoiseMixture):
        return all(isinstance(model, NoiseChain) and is_gaussian(model) for model in noise.models)
    models = list(noise.models)
    if len(models) > 1 and isinstance(models[-1], Quantise) and models[-1].bits.low >= FILE_BITS:
        models.pop()
    return bool(models) and all(isinstance(model, Gaussian) for model in models)


def refuse_unfit(noise: NoiseChain | NoiseMixture, channels: int, side: int) -> None:
    """NoiseSpecError when it, or one of its alternatives, does not go on images of `side` pixels."""
    clean, generator = torch.zeros(1, channels, side, side), torch.Generator().manual_seed(0)
    for model in noise.models if isinstance(noise, NoiseMixture) else (noise,):
        model(clean, generator)


def goes_on(noise: NoiseChain | NoiseMixture, channels: int, side: int = 256) -> bool:
    """Whether images of so many channels can have it, all of its alternatives."""
    try:
        refuse_unfit(noise, channels, side)
    except NoiseSpecError:
        return False
    return True
