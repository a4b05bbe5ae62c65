"""The threads of a batch: files are read ahead, denoised, and written and measured, at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from denoise_se.denoiser import Denoiser
from denoise_se.file_work import FileWork, Settings, StoppedError
from denoise_se.inspection import Inspector
from denoise_se.manifest import Ledger
from denoise_se.opened_file import OpenedFile, memory_of
from denoise_se.page import ImagePage
from denoise_se.plan import Job
from denoise_se.report import Row
from denoise_se.restorer import Restorer
from denoise_se.stop import Stop
from denoise_se.watcher import Watcher

# pixels in memory besides those of the image that is being denoised: read ahead, or still being written
AHEAD_BYTES = 256 << 20
# for fewer images, sharing out the engine's cores takes longer than it saves
FEWEST_FOR_LANES = 32


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
        denoiser_for: Callable[[int], Restorer],
        settings: Settings,
        manifest: Ledger,
        watcher: Watcher,
        inspector: Inspector,
        workers: int,
    ) -> None:
        self.jobs, self.denoiser_for, self.settings = jobs, denoiser_for, settings
        self.manifest, self.watcher, self.inspector, self.workers = manifest, watcher, inspector, workers
        self.reads: deque[Future[OpenedFile | Row]] = deque()  # of the job at work and those after it
        self.sizes = [0] * len(jobs)  # bytes that the pixels of an image take
        self.pending: deque[_Pending] = deque()
        self.finished: list[Row] = []
        self.small = 0  # images so far that fit in a lane
        self.laned: dict[int, Denoiser | None] = {}  # by the channels of the images

    def rows(self, stop: Stop) -> list[Row]:
        """Works until all is done or `stop` is wished, once; the rows in the plan's order. An image of several tiles
        that it is at then is left, and has none."""
        with ThreadPoolExecutor(self.workers) as readers, ThreadPoolExecutor(1) as writer, ExitStack() as stack:
            work = FileWork(self.denoiser_for, self.settings, self.manifest, self.watcher, self.inspector, writer, stop)
            lanes: ThreadPoolExecutor | None = None
            leave = 0  # as many images wait for a lane as are in one, so that none is empty
            try:
                for index, job in enumerate(self.jobs):
                    self._read_ahead(index, readers, work)
                    loaded = self.reads.popleft().result()
                    if isinstance(loaded, Row):
                        known = work.known(job, loaded)
                        self._finish(leave)
                        self.pending.append(_Pending(known, 0))
                    elif lane := self._lane(loaded):
                        leave = 2 * lane.backend.lanes
                        lanes = lanes or stack.enter_context(ThreadPoolExecutor(lane.backend.lanes))
                        self._finish(leave)
                        denoised = lanes.submit(work.denoise, job, loaded, lane)
                        self.pending.append(_Pending(denoised, self.sizes[index], in_lane=True))
                    else:
                        try:
                            written = work.denoise(job, loaded)
                        except StoppedError:
                            break
                        self._finish()
                        self.pending.append(_Pending(written, self.sizes[index]))
                    del loaded
                    if stop.signal is not None:
                        while self.pending and self.pending[-1].in_lane and self.pending[-1].future.cancel():
                            self.pending.pop()
                        break
                self._finish()
            except BaseException:
                for pool in (lanes, writer):
                    if pool is not None:
                        pool.shutdown(wait=False, cancel_futures=True)
                raise
            finally:
                for future in self.reads:
                    future.cancel()
        return self.finished

    def _read_ahead(self, index: int, readers: ThreadPoolExecutor, work: FileWork) -> None:
        """Starts reading `index` and those after it, as many as there are readers and memory for."""
        while (ahead := index + len(self.reads)) < min(index + 1 + self.workers, len(self.jobs)):
            size = memory_of(self.jobs[ahead])
            held = sum(self.sizes[index + 1 : ahead]) + sum(pending.size for pending in self.pending)
            if held + size > AHEAD_BYTES:
                if ahead > index:
                    break
                self._finish()
            self.sizes[ahead] = size
            self.reads.append(readers.submit(work.read, self.jobs[ahead]))

    def _finish(self, leave: int = 0) -> None:
        """Waits until at most `leave` images are pending, and tells of those that are not."""
        while len(self.pending) > leave:
            for ended in (pending.future for pending in self.pending if pending.in_lane and pending.future.done()):
                ended.result()  # raises what a lane was told to stop with
            self.finished.append(self.pending.popleft().row())
            self.watcher.row(self.finished[-1])

    def _lane(self, loaded: OpenedFile) -> Denoiser | None:
        """The denoiser for an image that is denoised beside others; None for one that gets all cores."""
        few = len(self.jobs) <= FEWEST_FOR_LANES
        if few or not isinstance(loaded.pages[0], ImagePage) or self.settings.strength.is_zero:
            return None
        channels = loaded.pages[0].shape[2]
        try:
            denoiser = self.denoiser_for(channels)
            if not isinstance(denoiser, Denoiser) or not denoiser.fits_in_lane(*loaded.pages[0].shape):
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
