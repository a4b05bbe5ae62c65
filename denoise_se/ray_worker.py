"""What runs on the machines of a Ray cluster: workers that hold a model and do images, and the clerk of the manifest.

Both are plain classes that `ray_engine` makes actors of; nothing here starts or finds a cluster.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from denoise_se.atomic_file import lock
from denoise_se.conveyor import AbandonedError, Conveyor
from denoise_se.file_work import Settings
from denoise_se.inspection import Inspector
from denoise_se.manifest import Entry
from denoise_se.pipeline import Pipeline
from denoise_se.plan import Job
from denoise_se.provenance import release
from denoise_se.remote_files import Location
from denoise_se.remote_manifest import ledger, open_manifest
from denoise_se.report import Row
from denoise_se.stop import Stop
from denoise_se.watcher import Watcher

if TYPE_CHECKING:
    from denoise_se.denoiser import Denoiser
    from denoise_se.preview import Preview

MODEL_FILES, LOCK = "denoise-se-models-", "lock"
READ_AHEAD = 2
SHARE_SECONDS = 0.5  # between two words of how far an image is
EVENTS = 64  # on the way to the driver


@dataclass(frozen=True)
class Models:
    """The weights that may be needed, as bytes, so that every machine has them, whatever is installed there.

    files: by the model's name, what its files hold, by suffix: the weights, and what int8 needs if there is that.
    by_channels: the model's name by an image's colour channels. options: of `Denoiser.load`.
    """

    files: Mapping[str, Mapping[str, bytes]]
    by_channels: Mapping[int, str]
    options: Mapping[str, Any]

    def load(self, folder: Path) -> Mapping[str, Denoiser]:
        """By name, from files that are put into `folder`, where engines find them as long as they work. Raises
        CheckpointError and UsageError."""
        from denoise_se.denoiser import Denoiser

        loaded = {}
        for number, (name, contents) in enumerate(self.files.items()):
            # a checkpoint is called by its stem, or by its folder if that is "best"
            home = Path(folder, str(number), name)
            home.mkdir(parents=True)
            for suffix, content in contents.items():
                home.joinpath(name + suffix).write_bytes(content)
            loaded[name] = Denoiser.load(home / f"{name}.safetensors", **self.options)
        return loaded


@dataclass(frozen=True)
class Task:
    """A job, its number in the plan, and what the manifest holds of its output."""

    number: int
    job: Job
    entry: Entry | None


@dataclass(frozen=True)
class Done:
    """A job is finished, skipped or failed."""

    number: int
    row: Row
    preview: Preview | None


@dataclass(frozen=True)
class Share:
    """How much of the image that a worker is at is done, 0 to 1."""

    done: float


Event = Done | Share | str  # text is a notice


@dataclass(frozen=True)
class Order:
    """What all workers of a run are told. settings_digest: the manifest's. version: of denoise-se, the same everywhere.

    home: the output folder. folder: where relative names start, None when there are none. marker: a file in the output
    folder, None for one in a store.
    """

    settings: Settings
    settings_digest: str
    inspector: Inspector
    version: str
    home: Location
    folder: Path | None
    marker: Path | None


class ModelFiles:
    """A new `folder` on this machine for the files of models, until it is closed or its process ends. Those that killed
    workers left go when the next one is made, where files can be locked."""

    def __init__(self) -> None:
        for left in Path(tempfile.gettempdir()).glob(f"{MODEL_FILES}*"):
            with suppress(OSError), (left / LOCK).open("rb") as stream:
                if lock(stream):
                    shutil.rmtree(left)
        locked: bool | None = False
        while locked is False:  # by one that took it for a left one meanwhile
            self.folder = Path(tempfile.mkdtemp(prefix=MODEL_FILES))
            self.stream = (self.folder / LOCK).open("xb")
            locked = lock(self.stream)
        self.close = weakref.finalize(self, _left, self.stream, self.folder)


def _left(stream: BinaryIO, folder: Path) -> None:
    stream.close()
    shutil.rmtree(folder, ignore_errors=True)


class Worker:
    """An actor with a model loaded: first `refusal`, then `work` as often as there is some."""

    def __init__(self) -> None:
        self.halt = Stop()
        self.files = ModelFiles()

    def refusal(self, order: Order, models: Models, clerk: Any) -> str:
        """Loads the models. Why this machine cannot do the work; nothing when it can.

        `clerk` is the handle of the run's Clerk. Raises CheckpointError and UsageError.
        """
        self.order, self.clerk = order, clerk
        here = release()
        if here != order.version:
            return f"has denoise-se {here} and not {order.version}; install the same version on all machines"
        apart = "does not see {}: give folders that all machines share, or s3:// addresses"
        if order.folder is not None:
            try:
                os.chdir(order.folder)
            except OSError:
                return apart.format(order.folder)
        if order.marker is not None and not order.marker.exists():
            return apart.format(f"the output folder {order.marker.parent}")
        loaded = models.load(self.files.folder)
        self.denoisers: dict[int, Denoiser] = {channels: loaded[name] for channels, name in models.by_channels.items()}
        return ""

    def close(self) -> None:
        """Leaves nothing on this machine; the last that is asked of it."""
        self.files.close()

    def process(self) -> int:
        """Its process id."""
        return os.getpid()

    def stop(self) -> None:
        """Called beside `work`: ends it soon, see `Pipeline.rows`."""
        self.halt.signal = signal.SIGTERM

    def work(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Does the jobs and tells of each as soon as it is finished."""
        inspector = replace(self.order.inspector, previews={})
        events: Conveyor[Event] = Conveyor(EVENTS)
        watcher = _Teller(events, [task.number for task in tasks], inspector)
        entries = {task.job.relative.as_posix(): task.entry for task in tasks if task.entry is not None}
        known = ledger(self.order.home, self.order.settings_digest, entries, self._keep)
        jobs = [task.job for task in tasks]
        pipeline = Pipeline(
            jobs, self.denoisers.__getitem__, self.order.settings, known, watcher, inspector, READ_AHEAD
        )

        def run() -> None:
            try:
                pipeline.rows(self.halt)
                events.end()
            except AbandonedError:
                return
            except BaseException as error:
                events.fail(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield from events
        finally:
            events.abandon()
            thread.join()

    def _keep(self, entry: Entry) -> None:
        """Waits until the entry is on the disk, as the output comes after it. Raises OSError."""
        import ray
        from ray.exceptions import RayError

        try:
            ray.get(self.clerk.append.remote(entry))
        except OSError:
            raise
        except RayError as error:
            raise OSError(None, f"the manifest cannot be written: {str(error).strip().splitlines()[0]}") from error


class Clerk:
    """An actor beside the driver, the only writer of the manifest: an append is atomic on one machine alone."""

    def __init__(self, home: Location) -> None:
        self.manifest = open_manifest(home, {}, read=False)

    def append(self, entry: Entry) -> None:
        """Raises OSError."""
        self.manifest.keep(entry)

    def close(self) -> None:
        """Raises OSError."""
        self.manifest.close()


class _Teller(Watcher):
    """Puts what the pipeline tells on the way to the driver."""

    def __init__(self, events: Conveyor[Event], numbers: Sequence[int], inspector: Inspector) -> None:
        self.events, self.numbers, self.inspector = events, iter(numbers), inspector
        self.told = 0.0

    def row(self, row: Row) -> None:
        self.events.put(Done(next(self.numbers), row, self.inspector.previews.pop(row.output, None)))

    def notice(self, text: str) -> None:
        self.events.put(text)

    def tiles(self, done: int, total: int) -> None:
        now = time.monotonic()
        if total > 1 and now - self.told > SHARE_SECONDS:
            self.told = now
            self.events.put(Share(done / total))
