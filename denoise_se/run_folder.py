"""The folder of a training run: what is written there, when, and what survives an interruption."""

from __future__ import annotations

import csv
import io
import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from denoise_se.atomic_file import remove_temporary_files, write_whole
from denoise_se.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from denoise_se.errors import CheckpointError, Interrupted, TrainingError, UsageError, reason
from denoise_se.learning_curve import draw_curve
from denoise_se.model_card import render_card
from denoise_se.place import this_rank
from denoise_se.remote_files import real_path
from denoise_se.resumption import BEST, LAST, changes_of, check_run
from denoise_se.run_record import RunRecord
from denoise_se.training_state import TrainingState

if TYPE_CHECKING:
    from denoise_se.budget import Budget
    from denoise_se.training import DenoisingTask

SAVE_SECONDS = 120  # last.ckpt is at most this old
Report = Callable[[Path, Checkpoint, Callable[[], None]], Mapping[str, str]]
COLUMNS = ("step", "seconds", "loss", "learning_rate", "patches_per_second", "val_psnr", "val_ssim")


class RunFolder(Callback):
    """best.safetensors, last.ckpt, metrics.csv, curve.png and card.md of one run; every file is replaced atomically.

    It decides when a run saves, validates and stops, from the step and the task's `Budget` alone: so all processes of a
    run do so together, though only the first one writes.

    record: what is known of the run. images: digests by which others are told from them. report: measures the best
    weights at the end, given the folder, these, and what raises Interrupted after a signal; its lines go on the card.
    tell: takes a line about each validation.
    """

    def __init__(
        self,
        folder: Path,
        record: RunRecord,
        images: Mapping[str, str],
        report: Report | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.folder, self.record, self.images = folder, record, images
        self.report, self.tell = report, tell
        self.best, self.last = folder / BEST, folder / LAST
        self._losses = (0.0, 0)  # their sum since the last validation, and how many, of this process's share
        self._saved_losses = (0.0, 0)  # the same of all processes, for last.ckpt
        self._mark = (0, 0.0)
        self._saved = float("-inf")

    def open(self, resume: bool) -> None:
        """Make the folder, without what a kill left in it.

        Raises:
            UsageError: it holds a run and `resume` is off, it holds none and it is on, or its run is another one.
        """
        check_run(self.folder, resume)
        if resume:
            state = TrainingState().load_checkpoint(self.last)
            before = state["callbacks"].get(self.state_key, {})
            if not isinstance(before, dict) or not isinstance(before.get("recipe", {}), dict):
                raise UsageError(f"{self.last}: is no state of a training run (its recipe is none)")
            if "recipe" in before:  # else it is of an older version
                changes = changes_of(before, self.record.recipe, self.record.start_name, self.images, self.last)
                at = [{"step": int(state["global_step"]), **changes}] if changes else []
                self.record.changes = [*before.get("changes", []), *at]
        if this_rank():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_temporary_files(self.folder)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be made ({reason(error)})") from error

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.record.rows,
            "recipe": json.loads(json.dumps(self.record.recipe)),
            "changes": self.record.changes,
            "start": self.record.start_name,
            **self.images,
            "losses": self._saved_losses,
            "skipped": self.record.skipped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.record.rows = state_dict["rows"]
        # all processes load what all of them had; the first one takes it
        self._losses = (0.0, 0) if this_rank() else tuple(state_dict.get("losses", (0.0, 0)))
        self.record.skipped = state_dict.get("skipped", 0)
        try:
            # what counts is the file: it may be of a validation after this state, or gone
            self.record.best_psnr = load_checkpoint(self.best).psnr["validation"]["psnr"]
        except (CheckpointError, KeyError, TypeError):
            self.record.best_psnr = float("-inf")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task: DenoisingTask = pl_module  # type: ignore[assignment]
        task.budget.begin()
        self._saved = task.budget.seconds
        self._mark = (trainer.global_step, time.monotonic())
        trainer.val_check_batch = float("inf")
        if not self.last.exists():
            self.save_last(trainer, task)
        if trainer.global_step == 0 and trainer.is_global_zero:
            # after last.ckpt, so that a kill in between can be resumed
            self.record.best_psnr = self.record.rows[0]["val_psnr"]
            self._write_best(task, self.record.rows[0])
            self._write_metrics()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # saved here and not at the batch's end, where Lightning has not yet counted the batch as completed
        task: DenoisingTask = pl_module  # type: ignore[assignment]
        budget = task.budget
        budget.agree()
        due = self._validation_is_due(budget, trainer.global_step + 1)
        trainer.val_check_batch = 1 if due else float("inf")
        # before a validation too: it may take long, and a stop during it does not wait for its end
        if due or budget.signal is not None or budget.seconds - self._saved > SAVE_SECONDS:
            self.save_last(trainer, task)
        if budget.signal is not None:
            raise self.interrupted(budget.signal)

    def _validation_is_due(self, budget: Budget, steps: int) -> bool:
        """Whether the step that makes `steps` steps is followed by a validation."""
        count = self.record.recipe["validations"]
        if budget.progress(steps) >= 1.0:
            return True
        if budget.steps and steps * count // budget.steps > (steps - 1) * count // budget.steps:
            return True
        return budget.minutes > 0 and budget.seconds - self.record.rows[-1]["seconds"] >= 60 * budget.minutes / count

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.bad_steps:
            self.record.skipped += 1
        else:
            self._losses = (self._losses[0] + outputs["loss"].detach().double(), self._losses[1] + 1)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any, **keywords: Any
    ) -> None:
        budget: Budget = pl_module.budget  # type: ignore[assignment]
        budget.agree()
        if budget.signal is not None:
            raise self.interrupted(budget.signal)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task: DenoisingTask = pl_module  # type: ignore[assignment]
        steps, seconds = trainer.global_step - self._mark[0], time.monotonic() - self._mark[1]
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        total, count = self._all_losses(task)
        row = {
            "step": trainer.global_step,
            "seconds": round(task.budget.seconds, 1) if trainer.global_step else 0.0,
            "loss": round(total / count, 6) if count else float("nan"),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else float("nan"),
            "patches_per_second": round(steps * self.record.recipe["batch"] / seconds, 1) if steps else float("nan"),
            "val_psnr": round(metrics["val_psnr"], 4),
            "val_ssim": round(metrics.get("val_ssim", float("nan")), 5),
        }
        self.record.rows.append(row)
        self._losses = (0.0, 0)
        self._mark = (trainer.global_step, time.monotonic())
        if trainer.global_step == 0:  # before the first step; the files are written once there is a last.ckpt
            return
        self._saved = float("-inf")
        if trainer.is_global_zero:
            if self.record.beaten_by(row):
                self.record.best_psnr = row["val_psnr"]
                self._write_best(task, row)
            self._write_metrics()
            if self.tell is not None:
                self.tell(f"{row['seconds'] / 60:.1f} minutes, step {row['step']}: validation {row['val_psnr']:.2f} dB")

    def _all_losses(self, task: DenoisingTask) -> tuple[float, int]:
        """The sum of the losses of all processes since the last validation, and how many."""
        ours = torch.tensor([[float(self._losses[0]), self._losses[1]]], dtype=torch.float64)
        total, count = task.budget.ranks.gathered(ours).sum(0).tolist()
        return total, int(count)

    def save_last(self, trainer: Trainer, task: DenoisingTask) -> None:
        """last.ckpt, replaced whole (see `TrainingState`)."""
        self._saved_losses = self._all_losses(task)
        trainer.save_checkpoint(self.last)
        self._saved = task.budget.seconds

    def finish(self, trainer: Trainer, task: DenoisingTask) -> None:
        """After the last step: save, then draw the curve and write the card."""
        if self.record.rows[-1]["step"] != trainer.global_step:  # resumed with a smaller budget
            trainer.validate(task, datamodule=trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
        self.save_last(trainer, task)
        if trainer.is_global_zero and not self.best.exists():  # taken away since: what there is takes its place
            self._write_best(task, self.record.rows[-1])
        task.budget.agree()
        if task.budget.signal is not None:
            raise self.interrupted(task.budget.signal)
        if self.report is not None and trainer.is_global_zero:
            if self.tell is not None:
                self.tell("trained; measuring the result")
            self.record.outcome = dict(self.report(self.folder, load_checkpoint(self.best), partial(self._heed, task)))
        self.describe(task)

    def _heed(self, task: DenoisingTask) -> None:
        """Raises Interrupted after a signal."""
        if task.budget.stop.signal is not None:
            raise self.interrupted(task.budget.stop.signal)

    def describe(self, task: DenoisingTask) -> None:
        """curve.png and card.md."""
        if this_rank() or not self.last.exists():
            return
        self._write("curve.png", draw_curve(self.record.rows, real_path(self.folder).name))
        card = render_card(
            real_path(self.folder).name, task.config.network, self.record.training(task), self.record.summary()
        )
        self._write("card.md", card.encode())

    def interrupted(self, number: int) -> Interrupted:
        """The error that ends a run which the signal `number` asked to stop."""
        mend = "go on with --resume" if self.last.exists() else "nothing was trained yet, start it again"
        self.record.stopped = True
        return Interrupted(f"{self.folder}: stopped by {signal.Signals(number).name}; {mend}", number)

    def _write_best(self, task: DenoisingTask, row: Mapping[str, float]) -> None:
        scores = {"psnr": row["val_psnr"], "ssim": row["val_ssim"], "images": self.record.images[1]}
        psnr = {} if math.isnan(row["val_psnr"]) else {"validation": scores}
        weights = task.average.module.state_dict()
        save_checkpoint(self.best, weights, task.config.network, training=self.record.training(task), psnr=psnr)

    def _write_metrics(self) -> None:
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        writer.writerows(self.record.rows)
        self._write("metrics.csv", table.getvalue().encode())

    def _write(self, name: str, content: bytes) -> None:
        write_whole(self.folder / name, content, TrainingError, "make room and go on with --resume")
