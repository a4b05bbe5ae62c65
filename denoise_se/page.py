"""One picture of a file: its pixels by rows, and all that a writer needs to give the rest back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from denoise_se.image import Image, Metadata
from denoise_se.scanlines import ArrayScanlines, Scanlines


class Source(NamedTuple):
    """Where an image is: a file, or one of its pages, counted from 1."""

    path: Path
    page: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.page is None else f"{self.path} (page {self.page})"


class Page(Scanlines, Protocol):
    """Scanlines `[H, W, 1 or 3]` of uint8, uint16 or float32 as stored, not turned by the EXIF orientation.

    format and metadata: as of an `Image`. Reading rows may raise FormatError: the pixels are decoded then.
    """

    format: str
    metadata: Metadata

    @property
    def has_alpha(self) -> bool: ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What was converted and why; complete once all rows have been read."""
        ...

    def alpha(self, start: int, stop: int) -> np.ndarray | None:
        """`[stop - start, W]` of the pixels' dtype; None without alpha."""
        ...

    def image(self) -> Image:
        """All of it in memory."""
        ...


class ImagePage(ArrayScanlines):
    """A page that is in memory."""

    def __init__(self, image: Image) -> None:
        super().__init__(image.pixels)
        self.whole = image
        self.format, self.metadata = image.format, image.metadata

    @property
    def has_alpha(self) -> bool:
        return self.whole.alpha is not None

    @property
    def notices(self) -> tuple[str, ...]:
        return self.whole.notices

    def alpha(self, start: int, stop: int) -> np.ndarray | None:
        return None if self.whole.alpha is None else self.whole.alpha[start:stop]

    def image(self) -> Image:
        return self.whole


def sourced(path: Path, pages: Sequence[Page]) -> Iterator[tuple[Source, Page]]:
    """The pages of a file, each with where it is."""
    for number, page in enumerate(pages, 1):
        yield Source(path, number if len(pages) > 1 else None), page


def stored_bytes(page: Page) -> int:
    """How much memory the page's pixels and alpha take."""
    height, width, channels = page.shape
    return height * width * (channels + page.has_alpha) * page.dtype.itemsize
