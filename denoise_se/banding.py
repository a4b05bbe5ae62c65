"""Row and column banding, from images or from noise alone.

A row's shift is seen by all its pixels, grain by one each. So each row is cut into blocks, and the blocks' means,
less the mean of the rows above and below, are summed up twice: over the even blocks and over the odd ones. The two
share the banding and nothing else, so their covariance is the banding's, whatever the grain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

MIN_BLOCK, MAX_BLOCKS = 16, 32  # pixels wide, so that grain hardly reaches from one into the next; a row
SECOND_DIFFERENCE = 1.5  # variance of a white number less the mean of its two neighbours, in units of its own
SURE = 4.0  # standard errors above chance
CUT = 3.0  # standard deviations; what lies beyond is an edge of the picture


Halves = tuple[Float, Float]


def row_covariance(images: Iterable[NDArray[np.generic]]) -> Float:
    """[C, C], the covariance of the channels' row shifts over all images [H, W, C], in the images' units squared.

    0 where the rows do not differ by more than chance. Give images with their axes swapped for the columns. The rows'
    shifts are taken to be white; edges that run along most of a row count up to three standard deviations.
    """
    return halves_covariance([row_halves(image) for image in images])


def halves_covariance(halves: Sequence[Halves]) -> Float:
    """As `row_covariance`, of what `row_halves` gave for each image."""
    even, odd = (np.concatenate(part) for part in zip(*halves, strict=True))
    channels = even.shape[1]
    if len(even) < 8:
        return np.zeros((channels, channels))
    product = even.T @ odd / len(even)
    covariance = (product + product.T) / 2
    # second differences of neighbouring rows are correlated, so there are fewer independent ones
    chance = np.sqrt(even.var(axis=0) * odd.var(axis=0) / len(even) * SECOND_DIFFERENCE)
    sure = np.diagonal(covariance) > SURE * chance
    values, vectors = np.linalg.eigh(covariance * np.outer(sure, sure) / SECOND_DIFFERENCE)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def row_halves(image: NDArray[np.generic]) -> Halves:
    """Second differences down the rows [H - 2, C] of the medians over even blocks, and over odd ones."""
    height, width, channels = image.shape
    count = min(MAX_BLOCKS, width // MIN_BLOCK)
    if height < 3 or count < 2:
        return np.zeros((0, channels)), np.zeros((0, channels))
    size = width // count
    blocks = image[:, : count * size].reshape(height, count, size, channels).mean(axis=2, dtype=np.float64)
    bent = blocks[1:-1] - (blocks[:-2] + blocks[2:]) / 2
    even, odd = (np.median(bent[:, start::2], axis=1) for start in (0, 1))
    return _winsorised(even), _winsorised(odd)


def _winsorised(values: Float) -> Float:
    limit = CUT * 1.4826 * np.median(np.abs(values), axis=0)
    return np.clip(values, -limit, limit)
