"""How close an image is to its reference: PSNR and SSIM. The data range is always given, never guessed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise_se.errors import DenoiseError

SSIM_WINDOW = 11
SSIM_SMALLEST_SIDE = 7

# Work is done in blocks of about this many values, so that a 100-megapixel image needs no float copy of the whole.
_BLOCK = 1 << 20


class MetricError(DenoiseError, ValueError):
    """Two images that cannot be compared: different shapes or dtypes, nothing in them, or no data range."""


def psnr(reference: NDArray[Any], image: NDArray[Any], *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB: `10 log10(data_range^2 / mean((reference - image)^2))`.

    Both arrays have the same shape and dtype (any shape, any integer or real dtype); the mean is over all pixels and
    channels together, in float64. `data_range` is in the arrays' own units: 255 for 8 bits, 65535 for 16, 1.0 for
    floats. Identical images give `inf`. Raises `MetricError`, a ValueError, when the two cannot be compared.
    """
    _check_comparable(reference, image, data_range)
    squares = math.fsum(float(difference @ difference) for difference in _differences(reference, image))
    if squares == 0.0:
        return math.inf
    return 10.0 * math.log10(data_range**2 * reference.size / squares)


def mean_absolute_error(reference: NDArray[Any], image: NDArray[Any], *, data_range: float) -> float:
    """`mean(|reference - image|)` over all pixels and channels in 8-bit units: 255 is the whole `data_range`.

    The arguments and errors are `psnr`'s. Of a clean image and what a denoiser makes of it, it is what that changes.
    """
    _check_comparable(reference, image, data_range)
    total = math.fsum(float(np.abs(difference).sum()) for difference in _differences(reference, image))
    return 255.0 * total / (data_range * reference.size)


def ssim(reference: NDArray[Any], image: NDArray[Any], *, data_range: float) -> float | None:
    """Mean structural similarity, at most 1; None for an image with a side under 7 pixels.

    As in Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity",
    doi:10.1109/TIP.2003.819861: an 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance,
    the mean over all places where the window lies inside the image, then over channels. An image with a side of 7 to
    10 pixels has no such place: there the borders are mirrored, and the mean is over the places where a window of the
    largest odd size that fits lies inside.

    Both arrays are `[H, W]` or `[H, W, C]` of the same shape and dtype, `data_range` in their units. Memory is bounded:
    the image is taken in blocks that overlap by the window, which gives what the whole gives. Raises `MetricError`, a
    ValueError, when the two cannot be compared.
    """
    _check_comparable(reference, image, data_range)
    if reference.ndim not in (2, 3):
        raise MetricError(f"SSIM needs images of shape [H, W] or [H, W, C], not {list(reference.shape)}")
    side = min(reference.shape[:2])
    if side < SSIM_SMALLEST_SIDE:
        return None
    if reference.shape[0] < reference.shape[1]:  # blocks are cut across the longer axis, which keeps them small
        reference, image = np.swapaxes(reference, 0, 1), np.swapaxes(image, 0, 1)
    if reference.ndim == 2:
        reference, image = reference[..., None], image[..., None]
    margin = min(SSIM_WINDOW, side - 1 + side % 2) // 2
    channels = [
        _ssim_of_channel(reference[..., c], image[..., c], data_range, margin) for c in range(reference.shape[2])
    ]
    return math.fsum(channels) / len(channels)


def mean_finite(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are finite numbers; None when there is none.

    Left out are None (SSIM of a tiny image) and what is not finite (PSNR of identical images).
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else None


def _differences(reference: NDArray[Any], image: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """Piece by piece, so that a large image needs no large array of floats."""
    pieces = np.nditer(
        [reference, image],
        flags=["external_loop", "buffered"],
        op_dtypes=[np.float64, np.float64],
        casting="same_kind",
        buffersize=_BLOCK,
    )
    for one, other in pieces:
        yield one - other


def _ssim_of_channel(reference: NDArray[Any], image: NDArray[Any], data_range: float, margin: int) -> float:
    """The mean SSIM of one channel `[H, W]` over the pixels at least `margin` away from every border."""
    height, width = reference.shape
    bottom = height - margin
    step = max(4 * SSIM_WINDOW, _BLOCK // width)
    halo = SSIM_WINDOW // 2
    total = 0.0
    for start in range(margin, bottom, step):
        stop = min(start + step, bottom)
        first = max(start - halo, 0)
        rows = slice(first, min(stop + halo, height))
        similarity = _ssim_map(reference[rows].astype(np.float64), image[rows].astype(np.float64), data_range)
        total += float(similarity[start - first : stop - first, margin : width - margin].sum())
    return total / ((height - 2 * margin) * (width - 2 * margin))


def _ssim_map(x: NDArray[np.float64], y: NDArray[np.float64], data_range: float) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    def local_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        smoothed: NDArray[np.float64] = gaussian_filter(values, sigma=1.5, radius=SSIM_WINDOW // 2, mode="reflect")
        return smoothed

    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _check_comparable(reference: NDArray[Any], image: NDArray[Any], data_range: float) -> None:
    if reference.shape != image.shape:
        raise MetricError(f"cannot compare a reference of shape {reference.shape} with an image of shape {image.shape}")
    if reference.dtype != image.dtype:
        raise MetricError(f"cannot compare a reference of {reference.dtype} with an image of {image.dtype}")
    if reference.dtype.kind not in "buif":
        raise MetricError(f"cannot compare images of dtype {reference.dtype}")
    if reference.size == 0:
        raise MetricError(f"cannot compare images without pixels (shape {reference.shape})")
    if not (math.isfinite(data_range) and data_range > 0):
        raise MetricError(f"the data range must be a positive number, not {data_range}")
