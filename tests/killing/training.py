"""A training run that is killed with SIGKILL at random moments and resumed until it is done.

What it leaves is compared with an uninterrupted run bit for bit: weights, their average, the optimizer's moments, and
the figures of every validation.
"""

from __future__ import annotations

import csv
import json
import random
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import safe_open

from killing.lives import SECONDS, Zygote

MODULES = ("denoise_se.app.train_command", "denoise_se.fitting", "denoise_se.training_plan", "kornia.filters")
# a state after every step, so that many kills fall into the writing of one
EAGER = "import denoise_se.run_folder as r; r.SAVE_SECONDS = -1.0"
RECIPE = {
    "network": {"channels": 1, "widths": [4, 8], "blocks": 1},
    "precision": "fp32", "validations": 6, "warmup_steps": 2, "batch": 2, "patch": 16,
}  # fmt: skip
STEPS_A_LIFE = 8
FILES = {"best.safetensors", "last.ckpt", "metrics.csv", "curve.png", "card.md", "samples.png", "tensorboard"}
FILES |= {"best.int8.json"} if find_spec("openvino") else set()


@dataclass
class TrainingTally:
    """What the kills did; `faults` are sentences."""

    steps: int
    kills: int = 0
    rounds: int = 0
    early: int = 0
    torn: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills of a training of {self.steps} steps in {self.rounds} rounds ({self.early} before the "
            f"first state was saved, {self.torn} in the middle of writing a file): {len(self.faults)} faults"
        )


def train_killed(work: Path, *, steps: int, kills: int, seed: int) -> TrainingTally:
    """Kills the run `kills` times in the empty folder `work`, round after round, each resumed until it is done."""
    tally, chance = TrainingTally(steps), random.Random(seed)
    make_pictures(work / "clean", 4)
    (work / "recipe.yaml").write_text(json.dumps(RECIPE))
    with Zygote(work, *MODULES) as zygote:
        zygote.start(training("whole", steps), EAGER)
        if zygote.wait() != 0:
            raise RuntimeError(f"the clean run fails: {zygote.output()[-500:]}")
        whole = result(work / "whole")
        while tally.kills < kills:
            tally.rounds += 1
            folder = work / f"run{tally.rounds}"
            _kill_until_done(zygote, folder, kills, tally, chance)
            if tally.faults:
                break
            _compare(folder, whole, tally)
    return tally


def training(out: str, steps: int, *options: str) -> list[str]:
    return [
        *("train", "-o", out, "--clean", "clean", "--noise", "gaussian:25", "--init", "none"),
        *("--config", "recipe.yaml", "--steps", str(steps), *options),
    ]


def _kill_until_done(zygote: Zygote, folder: Path, kills: int, tally: TrainingTally, chance: random.Random) -> None:
    while True:
        resumable = (folder / "last.ckpt").exists()
        zygote.start(training(folder.name, tally.steps, *(["--resume"] if resumable else [])), EAGER)
        if tally.kills < kills:
            _wait_for_states(zygote, folder, chance.randint(0, 2 * STEPS_A_LIFE))
            if chance.random() < 0.5:
                _wait_for_write(zygote, folder)
            else:
                time.sleep(chance.random() * 0.05)
            if zygote.kill():
                tally.kills += 1
                tally.early += not (folder / "last.ckpt").exists()
                tally.torn += any(folder.glob(".*.tmp"))
                continue
        code = zygote.wait()
        if code != 0:
            tally.faults.append(f"{folder.name}: the last run ended with {code}: {zygote.output()[-300:]}")
        return


def _wait_for_states(zygote: Zygote, folder: Path, states: int) -> None:
    """Until last.ckpt was replaced so often, or the run has ended."""
    seen, end = _identity(folder), time.monotonic() + SECONDS
    while states and time.monotonic() < end and "\nEXIT " not in zygote.output():
        now = _identity(folder)
        states -= now != seen
        seen = now
        time.sleep(0.001)


def _wait_for_write(zygote: Zygote, folder: Path) -> None:
    """Until there is a file that is not yet under its name, or the run has ended."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and not any(folder.glob(".*.tmp")) and "\nEXIT " not in zygote.output():
        pass


def _identity(folder: Path) -> int:
    try:
        return (folder / "last.ckpt").stat().st_ino
    except FileNotFoundError:
        return 0


def _compare(folder: Path, whole: dict[str, Any], tally: TrainingTally) -> None:
    names = {path.name for path in folder.iterdir()}
    if names != FILES:
        tally.faults.append(f"{folder.name}: holds {sorted(names ^ FILES)}, or lacks it")
        return
    found = result(folder)
    tally.faults += [f"{folder.name}: {key} differs" for key in whole if not equal(found[key], whole[key])]


def result(folder: Path) -> dict[str, Any]:
    """Everything of a run's result that time and place do not change."""
    state = torch.load(folder / "last.ckpt", weights_only=True)
    with safe_open(folder / "best.safetensors", "pt") as file:
        best = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        record = json.loads(file.metadata()["training"])["steps"], file.metadata()["psnr"]
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [
            {key: value for key, value in row.items() if key not in ("seconds", "patches_per_second")}
            for row in csv.DictReader(file)
        ]
    return {
        "the step": state["global_step"],
        "the weights": state["state_dict"],
        "the optimizer": state["optimizer_states"],
        "best.safetensors": (best, record),
        "metrics.csv": rows,
    }


def equal(first: Any, second: Any) -> bool:
    """Whether two nests of containers hold the same, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def make_pictures(folder: Path, count: int, side: int = 32, first: int = 0) -> None:
    """Smooth grey pictures; those of other numbers from `first` on are others."""
    folder.mkdir()
    for index in range(first, first + count):
        small = np.random.default_rng(index).integers(30, 220, (4, 4), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC))
