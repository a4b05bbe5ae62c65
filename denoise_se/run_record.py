"""What is known of a training run: for its card, for the metadata of its weights, and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from denoise_se import provenance
from denoise_se.checkpoint import Checkpoint, made_noise
from denoise_se.objectives import Rehearsed
from denoise_se.training_config import LEAST_ESTIMATED_GAIN

if TYPE_CHECKING:
    from denoise_se.training import DenoisingTask


@dataclass
class RunRecord:
    """A run as it is known so far.

    Attributes:
        recipe, data, start: what it was started with; the start None for random weights.
        images: how many to train and to validate on; the last `drawn` of the latter are sheets of drawings.
        estimated: whether there is no clean image, so that every PSNR is an estimate.
        rows: one per validation, with the columns of metrics.csv as keys.
        best_psnr: in dB, that of the weights that are kept.
        loader_rate: patches a second that loading alone reaches, to set beside the step's.
        outcome: what was measured with the best weights at the end.
        changes: of the recipe on the way: "step", and the new values by name.
        skipped: steps whose gradient was not finite.
        stopped: whether a signal ended it.
        commit: of the program that runs; the checkout may move on meanwhile.
    """

    recipe: Mapping[str, Any]
    data: str
    start: Checkpoint | None
    images: tuple[int, int]
    drawn: int = 0
    estimated: bool = False
    rows: list[dict[str, float]] = field(default_factory=list)
    best_psnr: float = float("-inf")
    loader_rate: float = 0.0
    outcome: dict[str, str] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    stopped: bool = False
    commit: str = field(default_factory=lambda: provenance.commit())

    @property
    def start_name(self) -> str:
        return "random weights" if self.start is None else self.start.name

    @property
    def improved(self) -> bool:
        """Whether any step beat the weights that training started from."""
        return len(self.rows) > 1 and self.best_psnr > self.rows[0]["val_psnr"]

    def beaten_by(self, row: Mapping[str, float]) -> bool:
        """Whether a validation is better than what there is; an estimate, than the start by what one may be wrong."""
        least = self.rows[0]["val_psnr"] + (LEAST_ESTIMATED_GAIN if self.estimated else 0.0)
        return row["val_psnr"] > self.best_psnr and row["val_psnr"] > least

    def summary(self) -> dict[str, str]:
        """What the run came to, for the card and the terminal."""
        before, where = self.rows[0], f"{self.images[1] - self.drawn} validation images"
        if self.drawn:
            where += f" and {self.drawn} sheets of drawings (which count {self.recipe['drawings']:.0%})"
        judged = [row for row in self.rows if not math.isnan(row["val_psnr"])]
        best = max(judged, key=lambda row: row["val_psnr"]) if self.improved and judged else before
        kind = "PSNR estimated without clean images" if self.estimated else "PSNR"
        similarity = "" if self.estimated else f", SSIM {best['val_ssim']:.4f}"
        notes = {}
        if self.stopped:
            notes["note"] = "stopped on the way; --resume goes on"
        elif not self.improved:
            gain = f" by {LEAST_ESTIMATED_GAIN} dB, as an estimate must" if self.estimated else ""
            notes["note"] = f"training did not beat the weights it started from{gain}; those were kept"
        if self.skipped:
            notes["skipped steps"] = f"{self.skipped}, whose gradient was not finite"
        return notes | {
            f"{kind} on {where}, before training": _decibels(before["val_psnr"]),
            f"{kind} on {where}, best (step {best['step']})": _decibels(best["val_psnr"]) + similarity,
            **self.outcome,
            "patches a second": f"{self._rate()}{self.loader_rate:.0f} loaded alone",
        }

    def _rate(self) -> str:
        rate = self.rows[-1]["patches_per_second"]
        return "" if math.isnan(rate) else f"{rate} trained, "

    def training(self, task: DenoisingTask) -> dict[str, Any]:
        """For the metadata of the weights that `task` has now."""
        processes = task.budget.ranks.world_size
        rehearsed = self.start is not None and isinstance(task.objective, Rehearsed)
        return {
            "data": self.data,
            "recipe": dict(self.recipe),
            "changes": self.changes,
            "started_from": self.start_name,
            "rehearsed": made_noise(self.start.training) if self.start is not None and rehearsed else None,
            "steps": task.global_step,
            "seconds": round(task.budget.seconds),
            "hardware": provenance.hardware() + (f", {processes} processes" if processes > 1 else ""),
            "precision": str(task.trainer.precision),
            "version": provenance.release(),
            "commit": self.commit,
        }


def _decibels(psnr: float) -> str:
    return "cannot be estimated, the measured noise does not fit" if math.isnan(psnr) else f"{psnr:.2f} dB"
