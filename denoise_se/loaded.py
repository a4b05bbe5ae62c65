"""Image files as they are learnt from: decoded, page by page, in the range and the channels that a network sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise_se.alike import counted
from denoise_se.blending import LUMA_WEIGHTS
from denoise_se.channel_names import KINDS
from denoise_se.errors import ImageError
from denoise_se.image import turned
from denoise_se.image_io import DEFAULT_MAX_PIXELS, open_pages, read
from denoise_se.page import Source, sourced
from denoise_se.scanlines import ArrayScanlines
from denoise_se.value_range import MOST_BEYOND, WHOLE, ValueRange, full_range, value_range, white_level

File = TypeVar("File")
Page = TypeVar("Page")
Keep = Callable[[Tensor], Tensor]  # what becomes of an image's pixels when they are decoded, see `PixelStore.keep`
MOST_NEGATIVE = 0.01  # of the values of an image
MOST_CLIPPED = 0.001  # of the values, by the range of another image


@dataclass(frozen=True)
class Decoded:
    """A page as stored: `pixels` [H, W, C] and the EXIF orientation that they have."""

    source: Source
    pixels: NDArray[np.generic]
    orientation: int

    def upright(self) -> Decoded:
        """As EXIF says that it is shown."""
        return Decoded(self.source, turned(self.pixels, self.orientation), 1)


class Loaded(NamedTuple):
    """`pixels` [C, H, W], uint8 or uint16, as the network takes them, and the channels that the file has."""

    source: Source
    pixels: Tensor
    own_channels: int

    @property
    def size(self) -> str:
        return f"{self.pixels.shape[2]}x{self.pixels.shape[1]}"


def in_memory(image: Tensor) -> Tensor:
    """The simplest Keep."""
    return image


@dataclass
class Reading:
    """How the images of a run are read: `keep` takes their pixels as soon as they are decoded, `max_pixels` is the most
    that a page may have. `notices` is filled: which page was converted, and how."""

    keep: Keep = in_memory
    max_pixels: int = DEFAULT_MAX_PIXELS
    notices: list[tuple[Source, str]] = field(default_factory=list)

    def decode(self, path: Path, most: int | None = None) -> list[Decoded]:
        """All pages of a file, or the first `most`. Raises ImageError."""
        found = []
        with open_pages(path, max_pixels=self.max_pixels) as pages:
            for source, page in islice(sourced(path, pages), most):
                image = page.image()
                self.notices += [(source, notice) for notice in (*image.notices, *_below_black(image.pixels))]
                found.append(Decoded(source, image.pixels, image.metadata.orientation))
        return found

    def lines(self) -> list[str]:
        """The notices; those that are alike are counted from the fourth on."""
        return counted(self.notices)


def _below_black(pixels: NDArray[np.generic]) -> list[str]:
    """A notice for floats of which many are below 0, as noise of dark places is: learning takes them for 0, and
    denoising does not."""
    if pixels.dtype.kind != "f" or float(np.mean(np.asarray(pixels, np.float32) < 0)) <= MOST_NEGATIVE:
        return []
    if value_range(ArrayScanlines(pixels)).black < 0:
        return []
    return [f"more than {MOST_NEGATIVE:.0%} of its values are below 0 and are learnt as 0; add an offset to all images"]


def each(work: Callable[[File], list[Page]], files: Sequence[File], problems: list[str]) -> list[Page]:
    """What `work` gives for each of `files`, several at a time, in one list; its ImageErrors go to `problems`."""

    def attempt(file: File) -> list[Page] | str:
        try:
            return work(file)
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(attempt, files))
    problems += [item for item in found if isinstance(item, str)]
    return [page for item in found if not isinstance(item, str) for page in item]


def as_seen(images: Sequence[Decoded], channels: int, keep: Keep = in_memory) -> list[Loaded]:
    """Images of one scene, or an image alone, as a network sees them.

    They lie as stored, which is how a sensor's rows lie and how `denoise` sees them; as shown where some are stored
    turned and some are not. The range of the deep ones is that of the first of these, see `value_range`, but for what
    would be clipped in the others; beside 8-bit ones it is that from 0 on which is nearer to their brightness.
    """
    if len({image.orientation for image in images}) > 1:
        images = [image.upright() for image in images]
    deep = [image.pixels for image in images if image.pixels.dtype != np.uint8]
    shallow = [image.pixels for image in images if image.pixels.dtype == np.uint8]
    seen = _common_range(deep, offset=not shallow) if deep else WHOLE
    if deep and shallow:  # counts beside codes are brought to their brightness, and nothing that has it already
        times = _brightness(shallow[0]) / _brightness(deep[0])
        seen = min((WHOLE, seen), key=lambda seen: float(abs(np.log(1 / seen.span / times))))
    ranges = [WHOLE if image.pixels.dtype == np.uint8 else seen for image in images]
    return [
        Loaded(image.source, keep(from_pixels(image.pixels, channels, own)), image.pixels.shape[2])
        for image, own in zip(images, ranges, strict=True)
    ]


def _common_range(deep: Sequence[NDArray[np.generic]], *, offset: bool) -> ValueRange:
    """What counts as 0 to 1 of these images, in units of their types' ranges; from 0 on without `offset`."""
    first, full = ArrayScanlines(deep[0]), full_range(deep[0].dtype)
    if offset and (seen := value_range(first).in_units_of(full)).black:
        beyond = [np.mean((values < 0) | (values > 1)) for values in (_units(pixels, seen) for pixels in deep)]
        if max(beyond) <= 2 * MOST_BEYOND + MOST_CLIPPED:
            return seen
    seen = ValueRange(0.0, white_level(first) / full)
    while seen.span < 1 and any(np.mean(_units(pixels, seen) > 1) > MOST_CLIPPED for pixels in deep):
        seen = ValueRange(0.0, 2 * seen.span)
    return seen


def _units(pixels: NDArray[np.generic], seen: ValueRange) -> NDArray[np.float32]:
    """Where values lie in a range in units of their type's."""
    return seen.seen(pixels.astype(np.float32) / np.float32(full_range(pixels.dtype)))


def _brightness(pixels: NDArray[np.generic]) -> float:
    """The mean of the range, at least a code of 8 bits."""
    return max(float(np.asarray(pixels, np.float32).mean(dtype=np.float64)) / full_range(pixels.dtype), 1 / 255)


def load_pixels(path: Path, channels: int) -> Tensor:
    """[channels, H, W], uint8 or uint16, of a file of one image; as `channels` asks, colour becomes grey (Rec. 601
    luma), grey repeats."""
    image = read(path)
    return as_seen([Decoded(Source(path), image.pixels, image.metadata.orientation)], channels)[0].pixels


def from_pixels(pixels: NDArray[np.generic], channels: int, seen: ValueRange = WHOLE) -> Tensor:
    """As `load_pixels`, from an image [H, W, C], of which that range, in units of its type's, becomes 0 to 1; floats
    become uint16."""
    if pixels.dtype.kind == "f" or seen != WHOLE:
        dtype = np.dtype(np.uint16) if pixels.dtype.kind == "f" else pixels.dtype
        scaled = _units(pixels, seen) * np.float32(full_range(dtype))
        pixels = np.rint(scaled.clip(0, full_range(dtype))).astype(dtype)
    if channels == 1 and pixels.shape[2] == 3:
        pixels = np.rint(pixels.astype(np.float32) @ LUMA_WEIGHTS)[..., None].astype(pixels.dtype)
    elif channels == 3 and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def mixed_channels(images: Sequence[Loaded]) -> list[str]:
    """A line for each image of the rarer kind when some are grey and some colour: their noise is not the same."""
    counts = Counter(image.own_channels for image in images)
    if len(counts) < 2:
        return []
    (most, _), *_ = counts.most_common()
    return [
        f"{image.source}: is {KINDS.get(image.own_channels, 'of another kind')}, most others are {KINDS.get(most)}"
        for image in images
        if image.own_channels != most
    ]


def same_depth(tensors: Sequence[Tensor], keep: Keep) -> list[Tensor]:
    """All as uint16 as soon as one of them is, since patches of one batch share a type; 255 becomes 65535."""
    if all(tensor.dtype == torch.uint8 for tensor in tensors):
        return list(tensors)
    return [tensor if tensor.dtype == torch.uint16 else keep(deepened(tensor)) for tensor in tensors]


def middle(size: Sequence[int], side: int) -> tuple[slice, slice]:
    """The rows and columns of an image of (height, width) that lie in its middle, at most `side` of each."""
    starts = [max(0, length - side) // 2 for length in size]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def centre(image: Tensor, side: int) -> Tensor:
    """The middle of [..., H, W], see `middle`."""
    return image[(..., *middle(image.shape[-2:], side))]


def grey_centre(image: Tensor, side: int) -> NDArray[np.float64]:
    """[h, w]: the mean over the channels of the middle of [C, H, W], see `middle`, in units of the range."""
    plane: NDArray[np.float64] = centre(image, side).numpy().mean(axis=0, dtype=np.float64) / full_scale(image)
    return plane


def full_scale(image: Tensor) -> float:
    """The value that stands for 1.0: 255 of uint8, 65535 of uint16."""
    return 255.0 if image.dtype == torch.uint8 else 65535.0


def to_unit(image: Tensor) -> Tensor:
    """uint8 or uint16 to float32 in [0, 1]."""
    return image.float() / full_scale(image)


def deepened(image: Tensor) -> Tensor:
    """uint8 to uint16, 255 to 65535."""
    return (image.to(torch.int32) * 257).to(torch.uint16)
