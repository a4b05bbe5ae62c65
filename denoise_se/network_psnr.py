"""The PSNR of a network's results on a few images: of a start, of what was forgotten, of rounding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch.nn as nn
    from torch import Tensor

LEAST_ERROR = 1e-10  # of the mean square; 100 dB
Batch = tuple["Tensor", "Tensor", "Tensor"]  # noisy [B, C, H, W], level [B, 1, H, W] and clean, as a network takes them


def decibels(errors: Tensor) -> Tensor:
    """PSNR in dB of mean square errors of values in [0, 1]; at most 100."""
    return -10 * errors.clamp_min(LEAST_ERROR).log10()


def mean_psnr(network: nn.Module, batches: Iterable[Batch], *, in_8_bits: bool = False) -> float:
    """The mean over all images in dB, results clipped to [0, 1], and rounded `in_8_bits` as a file has them."""
    import torch

    found = []
    with torch.inference_mode():
        for noisy, level, clean in batches:
            restored = network(noisy, level).clamp(0, 1)
            if in_8_bits:
                restored = (restored * 255).round() / 255
            found.append(decibels((restored - clean).square().mean(dim=(1, 2, 3))))
    return float(torch.cat(found).mean())
