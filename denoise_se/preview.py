"""Small pictures of an image before and after, made while it passes by in bands: the whole, and where most changed.

All sums are of whole numbers, so the pictures do not depend on where the bands are cut. Memory depends on the width
alone, and has a bound: the thumbnails' sums, and the last rows of at most 32 windows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from denoise_se.exif import on_its_side
from denoise_se.image import turned
from denoise_se.value_range import WHOLE, ValueRange, full_range

if TYPE_CHECKING:
    from PIL import Image as PillowImage

CROP = 192
MOST_WINDOWS = 32  # side by side; an image wider than that many crops is searched at so many places a row
MOST_BYTES = 48 * 1024  # of one image's four pictures
LEAST_BYTES = 3 * 1024  # with fewer the pictures would show nothing
ALL_BYTES = 48 * 1024 * 1024  # of all pictures of a report, which base64 turns into 64 MB of page
_CROP_SHARE = 2 / 3
_CHUNK = 1 << 18  # values looked at together
_FINE = 480  # the longest side of the sums, before they are scaled to a thumbnail
# Side and quality of the first that fits. Low quality smooths noise away and would flatter "before": size goes first.
_THUMBNAILS = ((320, 75), (320, 60), (256, 60), (192, 60), (128, 55), (96, 50), (64, 40), (32, 30))
_CROPS = ((192, 92), (192, 85), (192, 75), (160, 75), (128, 75), (96, 75), (64, 70), (48, 60), (32, 50), (16, 50))


@dataclass(frozen=True)
class Preview:
    """An image's pictures, upright: thumbnails as WebP and crops at 1:1 as JPEG, each before and after.

    `size` is (width, height) of the upright image, `box` the crop's (left, top, width, height) in it, `change` the
    mean absolute change in the crop, in 8-bit units.
    """

    thumbnails: tuple[bytes, bytes]
    crops: tuple[bytes, bytes]
    size: tuple[int, int]
    box: tuple[int, int, int, int]
    change: float


def picture_bytes(images: int) -> int | None:
    """How many bytes each of so many images' pictures may take; None when there is no room for pictures of all."""
    each = min(MOST_BYTES, ALL_BYTES // max(1, images))
    return each if each >= LEAST_BYTES else None


class PreviewMaker:
    """Takes one image's bands of rows in order and gives its `Preview`.

    Example:
        >>> maker = PreviewMaker(2, 3, 1)
        >>> maker.add(0, np.zeros((2, 3, 1), np.uint8), np.full((2, 3, 1), 7, np.uint8))
        >>> maker.finish().box, maker.finish().change
        ((0, 0, 3, 2), 7.0)
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        orientation: int = 1,
        most: int = MOST_BYTES,
        seen: ValueRange = WHOLE,
    ) -> None:
        """For an image of `height` x `width` >= 1x1 pixels and 1 or 3 channels, shown by its EXIF orientation (1 to 8)
        and with that range as black to white, in units of its own, in pictures of `most` bytes (at least LEAST_BYTES)
        together."""
        self.shape, self.orientation, self.most = (height, width, channels), orientation, most
        # what is only made brighter stays whole numbers until it is shown
        self.seen, self.gain = (WHOLE, 1 / seen.span) if seen.black == 0 and seen.span <= 1 else (seen, 1.0)
        self.step = max(1, -(-max(height, width) // _FINE))
        fine = (-(-height // self.step), -(-width // self.step), channels)
        self.sums = np.zeros((2, *fine), np.uint32)  # 8-bit codes of step x step pixels stay far below 2**32
        self.side = (min(CROP, height), min(CROP, width))
        tops = _starts(height, self.side[0], height)
        self.ends = [top + self.side[0] for top in tops]
        self.lefts = np.array(_starts(width, self.side[1], MOST_WINDOWS))
        # Rings: row r of the image is row r % height of a window.
        self.rows = np.zeros((2, self.side[0], self.lefts.size * self.side[1], channels), np.uint8)
        self.changes = np.zeros((self.side[0], self.lefts.size))
        self.done = 0
        self.most_change = -1.0
        self.place = (0, 0)
        self.crops = np.zeros((2, *self.side, channels), np.uint8)
        self.unit = 1.0

    def add(self, start_row: int, noisy: np.ndarray, clean: np.ndarray) -> None:
        """The next rows, [n, W, C] each of uint8, uint16 or float32 (finite; clipped to the range that is shown).

        Raises ValueError for rows that do not follow the last ones, or of another shape or dtype than the other's.
        """
        if start_row != self.done or noisy.shape != clean.shape or noisy.dtype != clean.dtype:
            raise ValueError(f"rows {start_row}, {noisy.shape} and {clean.shape}, do not follow row {self.done}")
        if noisy.shape[1:] != self.shape[1:] or start_row + len(noisy) > self.shape[0]:
            raise ValueError(f"rows {start_row} of shape {noisy.shape} are not of an image {self.shape}")
        self.unit = 1.0 if noisy.dtype == np.uint8 else 257.0 / self.seen.span
        most = max(1, _CHUNK // (self.shape[1] * self.shape[2]))
        first = 0
        while first < len(noisy):
            # never across the end of a row of windows: the next one writes over it
            end = next(end for end in self.ends if end > self.done) - self.done
            rows = slice(first, min(first + most, first + end, len(noisy)))
            self._add(self._whole(noisy[rows]), self._whole(clean[rows]))
            first = rows.stop

    def finish(self) -> Preview:
        """The pictures. Raises ValueError when rows are missing."""
        height, width, _ = self.shape
        if self.done != height:
            raise ValueError(f"{self.done} of {height} rows have come")
        for_crops = int(self.most * _CROP_SHARE)
        small = [_pillow(turned(self._fine(sums), self.orientation)) for sums in self.sums]
        crops = [_pillow(turned(crop, self.orientation)) for crop in self.crops]
        (top, left), (high, wide) = self.place, self.side
        box = _turned_box((top, left, high, wide), (height, width), self.orientation)
        side, encoded = _fitting(crops, _CROPS, for_crops, _crop_bytes)
        _, thumbnails = _fitting(small, _THUMBNAILS, self.most - for_crops, _thumbnail_bytes)
        left, top, wide, high = box
        cut = (left + (wide - min(side, wide)) // 2, top + (high - min(side, high)) // 2)
        return Preview(
            thumbnails,
            encoded,
            (height, width) if on_its_side(self.orientation) else (width, height),
            (*cut, min(side, wide), min(side, high)),
            self.most_change / (self.crops[0].size * self.unit),
        )

    def _add(self, noisy: np.ndarray, clean: np.ndarray) -> None:
        """Rows up to the end of a row of windows at most, as whole numbers."""
        rows = np.arange(self.done, self.done + len(noisy))
        ring = rows % self.side[0]
        bins = np.flatnonzero(np.diff(rows // self.step, prepend=-1))
        across = np.arange(0, self.shape[1], self.step)
        for sums, kept, values in zip(self.sums, self.rows, (noisy, clean), strict=True):
            codes = _codes(values, self.gain)
            summed = np.add.reduceat(np.add.reduceat(codes, bins, 0, np.uint32), across, 1, np.uint32)
            sums[rows[0] // self.step : rows[-1] // self.step + 1] += summed
            kept[ring] = np.concatenate([codes[:, left : left + self.side[1]] for left in self.lefts], axis=1)
        # channel by channel: numpy is slow along a short axis
        change = sum(np.abs(noisy[..., c].astype(np.int64) - clean[..., c]) for c in range(self.shape[2]))
        until = np.pad(np.cumsum(change, axis=1), ((0, 0), (1, 0)))
        self.changes[ring] = until[:, self.lefts + self.side[1]] - until[:, self.lefts]
        self.done += len(noisy)
        if self.done in self.ends:
            self._judge()

    def _judge(self) -> None:
        """Keep the window with the largest change of those that end here, if it has more than the last kept."""
        totals = self.changes.sum(axis=0)
        best = int(totals.argmax())
        if totals[best] > self.most_change:
            self.most_change = float(totals[best])
            self.place = (self.done - self.side[0], int(self.lefts[best]))
            columns = slice(best * self.side[1], (best + 1) * self.side[1])
            self.crops = np.roll(self.rows[:, :, columns], -(self.done % self.side[0]), axis=1)

    def _whole(self, values: np.ndarray) -> np.ndarray:
        """The values as whole numbers: floats, and those of another range than their own, as 16-bit ones."""
        if values.dtype.kind == "u" and self.seen == WHOLE:
            return values
        seen = self.seen.seen(values.astype(np.float32) / np.float32(full_range(values.dtype)))
        return np.asarray(np.rint(np.clip(seen, 0, 1) * np.float32(65535)), np.uint16)

    def _fine(self, sums: np.ndarray) -> np.ndarray:
        """The means [h, w, C] uint8 of the cells, those at the right and the bottom border being smaller."""
        counts = [np.minimum(self.step, size - np.arange(0, size, self.step)) for size in self.shape[:2]]
        area = counts[0][:, None, None] * counts[1][None, :, None]
        return np.asarray((sums + area // 2) // area, np.uint8)


def _starts(size: int, side: int, most: int) -> list[int]:
    """Where windows of `side` start along `size`: from end to end, overlapping by half, but no more than `most`."""
    count = min(most, 1 + -(-2 * (size - side) // side))
    return [(size - side) * i // max(1, count - 1) for i in range(count)]


def _codes(values: np.ndarray, gain: float) -> np.ndarray:
    """8-bit codes; 16-bit values are made `gain` times brighter and rounded, 65535 being 255."""
    if values.dtype == np.uint8:
        return values
    return ((np.minimum(values * np.float64(gain), 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def _turned_box(box: tuple[int, int, int, int], size: tuple[int, int], orientation: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) as stored becomes (left, top, width, height) as shown."""
    spans = [(start, start + length, whole) for start, length, whole in zip(box[:2], box[2:], size, strict=True)]
    if on_its_side(orientation):
        spans.reverse()
    mirrored = (orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7))
    (top, bottom), (left, right) = (
        (whole - stop, whole - start) if mirror else (start, stop)
        for (start, stop, whole), mirror in zip(spans, mirrored, strict=True)
    )
    return left, top, right - left, bottom - top


def _pillow(pixels: np.ndarray) -> PillowImage.Image:
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _fitting(
    pair: Sequence[PillowImage.Image],
    sizes: Sequence[tuple[int, int]],
    most: int,
    encoded: Callable[[PillowImage.Image, int, int], bytes],
) -> tuple[int, tuple[bytes, bytes]]:
    """The first of the sizes at which both pictures take `most` bytes together, else the last, and the pictures."""
    for side, quality in sizes:
        before, after = (encoded(picture, side, quality) for picture in pair)
        if len(before) + len(after) <= most:
            break
    return side, (before, after)


def _thumbnail_bytes(picture: PillowImage.Image, side: int, quality: int) -> bytes:
    if max(picture.size) > side:
        picture = picture.copy()
        picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()


def _crop_bytes(picture: PillowImage.Image, side: int, quality: int) -> bytes:
    """JPEG without chroma subsampling, which would take colour noise away."""
    width, height = (min(side, length) for length in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    file = io.BytesIO()
    inside = picture.crop((left, top, left + width, top + height))
    inside.save(file, "JPEG", quality=quality, subsampling=0, optimize=True)
    return file.getvalue()
