"""Image files in and out: `read`, `write`, `probe`, and the same by pages and rows; `formats` has the tables.

The content decides what a file is, and every decoder is named outright; none starts another program (raw and
HEIC files are decoded in a Python process of their own). Pixel limits are checked from the header, before any decoding.
Whatever is wrong with one file is an ImageError with its name.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from denoise_se import raw_file, tiff_file, tiff_storage, tiff_writing
from denoise_se.atomic_file import replacing
from denoise_se.conversion import fitted
from denoise_se.errors import ImageError, reason
from denoise_se.formats import READERS, WRITERS, format_of_suffix
from denoise_se.image import FormatError, Image, Probe
from denoise_se.page import ImagePage, Page
from denoise_se.remote_files import BLOCK_BYTES, Address, Location, parse_location
from denoise_se.signatures import HEAD_SIZE, format_of

# above the largest camera (a 400-megapixel multi-shot), and as 8-bit RGB still 1.5 GB
DEFAULT_MAX_PIXELS = 500_000_000
# a file of more than its raw pixels twice over, with this much for metadata and appended video, is not an image
MAX_EXTRA_BYTES = 256 << 20
MAX_BYTES_PER_PIXEL = 32
# of a file in a store, for its header
PROBE_BYTES = 64 << 10


def probe(path: str | Location) -> Probe:
    """Format, size, channels, depth and number of frames from the header alone. Raises ImageError."""
    path = parse_location(path)
    with _translated(path), _opened(path, PROBE_BYTES) as stream:
        return _probed(stream, path.suffix)


def read(path: str | Location, *, page: int | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image:
    """Reads one image; see `Image` for shapes and ranges. `page` is which of a file of several, counted from 1.

    Non-finite values of float images are replaced by a local one, with a notice. Raises ImageError, and nothing else,
    for a file that is missing, damaged, truncated, of another kind, animated, of several pages where no `page` is
    given, or over `max_pixels`; UsageError for an address that is none.
    """
    with open_pages(path, max_pixels=max_pixels) as pages:
        if page is None and len(pages) > 1:
            raise ImageError(path, f"has {len(pages):,} pages: split it into one file for each")
        if page is not None and not 1 <= page <= len(pages):
            raise ImageError(path, f"has {len(pages):,} page(s), so there is no page {page}")
        image = pages[(page or 1) - 1].image()
        return replace(image, notices=(*misnamed(path, image.format), *image.notices))


@contextmanager
def open_pages(path: str | Location, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Iterator[Sequence[Page]]:
    """The pages of a file, at least one; those of a TIFF are read from the open file when their rows are asked for.

    Raises ImageError as `read` does, but not for several pages, and the pages raise it too when they are damaged.
    `max_pixels` is for each page.
    """
    path = parse_location(path)
    with ExitStack() as stack:
        with _translated(path):
            stream = stack.enter_context(_opened(path))
            probed = _probed(stream, path.suffix)
            _check_pixels(probed.width, probed.height, max_pixels)
            if probed.format != "tiff":
                _check_frames(probed)
                _check_bytes(probed.width * probed.height, stream)
                stream.seek(0)
                pages: Sequence[Page] = [ImagePage(READERS[probed.format].read(stream))]
            else:
                found = tiff_file.pages(stream)
                for page in found:
                    _check_pixels(page.shape[1], page.shape[0], max_pixels)
                _check_bytes(sum(page.shape[0] * page.shape[1] for page in found), stream)
                pages = [_GuardedPage(path, page) for page in found]
        yield pages


class _GuardedPage:
    """A page whose decoding errors are ImageErrors with the file's name."""

    def __init__(self, path: Location, page: Page) -> None:
        self._path, self._page = path, page
        self.format, self.metadata, self.shape, self.dtype = page.format, page.metadata, page.shape, page.dtype
        self.has_alpha = page.has_alpha

    @property
    def notices(self) -> tuple[str, ...]:
        return self._page.notices

    def rows(self, start: int, stop: int) -> np.ndarray:
        with _translated(self._path):
            return self._page.rows(start, stop)

    def alpha(self, start: int, stop: int) -> np.ndarray | None:
        with _translated(self._path):
            return self._page.alpha(start, stop)

    def image(self) -> Image:
        with _translated(self._path):
            return self._page.image()


def misnamed(path: str | Location, format: str) -> tuple[str, ...]:
    """A notice for a file whose suffix is not that of its content."""
    named = format_of_suffix(path)
    if named in (None, format):
        return ()
    names = format.upper(), str(named).upper()
    return (f"its content is {names[0]}, not {names[1]}: under this name it is written as {names[1]}",)


def write(path: str | Location, image: Image, *, format: str | None = None) -> Image:
    """Writes the image, whole or not at all, and gives it as written: converted where the format asks it, with notices.

    format: a key of WRITERS; None takes it from the suffix. PNG, TIFF, BMP, PPM and lossless WebP keep every pixel (PPM
    of few levels what they hold); JPEG and lossy WebP are encoded again, which is never exact: to give a file back
    unchanged, copy its bytes. An existing file is replaced. Raises ImageError when the format cannot hold the image or
    the file cannot be written.
    """
    path = parse_location(path)
    with _translated(path):
        name = format if format is not None else format_of_suffix(path)
        if name is None or name not in WRITERS:
            raise FormatError(f"cannot be written: {name or path.suffix!r} is none of the formats {', '.join(WRITERS)}")
        _refuse_folder(path)
        writer = WRITERS[name]
        image = fitted(image, name, writer.limits)
        with replacing(path) as stream:
            notices = writer.write(image, stream)
    return replace(image, format=name, notices=(*image.notices, *notices))


def copy(source: str | Location, target: str | Location) -> None:
    """The file byte for byte, whole or not at all. Raises ImageError."""
    source, target = parse_location(source), parse_location(target)
    with _translated(source), _opened(source) as stream, _translated(target):
        _refuse_folder(target)
        with replacing(target) as file:
            shutil.copyfileobj(stream, file, BLOCK_BYTES)


def write_pages(path: str | Location, pages: Sequence[Page], bands: Iterator[tiff_storage.Rows]) -> tuple[str, ...]:
    """Writes a TIFF of several pages, or of one that does not fit into memory; see `tiff_writing.write_pages`.

    The file appears whole or, also when `bands` raises, not at all. Gives the notices. Raises ImageError for what is
    wrong with the file; what `bands` raises comes through.
    """
    path = parse_location(path)
    raised: list[BaseException] = []

    def watched() -> Iterator[tiff_storage.Rows]:
        try:
            yield from bands
        except BaseException as error:
            raised.append(error)
            raise

    try:
        with _translated(path):
            _refuse_folder(path)
            with replacing(path) as stream:
                return tiff_writing.write_pages(pages, watched(), stream)
    except ImageError:
        if raised:
            raise raised[0] from None
        raise


@contextmanager
def _translated(path: Location) -> Iterator[None]:
    """Makes an ImageError of everything that goes wrong with one file.

    Decoders raise whatever they like on hostile bytes (struct.error, zlib.error, MemoryError, errors of their own), so
    only the widest net is safe.
    """
    try:
        yield
    except ImageError:  # of another file that is used meanwhile
        raise
    except FormatError as error:
        raise ImageError(path, str(error)) from error
    except MemoryError as error:
        raise ImageError(path, "needs more memory than there is") from error
    except OSError as error:
        raise ImageError(path, f"cannot be read or written: {reason(error)}") from error
    except Exception as error:
        detail = str(error).strip().splitlines()
        raise ImageError(path, f"is damaged: {detail[0][:200] if detail else type(error).__name__}") from error


@contextmanager
def _opened(path: Location, block: int = BLOCK_BYTES) -> Iterator[BinaryIO]:
    if isinstance(path, Address):
        with path.open_stream(block) as stream:
            yield stream
        return
    # opening a pipe would wait for a writer for ever
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise FormatError("is a folder" if stat.S_ISDIR(mode) else "is no regular file")
    with path.open("rb") as stream:
        yield stream


def _probed(stream: BinaryIO, suffix: str) -> Probe:
    head = stream.read(HEAD_SIZE)
    name = "raw" if raw_file.is_raw(head, suffix) else format_of(head)
    probed = READERS[name].probe(stream)
    if probed.width < 1 or probed.height < 1:
        raise FormatError(f"is damaged: it has {probed.width} x {probed.height} pixels")
    return probed


def _refuse_folder(path: Location) -> None:
    if isinstance(path, Path) and path.is_dir():
        raise FormatError("cannot be written: a folder of this name exists")


def _check_frames(probed: Probe) -> None:
    if probed.frames > 1:
        raise FormatError(f"has {probed.frames:,} frames: split it into one file for each")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise FormatError(
            f"has {width:,} x {height:,} = {width * height:,} pixels and exceeds {max_pixels:,} pixels "
            "(--max-pixels): give a larger --max-pixels if the file is meant to be this large"
        )


def _check_bytes(pixels: int, stream: BinaryIO) -> None:
    size = stream.seek(0, 2)
    if size > MAX_EXTRA_BYTES + MAX_BYTES_PER_PIXEL * pixels:
        raise FormatError(f"has {size:,} bytes for {pixels:,} pixels, which no image needs")
