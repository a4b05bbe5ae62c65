"""Whether the outputs of a plan, and then each of them, fit on their disk, asked before any work on them."""

from __future__ import annotations

import shutil
from pathlib import Path

from denoise_se.errors import ImageError
from denoise_se.format_names import LOSSY, UNCOMPRESSED
from denoise_se.formats import WRITERS, format_of_suffix
from denoise_se.image_io import DEFAULT_MAX_PIXELS, probe
from denoise_se.plan import Job, Plan
from denoise_se.remote_files import Address, Location

# Least sizes over those of the inputs. Without its noise an image compresses better: on the samples with sigma 50, to
# 0.36 as PNG and 0.35 as JPEG. The bounds lie below that, since what would fit must not be refused.
SAME_LOSSLESS, SAME_LOSSY, FROM_LOSSY, TO_LOSSY = 0.2, 0.1, 0.5, 0.02
# no format that is read packs its pixels more than this into less, but for pictures of almost nothing
MAX_RATIO = 100


def shortage(plan: Plan, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> str:
    """What to tell the user when the outputs of `plan` cannot fit on their disk: the bytes they need at least and those
    that are free. Nothing when they may fit.

    The bound is a low one: a run of which nothing is told may still fill the disk, any other will. Headers are only
    read where the sizes of the files leave a doubt, so that a plan of ten thousand files stays quick.
    """
    if isinstance(plan.home, Address):
        return ""  # a store is never full
    free = _free(plan.home)
    sizes = {job: size for job in plan.jobs if (size := _size(job.source))}
    if sum(_most(job, size) for job, size in sizes.items()) <= free:
        return ""
    needed = sum(max(_least(job, size, max_pixels) - _size(job.target), 0) for job, size in sizes.items())
    if needed <= free:
        return ""
    return (
        f"{plan.home}: the outputs need at least {_readable(needed)}, and its disk has {_readable(free)} free: "
        "some will fail; free some space or choose another -o"
    )


def check_room(job: Job, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Raises ImageError when the output cannot fit on its disk, beside the file that it may replace."""
    if isinstance(job.target, Address):
        return
    free, size = _free(job.target.parent), _size(job.source)
    if _most(job, size) > free and (least := _least(job, size, max_pixels)) > free:
        text = f"there is no room for its output on the disk: it needs at least {_readable(least)} and"
        raise ImageError(job.source, f"{text} {_readable(free)} are free; free some space and add --resume")


def _most(job: Job, size: int) -> int:
    """Bytes that the output hardly exceeds."""
    return size * (1 if _keeps_format(job) else MAX_RATIO)


def _least(job: Job, size: int, max_pixels: int) -> int:
    """Bytes that the output will take at the least; 0 for an input that will fail."""
    try:
        found = probe(job.source)
    except ImageError:
        return 0
    if found.width * found.height > max_pixels:
        return 0
    target = format_of_suffix(job.target) or found.format
    depth = min(found.bit_depth, WRITERS[target].limits.depths[-1]) if target in WRITERS else found.bit_depth
    raw = found.width * found.height * (found.channels + found.alpha) * (depth // 8) * found.frames
    if target in UNCOMPRESSED or (target == found.format == "tiff" and size >= raw):
        return raw
    if target in LOSSY:
        share = SAME_LOSSY if target == found.format else TO_LOSSY
    else:
        share = FROM_LOSSY if found.format in LOSSY else SAME_LOSSLESS
    return int(min(size, raw) * share)


def _keeps_format(job: Job) -> bool:
    return format_of_suffix(job.source) == format_of_suffix(job.target)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _free(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _size(path: Location) -> int:
    """0 for one that cannot be asked, or only over the network."""
    if isinstance(path, Address):
        return 0
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _readable(count: int) -> str:
    """Bytes as people say them, in powers of 1000."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
