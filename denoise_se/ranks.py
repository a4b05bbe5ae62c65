"""The processes of one training run, one for each device: starting them, agreeing among them, and ending them.

They are started by `Ranks.running`, by torchrun or by Slurm's srun. Each reads the same images and draws the same
batches; a rank trains on its share of each batch.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from denoise_se.errors import EXIT_SOME_FAILED, PREFIX, Interrupted, UsageError, exit_code_of
from denoise_se.place import ProcessPlace, this_place
from denoise_se.stop import HANG_UP, SIGNALS

PARENT = "DENOISE_SE_PARENT"  # the process id of the one that started this one
GRACE_SECONDS = 30.0  # for processes to end by themselves once one of them has


@dataclass(frozen=True)
class Ranks:
    """How many processes train together.

    Attributes:
        devices: processes on each machine, each with a GPU of its own, or on the CPU.
        nodes: machines.
        strategy: "auto", or "ddp" to use DistributedDataParallel for a single process too.
        command: what starts another process like this one.
    """

    devices: int = 1
    nodes: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    command: Sequence[str] = ()

    @property
    def world_size(self) -> int:
        return self.devices * self.nodes

    @classmethod
    def from_environment(
        cls, devices: int | None, nodes: int | None, strategy: Literal["auto", "ddp"], command: Sequence[str] = ()
    ) -> Ranks:
        """What is None comes from torchrun or srun, and is 1 without them; UsageError where they say otherwise."""
        place = this_place()
        if place is not None:
            devices = devices or place.devices
            nodes = nodes or max(1, place.world_size // devices)
        ranks = cls(devices or 1, nodes or 1, strategy, command)
        if place is not None and ranks.world_size != place.world_size:
            raise UsageError(
                f"--devices {ranks.devices} and --num-nodes {ranks.nodes} make {ranks.world_size} process(es), but "
                f"{place.world_size} were started; leave both options out under torchrun and srun"
            )
        visible = torch.cuda.device_count()
        if 0 < visible < ranks.devices:
            raise UsageError(f"--devices {ranks.devices}: this machine has {visible} GPU(s)")
        return ranks

    def check_batch(self, batch: int) -> None:
        """UsageError for a batch that does not divide evenly among the processes."""
        if batch % self.world_size:
            below = batch - batch % self.world_size
            raise UsageError(
                f"--batch {batch} cannot be shared evenly by {self.world_size} processes; take "
                f"{f'{below} or ' if below else ''}{below + self.world_size}"
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """The other processes of this machine run until the block ends, unless torchrun or srun started them.

        None of them outlives the block: after an error they are killed, otherwise once they have had time to end. When
        one of them fails, and this one hangs, it ends with a message. Should this one be killed, they end too.

        Raises:
            UsageError: several machines, and nothing in the environment says how they find each other.
        """
        if self.world_size == 1 and self.strategy == "auto":
            yield
            return
        if PARENT in os.environ:
            threading.Thread(target=_follow, args=(int(os.environ[PARENT]),), daemon=True).start()
        before, place = dict(os.environ), this_place()
        os.environ.update(self._meeting_point(place))
        children: list[subprocess.Popen[bytes]] = []
        over = threading.Event()
        patience = 0.0
        try:
            if place is None:
                node = int(os.environ.get("NODE_RANK", 0))
                place, *others = [
                    ProcessPlace(local, node, node * self.devices + local, self.devices, self.world_size)
                    for local in range(self.devices)
                ]
                children += [self._start(other) for other in others]
                threading.Thread(target=_watch, args=(children, over), daemon=True).start()
            os.environ.update(place.environment())
            yield
            patience = GRACE_SECONDS
        except Interrupted:  # on all of them
            patience = GRACE_SECONDS
            raise
        finally:
            over.set()
            _end(children, patience)
            os.environ.clear()
            os.environ.update(before)

    def _meeting_point(self, place: ProcessPlace | None) -> dict[str, str]:
        """MASTER_ADDR and MASTER_PORT, where the processes find each other."""
        given = {name: os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT") if name in os.environ}
        if place is not None and "SLURM_STEP_NODELIST" in os.environ:
            # the first of a list such as node[3-7,9],other4; jobs that share a machine get ports of their own
            first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", os.environ["SLURM_STEP_NODELIST"]).split(",")[0]
            port = 15000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 10000
            return {"MASTER_ADDR": first, "MASTER_PORT": str(port)} | given
        if self.nodes == 1 and place is None:
            return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        needed = ("MASTER_ADDR", "MASTER_PORT", *(() if place else ("NODE_RANK",)))
        missing = [name for name in needed if name not in os.environ]
        if missing:
            raise UsageError(
                f"--num-nodes {self.nodes} needs {', '.join(missing)} in the environment of each machine; or "
                "use torchrun or srun"
            )
        return given

    def _start(self, place: ProcessPlace) -> subprocess.Popen[bytes]:
        if not self.command:
            raise UsageError("several devices from Python: start the script with torchrun, or use denoise-se train")
        own = os.environ | place.environment() | {PARENT: str(os.getpid())}
        return subprocess.Popen(list(self.command), env=own)

    def largest(self, *values: float) -> list[float]:
        """For each value the largest that any process gives; all of them call it together."""
        if not _connected():
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=_side_group())
        return tensor.tolist()

    def gathered(self, rows: Tensor) -> Tensor:
        """[n, k] of each process, one below the other in the order of ranks: [world_size * n, k], on the CPU."""
        rows = rows.cpu()
        if not _connected():
            return rows
        parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, rows, group=_side_group())
        return torch.cat(parts)


def _connected() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _side_group() -> Any:
    """A gloo group: agreeing on a number must not wait for what is queued on the GPUs."""
    if torch.distributed.get_backend() == "gloo":
        return None
    if not _SIDE:
        _SIDE.append(torch.distributed.new_group(backend="gloo"))
    return _SIDE[0]


_SIDE: list[Any] = []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(children: Sequence[subprocess.Popen[bytes]], patience: float) -> None:
    end = time.monotonic() + patience
    for child in children:
        try:
            child.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _watch(children: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """Ends this process when a child failed and it hangs in a call that waits for that child."""
    sound = (None, 0, *map(exit_code_of, (*SIGNALS, *HANG_UP)))
    while not over.wait(1.0):
        failed = [child for child in children if child.poll() not in sound]
        if failed and not over.wait(GRACE_SECONDS):
            code = failed[0].returncode
            print(f"{PREFIX}a process of this run ended with code {code}; see its message above", file=sys.stderr)
            _end(children, 0.0)
            os._exit(EXIT_SOME_FAILED)


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(EXIT_SOME_FAILED)
