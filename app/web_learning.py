"""Learning a device's noise: `denoise-se train` as a process of its own, one at a time, watched from here."""

from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from denoise_se.app.web_cache import linked
from denoise_se.app.web_models import KEPT, Shelf
from denoise_se.app.web_parts import without_options
from denoise_se.errors import EXIT_DONE, EXIT_TERMINATED, UsageError, last_message
from denoise_se.training_config import LEAST_ESTIMATED_GAIN

LATE = 600  # seconds over its budget that a run may take to read, validate and write
PATIENCE = 20  # seconds to write what was reached when it is stopped
COURTESY = 5  # added to the process's niceness: people who denoise come first
State = Literal["running", "learned", "no better", "failed"]


@dataclass
class Lesson:
    """A training run: who asked for it, how far it is, and how it ended (`state`, `message`)."""

    name: str
    owner: str
    minutes: float
    folder: Path
    process: subprocess.Popen[bytes]
    least_gain: float = 0.0  # dB, by which the run replaces its start
    began: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    state: State = "running"
    message: str = ""
    seen: list[tuple[float, float]] = field(default_factory=list)  # the curve, once its file is gone

    @property
    def run(self) -> Path:
        return self.folder / "run" / self.name

    @property
    def seconds(self) -> float:
        """Since the start, reading the photos included."""
        return time.monotonic() - self.began

    def curve(self) -> list[tuple[float, float]]:
        """(seconds, validation PSNR in dB) of each validation up to now that could be judged, the untrained one first;
        empty when that one could not."""
        try:
            with (self.run / "metrics.csv").open(newline="") as file:
                rows = [(float(row["seconds"]), float(row["val_psnr"])) for row in csv.DictReader(file)]
        except (OSError, KeyError, ValueError):  # not there yet
            return []
        return [row for row in rows if not math.isnan(row[1]) and not math.isnan(rows[0][1])]


def gain(curve: Sequence[tuple[float, float]]) -> float:
    """By how many dB the best validation is above the untrained one; 0 where none is, or that could not be judged."""
    return max([0.0, *(psnr - curve[0][1] for _, psnr in curve if psnr > curve[0][1])]) if curve else 0.0


class School:
    """Starts lessons, at most one at a time; what they learn goes to the shelf."""

    def __init__(self, shelf: Shelf, home: Path, max_pixels: int) -> None:
        self.shelf, self.home, self.max_pixels = shelf, home, max_pixels
        self.lesson: Lesson | None = None
        self._lock = threading.Lock()
        self._watch: threading.Thread | None = None

    def start(self, name: str, noisy: Sequence[Path], clean: Sequence[Path], minutes: float, owner: str) -> Lesson:
        """Begin to learn from noisy photos, with clean ones of the same names or without.

        Raises UsageError: a lesson is going on, a name that is wrong or taken, or two photos of one name.
        """
        with self._lock:
            if self.lesson is not None and self.lesson.state == "running":
                left = max(1, round(self.lesson.minutes - self.lesson.seconds / 60))
                raise UsageError(f"another model is being learned here; it takes about {left} more minute(s)")
            self.shelf.check_new(name)
            self.shelf.prepare()
            self.home.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self.home))  # a name that nobody can guess
            try:
                words = ["--noisy", str(_gathered(noisy, folder / "noisy"))]
                if clean:
                    words = ["--pairs", words[1], str(_gathered(clean, folder / "clean"))]
                process = self._process(
                    folder,
                    [
                        "-o",
                        str(folder / "run" / name),
                        *words,
                        "--minutes",
                        f"{minutes:g}",
                        "--max-pixels",
                        f"{self.max_pixels}",
                    ],
                )
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self.lesson = Lesson(name, owner, minutes, folder, process, 0.0 if clean else LEAST_ESTIMATED_GAIN)
            self._watch = threading.Thread(target=self._follow, args=(self.lesson,), name="lesson")
            self._watch.start()
            return self.lesson

    @staticmethod
    def _process(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "denoise_se.app", "train", *words, "--quiet"]
        with (folder / "log").open("wb") as log:
            # a group of its own, so that Ctrl-C in the server's terminal reaches the server alone, which then ends it
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + COURTESY))
        return process

    def cancel(self, owner: str) -> None:
        """End the lesson of this owner; what it reached is kept when it is better than the model it started from."""
        lesson = self.lesson
        if lesson is not None and lesson.owner == owner:
            self._end(lesson)

    def close(self) -> None:
        """End what goes on; returns when its process has ended."""
        if self.lesson is not None:
            self._end(self.lesson)
        if self._watch is not None:
            self._watch.join()

    @staticmethod
    def _end(lesson: Lesson) -> None:
        if lesson.state == "running" and not lesson.cancelled:
            lesson.cancelled = True
            lesson.process.send_signal(signal.SIGTERM)

    def _follow(self, lesson: Lesson) -> None:
        """Waits for the process, on a thread; then keeps or drops what it wrote."""
        patience = 0.0
        while lesson.process.poll() is None:
            time.sleep(0.2)
            if lesson.seconds > 60 * lesson.minutes + LATE:
                self._end(lesson)
            patience += 0.2 if lesson.cancelled else 0
            if patience > PATIENCE:
                lesson.process.kill()
        state: State = "failed"
        try:
            lesson.seen = lesson.curve()
            state, lesson.message = self._outcome(lesson)
        except (UsageError, OSError) as error:
            lesson.message = str(error)
        finally:
            shutil.rmtree(lesson.folder, ignore_errors=True)
            lesson.state = state  # last, whatever happened: from here on another lesson may begin

    def _outcome(self, lesson: Lesson) -> tuple[State, str]:
        """How it ended, and what is told of it; keeps the model when it is worth it. Raises UsageError."""
        curve, code = lesson.seen, lesson.process.returncode
        gained = gain(curve)
        if code not in (EXIT_DONE, EXIT_TERMINATED) and not lesson.cancelled:
            return "failed", _last_words(lesson)
        if gained > lesson.least_gain and (lesson.run / KEPT[0]).is_file():
            self.shelf.add(lesson.run, lesson.name)
            text = f"{curve[0][1] + gained:.2f} dB on photos kept aside, {gained:.2f} dB more than before."
            return "learned", f"{lesson.name}: {text}"
        if lesson.cancelled:
            return "no better", "Stopped before it was better than the model it started from; nothing was added."
        return "no better", "The model it started from is as good on these photos; nothing was added."


def _gathered(photos: Sequence[Path], folder: Path) -> Path:
    """A folder of the photos under their own names: links where that can be, so that they outlive the uploads."""
    folder.mkdir()
    for photo in photos:
        target = folder / photo.name
        if target.exists():
            raise UsageError(f"two photos are called {photo.name}; rename one of them")
        linked(photo, target)
    return folder


def _last_words(lesson: Lesson) -> str:
    """The message with which the process ended, without the folders of the server."""
    text = (lesson.folder / "log").read_text(encoding="utf-8", errors="replace")
    message = last_message(text)
    if message is None:
        return (
            f"The training ended with code {lesson.process.returncode}; it may have needed more memory than there is."
        )
    return without_options(message.replace(f"{lesson.folder}/", ""))
