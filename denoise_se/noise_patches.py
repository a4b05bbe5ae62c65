"""Patches of an image as noise statistics need them: in the DCT domain, sampled, aware of clipping.

Large images give patches further apart, on a grid that depends on the image's size alone, so time and memory stay
bounded and the same image always gives the same patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from denoise_se.clipping import ENDLESS, clipped_moments
from denoise_se.scanlines import Scanlines

Array = NDArray[np.float32]

PATCH = 8
MIN_PIXELS = 32  # fewer hold too few high coefficients for an answer to mean anything
MAX_PATCHES = 20_000  # over all channels; bounds the time, and twice as many were not measurably more accurate
GARBAGE = 4000.0  # times as large as nine tenths of the pixels, and as white, are no pixels of a picture
HEAP = 1e-3  # of the pixels; chance puts fewer at the end of a range, but where they differ by whole steps
LARGEST = 1e15  # in 8-bit units; pixels beyond it would overflow when squared


@dataclass(frozen=True)
class DctPatches:
    """DCT patches of an image, in 8-bit units: N patches, C channels, K coefficients.

    `dct` [C, N, K] leaves out the flat coefficient, `means` [C, N] holds the patches' means, `index` [2, K] the
    coefficients' place (vertical, horizontal) and `order` [K] the sum of the two, scaled so that the checkerboard has
    14 whatever the patch's shape (height, width). There are `overlap` times as many as lie side by side. Pixels were
    clipped to [low, high]; an infinite end means not clipped there. `equal` [N] is the share of pixels that equal the
    next but one, beside or below, whichever is less. `joined` [N] says how much more often pixels equal the next one
    than if those that were clipped lay anywhere in the patch: 0 for clipped noise, 1 where all are equal. `spread` [N]
    is the pixels' variance, mean over the channels, as it was before clipping if it is noise.
    """

    dct: Array
    means: Array
    index: NDArray[np.int64]
    order: NDArray[np.float64]
    shape: tuple[int, int]
    overlap: float
    low: float
    high: float
    equal: Array
    joined: Array
    spread: Array

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> DctPatches:
        """The patches of a mask or of indices [N]."""
        return replace(
            self,
            dct=self.dct[:, which],
            means=self.means[:, which],
            equal=self.equal[which],
            joined=self.joined[which],
            spread=self.spread[which],
        )


def cut(image: Scanlines, scale: float) -> DctPatches | None:
    """Patches of image times scale; None if it is too small or has no usable pixels.

    Sides under 8 pixels get smaller patches. Patches with NaN, infinite or
    absurd pixels are left out, and those that are saturated or masked throughout.
    """
    height, width, channels = image.shape
    if height * width < MIN_PIXELS:
        return None
    ph, pw = min(PATCH, height), min(PATCH, width)
    most = MAX_PATCHES // channels
    stride = max(1, int(np.ceil((height * width / most) ** 0.5)))
    if min(height, width) < PATCH:  # patches move along one side only
        stride = max(1, max(height, width) // most)
    rows = []
    for top in range(0, height - ph + 1, stride):
        view = np.lib.stride_tricks.sliding_window_view(image.rows(top, top + ph), pw, axis=1)[:, ::stride]
        rows.append(view.transpose(1, 2, 0, 3).reshape(-1, channels, ph * pw))
    with np.errstate(invalid="ignore", over="ignore"):
        pixels = np.concatenate(rows).astype(np.float32) * np.float32(scale)
        count = len(pixels)
        pixels = pixels[(np.abs(pixels) < _largest(pixels)).all(axis=(1, 2))]
    if not len(pixels):
        return None
    low, high = _ends(pixels, deep=image.dtype != np.uint8)
    pixels = _informative(pixels, low, high)
    cells = pixels.reshape(len(pixels), channels, ph, pw)
    equal = np.minimum(*_equal(cells, 2)).mean(axis=1)
    low_end, high_end = (np.count_nonzero(pixels == end, axis=2) for end in (low, high))
    joined = _joined(cells, low_end, high_end)
    left = _left_of_variance(np.maximum(low_end, high_end), pixels.shape[2])
    pixels = pixels.transpose(1, 0, 2)
    if not pixels.size:
        return None
    basis = np.kron(_dct_matrix(ph), _dct_matrix(pw))[1:].astype(np.float32)
    index = np.stack(np.divmod(np.arange(1, ph * pw), pw))
    means = pixels.mean(axis=2)
    centred = (pixels - means[..., None]).reshape(-1, ph * pw)
    return DctPatches(
        dct=(centred @ basis.T).reshape(channels, -1, len(basis)),
        means=means,
        index=index,
        order=index.sum(axis=0) * 14 / (ph + pw - 2),
        shape=(ph, pw),
        overlap=max(1.0, count * ph * pw / (height * width)),
        low=low,
        high=high,
        equal=equal,
        joined=joined,
        spread=(centred.var(axis=1).reshape(channels, -1).T / left).mean(axis=1),
    )


def lag_weights(patches: DctPatches, reach: int) -> NDArray[np.float64]:
    """[K + 1, 2R+1, 2R+1]: what a unit of variance of each coefficient, the flat one first, adds to the mean product of
    pixels at each lag (vertical, horizontal) up to `reach`: the autocovariance is that of all, added up."""

    def products(n: int) -> NDArray[np.float64]:
        waves = _dct_matrix(n)
        found = np.zeros((n, 2 * reach + 1))
        for lag in range(min(n - 1, reach) + 1):
            found[:, reach + lag] = found[:, reach - lag] = (waves[:, lag:] * waves[:, : n - lag]).mean(axis=1)
        return found

    height, width = patches.shape
    i, j = np.concatenate([np.zeros((2, 1), int), patches.index], axis=1)
    return products(height)[i][:, :, None] * products(width)[j][:, None, :]


def _joined(cells: Array, low_end: NDArray[np.int64], high_end: NDArray[np.int64]) -> Array:
    """`DctPatches.joined` of cells [N, C, h, w], of which so many pixels [N, C] lie at either end of the range: Cohen's
    kappa of neighbours (doi:10.1177/001316446002000104), chance being that both lie at the same end."""
    count = cells.shape[2] * cells.shape[3]
    pairs = low_end * (low_end - 1) + high_end * (high_end - 1)
    chance = pairs / np.float32(count * (count - 1))
    found = np.mean(_equal(cells, 1), axis=0)
    return np.asarray((found - chance).sum(axis=1) / np.maximum(1e-6, 1 - chance).sum(axis=1))


def _equal(cells: Array, distance: int) -> tuple[Array, Array]:
    """[N, C] each: the shares of the pixels of [N, C, h, w] that equal those at a distance beside and below."""
    beside = cells[..., distance:] == cells[..., :-distance]
    below = cells[..., distance:, :] == cells[..., :-distance, :]
    return _share(beside), _share(below)


def _share(which: NDArray[np.bool_]) -> Array:
    """Of [N, C, h, w], for each [N, C]; 0 of none."""
    return which.sum(axis=(2, 3)) / np.float32(max(1, which.shape[2] * which.shape[3]))


def _left_of_variance(clipped: NDArray[np.int64], count: int) -> Array:
    """The share of the variance of Gaussian noise that is left when so many of `count` pixels were clipped at one end.

    That many tell where the end is, in standard deviations from the mean.
    """
    from scipy.special import ndtri

    end = ndtri(np.arange(1, count) / count)
    _, variance = clipped_moments(end, np.full_like(end, ENDLESS))
    table = np.concatenate([[1.0], variance, [1.0]]).astype(np.float32)  # no variance is left of all
    return np.asarray(table[clipped])


def _ends(pixels: Array, deep: bool) -> tuple[float, float]:
    """Where pixels [N, C, P] were clipped, in 8-bit units, an infinite end meaning nowhere: at black and white, and in
    deep images also elsewhere (12 bits in 16, say) where values heap up at the least or the largest."""
    least, largest = float(pixels.min()), float(pixels.max())
    low = least if least == 0 or (deep and _heaped(pixels, least, pixels > least, np.min)) else -np.inf
    white = abs(largest - 255) < 1e-4
    return low, largest if white or (deep and _heaped(pixels, largest, pixels < largest, np.max)) else np.inf


def _heaped(pixels: Array, end: float, others: NDArray[np.bool_], nearest: Callable[[Array], Array]) -> bool:
    """Whether many pixels lie at an end, and many more than at the nearest value to it of the others."""
    count = np.count_nonzero(pixels == end)
    if count < HEAP * pixels.size or count == pixels.size:
        return False
    return bool(count > 2 * np.count_nonzero(pixels == nearest(pixels[others])))


def _largest(pixels: Array) -> float:
    """What the pixels [N, C, P] of a picture are below, in 8-bit units, whatever their sign."""
    usual = np.abs(pixels[:, :, 0])
    usual = usual[usual < LARGEST]
    return min(LARGEST, GARBAGE * max(255.0, float(np.quantile(usual, 0.9)))) if usual.size else LARGEST


def _informative(pixels: Array, low: float, high: float) -> Array:
    """Pixels [N, C, P] without the patches that are saturated throughout, and without constant borders and masks.

    Where most patches are constant the image is a noise-free drawing, and they are what says so.
    """
    pixels = pixels[((pixels > low) & (pixels < high)).any(axis=(1, 2))]
    constant = (pixels == pixels[..., :1]).all(axis=(1, 2))
    return pixels[~constant] if 2 * np.count_nonzero(constant) < len(constant) else pixels


def _dct_matrix(n: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II [n, n], one basis vector a row."""
    k, x = np.arange(n)[:, None], np.arange(n)[None]
    matrix: NDArray[np.float64] = np.sqrt(2 / n) * np.cos(np.pi * (2 * x + 1) * k / (2 * n))
    matrix[0] /= np.sqrt(2)
    return matrix
