"""Small crops where denoisers differ most, side by side, to look at."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from denoise_se.metrics import psnr

Pixels = NDArray[np.float32]

SIDE = 96
ROWS = 6
_ZOOM = 2
_GAP = 8
_TEXT = 14


@dataclass(frozen=True)
class Panel:
    """One crop: its label, 8-bit pixels `[h, w]` or `[h, w, 3]`, and PSNR against the clean crop (None for that)."""

    label: str
    pixels: NDArray[np.uint8]
    psnr: float | None


@dataclass(frozen=True)
class Crop:
    """The same place of one image: noisy, each method, clean. `difference` is how much the methods differ there."""

    group: str
    image: str
    difference: float
    panels: tuple[Panel, ...]


def cut_crop(group: str, image: str, clean: Pixels | None, noisy: Pixels, results: Mapping[str, Pixels]) -> Crop:
    """The crop of at most 96x96 where the results have the largest mean standard deviation among themselves.

    All arrays are `[H, W]` or `[H, W, 3]` of one shape, nominally in [0, 1]. With a single result it is where that
    differs most from the clean image, or from the noisy one where `clean` is None; then there is no PSNR.
    """
    compared = list(results.values()) if len(results) > 1 else [*results.values(), noisy if clean is None else clean]
    spread = np.std(np.stack(compared), axis=0)
    if spread.ndim == 3:
        spread = spread.mean(axis=2)
    height, width = (min(SIDE, side) for side in spread.shape)
    sums = np.pad(spread.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = (int(place) for place in np.unravel_index(int(windows.argmax()), windows.shape))

    def cut(pixels: Pixels) -> NDArray[np.uint8]:
        inside = np.clip(pixels[top : top + height, left : left + width], 0.0, 1.0)
        return np.round(inside * 255.0).astype(np.uint8)

    named = {"noisy": cut(noisy), **{name: cut(result) for name, result in results.items()}}
    difference = float(windows[top, left]) / (height * width)
    if clean is None:
        return Crop(group, image, difference, tuple(Panel(name, pixels, None) for name, pixels in named.items()))
    target = cut(clean)
    panels = [Panel(name, pixels, psnr(target, pixels, data_range=255.0)) for name, pixels in named.items()]
    return Crop(group, image, difference, (*panels, Panel("clean", target, None)))


def best_crops(crops: Sequence[Crop], count: int = ROWS) -> tuple[Crop, ...]:
    """The `count` crops with the largest difference, taken in turn from each group so that all groups are seen."""
    ranks: dict[str, int] = {}
    placed = []
    for crop in sorted(crops, key=lambda crop: -crop.difference):
        rank = ranks[crop.group] = ranks.get(crop.group, -1) + 1
        placed.append((rank, crop))
    return tuple(crop for _, crop in sorted(placed, key=lambda item: item[0])[:count])


def crops_png(crops: Sequence[Crop]) -> bytes:
    """A PNG with a row for each crop, its panels labelled with the method and the PSNR of the crop."""
    from PIL import Image, ImageDraw, ImageFont

    cell = SIDE * _ZOOM
    row_height = cell + 3 * _TEXT + 3 * _GAP
    columns = max((len(crop.panels) for crop in crops), default=1)
    sheet = Image.new("RGB", (columns * (cell + _GAP) + _GAP, max(1, len(crops)) * row_height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT - 2)
    for row, crop in enumerate(crops):
        y = row * row_height + _GAP
        draw.text((_GAP, y), f"{crop.group}  {crop.image}", fill="black", font=font)
        for column, panel in enumerate(crop.panels):
            x = _GAP + column * (cell + _GAP)
            tile = Image.fromarray(panel.pixels.squeeze(2) if panel.pixels.shape[2:] == (1,) else panel.pixels)
            size = (tile.width * _ZOOM, tile.height * _ZOOM)
            sheet.paste(tile.resize(size, Image.Resampling.NEAREST).convert("RGB"), (x, y + _TEXT + 4))
            caption = f"{panel.label}\n{_decibels(panel.psnr)}"
            draw.multiline_text((x, y + cell + _TEXT + 6), caption, fill="black", font=font, spacing=1)
    encoded = io.BytesIO()
    sheet.save(encoded, format="PNG")
    return encoded.getvalue()


def _decibels(value: float | None) -> str:
    if value is None:
        return ""
    return "identical" if math.isinf(value) else f"{value:.2f} dB"
