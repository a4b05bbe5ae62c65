"""Sets of images for tests of `denoise-se evaluate`, and methods that are measured on them."""

from __future__ import annotations

import numpy as np
from PIL import Image


class Recorder:
    """Halves the contrast, and keeps what it was called with."""

    def __init__(self, name="half", channels=None, result=lambda noisy: 0.25 + noisy / 2):
        self.name, self.channels, self.result, self.calls = name, channels, result, []

    def __call__(self, noisy, sigma):
        self.calls.append((noisy.copy(), sigma))
        return self.result(noisy).astype(np.float32)


def picture(seed, *shape, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def folder_of(path, images):
    for name, pixels in images.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return path


def by_method(rows):
    return {row.method: row for row in rows}
