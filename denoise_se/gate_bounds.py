"""Gates held within what training showed.

A trained network's gates hardly move from one photograph to the next, but extrapolate to anywhere: on black lines a
pixel wide, gates of 0.03 became 1, and what their block adds thirty times what it ever was. The bounds are found on
training patches once; what is trained on from there keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn as nn
from torch import Tensor


class GateBounds(nn.Module):
    """Holds gates [B, C], each in [0, 1], within [low, high] of its channel; at first these are 0 and 1."""

    low: Tensor
    high: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(channels))
        self.register_buffer("high", torch.ones(channels))

    def open(self) -> None:
        """Hold nothing."""
        self.low.zero_()
        self.high.fill_(1)

    @property
    def is_open(self) -> bool:
        """Whether some channel is not held."""
        return bool(((self.low == 0) & (self.high == 1)).any())

    def forward(self, gate: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(gate, self.low), self.high)


def bounds_of(network: nn.Module) -> list[GateBounds]:
    return [module for module in network.modules() if isinstance(module, GateBounds)]


@torch.no_grad()
def find_bounds(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the bounds to the least and the largest gate of each channel on some noisy images [B, C, H, W] and their
    levels [B, 1, H, W]."""
    bounds = bounds_of(network)
    seen: dict[GateBounds, list[Tensor]] = {module: [] for module in bounds}
    for module in bounds:
        module.open()
    handles = [
        module.register_forward_pre_hook(lambda module, gates: seen[module].append(gates[0])) for module in bounds
    ]
    try:
        for noisy, level in batches:
            network(noisy, level)
    finally:
        for handle in handles:
            handle.remove()
    for module, gates in seen.items():
        module.low.copy_(torch.cat(gates).amin(dim=0))
        module.high.copy_(torch.cat(gates).amax(dim=0))
