"""What a screen shows of an image: 8 bits, upright, and maps of the difference of two images.

Only for looking at: nothing here is written to a result. A browser shows PNG, JPEG, WebP and BMP itself, with the EXIF
orientation applied; the other formats go through `as_shown`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from denoise_se.errors import UsageError
from denoise_se.image import MOST_FAR_OUT, Image, far_out
from denoise_se.scanlines import ArrayScanlines, Scanlines, in_bands
from denoise_se.value_range import WHOLE, ValueRange, full_range, value_range

BROWSER_FORMATS = ("png", "jpg", "webp", "bmp")
RESIDUAL_GAIN = 4.0  # noise of sigma 10 (8-bit units) then spans a third of the grey scale
_BAND = 256  # rows in work at a time, so that no float copy of the whole image is made


def shown_range(source: Scanlines) -> ValueRange:
    """What an image [H, W, C] shows as black to white, in units of its range: what networks see of it, see
    `value_range`; but highlights of floats are clipped, as long as most of the picture is no brighter than white."""
    seen = value_range(source, 0.0).in_units_of(full_range(source.dtype))
    if seen.black == 0 and seen.span > 1:
        beyond = sum(far_out(rows) for _, rows in in_bands(source))
        return seen if beyond > MOST_FAR_OUT * math.prod(source.shape) else WHOLE
    return seen


def as_shown(image: Image, seen: ValueRange = WHOLE) -> Image:
    """The image in 8 bits, turned upright, its values clipped to that range (`shown_range`); alpha and colour profile
    are kept."""
    upright = image.upright()
    alpha = None if upright.alpha is None else _eight_bits(upright.alpha[..., None])[..., 0]
    return replace(upright, pixels=_eight_bits(upright.pixels, seen), alpha=alpha)


def residual(noisy: Image, clean: Image, gain: float = RESIDUAL_GAIN) -> Image:
    """What was taken away, `noisy - clean` times `gain` around middle grey, in 8 bits and upright.

    Grey is no change. Raises UsageError when the two differ in size.
    """
    first, second = noisy.upright(), clean.upright()
    channels = _common_channels(first, second)
    map_ = np.empty((first.height, first.width, channels), np.uint8)
    for start in range(0, first.height, _BAND):
        rows = slice(start, start + _BAND)
        change = _unit(first.pixels[rows, :, :channels]) - _unit(second.pixels[rows, :, :channels])
        map_[rows] = np.clip(np.rint(127.5 + 255 * gain * change), 0, 255)
    return Image(map_, None, "png")


def difference(reference: Image, image: Image, gain: float = RESIDUAL_GAIN) -> Image:
    """How far an image is from its reference: the largest absolute difference over the channels times `gain`.

    Black is equal; 8 bits, grey, upright. Raises UsageError when the two differ in size.
    """
    first, second = reference.upright(), image.upright()
    channels = _common_channels(first, second)
    map_ = np.empty((first.height, first.width, 1), np.uint8)
    for start in range(0, first.height, _BAND):
        rows = slice(start, start + _BAND)
        error = np.abs(_unit(first.pixels[rows, :, :channels]) - _unit(second.pixels[rows, :, :channels]))
        map_[rows] = np.clip(np.rint(255 * gain * error.max(axis=2, keepdims=True)), 0, 255)
    return Image(map_, None, "png")


def _common_channels(first: Image, second: Image) -> int:
    """A format without grey holds it as three equal channels: then the first is compared."""
    if first.pixels.shape[:2] != second.pixels.shape[:2]:
        sizes = [f"{image.width}x{image.height}" for image in (first, second)]
        raise UsageError(f"the images are {sizes[0]} and {sizes[1]} pixels; give two of one size")
    return min(first.channels, second.channels)


def _unit(pixels: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as float32."""
    return pixels.astype(np.float32) / np.float32(full_range(pixels.dtype))


def _eight_bits(pixels: np.ndarray, seen: ValueRange = WHOLE) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    shown = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), _BAND):
        rows = slice(start, start + _BAND)
        shown[rows] = np.clip(np.rint(255 * seen.seen(_unit(pixels[rows]))), 0, 255)
    return shown


def thumbnail(image: Image, side: int = 320) -> Image:
    """As shown, as bright as `shown_range` has it, with its longer side at most `side` pixels (area average)."""
    import cv2

    shown = as_shown(image, shown_range(ArrayScanlines(image.pixels)))
    scale = min(1.0, side / max(shown.height, shown.width))
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    pixels = cv2.resize(shown.pixels, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], shown.channels)
    return Image(pixels, None, "png")
