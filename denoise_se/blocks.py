"""Residual and squeeze-and-excitation blocks.

Every block maps ``[B, in_channels, H, W]`` to ``[B, out_channels, H', W']`` float tensors, for any H, W >= 1, and takes
an optional ``gate`` of shape ``[B or 1, C]``: with it the block does not pool but uses the gate given, which makes it a
plain convolution whose result at a pixel depends on a neighbourhood only (see `denoise_se.tiling`).

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Hu et al., "Squeeze-and-Excitation
Networks", CVPR 2018 (eq. 2-4); Howard et al., "Searching for MobileNetV3", ICCV 2019.
"""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.hooks import RemovableHandle

from denoise_se.gate_bounds import GateBounds
from denoise_se.network_config import Norm


class ConvNorm(nn.Module):
    """A convolution with "same" padding for odd kernels, then BatchNorm or nothing.

    `fold` merges the BatchNorm's running statistics into the convolution, after which it costs nothing.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, groups: int = 1, *, norm: Norm
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups)
        self.norm = nn.BatchNorm2d(out_channels) if norm == "batch" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fold(self) -> None:
        """Merge BatchNorm into the convolution; the module must be in eval mode."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation: one gate per channel, from the mean of that channel over the whole image.

    ``z = mean_{H,W}(x)``, ``s = gate_scale * sigmoid(W2 relu(W1 z))``, ``y = s * x`` (Hu et al. 2018, eq. 2-4).
    W1 and W2 have no bias: the module holds ``2 * C * C * ratio`` weights and spends as many multiply-adds per image.
    The sigmoid's result is held in `GateBounds`.

    Args:
        channels: C.
        ratio: C_hidden / C; 1/16 in the original, 0.25 in MobileNetV3. C * ratio is rounded, to at least 1.
        gate_scale: the gate's upper end. W2 starts at zero, so gates start at ``gate_scale / 2``: 1.0 gives the
            original sigmoid (start 0.5), 2.0 a block that starts as if it had no gate.
    """

    def __init__(self, channels: int, ratio: float = 1 / 16, gate_scale: float = 2.0) -> None:
        super().__init__()
        hidden = max(1, round(channels * ratio))
        self.channels = channels
        self.gate_scale = gate_scale
        self.excite = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
            GateBounds(channels),
        )
        nn.init.zeros_(self.excite[2].weight)  # type: ignore[arg-type]  # a Linear's

    def pool_jointly(self) -> RemovableHandle:
        """Until the handle is removed, the images of a batch are windows of one, and get one gate [1, C]."""
        return self.excite.register_forward_pre_hook(lambda _, pooled: (pooled[0].mean(0, keepdim=True),))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Scale `x` [B, C, H, W] by its own gates, or by `gate` [B or 1, C] when it is given."""
        if gate is None:
            gate = self.gate_scale * self.excite(x.mean(dim=(2, 3)))
        return x * gate[:, :, None, None].to(x.dtype)


def skip_connection(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module:
    """The identity, or a 1x1 projection when the shape changes (He et al. 2016, eq. 2)."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return ConvNorm(in_channels, out_channels, 1, stride, norm=norm)


class ResidualBlock(nn.Module):
    """RB: conv-BN-ReLU-conv-BN, plus the input, then ReLU.

    Args:
        in_channels, out_channels, kernel_size, stride: as in `nn.Conv2d`; the kernel size is odd.
        norm: "batch" or "none".
        skip: False leaves the addition of the input out (and the ReLU acts on the convolutions' result).
        final_relu: False leaves the ReLU after the addition out, which regression networks prefer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        norm: Norm = "batch",
        skip: bool = True,
        final_relu: bool = True,
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(in_channels, out_channels, kernel_size, stride, norm=norm),
            nn.ReLU(inplace=True),
            ConvNorm(out_channels, out_channels, kernel_size, norm=norm),
        )
        self.skip = skip_connection(in_channels, out_channels, stride, norm) if skip else None
        self.final_relu = final_relu

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """[B, in, H, W] to [B, out, ceil(H/stride), ceil(W/stride)]; there is nothing to gate."""
        y = self.body(x)
        if self.skip is not None:
            y = y + self.skip(x)
        return torch.relu(y) if self.final_relu else y


class SEResidualBlock(nn.Module):
    """RB + SE: a residual block, then squeeze-and-excitation, plus the input again.

    ``y = skip(x) + SE(RB(x))``. With ``inner_skip=False`` the RB's own addition of the input is left out, so that the
    gate weighs only what the convolutions add (the SE-ResNet form); with it a stack of n such blocks scales its input
    by ``(1 + gate)^n``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        ratio: float = 1 / 16,
        gate_scale: float = 2.0,
        norm: Norm = "batch",
        inner_skip: bool = True,
        final_relu: bool = True,
    ) -> None:
        super().__init__()
        self.rb = ResidualBlock(
            in_channels, out_channels, kernel_size, stride, norm=norm, skip=inner_skip, final_relu=final_relu
        )
        self.se = SqueezeExcitation(out_channels, ratio, gate_scale)
        self.skip = skip_connection(in_channels, out_channels, stride, norm)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """[B, in, H, W] to [B, out, ceil(H/stride), ceil(W/stride)]; `gate` [B or 1, out] replaces the pooled one."""
        return self.skip(x) + self.se(self.rb(x), gate)


class SEBottleneck(nn.Module):
    """The SE-ResNet placement: SE after a 1x1 - 3x3 - 1x1 bottleneck, before the addition of the input.

    `contraction` is the bottleneck's width over the block's (1/4 in ResNet-50).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        contraction: float = 0.25,
        ratio: float = 1 / 16,
        gate_scale: float = 2.0,
        norm: Norm = "batch",
        final_relu: bool = True,
    ) -> None:
        super().__init__()
        width = max(1, round(out_channels * contraction))
        self.body = nn.Sequential(
            ConvNorm(in_channels, width, 1, norm=norm),
            nn.ReLU(inplace=True),
            ConvNorm(width, width, 3, stride, norm=norm),
            nn.ReLU(inplace=True),
            ConvNorm(width, out_channels, 1, norm=norm),
        )
        self.se = SqueezeExcitation(out_channels, ratio, gate_scale)
        self.skip = skip_connection(in_channels, out_channels, stride, norm)
        self.final_relu = final_relu

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """[B, in, H, W] to [B, out, ceil(H/stride), ceil(W/stride)]; `gate` [B or 1, out] replaces the pooled one."""
        y = self.skip(x) + self.se(self.body(x), gate)
        return torch.relu(y) if self.final_relu else y


class MobileSEBottleneck(nn.Module):
    """The MobileNetV3 placement: SE after the depthwise convolution, inside an inverted bottleneck.

    1x1 expansion, Hardswish, depthwise 3x3, Hardswish, SE (ratio 0.25 of the expanded width), linear 1x1 projection.
    The input is added where the shape allows it; there is no projected skip (Howard et al. 2019, fig. 4).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        expansion: float = 4.0,
        ratio: float = 0.25,
        gate_scale: float = 2.0,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        width = max(1, round(in_channels * expansion))
        self.expand = nn.Sequential(ConvNorm(in_channels, width, 1, norm=norm), nn.Hardswish())
        self.depthwise = nn.Sequential(ConvNorm(width, width, 3, stride, groups=width, norm=norm), nn.Hardswish())
        self.se = SqueezeExcitation(width, ratio, gate_scale)
        self.project = ConvNorm(width, out_channels, 1, norm=norm)
        self.adds_input = in_channels == out_channels and stride == 1

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """[B, in, H, W] to [B, out, ceil(H/stride), ceil(W/stride)]; `gate` is [B or 1, in * expansion]."""
        y = self.project(self.se(self.depthwise(self.expand(x)), gate))
        return x + y if self.adds_input else y
