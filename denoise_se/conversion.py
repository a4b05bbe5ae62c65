"""An image made to fit another format: what can be converted is, with a notice; what would be lost is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from denoise_se.exif import dpi
from denoise_se.image import FormatError, Image

# a denoised float image overshoots its range at a few edges; more than this is an image of another range
MAX_CLIPPED_SHARE = 0.05


@dataclass(frozen=True)
class Limits:
    """What a format can hold. depths: of a sample, in bits, ascending; packets: EXIF, XMP and ICC profiles; finest:
    resolution, in pixels an inch, 0 where it holds none."""

    depths: tuple[int, ...]
    alpha: bool
    largest_side: int
    packets: bool = True
    finest: float = math.inf


def fitted(image: Image, format: str, limits: Limits) -> Image:
    """The image as `format` can hold it, with the notices of what was converted. Raises FormatError.

    An image that keeps its format is only changed where it does not fit. In another format it is turned upright, since
    few programs honour the orientation tag outside of JPEG.
    """
    name = format.upper()
    if max(image.height, image.width) > limits.largest_side:
        raise FormatError(
            f"has {image.width:,} x {image.height:,} pixels, and {name} holds at most {limits.largest_side:,} a side: "
            "write PNG or TIFF"
        )
    if image.alpha is not None and not limits.alpha and np.all(image.alpha == _full(image)):
        image = _noticed(replace(image, alpha=None), f"its alpha channel, opaque everywhere, is not written to {name}")
    if image.alpha is not None and not limits.alpha:
        raise FormatError(f"has transparency, which {name} cannot hold: write PNG, TIFF or WebP")
    kept = format == image.format
    if not kept and image.metadata.orientation != 1:
        image = _noticed(image.upright(), "turned upright, since few programs honour the orientation outside of JPEG")
    if not kept and image.metadata.premultiplied:
        image = _with_plain_colours(image)
    if image.bit_depth not in limits.depths:
        image = _with_depth(image, limits.depths[-1], name)
    return image if kept else _with_metadata_of(image, limits, name)


def _with_depth(image: Image, depth: int, name: str) -> Image:
    dtype = np.dtype(f"u{depth // 8}")
    notice = f"{image.bit_depth}-bit image written as {depth}-bit {name}"
    if image.bit_depth == 32:
        outside = float(np.mean((image.pixels < 0) | (image.pixels > 1)))
        if outside > MAX_CLIPPED_SHARE:
            raise FormatError(
                f"has float values of which {outside:.0%} lie outside of 0 to 1, and {name} would clip them: write TIFF"
            )
        notice += f", {outside:.1%} of its values clipped to 0 to 1" if outside else ""
    alpha = None if image.alpha is None else _requantized(image.alpha, dtype)
    return _noticed(replace(image, pixels=_requantized(image.pixels, dtype), alpha=alpha), notice)


def _requantized(plane: np.ndarray, dtype: np.dtype) -> np.ndarray:
    full = np.iinfo(dtype).max
    if plane.dtype == np.float32:
        return np.rint(np.clip(plane, 0, 1) * np.float32(full)).astype(dtype)
    # 65535 = 257 * 255, so this is the nearest 8-bit value
    return ((plane.astype(np.uint32) + 128) // 257).astype(dtype)


def _full(image: Image) -> float:
    """The value of white, and of what is opaque."""
    return 1.0 if image.bit_depth == 32 else float((1 << image.bit_depth) - 1)


def _with_plain_colours(image: Image) -> Image:
    """Colours divided by alpha, as formats other than TIFF store them."""
    metadata = replace(image.metadata, premultiplied=False)
    if image.alpha is None:
        return replace(image, metadata=metadata)
    full = _full(image)
    share = np.where(image.alpha > 0, image.alpha / np.float64(full), 1.0)[..., None]
    colours = np.clip(image.pixels / share, 0, full)
    if image.bit_depth != 32:
        colours = np.rint(colours)
    image = replace(image, pixels=colours.astype(image.pixels.dtype), metadata=metadata)
    return _noticed(image, "colours premultiplied by alpha written as plain colours")


def _with_metadata_of(image: Image, limits: Limits, name: str) -> Image:
    metadata = image.metadata
    lost = list(metadata.coding.lost_elsewhere(metadata.icc is not None)) if metadata.coding else []
    if not limits.packets:
        packets = {"EXIF": metadata.exif, "XMP": metadata.xmp, "ICC profile": metadata.icc}
        lost += [packet for packet, content in packets.items() if content is not None]
        metadata = replace(metadata, exif=None, xmp=None, icc=None)
    if metadata.dpi and max(metadata.dpi) > limits.finest:
        if dpi(metadata.exif) is None:  # which may hold it too
            lost.append("resolution" if limits.finest == 0 else "so fine a resolution")
        metadata = replace(metadata, dpi=None)
    image = replace(image, metadata=metadata)
    return _noticed(image, f"{name} cannot hold, so not kept: {', '.join(lost)}") if lost else image


def _noticed(image: Image, notice: str) -> Image:
    return replace(image, notices=(*image.notices, notice))
