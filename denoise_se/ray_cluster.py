"""A Ray cluster to work on: the one that is there, or one of this machine for as long as the work takes.

Ray's usage statistics are off. A cluster that is started here has no dashboard and lets nobody in without its token,
which Ray 2.59 and later ask for (before, whoever reached its ports could run code).
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from denoise_se.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, UsageError
from denoise_se.threads import granted_cores

WORKER_BYTES = 2 << 30  # a model, an image of some megapixels and those read ahead
START_SECONDS = "180"  # Ray's own 30 are too few on a busy machine
STORE_BYTES = 100 << 20  # images never pass through Ray's memory, only names and rows
INSTALL = 'pip install "denoise-se[ray]"'


@dataclass(frozen=True)
class Cluster:
    """What there is to work with. `gpu` says whether each worker is to have a GPU."""

    workers: int
    gpu: bool


def check_installed() -> None:
    """UsageError where Ray is not."""
    if find_spec("ray") is None:
        raise UsageError(f"--engine ray: Ray is not installed here; install it with: {INSTALL}")


@contextmanager
def connected(workers: int | None, device: str) -> Iterator[Cluster]:
    """Finds or starts a cluster, and leaves or stops it at the end.

    Args:
        workers: how many to use; None for one a GPU, or one a CPU core as far as there is memory.
        device: "auto" takes the cluster's GPUs if it has some.

    Raises:
        UsageError: Ray is not installed, the cluster cannot be reached, or it has no GPU where one is asked for.
    """
    check_installed()
    if device == "mps":
        raise UsageError("--engine ray: --device mps is not available with it; use auto, cpu or cuda")
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith("ray://"):
        raise UsageError(
            f"RAY_ADDRESS {address}: a client's address does not do; run the command on a machine of the cluster and "
            "leave RAY_ADDRESS out or set it to auto"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_raylet_start_wait_time_s", START_SECONDS)
    os.environ.setdefault("RAY_worker_niceness", "0")  # else they get what other work leaves
    import ray

    # Ray tells of lost workers on stdout, where the rows are; whoever prints those keeps the stream itself
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
        try:
            _connect(address, workers)
            yield chosen(ray.cluster_resources(), workers, device)
        finally:
            ray.shutdown()


def _connect(address: str, workers: int | None) -> None:
    listening = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if not _joined(address, quiet):
            _start(workers, quiet)
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:  # a second Ctrl-C, see `Stop`
            raise
        # Ray's own handler of SIGTERM
        raise SystemExit(EXIT_TERMINATED) from end
    except Exception as error:  # Ray raises bare ones
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = f"the cluster of RAY_ADDRESS {address}" if address else "a cluster of this machine"
        raise UsageError(
            f"--engine ray: {where} cannot be used ({first}); check its address, token and version"
        ) from error
    finally:
        if listening:
            signal.signal(signal.SIGTERM, handler)


def _joined(address: str, quiet: dict[str, Any]) -> bool:
    """Whether there is a cluster, which is joined then. Raises what Ray does when `address` is given and wrong."""
    import ray

    if address == "local":
        return False
    try:
        ray.init(address=address or "auto", **quiet)
    except ConnectionError:
        if address and address != "auto":
            raise
        return False
    return True


def _start(workers: int | None, quiet: dict[str, Any]) -> None:
    import ray

    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray leaves one in the home folder
    ray.init(
        address="local",
        num_cpus=max(granted_cores(), workers or 1),
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        **quiet,
    )


def chosen(resources: dict[str, float], workers: int | None, device: str) -> Cluster:
    """What to use of a cluster's resources; see `connected`. Raises UsageError."""
    gpus = int(resources.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise UsageError("--device cuda: the Ray cluster has no GPU; use --device cpu or auto")
    if gpus and device != "cpu":
        return Cluster(min(workers or gpus, gpus), gpu=True)
    room = int(resources.get("memory", 0) // WORKER_BYTES)
    return Cluster(workers or max(1, min(int(resources.get("CPU", 1)), room)), gpu=False)
