"""What tests of made noise draw it from, and on."""

from __future__ import annotations

import numpy as np
import torch

from denoise_se.noise import (
    NoiseChain,
)

CAMERA = "camera:gain=0.01,read=0.01,luma=0.5,chroma=1"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def constant(value, *shape):
    return torch.full(shape, float(value))


def scene(height, width):
    """A coloured picture [H, W, 3] in [0, 1] with edges, gradients and some texture."""
    y, x = np.mgrid[0:height, 0:width] / 64
    edge = ((x - 0.6) ** 2 + (y - 0.4) ** 2 < 0.1).astype(np.float64)
    planes = [0.3 + 0.4 * edge, 0.5 + 0.3 * np.sin(6 * x + 3 * y), 0.2 + 0.3 * y / y.max() + 0.2 * edge]
    texture = np.random.default_rng(3).normal(0, 0.03, (height, width, 1))
    return np.clip(np.stack(planes, axis=-1) + texture, 0, 1).astype(np.float32)


def one(*models):
    return NoiseChain(models)
