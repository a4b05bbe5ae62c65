"""Checkpoints of networks so small that a test can run them, made on the fly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from denoise_se.checkpoint import save_checkpoint
from denoise_se.network import NetworkConfig, build_network

TINY = {"widths": (4, 8), "blocks": 1}


def save_tiny(
    path: Path, *, channels: int = 3, noise_map: bool = True, seed: int = 0, training: Mapping[str, Any] | None = None
) -> Path:
    """A checkpoint that visibly changes an image and depends on its noise level; weights drawn from `seed`."""
    config = NetworkConfig(channels=channels, noise_map=noise_map, **TINY)
    torch.manual_seed(seed)
    network = build_network(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    save_checkpoint(path, network.state_dict(), config, training=training or {}, psnr={})
    return path
