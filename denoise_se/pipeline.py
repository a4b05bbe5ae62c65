"""The work of a batch: read, denoise, write and measure, overlapping; one bad file never stops the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from denoise_se.blending import Strength
from denoise_se.comparison import compare
from denoise_se.conveyor import AbandonedError, Conveyor
from denoise_se.denoiser import FULL_STRENGTH, Denoiser
from denoise_se.errors import DenoiseError, ImageError
from denoise_se.image import Image
from denoise_se.image_io import (
    DEFAULT_MAX_PIXELS,
    copy,
    format_of_suffix,
    misnamed,
    open_pages,
    probe,
    write,
    write_pages,
)
from denoise_se.inspection import Inspection, Inspector
from denoise_se.manifest import Ledger, Stamp
from denoise_se.page import ImagePage, Page, stored_bytes
from denoise_se.plan import Job
from denoise_se.remote_files import Address
from denoise_se.report import Row, facts, known_facts
from denoise_se.stop import Stop
from denoise_se.tiff_storage import Rows
from denoise_se.watcher import CancelledError, Watcher

# pixels in memory besides those of the image that is being denoised: read ahead, or still being written
AHEAD_BYTES = 256 << 20
# a TIFF of one page is read ahead as a whole up to this size, and by rows above
WHOLE_BYTES = 64 << 20
# for fewer images, sharing out the engine's cores takes longer than it saves
FEWEST_FOR_LANES = 32

Inspected = Callable[[Row], Row]


@dataclass(frozen=True)
class Settings:
    """How every image of a batch is denoised; `sigma` None estimates it for each, in 8-bit units."""

    sigma: float | None = None
    strength: Strength = FULL_STRENGTH
    max_pixels: int = DEFAULT_MAX_PIXELS
    resume: bool = False


@dataclass
class _Loaded:
    """What is read of a job's file: its pages, from a file that `files` keeps open, and what the file was."""

    pages: Sequence[Page]
    stamp: Stamp
    files: ExitStack


@dataclass
class _Pending:
    """An image that is being written, or that a lane denoises and then gives to the writer; `size` is its memory."""

    future: Future[Row] | Future[Future[Row]]
    size: int
    in_lane: bool = False

    def row(self) -> Row:
        found = self.future.result()
        return found if isinstance(found, Row) else found.result()


class Pipeline:
    """The threads of a batch: some read ahead, this one denoises, one writes and measures.

    Where there are many small images, they are denoised in lanes, see `Denoiser.in_lanes`.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        denoiser_for: Callable[[int], Denoiser],
        settings: Settings,
        manifest: Ledger,
        watcher: Watcher,
        inspector: Inspector,
        workers: int,
    ) -> None:
        self.jobs, self.denoiser_for, self.settings = jobs, denoiser_for, settings
        self.manifest, self.watcher, self.inspector, self.workers = manifest, watcher, inspector, workers
        self.small = 0  # images so far that fit in a lane
        self.laned: dict[int, Denoiser | None] = {}  # by the channels of the images

    def rows(self, stop: Stop) -> list[Row]:
        """Works until all is done or `stop` is wished; the rows in the plan's order."""
        rows: list[Row] = []
        reads: list[Future[_Loaded | Row]] = []
        sizes = [0] * len(self.jobs)
        pending: deque[_Pending] = deque()

        def finish(leave: int = 0) -> None:
            while len(pending) > leave:
                for ended in (work.future for work in pending if work.in_lane and work.future.done()):
                    ended.result()  # raises what a lane was told to stop with
                rows.append(pending.popleft().row())
                self.watcher.row(rows[-1])

        with ThreadPoolExecutor(self.workers) as readers, ThreadPoolExecutor(1) as self.writer, ExitStack() as stack:
            lanes: ThreadPoolExecutor | None = None
            leave = 0  # as many images wait for a lane as are in one, so that none is empty
            try:
                for index, job in enumerate(self.jobs):
                    while len(reads) < min(index + 1 + self.workers, len(self.jobs)):
                        size = _size(self.jobs[len(reads)])
                        held = sum(sizes[index + 1 : len(reads)]) + sum(work.size for work in pending)
                        if held + size > AHEAD_BYTES:
                            if len(reads) > index:
                                break
                            finish()
                        sizes[len(reads)] = size
                        reads.append(readers.submit(self._read, self.jobs[len(reads)]))
                    loaded = reads[index].result()
                    reads[index] = Future()  # lets go of the image
                    if isinstance(loaded, Row):
                        known = self._known(job, loaded)
                        finish(leave)
                        pending.append(_Pending(known, 0))
                    elif lane := self._lane(loaded):
                        leave = 2 * lane.backend.lanes
                        lanes = lanes or stack.enter_context(ThreadPoolExecutor(lane.backend.lanes))
                        finish(leave)
                        work = lanes.submit(self._denoise, job, loaded, lane)
                        pending.append(_Pending(work, sizes[index], in_lane=True))
                    else:
                        written = self._denoise(job, loaded)
                        finish()
                        pending.append(_Pending(written, sizes[index]))
                    del loaded
                    if stop.signal is not None:
                        while pending and pending[-1].in_lane and pending[-1].future.cancel():
                            pending.pop()
                        break
                finish()
            except BaseException:
                for pool in (lanes, self.writer):
                    if pool is not None:
                        pool.shutdown(wait=False, cancel_futures=True)
                raise
            finally:
                for future in reads:
                    future.cancel()
        return rows

    def _lane(self, loaded: _Loaded) -> Denoiser | None:
        """The denoiser for an image that is denoised beside others; None for one that gets all cores."""
        few = len(self.jobs) <= FEWEST_FOR_LANES
        if few or not isinstance(loaded.pages[0], ImagePage) or self.settings.strength.is_zero:
            return None
        channels = loaded.pages[0].shape[2]
        try:
            denoiser = self.denoiser_for(channels)
            if not denoiser.fits_in_lane(*loaded.pages[0].shape):
                return None
            self.small += 1
            if self.small <= FEWEST_FOR_LANES:
                return None
            if channels not in self.laned:
                self.laned[channels] = None  # what fails here is not tried again
                self.laned[channels] = denoiser.in_lanes()
        except Exception:  # an engine raises what it likes; where the image gets all cores, the user is told
            return None
        return self.laned[channels]

    def _read(self, job: Job) -> _Loaded | Row:
        try:
            if self.settings.resume and self.manifest.is_done(job.relative, job.source, job.target):
                return _row(job, "skipped", **known_facts(self.manifest.facts(job.relative)))
            stamp = Stamp.of(job.source)
            with ExitStack() as files:
                pages = files.enter_context(open_pages(job.source, max_pixels=self.settings.max_pixels))
                if len(pages) == 1 and (stored_bytes(pages[0]) <= WHOLE_BYTES or not _is_tiff(job, pages)):
                    pages = [ImagePage(pages[0].image())]
                elif not _is_tiff(job, pages):
                    text = f"has {len(pages):,} pages, which only TIFF holds: split it into one file for each, or write"
                    raise ImageError(job.source, f"{text} TIFF")
                return _Loaded(pages, stamp, files.pop_all())
        except ImageError as error:
            return _row(job, "failed", error=error.reason)
        except OSError as error:  # of a store that is asked for the version of a file
            return _row(job, "failed", error=f"cannot be read ({error.strerror})")

    def _known(self, job: Job, row: Row) -> Future[Row]:
        """The row of a file that was skipped, measured again, or that could not be read."""
        return self.writer.submit(self._measured, job, row) if row.status == "skipped" else _finished(row)

    def _denoise(self, job: Job, loaded: _Loaded, lane: Denoiser | None = None) -> Future[Row]:
        """Denoises a file, by `lane` or with all cores, and starts or does its writing; the future is its row."""
        height, width, channels = loaded.pages[0].shape
        depth = loaded.pages[0].dtype.itemsize * 8
        row = _row(job, "done", width=width, height=height, channels=channels, bit_depth=depth)
        with loaded.files:
            try:
                if isinstance(loaded.pages[0], ImagePage):
                    image, row, inspected = self._denoised(loaded.pages[0], row, lane)
                    if lane is None:
                        return self.writer.submit(self._write, job, image, loaded, row, inspected)
                    row = self._told(job, row, inspected)  # here, as there is one writer for all lanes
                    return self.writer.submit(self._write, job, image, loaded, row)
                return self._stream(job, loaded, row)
            except CancelledError:
                raise
            except DenoiseError as error:
                return _finished(replace(row, status="failed", error=_reason(error)))
            except Exception as error:  # an engine raises what it likes, and the other images are worth more than that
                if isinstance(error, MemoryError) or "memory" in str(error):
                    text = "needs more memory than there is; try a smaller --tile"
                else:
                    first = str(error).strip().partition("\n")[0]
                    text = f"the network stopped with {type(error).__name__}: {first}"
                return _finished(replace(row, status="failed", error=text))

    def _denoised(self, page: ImagePage, row: Row, lane: Denoiser | None) -> tuple[Image, Row, Inspected]:
        """The image denoised in place, where its array lets it, so that there is no second one in memory."""
        began = time.perf_counter()
        denoiser = lane or self.denoiser_for(page.shape[2])
        level = denoiser.noise_level(page, self.settings.sigma)
        pixels = page.pixels if page.pixels.flags.writeable else np.empty_like(page.pixels)
        inspection = self.inspector.begin(page.shape, page.dtype, page.metadata.orientation)
        for band in denoiser.bands(page, level, self.settings.strength, self.watcher.tiles):
            pixels[band.rows.slice] = band.clean
            inspection.add(band)
        share = 1 if lane is None else lane.backend.lanes  # as much was done meanwhile
        row = _with_model(row, denoiser, [level], (time.perf_counter() - began) / share)
        return page.whole.with_pixels(pixels), row, self._inspected(inspection, denoiser, level)

    def _inspected(self, inspection: Inspection, denoiser: Denoiser, level: float | np.ndarray | None) -> Inspected:
        """Completes a row; for the writer's thread or that of a lane, as it takes time."""
        return lambda row: inspection.row(row, denoiser, self.settings.sigma, level, self.settings.strength)

    def _unchanged(self, job: Job, loaded: _Loaded) -> bool:
        """Whether the result is the file itself: nothing is asked to change, and encoding again would change a JPEG or
        the kind of a TIFF's values."""
        return self.settings.strength.is_zero and format_of_suffix(job.target) == loaded.pages[0].format

    def _stream(self, job: Job, loaded: _Loaded, row: Row) -> Future[Row]:
        """Denoises a TIFF by rows into the file that is written meanwhile."""
        began = time.perf_counter()
        if self._unchanged(job, loaded):
            page, denoiser = loaded.pages[0], self.denoiser_for(loaded.pages[0].shape[2])
            level = denoiser.noise_level(page, self.settings.sigma)
            inspection = self.inspector.begin(page.shape, page.dtype, page.metadata.orientation)
            for band in denoiser.bands(page, level, self.settings.strength, self.watcher.tiles):
                inspection.add(band)
            row = _with_model(row, denoiser, [level], time.perf_counter() - began)
            return self.writer.submit(self._write, job, None, loaded, row, self._inspected(inspection, denoiser, level))
        self._prepare(job, loaded, row)
        conveyor: Conveyor[Rows] = Conveyor()
        written = self.writer.submit(write_pages, job.target, loaded.pages, iter(conveyor))
        written.add_done_callback(lambda _: conveyor.abandon())
        levels = []
        try:
            for number, page in enumerate(loaded.pages):
                denoiser = self.denoiser_for(page.shape[2])
                levels.append(denoiser.noise_level(page, self.settings.sigma))
                if number == 0:  # the report shows the first page
                    inspection = self.inspector.begin(page.shape, page.dtype, page.metadata.orientation)
                    inspected = self._inspected(inspection, denoiser, levels[0])
                progress = self._progress(number, len(loaded.pages))
                for band in denoiser.bands(page, levels[-1], self.settings.strength, progress):
                    conveyor.put((band.clean, page.alpha(band.rows.start, band.rows.stop)))
                    if number == 0:
                        inspection.add(band)
            conveyor.end()
        except AbandonedError:
            written.result()
        except BaseException as error:
            conveyor.fail(error)
            written.exception()
            raise
        notices = written.result()
        row = _with_model(row, denoiser, levels, time.perf_counter() - began)
        self._complete(job, loaded, row)
        reading = dict.fromkeys(notice for page in loaded.pages for notice in page.notices)
        self._notify(job, (*misnamed(job.source, "tiff"), *reading), notices)
        return self.writer.submit(self._measured, job, row, inspected)

    def _progress(self, page: int, pages: int) -> Callable[[int, int], None]:
        return lambda done, total: self.watcher.tiles(page * total + done, pages * total)

    def _prepare(self, job: Job, loaded: _Loaded, row: Row) -> None:
        """Before an output is written. Raises ImageError."""
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            self.manifest.announce(job.relative, job.target, loaded.stamp, facts(row))
        except OSError as error:
            raise ImageError(job.target, f"cannot be written ({error.strerror})") from error

    def _complete(self, job: Job, loaded: _Loaded, row: Row) -> None:
        """After an output is written. Raises ImageError."""
        try:
            self.manifest.complete(job.relative, job.target, loaded.stamp, facts(row))
        except OSError as error:
            raise ImageError(job.target, f"cannot be entered in the manifest ({error.strerror})") from error

    def _write(
        self, job: Job, image: Image | None, loaded: _Loaded, row: Row, inspected: Inspected | None = None
    ) -> Row:
        """Writes and measures one result; None for `image` is the file itself."""
        try:
            self._prepare(job, loaded, row)
            if image is None or self._unchanged(job, loaded):
                copy(job.source, job.target)
            else:
                notices = write(job.target, image).notices[len(image.notices) :]
                self._notify(job, (*misnamed(job.source, image.format), *image.notices), notices)
            self._complete(job, loaded, row)
        except (ImageError, OSError) as error:
            if isinstance(error, ImageError):
                reason = str(error) if isinstance(job.target, Address) else error.reason
            else:
                reason = f"cannot be written ({error.strerror})"
            self.inspector.previews.pop(row.output, None)
            return replace(row, status="failed", error=reason)
        return self._measured(job, row, inspected)

    def _notify(self, job: Job, reading: Sequence[str], writing: Sequence[str]) -> None:
        for path, notices in ((job.source, reading), (job.target, writing)):
            for notice in notices:
                self.watcher.notice(f"{path}: {notice}")

    def _told(self, job: Job, row: Row, inspected: Inspected) -> Row:
        """The row with the noise and, in the inspector, the pictures."""
        try:
            return inspected(row)
        except Exception as error:  # what is said about a result is worth less than the others
            self.watcher.notice(f"{job.source}: the report lacks its noise and pictures ({error})")
            return row

    def _measured(self, job: Job, row: Row, inspected: Inspected | None = None) -> Row:
        """The row with PSNR and SSIM against the reference, of the input and of what was written, decoded again."""
        if inspected is not None:
            row = self._told(job, row, inspected)
        if row.status == "skipped":
            row = _with_size(job, row)
        if job.reference is None:
            return row
        try:
            scores = compare(job.source, job.target, job.reference, self.settings.max_pixels)
        except ImageError as error:
            self.watcher.notice(f"{error}; no PSNR for {job.source}")
            return row
        return replace(
            row,
            psnr_noisy=scores.psnr_noisy,
            psnr=scores.psnr,
            ssim_noisy=scores.ssim_noisy,
            ssim=scores.ssim,
        )


def _row(job: Job, status: str, **values: Any) -> Row:
    return Row(str(job.source), str(job.target), status, **values)


def _with_size(job: Job, row: Row) -> Row:
    """What a file that is not opened again says of itself."""
    try:
        found = probe(job.source)
    except ImageError:
        return row
    return replace(row, width=found.width, height=found.height, channels=found.channels, bit_depth=found.bit_depth)


def _with_model(row: Row, denoiser: Denoiser, levels: Sequence[float | np.ndarray | None], seconds: float) -> Row:
    known = [float(np.mean(level)) for level in levels if level is not None]
    sigma = round(sum(known) / len(known), 4) if known else None
    return replace(row, model=denoiser.checkpoint.name, sigma=sigma, seconds=round(seconds, 4))


def _reason(error: DenoiseError) -> str:
    return error.reason if isinstance(error, ImageError) else str(error)


def _finished(row: Row) -> Future[Row]:
    future: Future[Row] = Future()
    future.set_result(row)
    return future


def _is_tiff(job: Job, pages: Sequence[Page]) -> bool:
    return pages[0].format == format_of_suffix(job.target) == "tiff"


def _size(job: Job) -> int:
    """How much memory the file's pixels will take; 0 when it cannot be read or is read by rows."""
    try:
        found = probe(job.source)
    except ImageError:
        return 0
    size = found.width * found.height * (found.channels + found.alpha) * found.bit_depth // 8
    streams = found.format == format_of_suffix(job.target) == "tiff" and (found.frames > 1 or size > WHOLE_BYTES)
    return 0 if streams else size
