"""Training: what is written, that it repeats itself, and what survives a stop, a kill, a bad loss and a bad file."""

from __future__ import annotations

import csv
import json
import math
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny_model import TINY, save_tiny
from torch import nn
from torch.optim.swa_utils import AveragedModel

from denoise_se import provenance, run_folder
from denoise_se.budget import Budget
from denoise_se.checkpoint import load_checkpoint, save_checkpoint
from denoise_se.datasets import Example
from denoise_se.errors import CheckpointError, Interrupted, TrainingError, UsageError
from denoise_se.fitting import fit
from denoise_se.network import NetworkConfig, build_network
from denoise_se.noise import Noisy, parse_noise_spec
from denoise_se.objectives import own_noise, with_noise
from denoise_se.run_folder import RunFolder
from denoise_se.run_record import RunRecord
from denoise_se.training import DenoisingTask, augment, ema_with_warmup
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import Pair
from denoise_se.training_outcome import OutcomeReport
from denoise_se.warm_start import warm_start

TINY_GREY = NetworkConfig(channels=1, widths=(4, 8), blocks=1)
CONFIG = TrainingConfig(
    network=TINY_GREY, noise="gaussian:25", steps=8, minutes=0, batch=2, patch=16, learning_rate=3e-3, warmup_steps=2,
    validations=2, precision="fp32",
)  # fmt: skip


def smooth(seed: int, side: int = 32, channels: int = 1) -> torch.Tensor:
    small = np.random.default_rng(seed).integers(30, 220, (4, 4, 3), np.uint8)
    image = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)[..., :channels]
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


TRAIN = [Pair(f"t{i}", None, smooth(i)) for i in range(3)]
VALIDATION = [Pair("v", None, smooth(9))]


def train(folder: Path, config: TrainingConfig = CONFIG, **options: object) -> RunFolder:
    options = {"data": "made in a test", "quiet": True, "train": TRAIN, "validation": VALIDATION, **options}
    return fit(folder, config, **options)  # type: ignore[arg-type]


def state(folder: Path) -> dict[str, torch.Tensor]:
    """Weights and their average, as saved."""
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    return {key: value for key, value in saved["state_dict"].items() if key.startswith(("network", "average"))}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all steps without an interruption."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder)
    return folder


@pytest.fixture(autouse=True)
def handlers_are_given_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


# --- what a run leaves -----------------------------------------------------------------------------------------------


def test_a_run_writes_its_files_and_no_others(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {"best.safetensors", "last.ckpt", "metrics.csv", "curve.png", "card.md", "tensorboard"}
    assert cv2.imread(str(whole / "curve.png")) is not None
    with (whole / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 4, 8]
    assert list(rows[0]) == ["step", "seconds", "loss", "learning_rate", "patches_per_second", "val_psnr", "val_ssim"]
    assert all(15 < float(row["val_psnr"]) < 40 and 0 < float(row["val_ssim"]) < 1 for row in rows)
    card = (whole / "card.md").read_text()
    assert "made in a test" in card and "gaussian:25" in card and "8 of 2 patches of 16 pixels" in card


def test_the_best_checkpoint_is_the_average_and_carries_its_record(whole: Path) -> None:
    checkpoint = load_checkpoint(whole / "best.safetensors")
    assert checkpoint.config == TINY_GREY and checkpoint.training["recipe"]["noise"] == "gaussian:25"
    with (whole / "metrics.csv").open(newline="") as file:
        best = max(csv.DictReader(file), key=lambda row: float(row["val_psnr"]))
    assert checkpoint.psnr["validation"]["psnr"] == float(best["val_psnr"])
    assert int(best["step"]) == 8, "eight steps on a fixed noise are better than none"
    weights, average = dict(checkpoint.weights), state(whole)
    assert all(torch.equal(weights[key], average[f"average.module.{key}"]) for key in weights)
    with safe_open(whole / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["training"])["steps"] == 8


def test_the_record_names_the_commit_of_the_start_whatever_the_checkout_is_at_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "commit", lambda: "abc1234")
    at_step(monkeypatch, 2, lambda: monkeypatch.setattr(provenance, "commit", lambda: "def5678"))
    train(tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / "best.safetensors").training["commit"] == "abc1234"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "again")
    assert same(state(whole), state(tmp_path / "again"))
    train(tmp_path / "other", replace(CONFIG, seed=1))
    assert not same(state(whole), state(tmp_path / "other"))


# --- stopping and going on -------------------------------------------------------------------------------------------


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: object) -> None:
    """Do `action` in the training step number `step`."""
    original = DenoisingTask.training_step

    def training_step(self: DenoisingTask, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        if self.global_step == step:
            action()  # type: ignore[operator]
        return original(self, batch, index)

    monkeypatch.setattr(DenoisingTask, "training_step", training_step)


def test_a_signal_while_the_report_is_made_ends_the_run_with_its_code_and_resumes(tmp_path: Path) -> None:
    def report(folder: Path, best: object, heed: Callable[[], None]) -> dict[str, str]:
        heed()
        os.kill(os.getpid(), signal.SIGTERM)
        heed()
        raise AssertionError("it goes on after the signal")

    with pytest.raises(Interrupted, match="stopped by SIGTERM; go on with --resume") as caught:
        train(tmp_path, report=report)
    assert caught.value.exit_code == 143
    run = train(tmp_path, resume=True, report=lambda folder, best, heed: {"told": "at last"})
    assert run.record.summary()["told"] == "at last"


@pytest.mark.parametrize(("steps", "validations"), [(8, 2), (19, 10), (3, 10), (40, 7)])
def test_a_run_of_steps_validates_as_often_as_it_says(tmp_path: Path, steps: int, validations: int) -> None:
    record = RunRecord({"validations": validations}, "", None, (0, 0), rows=[{"seconds": 0.0}])
    run = RunFolder(tmp_path, record, images={})
    budget = Budget(steps, 0)
    due = [step for step in range(1, steps + 1) if run._validation_is_due(budget, step)]
    assert len(due) == min(steps, validations) and due[-1] == steps


@pytest.mark.parametrize(("number", "code", "step"), [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 5)])
def test_a_stopped_run_resumes_to_the_very_weights_of_an_uninterrupted_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int, step: int
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match="--resume") as caught:
            train(tmp_path)
    assert caught.value.exit_code == code
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == step + 1
    assert (tmp_path / "card.md").is_file() and (tmp_path / "curve.png").is_file()
    run = train(tmp_path, resume=True)
    assert same(state(whole), state(tmp_path))
    assert run.record.rows[-1]["step"] == 8 and run.record.rows[0]["step"] == 0


class Killed(BaseException):
    """What the files look like after it is what they look like after kill -9: nothing more is saved."""


def kill() -> None:
    raise Killed


@pytest.mark.parametrize(("step", "save_seconds"), [(0, 1000), (3, 0), (6, 1000)])
def test_a_killed_run_resumes_to_the_very_weights_of_an_uninterrupted_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, save_seconds: int
) -> None:
    monkeypatch.setattr(run_folder, "SAVE_SECONDS", save_seconds)
    with monkeypatch.context() as patch:
        at_step(patch, step, kill)
        with pytest.raises(Killed):
            train(tmp_path)
    train(tmp_path, resume=True)
    assert same(state(whole), state(tmp_path))


def test_a_run_of_minutes_resumes_to_the_very_weights_of_an_uninterrupted_one_if_its_clock_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learning rate follows the clock, so this clock ticks once a step."""
    clock = [0.0]
    original = DenoisingTask.training_step

    def training_step(self: DenoisingTask, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        clock[0] += 1
        return original(self, batch, index)

    monkeypatch.setattr("denoise_se.budget.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(DenoisingTask, "training_step", training_step)
    config = replace(CONFIG, steps=0, minutes=8 / 60)
    uninterrupted = train(tmp_path / "whole", config)
    clock[0] = 100.0
    monkeypatch.setattr(run_folder, "SAVE_SECONDS", 2)
    with monkeypatch.context() as patch:
        at_step(patch, 7, kill)
        with pytest.raises(Killed):
            train(tmp_path / "cut", config)
    resumed = train(tmp_path / "cut", config, resume=True)
    assert same(state(tmp_path / "whole"), state(tmp_path / "cut"))
    assert [[row["step"] for row in run.record.rows] for run in (uninterrupted, resumed)] == [[0, 5, 9]] * 2
    assert uninterrupted.record.rows[-1]["loss"] == resumed.record.rows[-1]["loss"]


def test_a_state_is_at_most_two_minutes_old_however_rare_the_validations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ages, original = [0.0], [], RunFolder.on_train_batch_end

    def on_train_batch_end(self: RunFolder, *arguments: object) -> None:
        clock[0] += 50  # a step takes this long
        ages.append(clock[0] - self._saved)
        original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("denoise_se.budget.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(RunFolder, "on_train_batch_end", on_train_batch_end)
    train(tmp_path, replace(CONFIG, steps=20, validations=1))
    assert max(ages) <= 120 + 2 * 50


def test_a_kill_before_the_first_best_was_written_can_be_resumed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_write_best", lambda *arguments: kill())
        with pytest.raises(Killed):
            train(tmp_path)
    assert not (tmp_path / "best.safetensors").exists()
    (tmp_path / ".0123abcd.tmp").write_bytes(b"left by a kill")
    train(tmp_path, resume=True)
    assert same(state(whole), state(tmp_path)) and not list(tmp_path.glob(".*.tmp"))
    assert load_checkpoint(tmp_path / "best.safetensors").training["steps"] == 8


def test_a_best_that_is_lost_or_damaged_is_written_again_by_the_next_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 6, kill)
        with pytest.raises(Killed):
            train(tmp_path)
    (tmp_path / "best.safetensors").write_bytes(b"damaged")
    train(tmp_path, resume=True)
    load_checkpoint(tmp_path / "best.safetensors")


def test_a_run_may_be_resumed_with_a_larger_budget_but_not_on_other_images(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(UsageError, match="other images"):
        train(tmp_path / "run", resume=True, train=[*TRAIN, Pair("t3", None, smooth(3))])
    run = train(tmp_path / "run", replace(CONFIG, steps=12), resume=True)
    assert run.record.rows[-1]["step"] == 12


def test_a_run_of_a_version_that_had_fewer_fields_is_resumed_as_their_defaults_say(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    saved = torch.load(run / "last.ckpt", weights_only=True)
    (held,) = [state for state in saved["callbacks"].values() if "recipe" in state]
    for gone in ("drawings", "compile"):
        del held["recipe"][gone]
    del held["recipe"]["network"]["unshuffle"]
    torch.save(saved, run / "last.ckpt")
    longer = replace(CONFIG, steps=10)
    with pytest.raises(UsageError, match=r"drawings is 0\.5 and was 0\.0"):
        train(run, replace(longer, drawings=0.5), resume=True)
    assert train(run, longer, resume=True).record.rows[-1]["step"] == 10


def test_patches_may_grow_on_the_way_and_the_card_says_when(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    larger = replace(CONFIG, steps=10, batch=1, patch=24)
    train(tmp_path / "run", larger, resume=True)
    train(tmp_path / "run", replace(larger, steps=12), resume=True)
    changes = [{"step": 8, "steps": 10, "batch": 1, "patch": 24}, {"step": 10, "steps": 12}]
    assert load_checkpoint(tmp_path / "run/best.safetensors").training["changes"] in (changes[:1], changes)
    card = (tmp_path / "run/card.md").read_text()
    assert "| changed on the way | from step 8: steps 10, batch 1, patch 24; from step 10: steps 12 |" in card
    assert "changed on the way" not in (whole / "card.md").read_text()


def test_a_stop_during_a_validation_does_not_wait_for_its_end(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, original = [], DenoisingTask.validation_step

    def validation_step(self: DenoisingTask, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            images.append(index)
        original(self, batch, index)

    several = {"validation": [*VALIDATION, Pair("v1", None, smooth(10)), Pair("v2", None, smooth(11))]}
    with monkeypatch.context() as patch:
        patch.setattr(DenoisingTask, "validation_step", validation_step)
        with pytest.raises(Interrupted):
            train(tmp_path, **several)
    assert images == [0] and torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
    run = train(tmp_path, resume=True, **several)
    assert same(state(whole), state(tmp_path)) and [row["step"] for row in run.record.rows] == [0, 4, 8]


def test_a_kill_in_the_middle_of_saving_keeps_the_last_state(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: patch.setattr("denoise_se.atomic_file.os.fsync", lambda descriptor: kill()))
        patch.setattr(run_folder, "SAVE_SECONDS", 0)
        with pytest.raises(Killed):
            train(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))
    train(tmp_path, resume=True)
    assert same(state(whole), state(tmp_path))


def test_a_finished_run_that_is_resumed_stays_as_it_is(whole: Path, tmp_path: Path) -> None:
    train(tmp_path)
    best = (tmp_path / "best.safetensors").read_bytes()
    run = train(tmp_path, resume=True)
    assert same(state(whole), state(tmp_path)) and (tmp_path / "best.safetensors").read_bytes() == best
    assert run.record.rows[-1]["step"] == 8


def test_folders_that_hold_a_run_or_none_are_told_apart(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume"):
        train(whole)
    with pytest.raises(UsageError, match=r"no last\.ckpt"):
        train(tmp_path / "new", resume=True)
    save_tiny(tmp_path / "mine" / "best.safetensors")
    with pytest.raises(UsageError, match="move it"):
        train(tmp_path / "mine")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written"):
        train(tmp_path / "file" / "run")


def test_a_state_that_is_a_pickle_never_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(tmp_path / "owned"), "w"))

    whole_state = {"state_dict": {}, "evil": Evil()}
    for write in (
        lambda path: path.write_bytes(pickle.dumps(Evil())),
        lambda path: torch.save(whole_state, path),
        lambda path: path.write_bytes(b"PK\x03\x04 cut"),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save({"a": 1}, path),
        lambda path: torch.save([1], path),
    ):
        write(tmp_path / "last.ckpt")
        with pytest.raises(UsageError, match=r"last\.ckpt: is no state of a training run") as caught:
            train(tmp_path, resume=True)
        assert caught.value.exit_code == 2 and not (tmp_path / "owned").exists()


def test_a_state_of_another_network_is_refused(whole: Path) -> None:
    before = (whole / "last.ckpt").read_bytes()
    with pytest.raises(UsageError, match=r"network.widths is \[4, 12\] and was \[4, 8\]"):
        train(whole, replace(CONFIG, network=replace(TINY_GREY, widths=(4, 12))), resume=True)
    assert (whole / "last.ckpt").read_bytes() == before


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_steps_whose_loss_is_not_finite_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = DenoisingTask.loss, []

    def loss(self: DenoisingTask, output: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        seen.append([weight.detach().clone() for weight in self.network.parameters()])
        return original(self, output, clean) * (math.nan if 3 <= self.global_step <= 5 else 1)

    monkeypatch.setattr(DenoisingTask, "loss", loss)
    run = train(tmp_path)
    stood = [all(map(torch.equal, seen[step], seen[step + 1])) for step in range(7)]
    assert stood == [False, False, False, True, True, True, False]
    assert run.record.summary()["skipped steps"].startswith("3,")


def test_weights_that_are_not_finite_are_no_perfect_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ruin(self: DenoisingTask, *arguments: object) -> None:
        self.average.module.tail.bias.fill_(math.nan)  # type: ignore[operator, union-attr]

    monkeypatch.setattr(DenoisingTask, "on_train_batch_end", ruin)
    with pytest.raises(TrainingError, match="not finite at step 3"):
        train(tmp_path)
    assert load_checkpoint(tmp_path / "best.safetensors").psnr["validation"]["psnr"] < 40


@pytest.mark.parametrize(
    ("told", "mend"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Bus error. out of shared memory", "--workers 0"),
        ("CUDA error: an illegal memory access was encountered", None),
    ],
)
def test_other_trouble_with_memory_is_not_called_out_of_memory(
    told: str, mend: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError(told)

    at_step(monkeypatch, 1, fail)
    with pytest.raises(TrainingError if mend else RuntimeError, match=mend or "illegal"):
        train(tmp_path)


def test_a_network_with_batchnorm_trains_and_its_average_counts_the_batches(tmp_path: Path) -> None:
    run = train(tmp_path, replace(CONFIG, network=replace(TINY_GREY, norm="batch")))
    counts = [count for name, count in load_checkpoint(run.best).weights.items() if name.endswith("batches_tracked")]
    assert counts and run.record.rows[-1]["val_psnr"] > 10
    assert {int(c) for name, c in state(tmp_path).items() if name.endswith("batches_tracked")} == {8}


def test_the_card_measures_on_the_noise_of_the_validation(tmp_path: Path) -> None:
    report = OutcomeReport(VALIDATION, None, parse_noise_spec(str(CONFIG.noise)), None, CONFIG.seed)
    run = train(tmp_path, report=report)
    tuned = float(run.record.summary()["tuned (PSNR, SSIM)"].split(" dB")[0])
    assert tuned == pytest.approx(max(row["val_psnr"] for row in run.record.rows), abs=0.006)


def test_noise_is_made_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched:
        def __call__(self, clean: torch.Tensor, generator: torch.Generator) -> Noisy:
            assert not torch.is_autocast_enabled("cpu")
            return Noisy(clean, clean[:, :1])

    with torch.autocast("cpu", dtype=torch.bfloat16):
        with_noise(Watched(), Example(*[torch.rand(1, 1, 8, 8)] * 3), torch.Generator())
        own_noise(Watched(), torch.rand(1, 1, 8, 8), torch.Generator())  # type: ignore[arg-type]


def test_memory_that_runs_out_is_answered_with_smaller_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    at_step(monkeypatch, 1, full)
    with pytest.raises(TrainingError, match="--batch 1 or --patch 16"):
        train(tmp_path)


def test_a_disk_that_is_full_names_the_file_and_keeps_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "SAVE_SECONDS", 0)
    at_step(monkeypatch, 2, lambda: monkeypatch.setattr("denoise_se.atomic_file.os.fsync", refuse))
    with pytest.raises(TrainingError, match=r"last\.ckpt: cannot be written \(No space left"):
        train(tmp_path)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(
    ("estimated", "scores", "kept"),
    [
        (False, [30.0, 30.05, 30.01], 1),
        (True, [30.0, 30.05, 30.09], 0),  # an estimate may be wrong by so much
        (True, [30.0, 30.05, 30.2, 30.15], 2),
        (True, [30.0, float("nan"), 30.2], 2),
        (True, [float("nan"), 40.0], 0),  # what cannot be judged at the start cannot be compared with
    ],
)
def test_weights_are_kept_when_they_beat_the_start_by_more_than_an_estimate_may_be_wrong(
    estimated: bool, scores: list[float], kept: int
) -> None:
    recipe = {"drawings": 0.0, "batch": 8}
    record = RunRecord(recipe, "data", None, (10, 4), estimated=estimated)
    for step, score in enumerate(scores):
        row = {"step": step, "val_psnr": score, "val_ssim": math.nan, "patches_per_second": math.nan}
        record.rows.append(row)
        if step == 0 or record.beaten_by(row):
            record.best_psnr = score
    assert record.improved == (kept > 0)
    told = next(line for key, line in record.summary().items() if f"best (step {kept})" in key)
    assert told.startswith("cannot be estimated" if math.isnan(scores[kept]) else f"{scores[kept]:.2f} dB")


# --- fine-tuning -----------------------------------------------------------------------------------------------------


def test_fine_tuning_that_does_not_beat_the_start_keeps_it_and_says_so(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = load_checkpoint(whole / "best.safetensors")
    original = DenoisingTask.loss
    monkeypatch.setattr(DenoisingTask, "loss", lambda self, output, clean: -original(self, output, clean))
    run = train(tmp_path, start=start)
    assert not run.record.improved and "did not beat" in run.record.summary()["note"]
    assert same(dict(load_checkpoint(run.best).weights), dict(start.weights))
    assert "did not beat" in (tmp_path / "card.md").read_text()


def test_validation_pairs_keep_their_own_noise_beside_synthetic_training_noise(tmp_path: Path) -> None:
    clean = smooth(9)
    exact = [Pair("v", clean.clone(), clean)]
    run = train(tmp_path, replace(CONFIG, steps=1), validation=exact)
    assert run.record.rows[0]["val_psnr"] == 60, "an untrained network changes nothing; nothing counts more"


def test_pairs_are_learnt_from_their_difference(tmp_path: Path) -> None:
    pairs = [Pair(p.name, (p.clean.int() + 20).clamp(0, 255).to(torch.uint8), p.clean) for p in (*TRAIN, *VALIDATION)]
    run = train(tmp_path, replace(CONFIG, noise=None, steps=24), train=pairs[:3], validation=pairs[3:])
    assert run.record.rows[0]["val_psnr"] == pytest.approx(20 * math.log10(255 / 20), abs=0.1)
    assert run.record.rows[-1]["val_psnr"] > run.record.rows[0]["val_psnr"] + 1


def perturbed(config: NetworkConfig) -> nn.Module:
    torch.manual_seed(1)
    network = build_network(config).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return network


@pytest.mark.parametrize("noise_map", [True, False])
def test_a_colour_network_started_from_a_grey_one_does_the_same_to_grey_pictures(
    tmp_path: Path, noise_map: bool
) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "grey.safetensors", channels=1, noise_map=noise_map))
    network = perturbed(NetworkConfig(channels=3, noise_map=noise_map, **TINY))
    warm_start(network, start)  # type: ignore[arg-type]
    grey, level = torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    expected = start.network()(grey, level)
    assert (expected - grey).abs().max() > 1e-3
    torch.testing.assert_close(network(grey.expand(-1, 3, -1, -1), level), expected.expand(-1, 3, -1, -1))


def test_a_grey_network_started_from_a_colour_one_gives_the_mean_of_its_channels(tmp_path: Path) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "colour.safetensors", channels=3))
    network = perturbed(NetworkConfig(channels=1, **TINY))
    warm_start(network, start)  # type: ignore[arg-type]
    grey, level = torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    expected = start.network()(grey.expand(-1, 3, -1, -1), level).mean(1, keepdim=True)
    torch.testing.assert_close(network(grey, level), expected)


def test_a_blind_network_sees_what_a_conditioned_one_sees_at_level_zero(tmp_path: Path) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "map.safetensors", channels=3))
    blind = perturbed(NetworkConfig(channels=3, noise_map=False, **TINY))
    warm_start(blind, start)  # type: ignore[arg-type]
    noisy, zero = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    torch.testing.assert_close(blind(noisy, zero), start.network()(noisy, zero))


def test_a_new_noise_map_starts_without_effect(tmp_path: Path) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "blind.safetensors", channels=3, noise_map=False))
    network = perturbed(NetworkConfig(channels=3, **TINY))
    warm_start(network, start)  # type: ignore[arg-type]
    noisy, level = torch.rand(1, 3, 16, 16), torch.full((1, 1, 16, 16), 0.3)
    torch.testing.assert_close(network(noisy, level), start.network()(noisy, level))


@pytest.mark.parametrize("layout", [{"layout": "flat", "widths": (6,)}, {"layout": "unet", "widths": (4, 8)}])
def test_a_deeper_network_starts_as_the_shallower_one(layout: dict[str, object], tmp_path: Path) -> None:
    config = NetworkConfig(channels=1, blocks=2, **layout)  # type: ignore[arg-type]
    start = tmp_path / "shallow.safetensors"
    save_checkpoint(start, perturbed(config).state_dict(), config, training={}, psnr={})
    deeper = build_network(replace(config, blocks=5))
    warm_start(deeper, load_checkpoint(start))
    noisy, level = torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    expected = load_checkpoint(start).network()(noisy, level)
    assert (expected - noisy).abs().max() > 1e-3
    torch.testing.assert_close(deeper(noisy, level), expected)


@pytest.mark.parametrize("blocks", [2, 5])
def test_a_wider_network_starts_as_the_narrower_one(blocks: int, tmp_path: Path) -> None:
    config = NetworkConfig(channels=1, layout="flat", widths=(4,), blocks=2, se_ratio=0.5)
    start = tmp_path / "narrow.safetensors"
    save_checkpoint(start, perturbed(config).state_dict(), config, training={}, psnr={})
    wider = replace(config, widths=(7,), blocks=blocks)
    network = perturbed(wider) if blocks == 2 else build_network(wider)  # a fresh block is the identity, no other is
    warm_start(network, load_checkpoint(start))
    noisy, level = torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.1)
    expected = load_checkpoint(start).network()(noisy, level)
    assert (expected - noisy).abs().max() > 1e-3
    torch.testing.assert_close(network(noisy, level), expected)


def test_a_narrower_network_cannot_start_from_a_wider_one(tmp_path: Path) -> None:
    config = NetworkConfig(channels=1, layout="flat", widths=(7,), blocks=1)
    start = tmp_path / "wide.safetensors"
    save_checkpoint(start, perturbed(config).state_dict(), config, training={}, psnr={})
    with pytest.raises(CheckpointError, match="another shape"):
        warm_start(build_network(replace(config, widths=(4,))), load_checkpoint(start))


def test_blocks_that_cannot_start_as_the_identity_are_not_added(tmp_path: Path) -> None:
    config = NetworkConfig(channels=1, layout="flat", widths=(4,), blocks=1, final_relu=True)
    start = tmp_path / "shallow.safetensors"
    save_checkpoint(start, perturbed(config).state_dict(), config, training={}, psnr={})
    with pytest.raises(CheckpointError, match="another shape"):
        warm_start(build_network(replace(config, blocks=2)), load_checkpoint(start))


def test_a_start_of_another_shape_is_refused_with_the_mend(tmp_path: Path) -> None:
    start = load_checkpoint(save_tiny(tmp_path / "tiny.safetensors"))
    with pytest.raises(CheckpointError, match="--init none"):
        warm_start(build_network(NetworkConfig(channels=3, widths=(4, 16), blocks=1)), start)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_augmentation_is_one_of_the_eight_symmetries_the_same_for_both_images_of_a_pair() -> None:
    clean = torch.rand(64, 2, 6, 6)
    noisy = clean + 1
    turned_noisy, turned, told = augment(Example(noisy, clean, torch.zeros(0)), torch.Generator().manual_seed(0))
    seen = set()
    for image, result, other in zip(clean.numpy(), turned.numpy(), turned_noisy.numpy(), strict=True):
        symmetries = [np.rot90(view, turns, (1, 2)) for view in (image, image[:, :, ::-1]) for turns in range(4)]
        (which,) = [index for index, view in enumerate(symmetries) if np.array_equal(view, result)]
        seen.add(which)
        assert np.array_equal(other, result + 1)
    assert seen == set(range(8)) and len(told) == 0


def test_the_psnr_loss_weighs_all_levels_of_error_alike() -> None:
    """Twice the error costs a log 2 in a patch of weak noise as in one of strong noise; half a code is the floor."""
    task = DenoisingTask(replace(CONFIG, loss="psnr"))
    clean = torch.zeros(2, 1, 8, 8)
    faint, strong = (
        torch.tensor([4.0, 40.0]).reshape(2, 1, 1, 1) / 255,
        torch.tensor([8.0, 40.0]).reshape(2, 1, 1, 1) / 255,
    )
    floor = 0.25 / 255**2
    expected = (math.log((4 / 255) ** 2 + floor) + math.log((40 / 255) ** 2 + floor)) / 4
    assert float(task.loss(clean + faint, clean)) == pytest.approx(expected, rel=1e-5)
    assert float(task.loss(clean + strong, clean)) - expected == pytest.approx(math.log(2) / 2, abs=0.01)
    assert float(task.loss(clean, clean)) == pytest.approx(math.log(0.5 / 255), rel=1e-6)


def test_the_average_follows_quickly_at_first_and_at_its_decay_later() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = AveragedModel(model, multi_avg_fn=ema_with_warmup(0.25))
    expected = 0.0
    for count, value in enumerate((4.0, 8.0, 1.0, 5.0, 3.0)):
        model.weight.data.fill_(value)
        average.update_parameters(model)
        decay = min(0.25, (1 + count) / (10 + count))
        # the first update copies; AveragedModel counts it, so the next sees n = 1
        expected = value if count == 0 else decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected)


def test_the_learning_rate_warms_up_and_follows_a_cosine(tmp_path: Path) -> None:
    run = train(tmp_path, replace(CONFIG, validations=8, warmup_steps=4))
    used = [row["learning_rate"] for row in run.record.rows[1:]]
    expected = [
        CONFIG.learning_rate * min(1, (step + 1) / 4) * 0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)
    ]
    assert used == pytest.approx(expected)


def test_minutes_end_a_run_that_has_no_steps(tmp_path: Path) -> None:
    run = train(tmp_path, replace(CONFIG, steps=0, minutes=0.01))
    assert 0 < run.record.rows[-1]["step"] < 2000 and run.record.rows[-1]["seconds"] < 30


@pytest.mark.parametrize(
    "values",
    [
        {"batch": 0}, {"patch": "16"}, {"steps": 1.5}, {"steps": 0, "minutes": 0}, {"minutes": -1}, {"loss": "l2"},
        {"precision": "fp8"}, {"learning_rate": "1e-3"}, {"learning_rate": 0.0}, {"ema": 1.0}, {"seed": -1},
        {"seed": True}, {"compile": 1}, {"warmup_steps": -1}, {"unknown": 1}, {"network": {"widths": "wide"}},
    ],
    ids=str,
)  # fmt: skip
def test_recipes_that_make_no_sense_are_usage_errors(values: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(values)) if "network" not in values else "widths"):
        TrainingConfig.from_dict({"steps": 8, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 3}, "'stepz' is no field of a recipe; those are network, noise, steps, minutes"),
        ({1: 2}, "1 is no field of a recipe"),
        ({"steps": 3.5}, "steps is 3.5, not a whole number$"),
        ({"minutes": "ten"}, "minutes is 'ten', not a number$"),
        ({"learning_rate": "1e-3"}, "not a number; YAML takes 1e-3 for text, write 0.001"),
        ({"noise": {"gaussian": 25}}, "noise is {'gaussian': 25}, not a text such as gaussian:5-50"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_in_its_own_words(values: dict[object, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingConfig.from_dict(values)


def test_a_recipe_survives_its_own_dictionary() -> None:
    assert TrainingConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG
