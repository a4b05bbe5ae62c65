"""What a run leaves, what goes wrong in one, fine-tuning, and the parts of a step."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.optim.swa_utils import AveragedModel
from training_runs import CONFIG, TINY_GREY, TRAIN, VALIDATION, at_step, same, smooth, state, train

from denoise_se import provenance, run_folder
from denoise_se.checkpoint import load_checkpoint
from denoise_se.datasets import Example
from denoise_se.errors import TrainingError
from denoise_se.noise import Noisy, parse_noise_spec
from denoise_se.objectives import own_noise, with_noise
from denoise_se.run_record import RunRecord
from denoise_se.training import DenoisingTask, augment, ema_with_warmup
from denoise_se.training_images import Pair
from denoise_se.training_outcome import OutcomeReport

pytestmark = pytest.mark.usefixtures("handlers_are_given_back")


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
