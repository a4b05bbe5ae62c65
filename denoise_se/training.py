"""What is trained: the LightningModule with its loss, schedule, moving average and validation.

Everything random in a step is drawn from generators seeded by (seed, step), so a resumed run and an uninterrupted one
give the same weights on a CPU, and several processes those of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from denoise_se.budget import Budget
from denoise_se.checkpoint import OPEN_BOUNDS, Checkpoint
from denoise_se.datasets import Example, TrainingData, generator_of, image_index
from denoise_se.errors import DivergedError
from denoise_se.gate_bounds import bounds_of, find_bounds
from denoise_se.held_out_risk import Risk, as_psnr
from denoise_se.metrics import psnr, ssim
from denoise_se.muon import Muon
from denoise_se.network import build_network
from denoise_se.noise import parse_noise_spec
from denoise_se.noise_model import AddNoise, Noisy
from denoise_se.objectives import Objective, Rehearsed, Supervised, with_noise
from denoise_se.told_level import to_judge
from denoise_se.training_config import TrainingConfig
from denoise_se.warm_start import larger, warm_start

MOST_PSNR = 60.0  # dB; rounding to 8 bits alone leaves 58.9
HALF_CODE = 0.5 / 255
GATE_PATCHES = 128  # that bounds of gates are found on
MOST_BAD_STEPS = 10  # in a row, with a gradient that is not finite


def ema_with_warmup(decay: float) -> Any:
    """Averaging for `AveragedModel`; early on the decay is (1 + n) / (10 + n), so that the start is soon forgotten."""

    @torch.no_grad()
    def update(averages: list[Tensor], currents: list[Tensor], count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        if averages[0].is_floating_point():  # all are of one type
            torch._foreach_lerp_(averages, currents, weight)
        else:  # BatchNorm's counts of batches
            torch._foreach_copy_(averages, currents)

    return update


class DenoisingTask(LightningModule):
    """Noise, loss and schedule. `network` is trained, `average` is its moving average.

    Batches are `Example`s of integer patches [B, C, p, p]; validation images come one at a time, [1, C, H, W].
    Validation images get the recipe's noise unless `noisy_validation` says that they bring their own; the last `drawn`
    of them are sheets of drawings.
    """

    def __init__(
        self,
        config: TrainingConfig,
        start: Checkpoint | None = None,
        *,
        noisy_validation: bool = False,
        drawn: int = 0,
        objective: Objective | None = None,
        risk: Risk | None = None,
        budget: Budget | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        self.config, self.start = config, start
        self.network = build_network(config.network)
        if start is not None:
            warm_start(self.network, start)
        self.grown = start is not None and larger(config.network, start.config)
        self.average = AveragedModel(self.network, multi_avg_fn=ema_with_warmup(config.ema), use_buffers=True)
        self.average.requires_grad_(False)
        self.noise = parse_noise_spec(config.noise) if config.noise else None
        self.validation_noise: AddNoise | None = None
        if self.noise is not None and not noisy_validation:
            self.validation_noise = to_judge(self.noise, config.network)
        self.drawn = drawn
        self.objective = objective or Supervised(self.noise)
        self.risk = risk
        self.predict = torch.compile(self.network) if config.compile else self.network
        self.budget = budget or Budget(config.steps, config.minutes)
        self.bad_steps = 0
        self._scores: dict[int, tuple[float, float]] = {}

    @property
    def progress(self) -> float:
        """The used share of the budget, 0 to 1."""
        return self.budget.progress(self.global_step)

    def generator(self, *key: int) -> torch.Generator:
        """Seeded by the run's seed and `key`, on the module's device."""
        return generator_of(self.config.seed, *key, device=self.device)

    def loss(self, output: Tensor, clean: Tensor) -> Tensor:
        difference = output.float() - clean
        if self.config.loss == "l1":
            return difference.abs().mean()
        if self.config.loss == "psnr":
            return 0.5 * (difference.square().mean(dim=(1, 2, 3)) + HALF_CODE**2).log().mean()
        return (difference.square() + 1e-6).sqrt().mean()

    def share(self, *batches: Tensor) -> Iterator[Tensor]:
        """This process's part of each of some whole batches [B, ...]."""
        return (batch.chunk(self.trainer.world_size)[self.global_rank] for batch in batches)

    def training_step(self, batch: Example, batch_index: int) -> Tensor:
        # the whole batch on each process, so that its noise does not depend on how many of them share it
        generator = self.generator(0, self.global_step)
        loss = self.objective(self, augment(batch.in_unit(), generator, self.config.turns), generator)
        self.log("loss", loss, prog_bar=True)
        return loss

    def diverged(self, what: str) -> DivergedError:
        folder = self.trainer.default_root_dir
        return DivergedError(
            f"{what} at step {self.global_step}; best.safetensors and last.ckpt keep the state before it. Start from "
            f"{folder}/best.safetensors with --init, and take a lower learning_rate (now {self.config.learning_rate:g})"
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, which all processes share; one that is not finite changes nothing.

        Raises:
            DivergedError: MOST_BAD_STEPS of them in a row.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.bad_steps = 0 if torch.isfinite(norm) else self.bad_steps + 1
        if self.bad_steps >= MOST_BAD_STEPS:
            raise self.diverged(f"the loss or its gradient was not finite in {MOST_BAD_STEPS} steps in a row, the last")
        if self.bad_steps:
            optimizer.zero_grad(set_to_none=True)  # the optimizer passes over weights without a gradient

    def on_train_batch_start(self, batch: object, batch_index: int) -> None:
        rate = learning_rate(self.config, self.global_step, self.progress)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def on_train_batch_end(self, outputs: object, batch: object, batch_index: int) -> None:
        if not self.bad_steps:
            self.average.update_parameters(self.network)
        if self.progress >= 1.0:
            self.trainer.should_stop = True

    def on_validation_epoch_start(self) -> None:
        self._scores = {}
        learned = self.objective.objective if isinstance(self.objective, Rehearsed) else self.objective
        if isinstance(learned, Supervised) and any(bounds.is_open for bounds in bounds_of(self.network)):
            noises = [learned.noise]
            if isinstance(self.objective, Rehearsed):
                noises.append(self.objective.old)
            self.hold_gates(noises)

    def hold_gates(self, noises: Sequence[AddNoise | None]) -> None:
        """Bounds for the average's gates, found on the first training patches with each of these noises.

        A start without bounds gets its own before the first step, without drawings, on which its gates may be anything;
        a network from scratch, or one that is larger than its start, trains without any.
        """
        from_start = self.start is not None and not self.grown and self.global_step == 0
        drawings = 0.0 if from_start else self.config.drawings

        def batches() -> Iterator[Noisy]:
            data: TrainingData = self.trainer.datamodule  # type: ignore[attr-defined]
            for index, batch in enumerate(data.first_patches(GATE_PATCHES, drawings)):
                patches = Example(*(part.to(self.device) for part in batch)).in_unit()
                for noise in noises:
                    yield with_noise(noise, patches, self.generator(2, index))

        with torch.autocast(self.device.type, enabled=False):
            find_bounds(self.average.module, batches())
        if from_start:
            self.network.load_state_dict(self.average.module.state_dict())

    def validation_step(self, batch: Example, batch_index: int) -> None:
        images = len(self.trainer.val_dataloaders.dataset)  # type: ignore[union-attr]
        index = image_index(batch_index, self.global_rank, self.trainer.world_size, images)
        image, generator = batch.in_unit(), self.generator(1, index)
        with torch.autocast(self.device.type, enabled=False):  # small differences of large numbers vanish in bf16
            if self.risk is not None:
                self._scores[index] = float(self.risk(self.average.module, image, generator)), math.nan
                return
            noisy, level = with_noise(self.validation_noise, image, generator)
            restored = (self.average.module(noisy, level).clamp(0, 1) * 255).round() / 255
        clean, result = (part[0].float().movedim(0, -1).cpu().numpy() for part in (image.clean, restored))
        similarity = ssim(clean, result, data_range=1.0)
        self._scores[index] = psnr(clean, result, data_range=1.0), math.nan if similarity is None else similarity

    def on_validation_epoch_end(self) -> None:
        ours = torch.tensor([[index, *scores] for index, scores in self._scores.items()], dtype=torch.float64)
        everyone = self.budget.ranks.gathered(ours).tolist()
        scores = torch.tensor([both for _, *both in sorted({row[0]: row for row in everyone}.values())])
        first, ssim = scores.unbind(1)
        if first.isnan().any():
            raise self.diverged("the network's output is not finite")
        if self.risk is not None:
            self.log("val_psnr", as_psnr(first), prog_bar=True)
            return
        self.log("val_psnr", self.mean_score(first), prog_bar=True)
        self.log("val_ssim", self.mean_score(ssim))

    def mean_score(self, scores: Tensor) -> Tensor:
        """The mean over the validation images; the last `drawn` of them count by the share of drawings in training. A
        PSNR above MOST_PSNR, up to infinity, counts as that."""
        kinds = scores.split([len(scores) - self.drawn, self.drawn]) if self.drawn else (scores,)
        means = [kind.clamp(max=MOST_PSNR).mean() for kind in kinds]
        return torch.lerp(means[0], means[-1], self.config.drawings)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.network, self.config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not all(torch.isfinite(tensor).all() for tensor in checkpoint["state_dict"].values()):
            raise self.diverged("a weight is not finite")
        checkpoint |= {"elapsed": self.budget.seconds, "bad_steps": self.bad_steps}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name, own in self.state_dict().items():  # a run begun before gates were held has no bounds
            if (end := name.rpartition(".")[2]) in OPEN_BOUNDS:
                checkpoint["state_dict"].setdefault(name, torch.full_like(own, OPEN_BOUNDS[end]))
        self.budget.seconds = float(checkpoint["elapsed"])
        self.bad_steps = int(checkpoint.get("bad_steps", 0))


def make_optimizer(network: torch.nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The recipe's: Muon, or AdamW (Loshchilov and Hutter, ICLR 2019)."""
    if config.optimizer == "muon":
        return Muon(network, config.learning_rate, config.weight_decay)
    return torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay, foreach=True
    )


def learning_rate(config: TrainingConfig, step: int, progress: float) -> float:
    """That of a step, counted from 0: linear warm-up, and a cosine to zero as `progress` goes from 0 to 1."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * progress))


def augment(patches: Example, generator: torch.Generator, turns: bool = True) -> Example:
    """One of the eight symmetries of the square for each of [B, C, p, p], exact: no interpolation. Without `turns` one
    of the four that leave rows rows."""
    noisy = patches.noisy
    draws = torch.rand(3, len(noisy), 1, 1, 1, generator=generator, device=noisy.device) < 0.5
    both = torch.cat([noisy, patches.clean], dim=1)
    both = torch.where(draws[0], both.flip(-1), both)
    both = torch.where(draws[1], both.flip(-2), both)
    if turns:
        both = torch.where(draws[2], both.mT, both)
    return patches._replace(noisy=both[:, : noisy.shape[1]], clean=both[:, noisy.shape[1] :])
