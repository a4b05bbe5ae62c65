"""A picture with known noise, for tests of what is estimated of it."""

from __future__ import annotations

import numpy as np


def gradient(height: int = 256, width: int = 256) -> np.ndarray:
    """Brightness 60 to 190, a slow diagonal."""
    y, x = np.mgrid[:height, :width]
    return 60 + 130 * (y / height + x / width) / 2


def noisy(clean: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    """Float image, range [0, 1], not clipped."""
    return ((clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)) / 255).astype(np.float32)
