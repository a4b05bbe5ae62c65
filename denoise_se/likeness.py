"""Whether two images can be of one scene, from small pictures of them in which noise is averaged away."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDES = (8, 32)  # least and most blocks a side
BLOCK = 8  # pixels a side at least, where the image has enough of them: averages away the noise
SAME_SCENE = 0.9  # correlation of two thumbnails; different photos stay below
COMPARED = 512  # pixels a side of the middle, by which scenes are told apart
EXPLAINED = 0.8  # correlation of two small pictures
GRAIN = 9  # pixels; slower differences are none of noise
CORRELATED = 4.0  # what the noise of a mean may come to, as a multiple of the grain by the root of its pixels
VISIBLE = 2.0  # times that, above which a small picture shows a scene


def thumbnail(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """[N, N], N from 8 to 32: area means of an image [H, W, C], scaled to mean 0 and norm 1 (0 if constant)."""
    small = block_means(pixels.astype(np.float32).mean(axis=2))
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-9)


def block_means(plane: NDArray[np.floating]) -> NDArray[np.float64]:
    """[N, N], N from 8 to 32: area means of a plane [H, W]."""
    import cv2

    side = int(np.clip(min(plane.shape) // BLOCK, *SIDES))
    return cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA).astype(np.float64)


def alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two thumbnails can be of one scene, as those of other sizes cannot; plain ones count as alike."""
    if one.shape != other.shape:
        return False
    plain = not (one.any() and other.any())
    return plain or float((one * other).sum()) > SAME_SCENE


def of_other_scene(noisy: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    """Whether a plane [H, W] shows what another of its size does not explain, besides noise however strong, in small
    pictures of both in which it is averaged away. Nothing can be said of plain ones."""
    one, two = (small - small.mean() for small in (block_means(noisy), block_means(other)))
    averaged = noisy.size / one.size  # pixels
    noise = CORRELATED * _grain(noisy - other) / averaged**0.5
    if one.std() < VISIBLE * noise or min(one.std(), two.std()) < 1e-4:
        return False
    return float((one * two).mean()) < EXPLAINED * float(one.std() * two.std())


def _grain(difference: NDArray[np.floating]) -> float:
    """The standard deviation of what changes within GRAIN pixels."""
    import cv2

    return float((difference - cv2.blur(difference, (GRAIN, GRAIN))).std())
