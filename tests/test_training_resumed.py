"""Runs that are stopped or killed, and go on."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_model import save_tiny
from training_runs import CONFIG, TINY_GREY, TRAIN, VALIDATION, at_step, same, smooth, state, train

from denoise_se import run_folder
from denoise_se.budget import Budget
from denoise_se.checkpoint import load_checkpoint
from denoise_se.errors import Interrupted, UsageError
from denoise_se.run_folder import RunFolder
from denoise_se.run_record import RunRecord
from denoise_se.training import DenoisingTask
from denoise_se.training_images import Pair

pytestmark = pytest.mark.usefixtures("handlers_are_given_back")


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
