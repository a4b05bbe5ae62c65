"""The denoising networks: a flat residual one and a U-shaped one, both of the blocks of `denoise_se.blocks`.

Both take a noisy image ``[B, C, H, W]`` in [0, 1] and a noise-level map ``[B, 1, H, W]`` (standard deviation, same
units), predict the noise, and return the image minus it; any H, W >= 1. The U shape follows Ronneberger et al. 2015 and
DRUNet (Zhang et al. 2021); the noise-level map and the pixel-unshuffle follow FFDNet (Zhang et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from denoise_se.blocks import (
    ConvNorm,
    MobileSEBottleneck,
    ResidualBlock,
    SEBottleneck,
    SEResidualBlock,
    SqueezeExcitation,
)
from denoise_se.network_config import NetworkConfig


def make_block(config: NetworkConfig, width: int, last: bool) -> nn.Module:
    """One block of `width` channels; `last` says whether it ends its run of blocks."""
    se: dict[str, Any] = {"ratio": config.se_ratio, "gate_scale": config.se_gate_scale, "norm": config.norm}
    if config.block == "residual" or (config.se_every == "stage" and not last):
        return ResidualBlock(width, width, norm=config.norm, final_relu=config.final_relu)
    if config.block == "se_residual":
        return SEResidualBlock(width, width, **se, inner_skip=config.inner_skip, final_relu=config.final_relu)
    if config.block == "se_bottleneck":
        return SEBottleneck(width, width, **se, final_relu=config.final_relu)
    return MobileSEBottleneck(width, width, **se)


class Denoising(nn.Module):
    """What both networks share: padding, unshuffle, noise-level map, gates, and the subtraction of the noise."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        folded = config.channels * config.unshuffle**2
        self.head = nn.Conv2d(folded + config.noise_map, config.widths[0], 3, padding=1)
        self.tail = nn.Conv2d(config.widths[0], folded, 3, padding=1)

    def stage(self, width: int) -> nn.ModuleList:
        """A run of blocks of one width."""
        count = self.config.blocks
        return nn.ModuleList(make_block(self.config, width, last=i == count - 1) for i in range(count))

    def initialise(self) -> None:
        """He initialisation; the last convolution of each residual branch and the tail start at zero.

        So every block starts as the identity and the network as "no noise" (Zhang et al., "Fixup", ICLR 2019), which
        trains without BatchNorm at any depth.
        """
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all have one
        for module in self.modules():
            if isinstance(module, (ResidualBlock, SEBottleneck)):
                nn.init.zeros_(module.body[-1].conv.weight)  # type: ignore[union-attr,arg-type]  # a ConvNorm
            elif isinstance(module, MobileSEBottleneck):
                nn.init.zeros_(module.project.conv.weight)
        nn.init.zeros_(self.tail.weight)

    @property
    def gate_channels(self) -> list[int]:
        """The number of gates of each SE module, in the order in which they act."""
        return [m.channels for m in self.modules() if isinstance(m, SqueezeExcitation)]

    def forward(self, noisy: Tensor, level: Tensor, gates: Tensor | None = None) -> Tensor:
        """Denoise a batch.

        Args:
            noisy: [B, C, H, W], nominally in [0, 1]; not clipped.
            level: [B, 1, H, W], the noise's standard deviation in the same units; a blind network ignores it.
            gates: [B or 1, sum(gate_channels)], used instead of pooling; see `squeeze`.

        Returns:
            [B, C, H, W], the noisy image minus the predicted noise, not clipped.
        """
        height, width = noisy.shape[-2:]
        padding = (0, -width % self.config.multiple_of, 0, -height % self.config.multiple_of)
        x = F.pixel_unshuffle(F.pad(noisy, padding, mode="replicate"), self.config.unshuffle)
        if self.config.noise_map:
            level = F.pad(level, padding, mode="replicate").to(x.dtype)
            x = torch.cat([x, F.avg_pool2d(level, self.config.unshuffle)], dim=1)
        chunks = iter(()) if gates is None else iter(gates.split(self.gate_channels, dim=1))
        noise = F.pixel_shuffle(self.tail(self.body(self.head(x), chunks)), self.config.unshuffle)
        return noisy - noise[:, :, :height, :width].to(noisy.dtype)

    def body(self, x: Tensor, gates: Iterator[Tensor]) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def squeeze(self, noisy: Tensor, level: Tensor) -> Tensor:
        """The gates [1, sum(gate_channels)] of the windows [N, C, h, w] of one image, pooled over all of them."""
        gates: list[Tensor] = []
        with self._pooled_jointly(gates):
            self(noisy, level)
        return torch.cat(gates, dim=1) if gates else noisy.new_zeros(1, 0)

    @contextmanager
    def _pooled_jointly(self, gates: list[Tensor]) -> Iterator[None]:
        modules = [m for m in self.modules() if isinstance(m, SqueezeExcitation)]
        handles = []
        for se in modules:

            def record(_: nn.Module, __: object, gate: Tensor, scale: float = se.gate_scale) -> None:
                gates.append(scale * gate)

            handles.append(se.excite.register_forward_pre_hook(lambda _, pooled: (pooled[0].mean(0, keepdim=True),)))
            handles.append(se.excite.register_forward_hook(record))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def fold_batchnorm(self) -> None:
        """Merge every BatchNorm into its convolution, in place; the network is put in eval mode."""
        self.eval()
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()


def run_blocks(blocks: nn.Module, x: Tensor, gates: Iterator[Tensor]) -> Tensor:
    for block in blocks.children():
        x = block(x, next(gates, None)) if any(isinstance(m, SqueezeExcitation) for m in block.children()) else block(x)
    return x


class FlatNetwork(Denoising):
    """head - blocks - tail, all at 1/unshuffle of the image's size."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.blocks = self.stage(config.widths[0])
        self.initialise()

    def body(self, x: Tensor, gates: Iterator[Tensor]) -> Tensor:
        return x + run_blocks(self.blocks, x, gates)

    @property
    def halo(self) -> int:
        """The pixels that a result depends on lie this far at most from its cell of the grid of `multiple_of`."""
        radius = sum(conv.kernel_size[0] // 2 for conv in spatial_convolutions(self))
        return radius * self.config.unshuffle


class UNetwork(Denoising):
    """Stages at 1/unshuffle, 1/2 and 1/4 of it ..., down and up again; skips between equal sizes are added."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        widths = config.widths
        pairs = list(pairwise(widths))
        self.encoders = nn.ModuleList(self.stage(width) for width in widths[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.bottom = self.stage(widths[-1])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in reversed(pairs))
        self.decoders = nn.ModuleList(self.stage(width) for width in reversed(widths[:-1]))
        self.initialise()

    def body(self, x: Tensor, gates: Iterator[Tensor]) -> Tensor:
        top, skips = x, []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = run_blocks(encoder, x, gates)
            skips.append(x)
            x = down(x)
        x = run_blocks(self.bottom, x, gates)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = run_blocks(decoder, skips.pop() + up(x), gates)
        return top + x

    @property
    def halo(self) -> int:
        """As for the flat network. The last + 1 is for the rounding to coarser cells on the way down."""
        scale, radius = self.config.unshuffle, 2 * self.config.unshuffle
        for encoder in self.encoders:
            radius += 2 * scale * len(list(spatial_convolutions(encoder)))
            scale *= 2
        return radius + scale * (len(list(spatial_convolutions(self.bottom))) + 1)


def spatial_convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    for child in module.modules():
        if isinstance(child, nn.Conv2d) and child.kernel_size[0] > 1:
            yield child


Network = FlatNetwork | UNetwork
NETWORKS: dict[str, type[FlatNetwork] | type[UNetwork]] = {"flat": FlatNetwork, "unet": UNetwork}


def build_network(config: NetworkConfig) -> Network:
    """The network of `config`, freshly initialised from torch's global random state."""
    return NETWORKS[config.layout](config)


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def count_macs_per_pixel(config: NetworkConfig, size: int = 512) -> float:
    """Multiply-adds of convolutions and matrix products per pixel of a `size` x `size` image."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = build_network(config).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(torch.empty(1, config.channels, size, size), torch.empty(1, 1, size, size))
    return counter.get_total_flops() / 2 / size**2
