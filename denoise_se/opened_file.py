"""A batch's file as it is read ahead: whole, or to be read by rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from denoise_se.errors import ImageError
from denoise_se.formats import format_of_suffix
from denoise_se.image_io import open_pages, probe
from denoise_se.manifest import Stamp
from denoise_se.page import ImagePage, Page, stored_bytes
from denoise_se.plan import Job

# a TIFF of one page is read ahead as a whole up to this size, and by rows above
WHOLE_BYTES = 64 << 20


@dataclass
class OpenedFile:
    """What is read of a job's file: its pages, from a file that `files` keeps open, and what the file was."""

    pages: Sequence[Page]
    stamp: Stamp
    files: ExitStack

    @classmethod
    def of(cls, job: Job, max_pixels: int) -> OpenedFile:
        """Raises ImageError, and OSError of a store that is asked for the version of a file."""
        stamp = Stamp.of(job.source)
        with ExitStack() as files:
            pages = files.enter_context(open_pages(job.source, max_pixels=max_pixels))
            if len(pages) == 1 and (stored_bytes(pages[0]) <= WHOLE_BYTES or not _is_tiff(job, pages)):
                pages = [ImagePage(pages[0].image())]
            elif not _is_tiff(job, pages):
                text = (
                    f"has {len(pages):,} pages, which only TIFF holds: split it into one file for each, or write TIFF"
                )
                raise ImageError(job.source, text)
            return cls(pages, stamp, files.pop_all())


def memory_of(job: Job) -> int:
    """How much memory the file's pixels will take; 0 when it cannot be read or is read by rows."""
    try:
        found = probe(job.source)
    except ImageError:
        return 0
    size = found.width * found.height * (found.channels + found.alpha) * found.bit_depth // 8
    streams = found.format == format_of_suffix(job.target) == "tiff" and (found.frames > 1 or size > WHOLE_BYTES)
    return 0 if streams else size


def _is_tiff(job: Job, pages: Sequence[Page]) -> bool:
    return pages[0].format == format_of_suffix(job.target) == "tiff"
