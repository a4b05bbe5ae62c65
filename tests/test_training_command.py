"""`denoise-se train` as a process: signals, kills, damaged states, full disks, memory, losses that are not finite."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from killing.lives import Zygote
from killing.training import EAGER, MODULES, RECIPE, equal, make_pictures, result, training

from denoise_se.calibration import read_calibration
from denoise_se.checkpoint import load_checkpoint, open_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]
STEPS = 30


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    work = tmp_path_factory.mktemp("training")
    make_pictures(work / "clean", 4)
    (work / "recipe.yaml").write_text(json.dumps(RECIPE))
    with Zygote(work, *MODULES) as zygote:
        yield zygote


@pytest.fixture(scope="module")
def whole(zygote: Zygote) -> dict[str, Any]:
    """The result of a run that nothing interrupts."""
    assert run(zygote, "whole") == 0, zygote.output()
    return result(zygote.work / "whole")


@pytest.fixture
def folder(zygote: Zygote, request: pytest.FixtureRequest) -> Path:
    """A run folder of the test's own, not made yet."""
    return zygote.work / re.sub(r"\W", "-", request.node.name)[-60:]


def run(zygote: Zygote, out: str | Path, *options: str, code: str = "") -> int:
    zygote.start(training(Path(out).name, STEPS, *options), code)
    return zygote.wait()


def assert_same(folder: Path, whole: dict[str, Any]) -> None:
    found = result(folder)
    assert [key for key in whole if not equal(found[key], whole[key])] == []
    assert not list(folder.glob(".*"))


def train_slowly(step_seconds: float = 0.02) -> str:
    """The code that makes each step last, so that a signal finds the run at work."""
    return (
        "import time, denoise_se.training as t\n"
        "step = t.DenoisingTask.training_step\n"
        f"t.DenoisingTask.training_step = lambda *a: (time.sleep({step_seconds}), step(*a))[1]\n"
    )


# --- rehearsal -------------------------------------------------------------------------------------------------------


def test_pairs_rehearse_on_a_folder_of_other_pictures_and_resume_with_that_one_only(zygote: Zygote, whole: Any) -> None:
    work, start = zygote.work, "whole/best.safetensors"
    make_pictures(work / "others", 3, first=10)
    make_pictures(work / "fewer", 2, first=10)
    (work / "noisy").mkdir()
    for path in (work / "clean").iterdir():
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        noise = np.random.default_rng(0).normal(0, 10, picture.shape)
        cv2.imwrite(str(work / "noisy" / path.name), np.clip(np.rint(picture + noise), 0, 255))
    options = ("train", "-o", "practised", "--pairs", "noisy", "clean", "--init", start, "--steps", "4")
    command = [*options, "--config", "recipe.yaml", "--rehearse"]
    zygote.start([*command, "others"])
    assert zygote.wait() == 0, zygote.output()
    assert "15% of the steps rehearse the start's own noise, on 3 pictures of others" in zygote.output()
    assert "training for 4 steps" in zygote.output() and "step 4: validation" in zygote.output()
    card = (work / "practised" / "card.md").read_text()
    assert "rehearsed, on 3 pictures of others" in card and "## int8" in card
    assert re.search(r"^int8: (costs|would cost) \d\.\d+ dB", zygote.output(), re.MULTILINE)
    assert read_calibration(open_checkpoint(work / "practised" / "best.safetensors"))
    zygote.start([*command, "fewer", "--resume"])
    assert zygote.wait() == 2 and "was started with other images" in zygote.output()


def test_a_run_is_not_resumed_with_other_pictures_of_the_same_names(zygote: Zygote, whole: Any) -> None:
    shutil.copytree(zygote.work / "whole", zygote.work / "of-others")
    pictures = {path: path.read_bytes() for path in sorted((zygote.work / "clean").iterdir())}
    try:
        for path, other in zip(pictures, reversed(pictures.values()), strict=True):
            path.write_bytes(other)
        assert run(zygote, "of-others", "--resume") == 2 and "was started with other images" in zygote.output()
    finally:
        for path, own in pictures.items():
            path.write_bytes(own)


# --- stopped and killed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "options"),
    [(signal.SIGTERM, 143, ["--workers", "2"]), (signal.SIGINT, 130, ["--minutes", "600"])],
)
def test_a_signal_ends_a_run_with_a_checkpoint_and_its_code_and_resume_completes_it(
    zygote: Zygote, whole: dict[str, Any], folder: Path, number: signal.Signals, code: int, options: list[str]
) -> None:
    zygote.start(training(folder.name, STEPS, *options), "import os; os.setsid()\n" + train_slowly(0.3))
    while not (folder / "last.ckpt").exists():
        time.sleep(0.01)
    time.sleep(1)
    began = time.time()
    os.killpg(zygote.child, number)  # to the workers too, as a terminal, systemd and Slurm do
    assert zygote.wait() == code
    assert "--resume" in zygote.output() and "Traceback" not in zygote.output()
    assert began < (folder / "last.ckpt").stat().st_mtime < began + 30
    assert run(zygote, folder, "--resume", *options) == 0, zygote.output()
    assert_same(folder, whole)


@pytest.mark.parametrize(("module", "write"), [("training_state", 6), ("checkpoint", 2)])
def test_a_kill_in_the_middle_of_writing_a_checkpoint_leaves_the_former_one_whole(
    zygote: Zygote, whole: dict[str, Any], folder: Path, module: str, write: int
) -> None:
    plant = (
        f"import contextlib, os, denoise_se.{module} as m\n"
        "real, count = m.replacing, [0]\n"
        "@contextlib.contextmanager\n"
        "def replacing(path):\n"
        "    with real(path) as file:\n"
        "        yield file\n"
        "        count[0] += 1\n"
        f"        if count[0] == {write}:\n"
        "            file.truncate(file.tell() // 2)\n"
        "            os.kill(os.getpid(), 9)\n"
        "m.replacing = replacing\n"
    )
    zygote.start(training(folder.name, STEPS), f"{EAGER}\n{plant}")
    while not list(folder.glob(".*.tmp")) or _alive(zygote.child):
        time.sleep(0.01)
    before = result_of_state(folder)
    load_checkpoint(folder / "best.safetensors")
    assert 0 < before < STEPS
    assert run(zygote, folder, "--resume") == 0, zygote.output()
    assert_same(folder, whole)


def result_of_state(folder: Path) -> int:
    import torch

    return int(torch.load(folder / "last.ckpt", weights_only=True)["global_step"])


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def flipped(data: bytes, place: int) -> bytes:
    """With the lowest bit of a byte changed."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


# --- refused ---------------------------------------------------------------------------------------------------------


def test_a_state_that_was_cut_or_changed_by_a_byte_is_refused_with_the_mend(
    zygote: Zygote, whole: dict[str, Any], folder: Path
) -> None:
    sound = (zygote.work / "whole" / "last.ckpt").read_bytes()
    weight = next(iter(whole["the weights"].values())).numpy().tobytes()
    middle = sound.index(weight) + len(weight) // 2
    flags = sound.index(b"PK\1\2") + 8  # of the first entry of the directory; bit 0 says that it is encrypted
    folder.mkdir()
    for damaged in (sound[:middle], flipped(sound, middle), flipped(sound, flags)):
        (folder / "last.ckpt").write_bytes(damaged)
        assert run(zygote, folder, "--resume") == 2
        output = zygote.output()
        assert "last.ckpt: is no state" in output and "--init" in output and "Traceback" not in output
        assert (folder / "last.ckpt").read_bytes() == damaged


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seed", "7"], "seed is 7 and was 0"),
        (["--noise", "gaussian:30"], "noise is 'gaussian:30' and was 'gaussian:25'"),
        (["--clean", "other"], "other images"),
    ],
)
def test_resuming_another_run_is_refused_by_the_name_of_what_differs(
    zygote: Zygote, whole: dict[str, Any], options: list[str], named: str
) -> None:
    if not (zygote.work / "other").exists():
        make_pictures(zygote.work / "other", 5)
    assert run(zygote, "whole", "--resume", *options) == 2
    assert named in zygote.output() and "--init" in zygote.output()


# --- what runs out ---------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_during_a_checkpoint_ends_the_run_with_the_former_one(
    zygote: Zygote, whole: dict[str, Any], folder: Path
) -> None:
    # the first state has no moments of the optimizer yet, so it fits where the second does not
    most = (zygote.work / "whole" / "last.ckpt").stat().st_size - 1000
    plant = f"{EAGER}\nimport resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))"
    assert run(zygote, folder, code=plant) == 1
    output = zygote.output()
    assert "last.ckpt: cannot be written (File too large)" in output and "--resume" in output
    assert "Traceback" not in output and not list(folder.glob(".*"))
    assert run(zygote, folder, "--resume") == 0, zygote.output()
    assert_same(folder, whole)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
def test_memory_that_runs_out_names_the_batch_and_the_patch_to_try(zygote: Zygote, folder: Path) -> None:
    (zygote.work / "large").mkdir()
    for index in range(2):
        cv2.imwrite(str(zygote.work / f"large/{index}.png"), np.full((512, 512), 99 + index, np.uint8))
    room = 400_000_000 // os.sysconf("SC_PAGE_SIZE")
    plant = (
        "import resource\n"
        f"most = (int(open('/proc/self/statm').read().split()[0]) + {room}) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
    )
    options = ["--clean", "large", "--batch", "64", "--patch", "512"]
    assert run(zygote, folder, *options, code=plant) == 1
    output = zygote.output()
    assert "out of memory with --batch 64 --patch 512; try --batch 32 or --patch 256" in output, output
    assert "Traceback" not in output


# --- losses that are not finite --------------------------------------------------------------------------------------


def bad_losses(first: int, last: int) -> str:
    return (
        "import denoise_se.training as t\n"
        "real = t.DenoisingTask.loss\n"
        "t.DenoisingTask.loss = lambda self, *a: real(self, *a) * "
        f"(float('nan') if {first} <= self.global_step <= {last} else 1)\n"
    )


def test_losses_that_stay_bad_end_the_run_with_the_last_good_state_and_the_mend(
    zygote: Zygote, whole: dict[str, Any], folder: Path
) -> None:
    assert run(zygote, folder, code=bad_losses(11, 99)) == 1
    output = zygote.output()
    assert "10 steps in a row, the last at step 20" in output and "Traceback" not in output
    assert "--init" in output and "learning_rate" in output
    found = result(folder)
    assert 10 <= found["the step"] <= 20
    assert all(value.isfinite().all() for value in found["the weights"].values())
    load_checkpoint(folder / "best.safetensors")


def test_a_few_bad_losses_are_passed_over_counted_and_the_same_after_a_resume(
    zygote: Zygote, whole: dict[str, Any], folder: Path
) -> None:
    assert run(zygote, folder, code=bad_losses(11, 13)) == 0, zygote.output()
    assert "skipped steps: 3" in zygote.output() and "skipped steps: 3" in (folder / "card.md").read_text()
    uninterrupted = result(folder)
    assert not equal(uninterrupted["the weights"], whole["the weights"])
    again = folder.with_name("again")
    kill = "step = t.DenoisingTask.training_step; import os\n"
    kill += (
        "t.DenoisingTask.training_step = lambda s, *a: step(s, *a) if s.global_step < 13 else os.kill(os.getpid(), 9)"
    )
    zygote.start(training(again.name, STEPS), f"{EAGER}\n{bad_losses(11, 13)}{kill}")
    while _alive(zygote.child):
        time.sleep(0.01)
    assert run(zygote, again, "--resume", code=bad_losses(11, 13)) == 0, zygote.output()
    assert_same(again, uninterrupted)
    assert "skipped steps: 3" in zygote.output()
