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
from denoise_se.tiling import in_cells


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

    def forward(self, noisy: Tensor, level: Tensor, gates: Tensor | None = None, cut: Tensor | None = None) -> Tensor:
        """Denoise a batch.

        Args:
            noisy: [B, C, H, W], nominally in [0, 1]; not clipped.
            level: [B, 1, H, W], the noise's standard deviation in the same units; a blind network ignores it.
            gates: [B or 1, sum(gate_channels)], used instead of pooling; see `squeeze`.
            cut: int64 [4] on the CPU, for windows of a larger image: 1 for the top, bottom, left or right side if the
                image goes on there, else 0. The `margin` pixels along such a side are read, but not in the result, and
                are let go of on the way as soon as nothing depends on them. It wants `gates`.

        Returns:
            [B, C, H, W] less the margins cut: the noisy image minus the predicted noise, not clipped.
        """
        height, width = noisy.shape[-2:]
        padding = (0, -width % self.config.multiple_of, 0, -height % self.config.multiple_of)
        x = F.pixel_unshuffle(F.pad(noisy, padding, mode="replicate"), self.config.unshuffle)
        if self.config.noise_map:
            level = F.pad(level, padding, mode="replicate").to(x.dtype)
            x = torch.cat([x, F.avg_pool2d(level, self.config.unshuffle)], dim=1)
        chunks = iter(()) if gates is None else iter(gates.split(self.gate_channels, dim=1))
        noise, left = self.body(self.head(x), chunks, cut)
        noise = cropped(F.pixel_shuffle(self.tail(noise), self.config.unshuffle), left * self.config.unshuffle, cut)
        noisy = cropped(noisy, self.margin, cut)
        height, width = noisy.shape[-2:]
        return noisy - noise[:, :, :height, :width].to(noisy.dtype)

    def body(self, x: Tensor, gates: Iterator[Tensor], cut: Tensor | None) -> tuple[Tensor, int]:
        """The features, and how many of their rows and columns are left of a margin that is cut."""
        raise NotImplementedError

    @property
    def halo(self) -> int:
        """The pixels that a result depends on lie this far at most from its cell of the grid of `multiple_of`."""
        raise NotImplementedError

    @property
    def margin(self) -> int:
        """`halo` in whole cells of the grid."""
        return in_cells(self.halo, self.config.multiple_of)

    @torch.no_grad()
    def squeeze(self, noisy: Tensor, level: Tensor) -> Tensor:
        """The gates [1, sum(gate_channels)] of the windows [N, C, h, w] of one image, pooled over all of them.

        No other thread may use the network meanwhile: the blocks are told to record and to pool for the time.
        """
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

            handles.append(se.pool_jointly())
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


def cropped(x: Tensor, margin: int, cut: Tensor | None) -> Tensor:
    """[B, C, H, W] without `margin` rows or columns along the sides that `cut` names; None cuts nothing."""
    if cut is None:
        return x
    top, bottom, left, right = (margin * cut).unbind()
    height, width = x.shape[-2:]
    return x[:, :, top : height - bottom, left : width - right]


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

    def body(self, x: Tensor, gates: Iterator[Tensor], cut: Tensor | None) -> tuple[Tensor, int]:
        return x + run_blocks(self.blocks, x, gates), self.margin // self.config.unshuffle

    @property
    def halo(self) -> int:
        return count_spatial(self) * self.config.unshuffle


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

    def body(self, x: Tensor, gates: Iterator[Tensor], cut: Tensor | None) -> tuple[Tensor, int]:
        down, up, _ = self._reach()
        have = self.margin // self.config.unshuffle
        left = up[0] if up else have
        top, skips = cropped(x, have - left, cut), []
        for encoder, to_coarse, need, need_skip in zip(self.encoders, self.downs, down, up, strict=True):
            x = run_blocks(encoder, x, gates)
            skips.append(cropped(x, have - need_skip, cut))
            x = to_coarse(cropped(x, have - need, cut))
            have = need // 2
        x = run_blocks(self.bottom, x, gates)
        for to_fine, decoder, need in zip(self.ups, self.decoders, reversed(up), strict=True):
            x = run_blocks(decoder, skips.pop() + to_fine(cropped(x, have - need // 2, cut)), gates)
            have = need
        return top + x, left

    def _reach(self) -> tuple[list[int], list[int], int]:
        """How many cells beyond a side of the result matter, stage by stage from the finest: in what the encoders give,
        in what the decoders get (rounded to the coarser cells that it is made of), and in what the head gets."""
        need, up = 1, []  # the tail's
        for decoder in reversed(self.decoders):
            need = -(-(need + count_spatial(decoder)) // 2)
            up.append(2 * need)
        need += count_spatial(self.bottom)
        down: list[int] = []
        for encoder in reversed(self.encoders):
            down.insert(0, 2 * need)
            need = 2 * need + count_spatial(encoder)
        return down, up, need + 1

    @property
    def halo(self) -> int:
        return self._reach()[-1] * self.config.unshuffle


def count_spatial(module: nn.Module) -> int:
    """How many convolutions see beyond a pixel, 3x3 all of them."""
    return sum(isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1 for m in module.modules())


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
