"""Running a plan: read, denoise, write, measure; one bad file never stops the others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import numpy as np

from denoise_se.atomic_file import replacing
from denoise_se.blending import Strength, full_range
from denoise_se.denoiser import FULL_STRENGTH, Band, Denoiser
from denoise_se.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_SOME_FAILED, EXIT_TERMINATED, DenoiseError, ImageError
from denoise_se.image import Image
from denoise_se.image_io import DEFAULT_MAX_PIXELS, format_of_suffix, read, write
from denoise_se.inspection import Inspector
from denoise_se.manifest import Manifest, Stamp
from denoise_se.metrics import psnr, ssim
from denoise_se.plan import Job, Plan, remove_leftovers
from denoise_se.report import Row
from denoise_se.tiling import Span


@dataclass(frozen=True)
class Settings:
    """How every image of a batch is denoised; `sigma` None estimates it for each, in 8-bit units."""

    sigma: float | None = None
    strength: Strength = FULL_STRENGTH
    max_pixels: int = DEFAULT_MAX_PIXELS
    resume: bool = False


@dataclass(frozen=True)
class Outcome:
    """All rows, in the plan's order as far as the run came, and the exit code."""

    rows: tuple[Row, ...]
    exit_code: int


class Watcher:
    """Told what happens; the command line and the web app each have their own."""

    def row(self, row: Row) -> None:
        """An image is finished, skipped or failed."""

    def notice(self, text: str) -> None:
        """Something the user should know: a conversion, a replaced pixel."""

    def tiles(self, done: int, total: int) -> None:
        """The share of the current image that is done."""


class Stop:
    """Turns SIGINT and SIGTERM into a wish to stop after the current image; a second one stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


def run_batch(
    plan: Plan,
    denoiser_for: Callable[[int], Denoiser],
    settings: Settings,
    *,
    fingerprint: Mapping[str, Any],
    watcher: Watcher | None = None,
    inspector: Inspector | None = None,
    workers: int = 1,
) -> Outcome:
    """Denoise all images of `plan`.

    Args:
        denoiser_for: gives the denoiser for an image of so many colour channels.
        fingerprint: what the outputs depend on besides the input (model, settings), for the manifest.
        inspector: what the report wants of each image besides its scores; the pictures are in it afterwards.
        workers: threads that read ahead; writing and measuring have one of their own.

    Returns:
        The rows; the exit code is 0 when all is done, 1 when some failed, 130 or 143 after a signal.

    Raises:
        ImageError: the output folder cannot be made.
        UsageError: its manifest cannot be read.
    """
    watcher, inspector = watcher or Watcher(), inspector or Inspector()
    try:
        plan.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(plan.home, f"the output folder cannot be made ({error.strerror})") from error
    manifest = Manifest(plan.home, fingerprint)
    if settings.resume:
        remove_leftovers(plan)
    rows: list[Row] = []

    def finish(future: Future[Row]) -> None:
        row = future.result()
        rows.append(row)
        watcher.row(row)

    with (
        Stop().listening() as stop,
        ThreadPoolExecutor(max(1, workers)) as readers,
        ThreadPoolExecutor(1) as writer,
    ):
        ahead = max(1, workers)
        reads: list[Future[_Loaded | Row]] = []
        pending: Future[Row] | None = None
        try:
            for index, job in enumerate(plan.jobs):
                while len(reads) < min(index + 1 + ahead, len(plan.jobs)):
                    reads.append(readers.submit(_read, plan.jobs[len(reads)], settings, manifest))
                loaded = reads[index].result()
                reads[index] = Future()  # lets go of the image
                if isinstance(loaded, _Loaded):
                    result = _denoise(job, loaded, denoiser_for, settings, watcher, inspector)
                else:
                    result = loaded
                if pending is not None:
                    finish(pending)
                pending = writer.submit(_finish, job, result, settings, manifest, watcher)
                del loaded, result
                if stop.signal is not None:
                    break
            if pending is not None:
                finish(pending)
        finally:
            for future in reads:
                future.cancel()
    if stop.signal is not None and len(rows) < len(plan.jobs):
        code = EXIT_TERMINATED if stop.signal == signal.SIGTERM else EXIT_INTERRUPTED
    else:
        code = EXIT_SOME_FAILED if any(row.status == "failed" for row in rows) else EXIT_DONE
    return Outcome(tuple(rows), code)


@dataclass(frozen=True)
class _Loaded:
    """An image and what its file was."""

    image: Image
    stamp: Stamp


@dataclass(frozen=True)
class _Result:
    """An image before and after the network."""

    noisy: _Loaded
    clean: Image
    row: Row


def _read(job: Job, settings: Settings, manifest: Manifest) -> _Loaded | Row:
    row = Row(str(job.source), str(job.target), "skipped")
    try:
        if settings.resume and manifest.is_done(job.relative, job.source, job.target):
            return row
        stamp = Stamp.of(job.source)
        return _Loaded(read(job.source, max_pixels=settings.max_pixels), stamp)
    except ImageError as error:
        return replace(row, status="failed", error=error.reason)


def _denoise(
    job: Job,
    loaded: _Loaded,
    denoiser_for: Callable[[int], Denoiser],
    settings: Settings,
    watcher: Watcher,
    inspector: Inspector,
) -> _Result | Row:
    image = loaded.image
    row = Row(str(job.source), str(job.target), "done", "", image.width, image.height, image.channels, image.bit_depth)
    try:
        denoiser = denoiser_for(image.channels)
        done = denoiser.denoise(image.pixels, settings.sigma, settings.strength, progress=watcher.tiles)
        inspection = inspector.begin(
            (image.height, image.width, image.channels), image.pixels.dtype, image.metadata.orientation
        )
        inspection.add(Band(Span(0, image.height), image.pixels, done.image))
        row = inspection.row(row, denoiser, settings.sigma, done.sigma, settings.strength)
    except DenoiseError as error:
        return replace(row, status="failed", error=str(error))
    except Exception as error:  # an engine raises what it likes, and the other images are worth more than its traceback
        if isinstance(error, MemoryError) or "memory" in str(error):
            return replace(row, status="failed", error="needs more memory than there is; try a smaller --tile")
        first = str(error).strip().partition("\n")[0]
        return replace(row, status="failed", error=f"the network stopped with {type(error).__name__}: {first}")
    sigma = None if done.sigma is None else round(done.sigma, 4)
    row = replace(row, model=denoiser.checkpoint.name, sigma=sigma, seconds=round(done.seconds, 4))
    return _Result(loaded, image.with_pixels(done.image), row)


def _finish(job: Job, result: _Result | Row, settings: Settings, manifest: Manifest, watcher: Watcher) -> Row:
    """Write and measure one result; a row that has failed or was skipped passes through."""
    if isinstance(result, Row):
        return _measure(job, result, settings, watcher) if result.status == "skipped" else result
    noisy = result.noisy.image
    try:
        for notice in noisy.notices:
            watcher.notice(f"{job.source}: {notice}")
        job.target.parent.mkdir(parents=True, exist_ok=True)
        manifest.announce(job.relative, job.target, result.noisy.stamp)
        if settings.strength.is_zero and format_of_suffix(job.target) == noisy.format:
            # encoding again would change a JPEG; nothing was asked to change
            with replacing(job.target) as file:
                file.write(job.source.read_bytes())
        else:
            written = write(job.target, result.clean)
            for notice in written.notices[len(noisy.notices) :]:
                watcher.notice(f"{job.target}: {notice}")
    except ImageError as error:
        return replace(result.row, status="failed", error=error.reason)
    except OSError as error:
        return replace(result.row, status="failed", error=f"cannot be written ({error.strerror})")
    return _measure(job, result.row, settings, watcher, noisy)


def _measure(job: Job, row: Row, settings: Settings, watcher: Watcher, noisy: Image | None = None) -> Row:
    """Add PSNR and SSIM against the reference, of the input and of what was written, decoded again.

    All three are compared as they are shown: turned upright, and in the reference's number of channels.
    """
    if job.reference is None:
        return row
    try:
        noisy = noisy or read(job.source, max_pixels=settings.max_pixels)
        reference = read(job.reference, max_pixels=settings.max_pixels).upright()
        before, after = noisy.upright(), read(job.target, max_pixels=settings.max_pixels).upright()
    except ImageError as error:
        watcher.notice(f"{error}; no PSNR for {job.source}")
        return row
    row = replace(row, width=noisy.width, height=noisy.height, channels=noisy.channels, bit_depth=noisy.bit_depth)
    if before.pixels.shape != reference.pixels.shape:
        sizes = [f"{i.width}x{i.height}, {i.channels} channel(s)" for i in (reference, before)]
        watcher.notice(f"{job.reference}: is {sizes[0]}, the input {job.source} is {sizes[1]}; no PSNR")
        return row
    scores: list[float | None] = []
    for measure in (psnr, ssim):
        for image in (before, after):
            # a format without grey holds it as three equal channels
            pixels = image.pixels[..., : reference.channels]
            first, second = _comparable(reference.pixels, pixels)
            scores.append(measure(first, second, data_range=full_range(first.dtype)))
    return replace(row, psnr_noisy=scores[0], psnr=scores[1], ssim_noisy=scores[2], ssim=scores[3])


def _comparable(reference: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in one dtype: as they are, or, when their bit depths differ, as floats in [0, 1]."""
    if reference.dtype == image.dtype:
        return reference, image
    first, second = (pixels / np.float32(full_range(pixels.dtype)) for pixels in (reference, image))
    return first, second
