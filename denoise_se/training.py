"""Training a network with Lightning: the task, and `fit`, which runs it in a run folder.

Everything random in a step is drawn from generators seeded by (seed, step), so a resumed run and an uninterrupted one
give the same weights on a CPU.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from denoise_se.checkpoint import Checkpoint
from denoise_se.datasets import TrainingData, to_unit
from denoise_se.errors import CheckpointError, TrainingError, UsageError
from denoise_se.held_out_risk import Risk, as_psnr
from denoise_se.muon import Muon
from denoise_se.network import Network, build_network
from denoise_se.noise import parse_noise_spec
from denoise_se.objectives import Objective, Supervised, with_noise
from denoise_se.run_folder import RunFolder
from denoise_se.training_config import TrainingConfig
from denoise_se.training_images import Pair
from denoise_se.training_state import TrainingState

ENDLESS = 1_000_000_000  # steps of a run that only its minutes limit


def ema_with_warmup(decay: float) -> Any:
    """Averaging for `AveragedModel`; early on the decay is (1 + n) / (10 + n), so that the start is soon forgotten."""

    @torch.no_grad()
    def update(averages: list[Tensor], currents: list[Tensor], count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averages, currents, weight)

    return update


def warm_start(network: Network, start: Checkpoint) -> None:
    """Copy `start`'s weights into `network`, in place.

    The shapes may differ in the image channels and the noise-level map: then the head's weights are shared out evenly
    over the channels, the tail's are repeated, and the map's column is dropped or starts at zero.

    Raises:
        CheckpointError: any other difference between the two configs.
    """
    ours, theirs = network.config, start.config
    if replace(ours, channels=1, noise_map=True) != replace(theirs, channels=1, noise_map=True):
        raise CheckpointError(
            f"{start.name}: its network has another shape than the one to train; leave the network out of --config, or "
            "use --init none"
        )
    weights = dict(start.weights)
    head, tail, bias = weights["head.weight"], weights["tail.weight"], weights["tail.bias"]
    folds = theirs.unshuffle**2
    if ours.channels != theirs.channels:
        image = head[:, : theirs.channels * folds].unflatten(1, (theirs.channels, folds)).mean(1, keepdim=True)
        image = image * theirs.channels / ours.channels
        level = head[:, theirs.channels * folds :]
        head = torch.cat([image.expand(-1, ours.channels, -1, -1, -1).flatten(1, 2), level], dim=1)
        tail = tail.unflatten(0, (theirs.channels, folds)).mean(0).repeat(ours.channels, 1, 1, 1)
        bias = bias.unflatten(0, (theirs.channels, folds)).mean(0).repeat(ours.channels)
    if theirs.noise_map and not ours.noise_map:
        head = head[:, :-1]
    elif ours.noise_map and not theirs.noise_map:
        head = F.pad(head, (0, 0, 0, 0, 0, 1))
    network.load_state_dict(weights | {"head.weight": head, "tail.weight": tail, "tail.bias": bias})


class DenoisingTask(LightningModule):
    """Noise, loss and schedule. `network` is trained, `average` is its moving average.

    Batches are (noisy, clean) integer patches [B, C, p, p]; validation images come one at a time, [1, C, H, W].
    Validation images get the recipe's noise unless `noisy_validation` says that they bring their own.
    """

    def __init__(
        self,
        config: TrainingConfig,
        start: Checkpoint | None = None,
        *,
        noisy_validation: bool = False,
        objective: Objective | None = None,
        risk: Risk | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        self.config = config
        self.network = build_network(config.network)
        if start is not None:
            warm_start(self.network, start)
        self.average = AveragedModel(self.network, multi_avg_fn=ema_with_warmup(config.ema), use_buffers=True)
        self.average.requires_grad_(False)
        self.noise = parse_noise_spec(config.noise) if config.noise else None
        self.validation_noise = None if noisy_validation else self.noise
        self.objective = objective or Supervised(self.noise)
        self.risk = risk
        self.risks: list[Tensor] = []
        self.predict = torch.compile(self.network) if config.compile else self.network
        self.val_psnr = PeakSignalNoiseRatio(data_range=1.0, reduction="none", dim=(1, 2, 3))
        self.val_ssim = StructuralSimilarityIndexMeasure(data_range=1.0)
        self.elapsed_before = 0.0
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.elapsed_before + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """The used share of the budget, 0 to 1."""
        by_steps = self.global_step / self.config.steps if self.config.steps else 0.0
        by_time = self.elapsed / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def generator(self, *key: int) -> torch.Generator:
        """Seeded by the run's seed and `key`, on the module's device."""
        seed = self.config.seed
        for part in key:
            seed = (seed * 1_000_003 + part + 1) % (1 << 62)
        return torch.Generator(self.device).manual_seed(seed)

    def loss(self, output: Tensor, clean: Tensor) -> Tensor:
        difference = output.float() - clean
        if self.config.loss == "l1":
            return difference.abs().mean()
        return (difference.square() + 1e-6).sqrt().mean()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        generator = self.generator(0, self.global_step, self.global_rank)
        noisy, clean = augment(to_unit(batch[0]), to_unit(batch[1]), generator, self.config.turns)
        loss = self.objective(self, noisy, clean, generator)
        if (self.device.type == "cpu" or self.global_step % 50 == 0) and not torch.isfinite(loss):
            raise self.diverged(f"the loss is {loss.item()}")
        self.log("loss", loss, prog_bar=True)
        return loss

    def diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what} at step {self.global_step}; best.safetensors and last.ckpt keep the state before it. Try a lower "
            "learning rate, or --resume with another --seed"
        )

    def on_train_batch_start(self, batch: object, batch_index: int) -> None:
        warmup = min(1.0, (self.global_step + 1) / max(1, self.config.warmup_steps))
        rate = self.config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * self.progress))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def on_train_batch_end(self, outputs: object, batch: object, batch_index: int) -> None:
        self.average.update_parameters(self.network)
        if self.progress >= 1.0:
            self.trainer.should_stop = True

    def on_train_start(self) -> None:
        self.started = time.monotonic()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        noisy, clean = to_unit(batch[0]), to_unit(batch[1])
        generator = self.generator(1, batch_index)
        if self.risk is not None:
            with torch.autocast(self.device.type, enabled=False):
                self.risks.append(self.risk(self.average.module, noisy, generator))
            return
        noisy, level = with_noise(self.validation_noise, noisy, clean, generator)
        with torch.autocast(self.device.type, enabled=False):  # the differences of squares in SSIM vanish in bf16
            restored = (self.average.module(noisy, level).clamp(0, 1) * 255).round() / 255
            self.val_psnr.update(restored, clean)
            self.val_ssim.update(restored, clean)

    def on_validation_epoch_end(self) -> None:
        if self.risk is not None:
            estimate = as_psnr(torch.stack(self.risks))
            self.risks = []
            if estimate.isnan():
                raise self.diverged("the network's output is not finite")
            self.log("val_psnr", estimate, prog_bar=True)
            return
        values = self.val_psnr.compute()
        if values.isnan().any():
            raise self.diverged("the network's output is not finite")
        finite = values[torch.isfinite(values)]
        self.log("val_psnr", finite.mean() if finite.numel() else torch.tensor(100.0), prog_bar=True)
        ssim: Any = self.val_ssim.compute()  # a pair only when the full image is asked for
        self.log("val_ssim", ssim)
        self.val_psnr.reset()
        self.val_ssim.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.config.optimizer == "muon":
            return Muon(self.network, self.config.learning_rate, self.config.weight_decay)
        return torch.optim.AdamW(
            self.network.parameters(),
            lr=self.config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.config.weight_decay,
            foreach=True,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["elapsed"] = self.elapsed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.elapsed_before = float(checkpoint["elapsed"])


def augment(noisy: Tensor, clean: Tensor, generator: torch.Generator, turns: bool = True) -> tuple[Tensor, Tensor]:
    """One of the eight symmetries of the square for each pair of [B, C, p, p], exact: no interpolation. Without `turns`
    one of the four that leave rows rows."""
    draws = torch.rand(3, noisy.shape[0], 1, 1, 1, generator=generator, device=noisy.device) < 0.5
    both = torch.cat([noisy, clean], dim=1)
    both = torch.where(draws[0], both.flip(-1), both)
    both = torch.where(draws[1], both.flip(-2), both)
    if turns:
        both = torch.where(draws[2], both.mT, both)
    return both[:, : noisy.shape[1]], both[:, noisy.shape[1] :]


def trainer_precision(precision: str) -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name of a precision; "auto" is bf16 where the processor multiplies it in hardware."""
    if precision == "auto":
        if torch.cuda.is_available():
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        else:
            precision = "bf16" if torch.cpu.get_capabilities().get("avx512_bf16", False) else "fp32"
    return "bf16-mixed" if precision == "bf16" else "32-true"


def fit(
    folder: Path,
    config: TrainingConfig,
    train: Sequence[Pair],
    validation: Sequence[Pair],
    *,
    data: str,
    start: Checkpoint | None = None,
    resume: bool = False,
    workers: int = 0,
    quiet: bool = False,
    objective: Objective | None = None,
    risk: Risk | None = None,
    report: Callable[[Path, Checkpoint], Mapping[str, str]] | None = None,
) -> RunFolder:
    """Train in `folder`, which gets best.safetensors, last.ckpt, metrics.csv, curve.png, card.md and tensorboard/.

    Args:
        folder: the run; `resume` continues from its last.ckpt.
        train, validation: decoded images, see `denoise_se.training_images.load_pairs`.
        data: where they came from, for the card.
        start: the weights to start from; they are validated first, and kept when training does not beat them.
        objective: what a step minimises; the recipe's noise on clean images, or noisy/clean pairs, unless given.
        risk: validates noisy images that have no clean partner; the PSNR is then an estimate.
        report: measures the best weights at the end, see `RunFolder`.

    Raises:
        UsageError: nothing to resume, a state that is damaged or of another network, or a folder that holds a run.
        TrainingError: a loss that is not finite, or memory that ran out; the state before it is kept.
        Interrupted: after Ctrl-C or SIGTERM, with the state saved.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    run = RunFolder(folder, config.to_dict(), data=data, start=start, images=(len(train), len(validation)))
    run.report, run.estimated = report, risk is not None
    run.open(resume)
    task = DenoisingTask(
        config, start, noisy_validation=validation[0].noisy is not None, objective=objective, risk=risk
    )
    steps = config.steps or ENDLESS
    module = TrainingData(train, validation, patch=config.patch, batch=config.batch, seed=config.seed, workers=workers)
    every: int | timedelta = max(1, config.steps // config.validations)
    if not config.steps:
        every = timedelta(minutes=config.minutes / config.validations)
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        max_steps=steps,
        val_check_interval=every,
        limit_val_batches=len(validation),
        num_sanity_val_steps=0,
        precision=trainer_precision(config.precision),
        gradient_clip_val=config.clip,
        callbacks=[run, *([] if quiet else [RichProgressBar()])],
        plugins=[TrainingState()],
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        log_every_n_steps=50,
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        enable_checkpointing=False,
        inference_mode=False,  # its tensors cannot be updated by the metrics of the validations after the first
    )
    device = trainer.strategy.root_device
    if device.type == "cuda":
        module.keep_on(device, torch.cuda.mem_get_info(device)[0])
    run.loader_rate = measure_loader(module)
    try:
        with run.listening():
            if not resume:
                trainer.validate(task, datamodule=module, verbose=False)
            trainer.fit(task, datamodule=module, ckpt_path=run.last if resume else None, weights_only=True)
    except torch.OutOfMemoryError as error:
        raise memory_error(config) from error
    except RuntimeError as error:
        if "loading state_dict" in str(error):
            raise UsageError(
                f"{run.last}: its network is not the one of this recipe; resume with the options of its start"
            ) from error
        if "memory" not in str(error):
            raise
        raise memory_error(config) from error
    run.finish(trainer, task)
    return run


def memory_error(config: TrainingConfig) -> TrainingError:
    return TrainingError(
        f"out of memory with --batch {config.batch} --patch {config.patch}; try --batch {max(1, config.batch // 2)}"
        f" or --patch {max(16, config.patch // 2)}"
    )


def measure_loader(module: TrainingData, batches: int = 20) -> float:
    """Patches a second that the loader gives when nothing else waits for it."""
    iterator = iter(module.patches(0))
    next(iterator)
    began = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return batches * module.batch / (time.perf_counter() - began)
