"""The folder of a training run: what is written there, when, and what survives an interruption."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from denoise_se.atomic_file import replacing
from denoise_se.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from denoise_se.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, DenoiseError, TrainingError, UsageError
from denoise_se.model_card import hardware, render_card

if TYPE_CHECKING:
    from denoise_se.training import DenoisingTask

SAVE_SECONDS = 120  # last.ckpt is at most this old
COLUMNS = ("step", "seconds", "loss", "learning_rate", "patches_per_second", "val_psnr", "val_ssim")


class Interrupted(DenoiseError):
    """Training was asked to stop and its state is saved; `exit_code` says by which signal."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(f"{folder}: stopped by {signal.Signals(number).name}; go on with --resume")
        self.exit_code = EXIT_TERMINATED if number == signal.SIGTERM else EXIT_INTERRUPTED


class RunFolder(Callback):
    """best.safetensors, last.ckpt, metrics.csv, curve.png and card.md of one run; every file is replaced atomically.

    Attributes:
        rows: one per validation, with COLUMNS as keys.
        loader_rate: patches a second that loading alone reaches, to set beside the step's.
        report: measures the best weights at the end of the run, given the folder and these; its lines go on the card.
        estimated: whether there is no clean image, so that every PSNR is an estimate.
    """

    report: Callable[[Path, Checkpoint], Mapping[str, str]] | None = None
    estimated = False

    def __init__(
        self,
        folder: Path,
        recipe: Mapping[str, Any],
        *,
        data: str,
        start: Checkpoint | None,
        images: tuple[int, int],
    ) -> None:
        self.folder, self.recipe, self.data, self.start, self.images = folder, recipe, data, start, images
        self.best, self.last = folder / "best.safetensors", folder / "last.ckpt"
        self.rows: list[dict[str, float]] = []
        self.best_psnr = float("-inf")
        self.loader_rate = 0.0
        self.outcome: dict[str, str] = {}
        self.signal: int | None = None
        self._losses: list[float] = []
        self._mark = (0, 0.0)
        self._saved = time.monotonic()

    def open(self, resume: bool) -> None:
        """Make the folder; UsageError when it holds a run and `resume` is off, or holds none and it is on."""
        if resume and not self.last.is_file():
            raise UsageError(f"{self.folder}: no last.ckpt to resume from; leave --resume out to start a run")
        if not resume and self.best.exists() and not self.last.exists():
            raise UsageError(f"{self.folder}: holds a best.safetensors but no run; move it, or choose another")
        if not resume and self.last.exists():
            raise UsageError(f"{self.folder}: holds a training run already; add --resume, or choose another folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be made ({error.strerror})") from error

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best_psnr": self.best_psnr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best_psnr = state_dict["rows"], state_dict["best_psnr"]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Turns SIGINT and SIGTERM into a wish to stop after the current step; a second one stops at once."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self._listen()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()  # Lightning may have put its own SIGTERM handler in place; a stop must end with a checkpoint
        self._mark = (trainer.global_step, time.monotonic())
        if not self.last.exists():
            self.save_last(trainer)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # here and not at the batch's end, where Lightning has not yet counted the batch as completed
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save_last(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        if self.signal is not None:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning validates once more before it stops; the state must not wait for that
        if self.signal is not None and trainer.state.fn == "fit":
            self.save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task: DenoisingTask = pl_module  # type: ignore[assignment]
        steps, seconds = trainer.global_step - self._mark[0], time.monotonic() - self._mark[1]
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        row = {
            "step": trainer.global_step,
            "seconds": round(task.elapsed, 1) if trainer.global_step else 0.0,
            "loss": round(sum(map(float, self._losses)) / len(self._losses), 6) if self._losses else float("nan"),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else float("nan"),
            "patches_per_second": round(steps * self.recipe["batch"] / seconds, 1) if steps else float("nan"),
            "val_psnr": round(metrics["val_psnr"], 4),
            "val_ssim": round(metrics.get("val_ssim", float("nan")), 5),
        }
        self.rows.append(row)
        self._losses = []
        if row["val_psnr"] > self.best_psnr:
            self.best_psnr = row["val_psnr"]
            self._write_best(task, row)
        self._write_metrics()
        if trainer.training or trainer.state.fn == "fit":
            self.save_last(trainer)
        self._mark = (trainer.global_step, time.monotonic())

    def save_last(self, trainer: Trainer) -> None:
        """last.ckpt, replaced whole (see `TrainingState`)."""
        trainer.save_checkpoint(self.last)
        self._saved = time.monotonic()

    def finish(self, trainer: Trainer, task: DenoisingTask) -> None:
        """After the last step: validate the end, then draw the curve and write the card.

        Raises:
            Interrupted: when a signal ended the run early; the state is saved first.
        """
        self.save_last(trainer)
        if self.signal is None and self.rows[-1]["step"] != trainer.global_step:
            trainer.validate(task, datamodule=trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
        if self.signal is None and self.report is not None and trainer.is_global_zero:
            self.outcome = dict(self.report(self.folder, load_checkpoint(self.best)))
        self.draw_curve()
        record = self.record(task)
        card = render_card(self.folder.resolve().name, task.config.network, record, self.summary())
        self._write("card.md", card.encode())
        if self.signal is not None:
            raise Interrupted(self.folder, self.signal)

    @property
    def improved(self) -> bool:
        """Whether any step beat the weights that training started from."""
        return len(self.rows) > 1 and self.best_psnr > self.rows[0]["val_psnr"]

    def summary(self) -> dict[str, str]:
        """Validation figures for the card."""
        before, where = self.rows[0], f"{self.images[1]} validation images"
        best = max(self.rows, key=lambda row: row["val_psnr"])
        kind = "PSNR estimated without clean images" if self.estimated else "PSNR"
        similarity = "" if self.estimated else f", SSIM {best['val_ssim']:.4f}"
        return {
            f"{kind} on {where}, before training": f"{before['val_psnr']:.2f} dB",
            f"{kind} on {where}, best (step {best['step']})": f"{best['val_psnr']:.2f} dB{similarity}",
            **self.outcome,
            "patches a second": f"{self.rows[-1]['patches_per_second']} trained, {self.loader_rate:.0f} loaded alone",
        } | ({} if self.improved else {"note": "training did not beat the weights it started from; those were kept"})

    def record(self, task: DenoisingTask) -> dict[str, Any]:
        """The training record for the checkpoint's metadata."""
        try:
            release = version("denoise-se")
        except PackageNotFoundError:
            release = "not installed"
        return {
            "data": self.data,
            "recipe": dict(self.recipe),
            "started_from": "random weights" if self.start is None else self.start.name,
            "steps": task.global_step,
            "seconds": round(task.elapsed),
            "hardware": hardware(),
            "precision": str(task.trainer.precision),
            "version": release,
            "commit": commit(),
        }

    def _write_best(self, task: DenoisingTask, row: Mapping[str, float]) -> None:
        psnr = {"validation": {"psnr": row["val_psnr"], "ssim": row["val_ssim"], "images": self.images[1]}}
        weights = task.average.module.state_dict()
        save_checkpoint(self.best, weights, task.config.network, training=self.record(task), psnr=psnr)

    def _write_metrics(self) -> None:
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        writer.writerows(self.rows)
        self._write("metrics.csv", table.getvalue().encode())

    def _write(self, name: str, content: bytes) -> None:
        try:
            with replacing(self.folder / name) as file:
                file.write(content)
        except OSError as error:
            raise TrainingError(
                f"{self.folder / name}: cannot be written ({error.strerror}); make room and go on with --resume"
            ) from error

    def draw_curve(self) -> None:
        """curve.png: loss and validation PSNR over the steps."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        left = figure.subplots()
        steps = [row["step"] for row in self.rows]
        left.plot(steps, [row["val_psnr"] for row in self.rows], "o-", color="tab:blue", label="validation PSNR")
        left.set(xlabel="step", ylabel="validation PSNR (dB)", title=self.folder.resolve().name)
        right = left.twinx()
        right.plot(steps, [row["loss"] for row in self.rows], ".--", color="tab:orange", label="training loss")
        right.set_ylabel("training loss")
        figure.legend(loc="outside lower center", ncols=2)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        self._write("curve.png", picture.getvalue())


def commit() -> str:
    """The short commit of the program's checkout, or nothing when it is installed from a wheel."""
    where = Path(__file__).parent
    if not (where.parent / ".git").exists():
        return ""
    command = ["git", "-C", str(where), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git here
        return ""
