"""What a noise model is: a torch module from clean images to noisy ones, its parameters given as ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from denoise_se.blending import LUMA_WEIGHTS


class Noisy(NamedTuple):
    """`image` [B, C, H, W], not clipped; `level` [B, 1, H, W], the standard deviation of its noise."""

    image: Tensor
    level: Tensor


AddNoise = Callable[[Tensor, torch.Generator], Noisy]  # a noise model, or what acts like one


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


class NoiseModel(nn.Module):
    """Maps clean images [B, C, H, W] (float32, RGB, [0, 1]) and a generator on their device to `Noisy`.

    A model is a dataclass of Ranges (``@dataclass(unsafe_hash=True)``: a module is mutable, but these do not change),
    equal to another of the same ranges. All chance comes from the generator. `limits` holds each parameter's allowed
    interval, in the units of the spec.
    """

    limits: ClassVar[Mapping[str, Range]] = {}

    def __post_init__(self) -> None:
        # the fields are plain values, so Module's own state can come after them
        super().__init__()

    def forward(self, clean: Tensor, generator: torch.Generator) -> Noisy:
        raise NotImplementedError


def standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """White Gaussian noise of variance 1 in the shape of `like`."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def level_of(variance: Tensor, clean: Tensor) -> Tensor:
    """The noise-level map [B, 1, H, W] of a per-channel variance that broadcasts to `clean`."""
    return variance.expand_as(clean).mean(dim=1, keepdim=True).clamp_min(0).sqrt()


def luma(images: Tensor) -> Tensor:
    """[B, 1, H, W] of RGB images, by the weights of Rec. 601."""
    return (images * images.new_tensor(LUMA_WEIGHTS)[:, None, None]).sum(dim=1, keepdim=True)
