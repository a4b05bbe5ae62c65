"""Noise models on batches of clean images, and the spec grammar that names them.

A model maps clean images ``[B, C, H, W]`` (float32, RGB, [0, 1]) to noisy ones of the same shape, not clipped, together
with a noise-level map ``[B, 1, H, W]``: the standard deviation of the noise it added, in the same units, as far as a
closed form exists. Parameters given as a range are drawn uniformly, once per image.

Spec grammar: ``name:value`` or ``name:key=value,key=value``, where a value is a number or a range ``low-high``; models
joined by ``+`` act in that order; chains joined by ``|`` are alternatives, of which each image gets one. Examples:
``gaussian:25``, ``gaussian:5-50``, ``poisson-gaussian:gain=0.01,read=0.002+jpeg:40-95|gaussian:0-25``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from denoise_se.errors import NoiseSpecError


class Noisy(NamedTuple):
    """`image` [B, C, H, W], not clipped; `level` [B, 1, H, W], the standard deviation of its noise."""

    image: Tensor
    level: Tensor


class Range(NamedTuple):
    """A parameter's interval; a single value has low == high."""

    low: float
    high: float

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """[B, 1, 1, 1], uniform in [low, high], one value per image of `like`; a single value draws nothing."""
        if self.low == self.high:
            return torch.full((like.shape[0], 1, 1, 1), self.low, device=like.device)
        unit = torch.rand(like.shape[0], 1, 1, 1, generator=generator, device=like.device)
        return self.low + (self.high - self.low) * unit


class NoiseModel(Protocol):
    """What every entry of NOISE_MODELS is: a frozen dataclass of Ranges, callable on a batch.

    `limits` holds each parameter's allowed interval, in the units of the spec.
    """

    limits: ClassVar[Mapping[str, Range]]

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy: ...


def standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def level_of(variance: Tensor, clean: Tensor) -> Tensor:
    """The noise-level map [B, 1, H, W] of a per-channel variance that broadcasts to `clean`."""
    return variance.expand_as(clean).mean(dim=1, keepdim=True).clamp_min(0).sqrt()


@dataclass(frozen=True)
class Gaussian:
    """``y = x + n``, ``n ~ N(0, (sigma/255)^2)``, independent of pixel and channel. `sigma` in 8-bit units."""

    sigma: Range
    limits: ClassVar[Mapping[str, Range]] = {"sigma": Range(0, 255)}

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        sigma = self.sigma.draw(clean, generator) / 255
        return Noisy(clean + sigma * standard_normal(clean, generator), level_of(sigma**2, clean))


@dataclass(frozen=True)
class PoissonGaussian:
    """``y = x + n``, ``n ~ N(0, gain * x + read^2)``: photon and read noise of a linear sensor.

    The normal approximation of Foi et al., "Practical Poissonian-Gaussian noise modeling", TIP 2008, eq. 3; it holds
    above about ten photons a pixel, that is x > 10 * gain. `gain` and `read` in units of the range [0, 1].
    """

    gain: Range
    read: Range
    limits: ClassVar[Mapping[str, Range]] = {"gain": Range(0, 1), "read": Range(0, 1)}

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        gain, read = self.gain.draw(clean, generator), self.read.draw(clean, generator)
        variance = gain * clean.clamp_min(0) + read**2
        return Noisy(clean + variance.sqrt() * standard_normal(clean, generator), level_of(variance, clean))


@dataclass(frozen=True)
class Speckle:
    """``y = x + x * n``, ``n ~ N(0, sigma^2)``: multiplicative noise of coherent imaging. `sigma` relative to x."""

    sigma: Range
    limits: ClassVar[Mapping[str, Range]] = {"sigma": Range(0, 2)}

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        sigma = self.sigma.draw(clean, generator)
        return Noisy(clean + clean * sigma * standard_normal(clean, generator), level_of((sigma * clean) ** 2, clean))


@dataclass(frozen=True)
class SaltPepper:
    """A fraction `amount` of the pixels, all channels at once, becomes 0 or 1 with equal chance: dead and hot pixels.

    The level map is the root of the mean squared change, ``amount * ((1 - x)^2 + x^2) / 2``.
    """

    amount: Range
    limits: ClassVar[Mapping[str, Range]] = {"amount": Range(0, 1)}

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        amount = self.amount.draw(clean, generator)
        unit = torch.rand(clean[:, :1].shape, generator=generator, device=clean.device)
        image = torch.where(unit < amount / 2, 0.0, torch.where(unit < amount, 1.0, clean))
        return Noisy(image, level_of(amount * ((1 - clean) ** 2 + clean**2) / 2, clean))


@dataclass(frozen=True)
class Correlated:
    """Gaussian noise filtered by a Gaussian of `radius` pixels and scaled back to `sigma` (8-bit units).

    What demosaicing and a camera's own smoothing leave: noise of a few pixels' grain. One radius per batch.
    """

    sigma: Range
    radius: Range
    limits: ClassVar[Mapping[str, Range]] = {"sigma": Range(0, 255), "radius": Range(0.1, 8)}

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
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


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression at `quality` (libjpeg's scale), chroma at half size, with kornia's differentiable codec.

    The codec rounds its coefficients softly (a cubic residue of at most 1/8 of a quantisation step stays). The level
    map is zero: what JPEG takes away is no noise of a known size.
    """

    quality: Range
    limits: ClassVar[Mapping[str, Range]] = {"quality": Range(1, 100)}

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        from kornia.enhance import jpeg_codec_differentiable

        quality = self.quality.draw(clean, generator).flatten()
        height, width = clean.shape[-2:]
        rgb = clean.clamp(0, 1).expand(-1, 3, -1, -1) if clean.shape[1] == 1 else clean.clamp(0, 1)
        padded = F.pad(rgb, (0, -width % 16, 0, -height % 16), mode="replicate")
        coded = jpeg_codec_differentiable(padded.contiguous(), quality)[:, : clean.shape[1], :height, :width]
        return Noisy(coded, torch.zeros_like(clean[:, :1]))


@dataclass(frozen=True)
class Camera:
    """Noise as a camera's JPEG shows it: a sensor's noise carried through the development of the photo.

    The sRGB image is brought back to a linear sensor (inverse sRGB curve, inverse white balance with random gains),
    sampled by an RGGB mosaic, given shot and read noise ``N(0, gain * x + read^2)``, interpolated (bilinear), balanced
    and put back through the sRGB curve (Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019).
    Then comes the camera's own noise reduction: a Gaussian of `luma` pixels on the noise's luma (Rec. 601), one of
    `chroma` pixels on the rest. So the noise depends on the signal, and is correlated between neighbours and channels.

    `gain` and `read` in units of the linear range, `luma` and `chroma` standard deviations in pixels; RGB only. The
    image itself goes through none of the filters, so that only noise is learnt to be removed. The level map is flat:
    the root mean square of what was added.
    """

    gain: Range
    read: Range
    luma: Range
    chroma: Range
    limits: ClassVar[Mapping[str, Range]] = {
        "gain": Range(0, 1),
        "read": Range(0, 1),
        "luma": Range(0.1, 4),
        "chroma": Range(0.1, 4),
    }

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        from kornia.filters import gaussian_blur2d

        if clean.shape[1] != 3:
            raise NoiseSpecError(f"camera: needs RGB images, not {clean.shape[1]} channel(s); use poisson-gaussian")
        reach = math.ceil(3 * max(self.luma.high, self.chroma.high))
        if min(clean.shape[-2:]) <= reach:
            raise NoiseSpecError(f"camera: needs more than {reach} pixels a side for this luma and chroma; crop larger")
        red, blue = Range(1.3, 2.4).draw(clean, generator), Range(1.3, 2.2).draw(clean, generator)
        balance = torch.cat([red, torch.ones_like(red), blue], dim=1)
        linear = srgb_to_linear(clean.clamp(0, 1)) / balance
        gain, read = self.gain.draw(clean, generator), self.read.draw(clean, generator)
        sensor = (gain * linear + read**2).sqrt() * standard_normal(clean, generator)
        noise = linear_to_srgb((linear + demosaic(sensor)) * balance) - clean.clamp(0, 1)
        luma = (noise * noise.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
        blurred = []
        for part, radius in ((luma, self.luma), (noise - luma, self.chroma)):
            size = 2 * math.ceil(3 * radius.high) + 1
            blurred.append(gaussian_blur2d(part, size, radius.draw(clean, generator).view(-1, 1).expand(-1, 2)))
        noise = blurred[0] + blurred[1]
        return Noisy(clean + noise, level_of(noise.square().mean(dim=(1, 2, 3), keepdim=True), clean))


def demosaic(planes: Tensor) -> Tensor:
    """Sample [B, 3, H, W] by an RGGB mosaic and fill the gaps bilinearly; linear, so noise alone can be passed."""
    height, width = planes.shape[-2:]
    y = torch.arange(height, device=planes.device)[:, None] % 2
    x = torch.arange(width, device=planes.device)[None, :] % 2
    mask = torch.stack([(y + x == 0), (y != x), (y + x == 2)]).to(planes.dtype)
    cross = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]], device=planes.device) / 4
    square = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], device=planes.device) / 4
    kernel = torch.stack([square, cross, square])[:, None]
    return F.conv2d(F.pad(planes * mask, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)


def srgb_to_linear(x: Tensor) -> Tensor:
    """IEC 61966-2-1, for x in [0, 1]."""
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055).clamp_min(0) ** 2.4)


def linear_to_srgb(x: Tensor) -> Tensor:
    """IEC 61966-2-1; clipped to [0, 1], as a developed photo is."""
    x = x.clamp(0, 1)
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


NOISE_MODELS: dict[str, type[NoiseModel]] = {
    "gaussian": Gaussian,
    "poisson-gaussian": PoissonGaussian,
    "speckle": Speckle,
    "salt-pepper": SaltPepper,
    "correlated": Correlated,
    "camera": Camera,
    "jpeg": Jpeg,
}


@dataclass(frozen=True)
class NoiseChain:
    """Noise models one after the other; the level map is the root of the sum of their squares."""

    models: tuple[NoiseModel, ...]

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        image, variance = clean, torch.zeros_like(clean[:, :1])
        for model in self.models:
            image, level = model(image, generator)
            variance = variance + level**2
        return Noisy(image, variance.sqrt())


@dataclass(frozen=True)
class NoiseMixture:
    """Alternatives of equal chance; each image of the batch gets one of them."""

    models: tuple[NoiseChain, ...]

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        choice = torch.randint(len(self.models), (clean.shape[0],), generator=generator, device=clean.device)
        image, level = torch.empty_like(clean), torch.empty_like(clean[:, :1])
        for index, model in enumerate(self.models):
            chosen = choice == index
            if chosen.any():
                image[chosen], level[chosen] = model(clean[chosen], generator)
        return Noisy(image, level)


_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_VALUE = re.compile(rf"(?P<low>{_NUMBER})(?:-(?P<high>{_NUMBER}))?\Z")
_PLUS = re.compile(r"(?<![\d.][eE])\+")


def parse_noise_spec(spec: str) -> NoiseChain | NoiseMixture:
    """The noise model that `spec` names.

    Raises:
        NoiseSpecError: with the spec, a caret under the mistake, and what would be right there.
    """
    alternatives, position = [], 0
    for chain in spec.split("|"):
        models = []
        for term in _PLUS.split(chain):
            models.append(_parse_term(spec, term, position))
            position += len(term) + 1
        alternatives.append(NoiseChain(tuple(models)))
    return alternatives[0] if len(alternatives) == 1 else NoiseMixture(tuple(alternatives))


def _fail(spec: str, position: int, reason: str) -> NoiseSpecError:
    return NoiseSpecError(f"noise spec: {reason}\n  {spec}\n  {' ' * position}^")


def _parse_term(spec: str, term: str, start: int) -> NoiseModel:
    name, colon, arguments = term.partition(":")
    if name not in NOISE_MODELS:
        known = ", ".join(NOISE_MODELS)
        raise _fail(spec, start, f"no noise model is called {name!r}; one of {known}")
    kind = NOISE_MODELS[name]
    parameters = list(kind.limits)
    usage = f"{name}:" + ",".join(f"{p}=VALUE" for p in parameters)
    position = start + len(name + colon)
    given: dict[str, Range] = {}
    for argument in arguments.split(","):
        key, separator, value = argument.rpartition("=")
        if not separator and len(parameters) == 1:
            key = parameters[0]
        if key not in parameters or key in given:
            raise _fail(spec, position, f"{name} is written {usage}")
        at = position + len(argument) - len(value)
        given[key] = _parse_range(spec, value, at, key, kind.limits[key])
        position += len(argument) + 1
    missing = [p for p in parameters if p not in given]
    if missing:
        raise _fail(spec, start + len(term), f"{name} also needs {missing[0]}; it is written {usage}")
    return kind(**{field.name: given[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def _parse_range(spec: str, text: str, at: int, key: str, limits: Range) -> Range:
    match = _VALUE.match(text)
    if match is None:
        raise _fail(spec, at, f"{key} is a number or a range low-high, not {text!r}")
    low = float(match["low"])
    high = float(match["high"] or low)
    if not limits.low <= low <= high <= limits.high:
        raise _fail(spec, at, f"{key} lies from {limits.low:g} to {limits.high:g}, low end first, not {text}")
    return Range(low, high)
