"""A plan done by the workers of a Ray cluster, with the outputs, manifest, rows and exit codes of `run_batch`.

Ray's actors and not Ray Data: its stages retry a lost worker's image for ever, where an image that kills its worker
must fail by its name after some attempts; they give rows when a block is through, where progress is wanted image by
image, and they cannot end after the image at work. Ray places the actors, starts them anew and tells of their loss;
what is done here is to hand out some images at a time, so that no worker holds more than a few, and to give those of a
lost worker out again.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from denoise_se.atomic_file import lock, temporary_path
from denoise_se.batch import Outcome, outcome, prepare
from denoise_se.errors import DenoiseError, ImageError, UsageError
from denoise_se.file_work import Settings
from denoise_se.inspection import Inspector
from denoise_se.manifest import Ledger
from denoise_se.plan import Plan, remove_leftovers
from denoise_se.provenance import release
from denoise_se.ray_cluster import Cluster, connected
from denoise_se.ray_worker import Clerk, Done, Event, Models, Order, Share, Task, Worker
from denoise_se.remote_files import Address, Location
from denoise_se.report import Row
from denoise_se.stop import Stop
from denoise_se.watcher import Watcher

MOST_AT_ONCE = 16  # images given to a worker
ROUNDS = 4  # each worker comes back about so often, so that none has much left when the others are done
MOST_LOSSES = 3  # of workers at one image
WAIT_SECONDS = 60  # for the first worker, until the user is told
CLOSE_SECONDS = 3  # that workers have to leave nothing behind
LOOK_SECONDS = 0.2  # between two looks at signals
PARTS = 1000  # a share of an image, as the watcher is told it


def run_on_ray(
    plan: Plan,
    models: Models,
    settings: Settings,
    *,
    fingerprint: Mapping[str, Any],
    watcher: Watcher | None = None,
    inspector: Inspector | None = None,
    workers: int | None = None,
) -> Outcome:
    """Denoise all images of `plan` on a Ray cluster; see `run_batch` for what is not said here.

    Args:
        models: what the workers load.
        workers: how many to use; None for as many as the cluster has room for.

    Raises:
        UsageError: no cluster to be had, or a machine of it that cannot do the work; nothing was written.
    """
    watcher, inspector = watcher or Watcher(), inspector or Inspector()
    with Stop().listening() as stop, connected(workers, models.options["device"]) as cluster:
        manifest = prepare(plan, fingerprint, watcher, resume=settings.resume)
        run = _Run(plan, settings, manifest, watcher, inspector, stop)
        with output_marker(plan.home) as marker:
            run.start(cluster, models, marker)
            try:
                run.work()
            finally:
                run.end()
    if run.lost:
        remove_leftovers(plan)
    rows = [run.rows[number] for number in sorted(run.rows)]
    return outcome(plan, rows, stop)


@contextmanager
def output_marker(home: Location) -> Iterator[Path | None]:
    """A file in the output folder, by which a worker sees that it has the same one; None for a store."""
    if isinstance(home, Address):
        yield None
        return
    path = temporary_path(home.absolute())
    try:
        with path.open("xb") as stream:
            lock(stream)  # so that another run does not take it for one that was left behind
            yield path
    finally:
        with suppress(OSError):
            path.unlink()


@dataclass
class _Hand:
    """A worker as the driver sees it. stream: of its events, None when it is idle; tasks: not yet told of."""

    actor: Any
    stream: Any = None
    tasks: deque[Task] = field(default_factory=deque)
    share: float = 0.0


class _Run:
    """One run of a plan: which images wait, who is at which, and the rows so far, by number in the plan."""

    def __init__(
        self, plan: Plan, settings: Settings, manifest: Ledger, watcher: Watcher, inspector: Inspector, stop: Stop
    ) -> None:
        self.plan, self.settings, self.manifest = plan, settings, manifest
        self.watcher, self.inspector, self.stop = watcher, inspector, stop
        self.rows: dict[int, Row] = {}
        self.next = 0  # the first job that was never given out
        self.again: deque[int] = deque()  # jobs of lost workers, given out one by one
        self.losses: dict[int, int] = {}
        self.lost = 0
        self.hands: list[_Hand] = []
        self.starting: dict[Any, _Hand] = {}

    def start(self, cluster: Cluster, models: Models, marker: Path | None) -> None:
        """Asks for the workers; they begin as soon as they are there."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        kept = {"max_restarts": -1, "max_task_retries": -1}
        actor: Any = ray.remote  # its types are Ray's own affair
        clerk = actor(Clerk).options(num_cpus=0, scheduling_strategy=here, **kept)
        self.clerk = clerk.remote(self.plan.home.absolute())
        paths = [path for job in self.plan.jobs for path in (job.source, job.target, job.reference) if path is not None]
        relative = any(not path.is_absolute() for path in paths)
        self.order = Order(
            self.settings,
            self.manifest.settings,
            replace(self.inspector, previews={}),
            release(),
            self.plan.home,
            Path.cwd() if relative else None,
            marker,
        )
        models = replace(models, options={**models.options, "device": "cuda" if cluster.gpu else "cpu"})
        self.models = ray.put(models)
        worker = actor(concurrency_groups={"beside": 1})(Worker)
        # with no retries at all Ray refuses what is asked of an actor while it starts anew
        again = {"max_restarts": -1, "max_task_retries": MOST_LOSSES}
        worker = worker.options(num_cpus=1, num_gpus=int(cluster.gpu), **again)
        for _ in range(min(cluster.workers, len(self.plan.jobs))):
            self._summon(_Hand(worker.remote()))

    def _summon(self, hand: _Hand) -> None:
        """Waits for a worker to be there, be it for the first time or after its loss."""
        self.starting[hand.actor.refusal.remote(self.order, self.models, self.clerk)] = hand

    def work(self) -> None:
        """Until all is done, or a stop is wished and every worker has ended."""
        import ray

        halted, patience = False, time.monotonic() + WAIT_SECONDS
        while self.starting or any(hand.stream is not None for hand in self.hands) or self._is_left():
            if self.stop.signal is not None and not halted:
                halted = True
                self.starting.clear()
                for hand in self.hands:
                    hand.actor.stop.options(concurrency_group="beside").remote()
            if self.hands:
                patience = math.inf
            elif time.monotonic() > patience:
                self.watcher.notice("no worker has started yet; the cluster may have no free place")
                patience = math.inf
            for hand in self.hands:
                if hand.stream is None and not halted:
                    self._give(hand)
            waiting = {hand.stream: hand for hand in self.hands if hand.stream is not None}
            if not waiting and not self.starting:
                return
            if not waiting and not self._is_left():
                return  # the others are done before these have started
            ready, _ = ray.wait([*waiting, *self.starting], num_returns=1, timeout=LOOK_SECONDS)
            for found in ready:
                if found in waiting:
                    self._hear(waiting[found])
                else:
                    self._welcome(found)

    def end(self) -> None:
        """The workers' files go, and the manifest's last entries come. Raises ImageError."""
        import ray
        from ray.exceptions import RayError

        if closing := [hand.actor.close.options(max_task_retries=0).remote() for hand in self.hands]:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        try:
            ray.get(self.clerk.close.remote())
        except (RayError, OSError) as error:
            text = f"the manifest cannot be written ({_first_line(error)}); --resume will do its last images again"
            raise ImageError(self.plan.home, text) from error

    def _is_left(self) -> bool:
        return bool(self.again) or self.next < len(self.plan.jobs)

    def _give(self, hand: _Hand) -> None:
        """Some images to an idle worker, fewer when few are left; those that lost a worker alone."""
        if self.again:
            numbers: Sequence[int] = [self.again.popleft()]
        else:
            left = len(self.plan.jobs) - self.next
            count = max(1, min(MOST_AT_ONCE, left // (ROUNDS * (len(self.hands) + len(self.starting)))))
            numbers = range(self.next, min(self.next + count, len(self.plan.jobs)))
            self.next += len(numbers)
        if not numbers:
            return
        jobs = [(number, self.plan.jobs[number]) for number in numbers]
        entries = self.manifest.entries if self.settings.resume else {}
        hand.tasks = deque(Task(number, job, entries.get(job.relative.as_posix())) for number, job in jobs)
        work = hand.actor.work.options(num_returns="streaming", max_task_retries=0)  # here they are counted
        hand.stream = work.remote(list(hand.tasks))

    def _welcome(self, found: Any) -> None:
        """A worker that has started, or cannot. Raises UsageError: what one machine lacks, the run lacks."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        hand = self.starting.pop(found)
        try:
            refusal = ray.get(found)
        except RayTaskError as error:
            cause = error.cause
            raise UsageError(str(cause) if cause is not None else _first_line(error)) from error
        except RayError as error:
            raise UsageError(f"--engine ray: a worker cannot start ({_first_line(error)})") from error
        if refusal:
            raise UsageError(f"--engine ray: a machine of the cluster {refusal}")
        self.hands.append(hand)

    def _hear(self, hand: _Hand) -> None:
        """The next event of a worker, or its end or loss."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            event: Event = ray.get(next(hand.stream))
        except StopIteration:
            hand.stream, hand.share = None, 0.0
            hand.tasks.clear()  # some are left when a stop came
            return
        except RayTaskError as error:
            raise DenoiseError(f"--engine ray: a worker stopped with {_first_line(error.cause or error)}") from error
        except RayError as error:
            self._lose(hand, error)
            return
        if isinstance(event, Done):
            self._finish(event.number, event.row)
            hand.share = 0.0
            hand.tasks.popleft()
            if event.preview is not None:
                self.inspector.previews[event.row.output] = event.preview
        elif isinstance(event, Share):
            hand.share = event.done
            self.watcher.tiles(int(PARTS * sum(hand.share for hand in self.hands)), PARTS)
        else:
            self.watcher.notice(event)

    def _finish(self, number: int, row: Row) -> None:
        self.rows[number] = row
        self.watcher.row(row)

    def _lose(self, hand: _Hand, error: Exception) -> None:
        """A worker is gone, and Ray starts it anew: what it did not tell of is to be done again."""
        self.lost += 1
        self.hands.remove(hand)
        if self.stop.signal is None:
            self._summon(hand)
        tasks, hand.tasks, hand.stream, hand.share = hand.tasks, deque(), None, 0.0
        for task in tasks:
            self.losses[task.number] = self.losses.get(task.number, 0) + 1
        if len(tasks) == 1 and self.losses[tasks[0].number] >= MOST_LOSSES:
            job = tasks[0].job
            text = f"its worker was lost {MOST_LOSSES} times, perhaps for want of memory; try a smaller --tile"
            self._finish(tasks[0].number, Row(str(job.source), str(job.target), "failed", text))
        else:
            self.again.extend(task.number for task in tasks)
            self.watcher.notice(f"a worker was lost ({type(error).__name__}); {len(tasks)} image(s) are done again")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
