"""Runs the inputs of one kind in child processes and counts what must not happen."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 10.0
# imports, and the samples
START_SECONDS = 120.0
TESTS = Path(__file__).parents[1]


@dataclass
class Tally:
    """What came of the inputs of one kind; `faults` are (index, fault, detail)."""

    kind: str
    inputs: int = 0
    read: int = 0
    slowest: float = 0.0
    faults: list[tuple[int, str, str]] = field(default_factory=list)

    def count(self, *faults: str) -> int:
        return sum(fault in faults for _, fault, _ in self.faults)

    def __str__(self) -> str:
        return (
            f"{self.inputs:,} {self.kind}: crashes {self.count('crash', 'memory', 'print')}, "
            f"hangs {self.count('hang')}, partial outputs {self.count('partial')} "
            f"({self.read:,} were read, {self.inputs - self.read:,} refused; slowest {self.slowest:.2f} s)"
        )


def environment() -> dict[str, str]:
    """That of a child: it finds the tests and the package, and computes with one thread."""
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


def run(
    kind: str, seed: int, indices: Sequence[int], *, command: Sequence[str] = (), seconds: float = SECONDS
) -> Tally:
    """Examines the inputs `indices` of a kind of `worker.KINDS`; `command` starts another worker than ours."""
    tally = Tally(kind)
    left = list(indices)
    while left:
        with _worker(command or [sys.executable, "-m", "fuzz.worker", kind]) as worker:
            if not isinstance(_answer(worker, START_SECONDS), dict):
                raise RuntimeError(f"the worker does not start: {worker.args!r}")
            while left:
                index = left.pop(0)
                tally.inputs += 1
                answer = _asked(worker, {"seed": seed, "index": index}, seconds)
                if isinstance(answer, str):
                    tally.faults.append((index, answer, _death(worker, seconds)))
                    break
                tally.read += answer["read"]
                tally.slowest = max(tally.slowest, answer["seconds"])
                if answer["fault"]:
                    tally.faults.append((index, answer["fault"], f"{answer['name']}: {answer['detail']}"))
                elif answer["seconds"] > seconds:
                    tally.faults.append((index, "hang", f"{answer['name']}: took {answer['seconds']:.1f} s"))
    return tally


@contextmanager
def _worker(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    worker = subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()


def _asked(worker: subprocess.Popen[bytes], question: dict[str, int], seconds: float) -> dict[str, Any] | str:
    assert worker.stdin is not None
    with suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(question).encode() + b"\n")
    return _answer(worker, seconds)


def _answer(worker: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | str:
    """The worker's next answer, or "hang" or "crash" where none comes."""
    assert worker.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([worker.stdout], [], [], seconds)[0]:
            return "hang"
        part = os.read(worker.stdout.fileno(), 1 << 16)
        if not part:
            return "crash"
        line += part
    return json.loads(line)


def _death(worker: subprocess.Popen[bytes], seconds: float) -> str:
    try:
        code = worker.wait(timeout=2)
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:g} s"
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
