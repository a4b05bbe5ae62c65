"""A network that rounds weights and activations to 8 bits, and the ranges it needs, found on training-like images.

Weights are rounded per output channel, symmetrically; the inputs of convolutions per tensor: from 0 up after a ReLU,
symmetrically else. Sums, gates and skips stay in float (Krishnamoorthi 2018, arXiv:1806.08342; Jacob et al. 2018,
doi:10.1109/CVPR.2018.00286). Traced to a graph, an engine runs it in integers.

Without VNNI, x86 CPUs add two products of bytes up in 16 bits, which weights of 8 bits can overflow: 2 * 255 * 127 is
above 32767. Those of 7 bits cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from denoise_se.errors import CheckpointError
from denoise_se.network_psnr import Batch

if TYPE_CHECKING:
    import torch.nn as nn
    from torch import Tensor

    from denoise_se.network import Network

CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # shares of the largest value seen that a range may end at
WEIGHT_BITS = (8, 7)
VALUES = 1 << 14  # kept of each layer and batch, to choose among CLIPS
Ranges = Mapping[str, tuple[float, float]]


def rounded(network: Network, ranges: Ranges, weight_bits: int = 8) -> Network:
    """`network` itself, its named convolutions replaced by ones that round like int8, their weights to `weight_bits`;
    BatchNorm is folded.

    Raises CheckpointError for a name that is no convolution's.
    """
    import torch.nn as nn

    network.fold_batchnorm()
    modules = dict(network.named_modules())
    for name, (low, high) in ranges.items():
        conv = modules.get(name)
        if not isinstance(conv, nn.Conv2d):
            raise CheckpointError(f"the calibration names {name!r}, which is no convolution; make it again")
        parent, _, own = name.rpartition(".")
        setattr(modules[parent], own, _rounding(conv, low, high, 2 ** (weight_bits - 1) - 1))
    return network


def _steps(low: float, high: float) -> tuple[float, int, int, int]:
    """Scale, zero point, lowest and highest code of a range."""
    return (high / 255, 0, 0, 255) if low == 0 else (max(-low, high) / 127, 0, -128, 127)


def _rounding(conv: nn.Conv2d, low: float, high: float, most: int) -> nn.Module:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    steps = _steps(low, high)
    scales = (conv.weight.detach().abs().amax(dim=(1, 2, 3)) / most).clamp_min(1e-12)

    class Rounding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor) -> Tensor:
            # x itself, but of an operation that OpenVINO can merge the rounding into: what comes before it is read by
            # the skip too, and rounding alone would be three passes over memory
            x = F.leaky_relu(x, 1.0) if low < 0 else x
            x = torch.fake_quantize_per_tensor_affine(x, *steps)
            zeros = torch.zeros(len(scales), dtype=torch.int32)
            weight = torch.fake_quantize_per_channel_affine(conv.weight, scales, zeros, 0, -128, 127)
            return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)

    return Rounding()


def find_ranges(network: Network, batches: Sequence[Batch]) -> dict[str, tuple[float, float]]:
    """The range of every convolution's input but the first's and the last's, by its name.

    Of the ends in CLIPS that with the smallest mean squared error: a few values far out cost less, cut off, than a
    coarser step costs all the others.
    """
    import torch
    import torch.nn as nn

    kept: dict[str, list[Tensor]] = {}
    ends: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def look(_: nn.Module, arguments: tuple[Tensor]) -> None:
            x = arguments[0]
            low, high = ends.get(name, (0.0, 1e-6))
            ends[name] = min(low, x.min().item()), max(high, x.max().item())
            kept.setdefault(name, []).append(x.flatten()[:: max(1, x.numel() // VALUES)].clone())

        return look

    convolutions = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module is not network.head and module is not network.tail
    }
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in convolutions.items()]
    with torch.inference_mode():
        for noisy, level, _ in batches:
            network(noisy, level)
    for handle in handles:
        handle.remove()
    return {name: _best_range(torch.cat(kept[name]), *ends[name]) for name in convolutions}


def _best_range(values: Tensor, low: float, high: float) -> tuple[float, float]:
    import torch

    def error(clip: float) -> float:
        rounded_values = torch.fake_quantize_per_tensor_affine(values, *_steps(clip * low, clip * high))
        return float((rounded_values - values).square().mean())

    clip = min(CLIPS, key=error)
    return float(f"{clip * low:.6g}"), float(f"{clip * high:.6g}")
