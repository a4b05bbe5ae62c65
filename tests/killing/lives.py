"""Runs of the command line that are started without importing torch each time, and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fuzz.runner import environment

# of one life; a run that hangs is a failure
SECONDS = 300.0


class Zygote:
    """Runs the command line in children of one process; `work` is the folder that everything is in.

    Args:
        work: the folder that the runs start in.
        modules: what is imported before the first of them.
    """

    def __init__(self, work: Path, *modules: str) -> None:
        self.work, self.log, self.child = work, work / "log", 0
        self.command = [sys.executable, "-m", "killing.zygote", *modules]

    def __enter__(self) -> Zygote:
        self.process = subprocess.Popen(
            self.command, cwd=self.work, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("the process that starts the runs does not start itself")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def start(self, arguments: Sequence[str], code: str = "") -> None:
        """Run `denoise-se ARGUMENTS` in a new process, after the Python statements `code`."""
        self.log.unlink(missing_ok=True)
        order = {"arguments": list(arguments), "output": str(self.log), "code": code}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self.child = int(self.process.stdout.readline())

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def wait_for(self, text: str, times: int) -> None:
        """Until `text` was printed so often, or the run has ended."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            output = self.output()
            if output.count(text) >= times or "\nEXIT " in output:
                break
            time.sleep(0.002)

    def kill(self) -> bool:
        """SIGKILL; False when the run had ended by itself."""
        ended = "\nEXIT " in self.output()
        self.signal(signal.SIGKILL)
        while not ended and _is_running(self.child):
            time.sleep(0.001)
        return "\nEXIT " not in self.output()

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.child, number)

    def wait(self) -> int:
        """The exit code of the run; 99 after SECONDS."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            output = self.output()
            if "\nEXIT " in output:
                return int(output.rpartition("EXIT ")[2])
            time.sleep(0.01)
        self.kill()
        return 99


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
