"""Noise as photos show it: a sensor's noise, developed.

`Camera` adds only the noise, with the camera's own smoothing; `Raw` sends the picture itself through a sensor and its
development. Both follow Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from denoise_se.errors import NoiseSpecError
from denoise_se.noise import Jpeg
from denoise_se.noise_model import NoiseModel, Noisy, Range, level_of, luma, standard_normal

# factors of the white balance in usual light
RED_BALANCE, BLUE_BALANCE = Range(1.3, 2.4), Range(1.3, 2.2)


@dataclass(unsafe_hash=True)
class Camera(NoiseModel):
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

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        from kornia.filters import gaussian_blur2d

        if clean.shape[1] != 3:
            raise NoiseSpecError(f"camera: needs RGB images, not {clean.shape[1]} channel(s); use poisson-gaussian")
        reach = math.ceil(3 * max(self.luma.high, self.chroma.high))
        if min(clean.shape[-2:]) <= reach:
            raise NoiseSpecError(f"camera: needs more than {reach} pixels a side for this luma and chroma; crop larger")
        red, blue = RED_BALANCE.draw(clean, generator), BLUE_BALANCE.draw(clean, generator)
        balance = torch.cat([red, torch.ones_like(red), blue], dim=1)
        linear = srgb_to_linear(clean.clamp(0, 1)) / balance
        gain, read = self.gain.draw(clean, generator), self.read.draw(clean, generator)
        sensor = (gain * linear + read**2).sqrt() * standard_normal(clean, generator)
        noise = linear_to_srgb((linear + demosaic(sensor)) * balance) - clean.clamp(0, 1)
        grey, blurred = luma(noise), []
        for part, radius in ((grey, self.luma), (noise - grey, self.chroma)):
            size = 2 * math.ceil(3 * radius.high) + 1
            blurred.append(gaussian_blur2d(part, size, radius.draw(clean, generator).view(-1, 1).expand(-1, 2)))
        noise = blurred[0] + blurred[1]
        return Noisy(clean + noise, level_of(noise.square().mean(dim=(1, 2, 3), keepdim=True), clean))


@dataclass(unsafe_hash=True)
class Raw(NoiseModel):
    """A photo through a sensor: mosaic, shot and read noise, demosaicing, development, and JPEG if asked for.

    With p the sRGB curve and b the white balance (`red`, 1, `blue`)::

        s = p^-1(x) / b                         the linear sensor's view, green at the full range
        m = RGGB mosaic of s                    one channel a pixel
        n = m + N(0, gain * m + read^2)         clipped above at the sensor's white, 1
        y = p(demosaic(b * n))                  clipped to [0, 1]; then JPEG at `jpeg`

    Demosaicing is the gradient-corrected linear interpolation of Malvar, He and Cutler, ICASSP 2004. Unlike `Camera`
    the picture itself goes through all of this, so what the mosaic loses of its finest detail counts as noise too.
    The noise is normal, which holds above about ten photons a pixel: x > 10 * gain in linear light.

    `gain` and `read` in units of the linear range, `red` and `blue` the factors of the white balance, `jpeg` libjpeg's
    quality; RGB only, from 3x3 pixels. The level map is that of the noise alone, to first order through the curve:
    near black and white, where the curve or the clipping bends, it reads high.
    """

    gain: Range
    read: Range
    red: Range = RED_BALANCE
    blue: Range = BLUE_BALANCE
    jpeg: Range | None = None
    limits: ClassVar[Mapping[str, Range]] = {
        "gain": Range(0, 1),
        "read": Range(0, 1),
        "red": Range(1, 8),
        "blue": Range(1, 8),
        "jpeg": Range(1, 100),
    }

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        if clean.shape[1] != 3:
            raise NoiseSpecError(f"raw: needs RGB images, not {clean.shape[1]} channel(s); use poisson-gaussian")
        if min(clean.shape[-2:]) < 3:
            raise NoiseSpecError("raw: needs at least 3 pixels a side for its mosaic; crop larger")
        red, blue = self.red.draw(clean, generator), self.blue.draw(clean, generator)
        balance = torch.cat([red, torch.ones_like(red), blue], dim=1)
        gain, read = self.gain.draw(clean, generator), self.read.draw(clean, generator)
        linear = srgb_to_linear(clean.clamp(0, 1)) / balance
        variance = gain * linear + read**2
        mask = rggb(clean)
        mosaic = (linear * mask).sum(dim=1, keepdim=True)
        variance = (variance * mask).sum(dim=1, keepdim=True)
        place = (balance * mask).sum(dim=1, keepdim=True)
        sensor = (mosaic + variance.sqrt() * standard_normal(mosaic, generator)).clamp_max(1)
        image = linear_to_srgb(demosaic_sharp(sensor * place))
        spread = demosaic_sharp(variance * place**2, power=2)
        level = level_of(spread * srgb_slope(linear * balance) ** 2, clean)
        if self.jpeg is not None:
            image = Jpeg(self.jpeg)(image, generator).image
        return Noisy(image, level)


def rggb(like: Tensor) -> Tensor:
    """The mosaic's mask [3, H, W], 1 where a channel is sampled."""
    y = torch.arange(like.shape[-2], device=like.device)[:, None] % 2
    x = torch.arange(like.shape[-1], device=like.device)[None, :] % 2
    return torch.stack([(y + x == 0), (y != x), (y + x == 2)]).to(like.dtype)


# Malvar, He and Cutler 2004, figure 2, in sixteenths: green at red or blue; red in a red row, and in a blue row, at
# green; red at blue. Blue is as red.
_GREEN = [[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]]
_BESIDE = [[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]]
_BELOW = [list(row) for row in zip(*_BESIDE, strict=True)]
_ACROSS = [[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]]


def demosaic_sharp(mosaic: Tensor, power: int = 1) -> Tensor:
    """RGB [B, 3, H, W] of a white-balanced RGGB mosaic [B, 1, H, W], H and W at least 3; Malvar, He and Cutler 2004.

    With `power` 2 the weights are squared: the variance of the result from the variance of independent noise.
    """
    kernels = torch.tensor([_GREEN, _BESIDE, _BELOW, _ACROSS], dtype=mosaic.dtype, device=mosaic.device)[:, None] / 16
    filled = F.conv2d(F.pad(mosaic, (2, 2, 2, 2), mode="reflect"), kernels**power)
    green, beside, below, across = filled.unbind(dim=1)
    red_at, green_at, blue_at = rggb(mosaic)
    red_rows = (red_at.sum(dim=1, keepdim=True) > 0).to(mosaic.dtype)
    here = mosaic[:, 0]
    in_red_row = green_at * red_rows
    in_blue_row = green_at * (1 - red_rows)
    return torch.stack(
        [
            red_at * here + in_red_row * beside + in_blue_row * below + blue_at * across,
            green_at * here + (red_at + blue_at) * green,
            blue_at * here + in_blue_row * beside + in_red_row * below + red_at * across,
        ],
        dim=1,
    )


def srgb_slope(linear: Tensor) -> Tensor:
    """The derivative of `linear_to_srgb` at `linear` in [0, 1]."""
    return torch.where(linear <= 0.0031308, 12.92, 1.055 / 2.4 * linear.clamp_min(0.0031308) ** (1 / 2.4 - 1))


def demosaic(planes: Tensor) -> Tensor:
    """Sample [B, 3, H, W] by an RGGB mosaic and fill the gaps bilinearly; linear, so noise alone can be passed."""
    cross = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]], device=planes.device) / 4
    square = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], device=planes.device) / 4
    kernel = torch.stack([square, cross, square])[:, None]
    return F.conv2d(F.pad(planes * rggb(planes), (1, 1, 1, 1), mode="reflect"), kernel, groups=3)


def srgb_to_linear(x: Tensor) -> Tensor:
    """IEC 61966-2-1, for x in [0, 1]."""
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055).clamp_min(0) ** 2.4)


def linear_to_srgb(x: Tensor) -> Tensor:
    """IEC 61966-2-1; clipped to [0, 1], as a developed photo is."""
    x = x.clamp(0, 1)
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)
