"""A batch on a Ray cluster that loses a worker midway, compared with the same batch of the local engine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.runner import environment
from killing.harness import digests, make_images
from tiny_model import save_tiny

TOKEN = "RAY_AUTH_TOKEN"


@dataclass
class Tally:
    """What came of it; `faults` are sentences."""

    images: int
    workers: int
    killed_after: int | None = None
    seconds_local: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.images} images, {self.workers} workers, one killed after {self.killed_after} images: "
            f"{self.seconds:.0f} s with the cluster's start, {self.seconds_local:.0f} s by the local engine; "
            f"{len(self.faults)} faults"
        )


def run_losing_a_worker(work: Path, *, images: int, workers: int) -> Tally:
    """Runs both in the empty folder `work`; the worker is killed when a third of the images is done."""
    tally = Tally(images, workers)
    sources = make_images(work / "in", images)
    save_tiny(work / "tiny.safetensors")
    began = time.monotonic()
    with start(work, "local") as run:
        if (code := run.end()) != 0:
            raise RuntimeError(f"the local run ends with {code}: {run.errors()[-500:]}")
    tally.seconds_local = time.monotonic() - began
    began = time.monotonic()
    with start(work, "ray", "--workers", str(workers)) as run:
        for _ in run.lines():
            if tally.killed_after is None and len(run.rows) >= images // 3 and run.kill_a_worker():
                tally.killed_after = len(run.rows)
        code = run.end()
        errors = run.errors()
    tally.seconds = time.monotonic() - began
    if tally.killed_after is None:
        tally.faults.append("no worker was killed")
    elif "a worker was lost" not in errors:
        tally.faults.append(f"the loss was not told: {errors[-300:]}")
    if code != 0:
        tally.faults.append(f"ended with {code}: {errors[-500:]}")
    told = Counter(row["input"] for row in run.rows)
    if len(told) != images or set(told.values()) != {1} or any(row["status"] != "done" for row in run.rows):
        tally.faults.append(f"{len(told)} images told of, {sum(told.values())} times in all")
    if digests(work / "ray") != digests(work / "local"):
        tally.faults.append("the outputs are not those of the local engine")
    if digests(work / "in") != sources:
        tally.faults.append("an input was changed")
    return tally


class Run:
    """A batch in a process of its own, and what it has printed so far."""

    def __init__(self, work: Path, out: str, options: tuple[str, ...], engine: str, environ: Mapping[str, str]) -> None:
        self.token = secrets.token_hex(16)
        self.rows: list[dict[str, object]] = []
        self.log = work / f"{out}.log"
        command = [sys.executable, "-m", "denoise_se.app", "denoise", "in", "-o", out, "--model", "tiny.safetensors"]
        command += ["--sigma", "25", "--json", "--engine", engine, *options]
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=work,
                # of a cluster's processes, those with this token are the run's
                env={**environment(), TOKEN: self.token, "RAY_ADDRESS": "local", **environ},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def lines(self) -> Iterator[dict[str, object]]:
        """The rows as they come, until the end of the run."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.rows.append(json.loads(line))
            yield self.rows[-1]

    def end(self) -> int:
        """The exit code."""
        for _ in self.lines():
            pass
        return self.process.wait()

    def errors(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill_a_worker(self) -> bool:
        """SIGKILL to one that is at work; whether there was one."""
        for process in self.processes():
            with suppress(OSError):
                if (process / "cmdline").read_bytes().startswith(b"ray::Worker.work"):
                    os.kill(int(process.name), signal.SIGKILL)
                    return True
        return False

    def processor_seconds(self) -> tuple[float, float]:
        """Used so far by the command itself and by its workers."""
        driver = workers = 0.0
        for process in self.processes():
            with suppress(OSError):
                times = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
                seconds = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
                if process.name == str(self.process.pid):
                    driver += seconds
                elif (process / "cmdline").read_bytes().startswith(b"ray::Worker"):
                    workers += seconds
        return driver, workers

    def processes(self) -> list[Path]:
        """Those of the run's cluster, as folders of /proc."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.token.encode() in (process / "environ").read_bytes():
                    found.append(process)
        return found


def start(
    work: Path, engine: str, *options: str, out: str | None = None, environ: Mapping[str, str] | None = None
) -> Run:
    """`denoise-se denoise in -o OUT` in the folder `work`; OUT is named after the engine unless told otherwise."""
    return Run(work, out or engine, options, engine, environ or {})
