"""Drawn patches: lettering, lines, checks, shapes and halftones in flat colours, as on screens and scanned pages.

Photographs hardly hold any of it, so that a network trained on them alone does worst there: on checks of a pixel, and
on pure colours side by side. `TrainingConfig.drawings` is the share of the training patches that have some.
"""

from __future__ import annotations

import string
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Patch = NDArray[np.uint8]  # [H, W, C], C is 1 or 3

LETTERS = string.ascii_letters * 2 + string.digits + string.punctuation + " " * 20
BLACK_AND_WHITE = 0.35  # share of the drawings that are black on white or white on black
CORNERS = 0.35  # and of those in two corners of the colour cube, as drawing programs offer them
CELL = 96  # pixels of a drawing on a sheet
ON_PHOTO = 0.15  # share of those drawn over a piece of a photograph


def drawn(photo: Patch, rng: np.random.Generator) -> Patch:
    """A drawing of `photo`'s shape, now and then over `photo` itself; it depends on the generator's state alone."""
    ink, paper = _colours(photo.shape[2], rng)
    background = photo if rng.random() < ON_PHOTO else np.broadcast_to(paper, photo.shape)
    coverage = (_lettering, _lettering, _grating, _checks, _shapes, _halftone)[rng.integers(6)](photo.shape[:2], rng)
    mixed = background + (coverage / 255.0)[..., None] * (ink - background.astype(np.float64))
    return np.rint(mixed).astype(np.uint8)


def sheet(photo: Patch, rng: np.random.Generator) -> Patch:
    """Drawings side by side, CELL pixels wide and high, in `photo`'s shape."""
    page = photo.copy()
    for top in range(0, photo.shape[0], CELL):
        for left in range(0, photo.shape[1], CELL):
            cell = np.s_[top : top + CELL, left : left + CELL]
            page[cell] = drawn(photo[cell], rng)
    return page


def _colours(channels: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ink and paper, [C] in codes."""
    kind = rng.random()
    if kind < BLACK_AND_WHITE:
        ink = np.full(channels, 255.0 * rng.integers(2))
        return ink, 255 - ink
    if kind < BLACK_AND_WHITE + CORNERS:
        corners = 2**channels
        one = rng.integers(corners)
        other = (one + rng.integers(1, corners)) % corners
        return _corner(one, channels), _corner(other, channels)
    ink, paper = rng.uniform(0, 255, (2, channels))
    return ink, paper


def _corner(number: int, channels: int) -> NDArray[np.float64]:
    return np.asarray(255.0 * (number >> np.arange(channels) & 1))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _lettering(shape: tuple[int, int], rng: np.random.Generator) -> Patch:
    """Lines of random letters of 6 to 48 pixels, smooth or in steps, one in eight turned a little."""
    height, width = shape
    size = int(np.exp(rng.uniform(np.log(6), np.log(48))))
    side = 2 * max(height, width) if rng.random() < 1 / 8 else 0
    page = Image.new("L", (max(side, width), max(side, height)))
    draw = ImageDraw.Draw(page)
    draw.fontmode = "1" if rng.random() < 0.25 else "L"
    letters = list(LETTERS)
    for top in range(-int(rng.integers(size)), page.height, max(7, int(size * rng.uniform(1.1, 1.6)))):
        count = 2 + 3 * page.width // size
        line = "".join(letters[i] for i in rng.integers(len(letters), size=count))
        draw.text((-int(rng.integers(2 * size)), top), line, fill=255, font=_font(size))
    if side:
        page = page.rotate(float(rng.uniform(-45, 45)), Image.Resampling.BICUBIC)
        left, upper = (page.width - width) // 2, (page.height - height) // 2
        page = page.crop((left, upper, left + width, upper + height))
    return np.asarray(page)


def _phase(shape: tuple[int, int], angle: float) -> NDArray[np.float64]:
    """How many pixels each lies along a direction."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(np.cos(angle) * columns + np.sin(angle) * rows)


def _grating(shape: tuple[int, int], rng: np.random.Generator) -> Patch:
    """Stripes of 1 pixel on, or as smooth waves; half of them along the axes, in whole pixels."""
    if rng.random() < 0.5:
        on, off = np.exp(rng.uniform(0, np.log(16), 2)).astype(int)
        stripes = (_phase(shape, rng.integers(2) * np.pi / 2).round() + rng.integers(on + off)) % (on + off) < on
        return np.asarray(255 * stripes, dtype=np.uint8)
    period = np.exp(rng.uniform(np.log(2), np.log(32)))
    wave = np.sin(2 * np.pi * (_phase(shape, rng.uniform(0, np.pi)) / period + rng.random()))
    sharpness = np.exp(rng.uniform(0, 3))
    return np.rint(127.5 + 127.5 * np.clip(wave * sharpness, -1, 1)).astype(np.uint8)


def _checks(shape: tuple[int, int], rng: np.random.Generator) -> Patch:
    """A checkerboard with cells of 1 to 16 pixels, or, one in three, cells at random."""
    cell = int(np.exp(rng.uniform(0, np.log(17))))
    rows, columns = (-(-side // cell) + 1 for side in shape)
    if rng.random() < 1 / 3:
        cells = rng.random((rows, columns)) < rng.uniform(0.1, 0.9)
    else:
        cells = np.add.outer(np.arange(rows), np.arange(columns)) % 2 == 1
    top, left = rng.integers(cell, size=2)
    board = cells.repeat(cell, 0).repeat(cell, 1)[top : top + shape[0], left : left + shape[1]]
    return np.asarray(255 * board, dtype=np.uint8)


def _shapes(shape: tuple[int, int], rng: np.random.Generator) -> Patch:
    """Rectangles, ellipses and lines, filled or not, each of a coverage of its own."""
    height, width = shape
    page = np.zeros(shape, np.uint8)
    smooth = cv2.LINE_AA if rng.random() < 0.7 else cv2.LINE_8
    for _ in range(int(rng.integers(2, 16))):
        kind, shade = rng.integers(3), int(rng.choice([0, 255, int(rng.integers(256))]))
        thickness = int(rng.choice([1, 1, 2, 3, 6]))
        (x, y), (u, v) = (rng.integers(-8, (width + 8, height + 8)).tolist() for _ in range(2))
        if kind == 0:
            cv2.rectangle(page, (x, y), (u, v), shade, -1 if rng.random() < 0.5 else thickness)
        elif kind == 1:
            axes = (1 + abs(u - x) // 2, 1 + abs(v - y) // 2)
            filled = -1 if rng.random() < 0.5 else thickness
            cv2.ellipse(page, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, shade, filled, smooth)
        else:
            cv2.line(page, (x, y), (u, v), shade, thickness, smooth)
    return page


def _halftone(shape: tuple[int, int], rng: np.random.Generator) -> Patch:
    """A slope of grey printed in dots: by a random threshold for each pixel, or a round one for each cell."""
    slope = np.clip(_phase(shape, rng.uniform(0, 2 * np.pi)) / max(shape) * rng.uniform(0, 1) + rng.random(), 0, 1)
    if rng.random() < 0.3:
        return np.asarray(255 * (slope > rng.random(shape)), dtype=np.uint8)
    cell, angle = rng.uniform(2, 10), rng.uniform(0, np.pi / 2)
    dots = sum(np.cos(2 * np.pi * _phase(shape, direction) / cell) for direction in (angle, angle + np.pi / 2))
    return np.asarray(255 * (slope > 0.5 + dots / 4), dtype=np.uint8)
