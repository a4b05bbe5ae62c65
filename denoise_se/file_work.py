"""What is done with each file of a batch: read, denoised, written and measured; a bad one fails alone."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from denoise_se.blending import Strength
from denoise_se.comparison import compare
from denoise_se.conveyor import AbandonedError, Conveyor
from denoise_se.denoiser import Denoiser
from denoise_se.disk_space import check_room
from denoise_se.errors import DenoiseError, ImageError, is_out_of_memory, reason
from denoise_se.format_names import LOSSY
from denoise_se.formats import format_of_suffix
from denoise_se.image import Image
from denoise_se.image_io import DEFAULT_MAX_PIXELS, copy, misnamed, probe, write, write_pages
from denoise_se.inspection import Inspection, Inspector
from denoise_se.level_grid import Known, mean_level
from denoise_se.manifest import Ledger
from denoise_se.opened_file import OpenedFile
from denoise_se.page import ImagePage
from denoise_se.plan import Job
from denoise_se.remote_files import Address
from denoise_se.report import Row, facts, known_facts
from denoise_se.restorer import FULL_STRENGTH, Restorer
from denoise_se.stop import Stop
from denoise_se.tiff_storage import Rows
from denoise_se.watcher import CancelledError, Watcher

Inspected = Callable[[Row], Row]
WRITING_MENDS = {
    errno.ENOSPC: "free some space and add --resume",
    errno.EACCES: "check the rights of its folder",
    errno.ENAMETOOLONG: "shorten the input's name",
}


@dataclass(frozen=True)
class Settings:
    """How every image of a batch is denoised; `sigma` None estimates it for each, in 8-bit units."""

    sigma: float | None = None
    strength: Strength = FULL_STRENGTH
    max_pixels: int = DEFAULT_MAX_PIXELS
    resume: bool = False


class StoppedError(CancelledError):
    """A file is left in the middle, as its user wishes to stop."""


class FileWork:
    """The steps of a file's way; each may run in a thread of its own. `writer` is the one thread that writes."""

    def __init__(
        self,
        denoiser_for: Callable[[int], Restorer],
        settings: Settings,
        manifest: Ledger,
        watcher: Watcher,
        inspector: Inspector,
        writer: ThreadPoolExecutor,
        stop: Stop,
    ) -> None:
        self.denoiser_for, self.settings, self.manifest = denoiser_for, settings, manifest
        self.watcher, self.inspector, self.writer, self.stop = watcher, inspector, writer, stop

    def read(self, job: Job) -> OpenedFile | Row:
        try:
            if self.settings.resume and self.manifest.is_done(job.relative, job.source, job.target):
                return _row(job, "skipped", **known_facts(self.manifest.facts(job.relative)))
            check_room(job, max_pixels=self.settings.max_pixels)
            return OpenedFile.of(job, self.settings.max_pixels)
        except ImageError as error:
            return _row(job, "failed", error=error.reason)
        except OSError as error:  # of a store that is asked for the version of a file
            return _row(job, "failed", error=f"cannot be read ({reason(error)})")

    def known(self, job: Job, row: Row) -> Future[Row]:
        """The row of a file that was skipped, measured again, or that could not be read."""
        return self.writer.submit(self._measured, job, row) if row.status == "skipped" else _finished(row)

    def denoise(self, job: Job, loaded: OpenedFile, lane: Denoiser | None = None) -> Future[Row]:
        """Denoises a file, by `lane` or with all cores, and starts or does its writing; the future is its row.

        Raises:
            StoppedError: it was wished to stop, and there were tiles left to do.
            CancelledError: the watcher raised it.
        """
        height, width, channels = loaded.pages[0].shape
        depth = loaded.pages[0].dtype.itemsize * 8
        row = _row(job, "done", width=width, height=height, channels=channels, bit_depth=depth)
        with loaded.files:
            try:
                if isinstance(loaded.pages[0], ImagePage):
                    image, row, inspected = self._denoised(loaded.pages[0], row, lane)
                    if lane is None:
                        return self.writer.submit(self._write, job, image, loaded, row, inspected)
                    row = self._told(row, inspected)  # here, as there is one writer for all lanes
                    return self.writer.submit(self._write, job, image, loaded, row)
                return self._stream(job, loaded, row)
            except CancelledError:
                raise
            except DenoiseError as error:
                return _finished(replace(row, status="failed", error=_reason(error)))
            except Exception as error:  # an engine raises what it likes, and the other images are worth more than that
                if is_out_of_memory(error):
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
        inspection = self.inspector.begin(page, page.metadata.orientation)
        # small images, side by side, are finished
        progress = self._progress() if lane is None else self.watcher.tiles
        for band in denoiser.bands(page, level, self.settings.strength, progress):
            pixels[band.rows.slice] = band.clean
            inspection.add(band)
        share = 1 if lane is None else lane.backend.lanes  # as much was done meanwhile
        row = _with_model(row, [denoiser], [level], (time.perf_counter() - began) / share)
        return page.whole.with_pixels(pixels), row, self._inspected(inspection, denoiser, level)

    def _inspected(self, inspection: Inspection, denoiser: Restorer, level: Known) -> Inspected:
        """Completes a row; for the writer's thread or that of a lane, as it takes time."""
        return lambda row: inspection.row(row, denoiser, self.settings.sigma, level, self.settings.strength)

    def _unchanged(self, job: Job, loaded: OpenedFile) -> bool:
        """Whether the result is the file itself: nothing is asked to change, and encoding again would change a JPEG or
        the kind of a TIFF's values; so it would what only bears the name of a JPEG, and is called the same."""
        own, named = loaded.pages[0].format, format_of_suffix(job.target)
        renamed = job.target.suffix != job.source.suffix
        return self.settings.strength.is_zero and (own == named or (named in LOSSY and not renamed))

    def _stream(self, job: Job, loaded: OpenedFile, row: Row) -> Future[Row]:
        """Denoises a TIFF by rows into the file that is written meanwhile."""
        began = time.perf_counter()
        if self._unchanged(job, loaded):
            page, denoiser = loaded.pages[0], self.denoiser_for(loaded.pages[0].shape[2])
            level = denoiser.noise_level(page, self.settings.sigma)
            inspection = self.inspector.begin(page, page.metadata.orientation)
            for band in denoiser.bands(page, level, self.settings.strength, self._progress()):
                inspection.add(band)
            row = _with_model(row, [denoiser], [level], time.perf_counter() - began)
            return self.writer.submit(self._write, job, None, loaded, row, self._inspected(inspection, denoiser, level))
        self._prepare(job, loaded, row)
        conveyor: Conveyor[Rows] = Conveyor()
        written = self.writer.submit(write_pages, job.target, loaded.pages, iter(conveyor))
        written.add_done_callback(lambda _: conveyor.abandon())
        denoisers, levels = [], []
        try:
            for number, page in enumerate(loaded.pages):
                denoiser = self.denoiser_for(page.shape[2])
                denoisers.append(denoiser)
                levels.append(denoiser.noise_level(page, self.settings.sigma))
                if number == 0:  # the report shows the first page
                    inspection = self.inspector.begin(page, page.metadata.orientation)
                    inspected = self._inspected(inspection, denoiser, levels[0])
                progress = self._progress(number, len(loaded.pages))
                for band in denoiser.bands(page, levels[-1], self.settings.strength, progress):
                    conveyor.put((band.clean, page.alpha(band.rows.start, band.rows.stop)))
                    if number == 0:
                        inspection.add(band)
            conveyor.end()
        except AbandonedError as error:  # by the writer; or a watcher's, of a conveyor of its own
            conveyor.fail(error)
            written.result()
        except BaseException as error:
            conveyor.fail(error)
            written.exception()
            raise
        notices = written.result()
        row = _with_model(row, denoisers, levels, time.perf_counter() - began)
        reading = (notice for page in loaded.pages for notice in page.notices)
        row = row.noticed(*misnamed(job.source, "tiff"), *reading, *notices)
        self._complete(job, loaded, row)
        return self.writer.submit(self._measured, job, row, inspected)

    def _progress(self, page: int = 0, pages: int = 1) -> Callable[[int, int], None]:
        """Tells of tiles; raises StoppedError between two of them."""

        def tell(done: int, total: int) -> None:
            done, total = page * total + done, pages * total
            if self.stop.signal is not None and 0 < done < total:
                raise StoppedError
            self.watcher.tiles(done, total)

        return tell

    def _prepare(self, job: Job, loaded: OpenedFile, row: Row) -> None:
        """Before an output is written. Raises ImageError."""
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            self.manifest.announce(job.relative, job.target, loaded.stamp, facts(row))
        except OSError as error:
            raise ImageError(job.target, f"cannot be written ({reason(error)})") from error

    def _complete(self, job: Job, loaded: OpenedFile, row: Row) -> None:
        """After an output is written. Raises ImageError."""
        try:
            self.manifest.complete(job.relative, job.target, loaded.stamp, facts(row))
        except OSError as error:
            raise ImageError(job.target, f"cannot be entered in the manifest ({reason(error)})") from error

    def _write(
        self, job: Job, image: Image | None, loaded: OpenedFile, row: Row, inspected: Inspected | None = None
    ) -> Row:
        """Writes and measures one result; None for `image` is the file itself."""
        if self._unchanged(job, loaded):
            image = None
        if image is not None:
            row = row.noticed(*misnamed(job.source, image.format), *image.notices)
        try:
            self._prepare(job, loaded, row)
            if image is None:
                copy(job.source, job.target)
            else:
                row = row.noticed(*write(job.target, image).notices)
            self._complete(job, loaded, row)
        except (ImageError, OSError) as error:
            self.inspector.previews.pop(row.output, None)
            return replace(row, status="failed", error=_why_not_written(job, error))
        return self._measured(job, row, inspected)

    def _told(self, row: Row, inspected: Inspected) -> Row:
        """The row with the noise and, in the inspector, the pictures."""
        try:
            return inspected(row)
        except Exception as error:  # what is said about a result is worth less than the others
            return row.noticed(f"the report lacks its noise and pictures ({error})")

    def _measured(self, job: Job, row: Row, inspected: Inspected | None = None) -> Row:
        """The row with PSNR and SSIM against the reference, of the input and of what was written, decoded again."""
        if inspected is not None:
            row = self._told(row, inspected)
        if row.status == "skipped":
            row = _with_size_of(job, row)
        if job.reference is None:
            return row
        try:
            scores = compare(job.source, job.target, job.reference, self.settings.max_pixels)
        except (DenoiseError, MemoryError, OSError) as error:  # the images are worth more than their scores
            text = f"no PSNR: {error or type(error).__name__}"
            if row.status == "skipped":  # whose other notices were told when it was done
                self.watcher.notice(f"{job.source}: {text}")
            return row.noticed(text)
        return replace(
            row,
            psnr_noisy=scores.psnr_noisy,
            psnr=scores.psnr,
            ssim_noisy=scores.ssim_noisy,
            ssim=scores.ssim,
        )


def _row(job: Job, status: str, **values: Any) -> Row:
    return Row(str(job.source), str(job.target), status, **values)


def _with_size_of(job: Job, row: Row) -> Row:
    """What a file that is not opened again says of itself."""
    try:
        found = probe(job.source)
    except ImageError:
        return row
    return replace(row, width=found.width, height=found.height, channels=found.channels, bit_depth=found.bit_depth)


def _with_model(row: Row, denoisers: Sequence[Restorer], levels: Sequence[Known], seconds: float) -> Row:
    """The row with the names of what denoised the pages, and the mean of the levels that they were told."""
    known = [mean for mean in map(mean_level, levels) if mean is not None]
    sigma = sum(known) / len(known) if known else None
    sigma = None if sigma is None else round(sigma, 4) if sigma >= 0.1 else float(f"{sigma:.4g}")
    names = dict.fromkeys(denoiser.checkpoint.name for denoiser in denoisers)
    return replace(row, model=", ".join(names), sigma=sigma, seconds=round(seconds, 4))


def _why_not_written(job: Job, error: ImageError | OSError) -> str:
    if isinstance(error, ImageError):
        if isinstance(job.target, Address):
            return str(error)
        if not isinstance(error.__cause__, OSError) or str(error).startswith(f"{job.source}:"):  # it was read meanwhile
            return error.reason
        error = error.__cause__
    mend = WRITING_MENDS.get(error.errno or 0)
    return f"its output {job.relative} cannot be written ({reason(error)}){f'; {mend}' if mend else ''}"


def _reason(error: DenoiseError) -> str:
    return error.reason if isinstance(error, ImageError) else str(error)


def _finished(row: Row) -> Future[Row]:
    future: Future[Row] = Future()
    future.set_result(row)
    return future
