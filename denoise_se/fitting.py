"""Training a network in a run folder: from images and a recipe to weights, whatever happens in between."""

from __future__ import annotations

import hashlib
import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment

from denoise_se.budget import Budget
from denoise_se.checkpoint import Checkpoint
from denoise_se.datasets import TrainingData, sheets
from denoise_se.errors import DenoiseError, Interrupted, TrainingError, UsageError, is_out_of_memory
from denoise_se.forgiving import Forgiving
from denoise_se.held_out_risk import Risk
from denoise_se.noise import parse_noise_spec
from denoise_se.objectives import Objective
from denoise_se.place import this_rank
from denoise_se.ranks import Ranks
from denoise_se.run_folder import Report, RunFolder
from denoise_se.run_record import RunRecord
from denoise_se.stop import Stop
from denoise_se.told_level import with_told
from denoise_se.training import DenoisingTask
from denoise_se.training_config import ENDLESS, TrainingConfig
from denoise_se.training_images import Pair
from denoise_se.training_state import TrainingState


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
    report: Report | None = None,
    ranks: Ranks | None = None,
    rehearsal: Sequence[Pair] = (),
    tell: Callable[[str], None] | None = None,
) -> RunFolder:
    """Train in `folder`, which gets best.safetensors, last.ckpt, metrics.csv, curve.png, card.md and tensorboard/.

    Args:
        folder: the run; `resume` continues from its last.ckpt.
        train, validation: decoded images, see `denoise_se.training_images.load_pairs`; those that bring their own noise
            get what the network is told of it, where they do not say it (`denoise_se.told_level`).
        data: where they came from, for the card.
        start: the weights to start from; they are validated first, and kept when training does not beat them.
        objective: what a step minimises; the recipe's noise on clean images, or noisy/clean pairs, unless given.
        risk: validates noisy images that have no clean partner; the PSNR is then an estimate.
        report: measures the best weights at the end, given the folder, these, and what raises Interrupted after a
            signal; its lines go on the card.
        rehearsal: images that the objective rehearses on, so that a run is not resumed with others.
        tell: takes a line about each validation, where there is no bar to show it.
        ranks: the processes that train together; each of them calls this function. `config.batch` is of all of them.

    Raises:
        UsageError: nothing to resume, a state that is damaged or of another run, or a folder that holds a run.
        TrainingError: losses that are not finite, memory that ran out, a full disk; the state before it is kept.
        Interrupted: after Ctrl-C, SIGTERM or SIGHUP, with the state saved.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    ranks = ranks or Ranks()
    ranks.check_batch(config.batch)
    train, validation = (with_told(pairs, config.network, start) for pairs in (train, validation))
    drawn = sheets(validation, config.seed) if validation[0].noisy is None and config.drawings else []
    validation = [*validation, *drawn]
    images = ([*names(train), *names(rehearsal)], names(validation))
    record = RunRecord(
        config.to_dict(), data, start, (len(images[0]), len(images[1])), len(drawn), estimated=risk is not None
    )
    run = RunFolder(folder, record, digests(images, [*train, *rehearsal, *validation], config.noise), report, tell)
    run.open(resume)
    module = TrainingData(
        train,
        validation,
        patch=config.patch,
        batch=config.batch,
        seed=config.seed,
        drawings=config.drawings,
        workers=workers,
    )
    stop = Stop()
    try:
        with stop.listening(), ranks.running():
            budget = Budget(config.steps, config.minutes, stop=stop, ranks=ranks)
            own_noise = validation[0].noisy is not None
            task = DenoisingTask(
                config,
                start,
                noisy_validation=own_noise,
                drawn=len(drawn),
                objective=objective,
                risk=risk,
                budget=budget,
            )
            trainer = make_trainer(run, config, ranks, quiet=quiet)
            device = trainer.strategy.root_device
            if device.type == "cuda":
                module.keep_on(device, torch.cuda.mem_get_info(device)[0])
            record.loader_rate = measure_loader(module)
            if not resume:
                trainer.validate(task, datamodule=module, verbose=False)
            trainer.fit(task, datamodule=module, ckpt_path=run.last if resume else None, weights_only=True)
            run.finish(trainer, task)
        if stop.signal is not None:  # during the report
            raise run.interrupted(stop.signal)
    except SystemExit as end:  # Lightning's answer to a second Ctrl-C
        raise run.interrupted(stop.signal or signal.SIGINT) from end
    except Interrupted:
        run.describe(task)
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise memory_error(config) from error
    except OSError as error:
        if stop.signal is not None:
            raise run.interrupted(stop.signal) from error
        raise TrainingError(f"{folder}: {error}; mend that, then go on with --resume") from error
    except RuntimeError as error:
        known = explained(error, run, config)
        if known is None:
            raise
        raise known from error
    return run


def make_trainer(run: RunFolder, config: TrainingConfig, ranks: Ranks, *, quiet: bool) -> Trainer:
    """A trainer that leaves saving, validating and stopping to `run` and the task."""
    bar = [] if quiet or this_rank() else [RichProgressBar(console_kwargs={"file": Forgiving(sys.stdout)})]
    trainer = Trainer(
        default_root_dir=run.folder,
        devices=ranks.devices,
        num_nodes=ranks.nodes,
        strategy="auto" if ranks.world_size == 1 and ranks.strategy == "auto" else "ddp",
        max_epochs=-1,
        check_val_every_n_epoch=None,
        max_steps=config.steps or int(ENDLESS),
        val_check_interval=1,  # when it is due says the run folder
        num_sanity_val_steps=0,
        precision=trainer_precision(config.precision),
        callbacks=[run, *bar],
        plugins=[TrainingState(), LightningEnvironment()],
        logger=TensorBoardLogger(run.folder, name="tensorboard", version=""),
        log_every_n_steps=50,
        enable_progress_bar=bool(bar),
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        inference_mode=False,
    )
    # Lightning's own SIGTERM handler ends a run without a checkpoint, and broadcasts from inside the handler
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def names(pairs: Sequence[Pair]) -> list[tuple[str, bool, int, int]]:
    """Name, whether it brings its noise, height and width of each image: what the order of the patches depends on."""
    return [(pair.name, pair.noisy is not None, *pair.clean.shape[1:]) for pair in pairs]


def digests(images: object, pairs: Sequence[Pair], noise: str | None) -> dict[str, str]:
    """By which a resumed run tells its images from others: of their names and sizes, and of what they hold, of which
    each one's middle row stands for the rest, and a noise profile."""
    content = hashlib.sha256(repr(noise and parse_noise_spec(noise)).encode())
    for pair in pairs:
        for image in (pair.noisy, pair.clean):
            if image is not None:
                content.update(image[:, image.shape[1] // 2].contiguous().numpy().tobytes())
    return {"images": hashlib.sha256(repr(images).encode()).hexdigest(), "content": content.hexdigest()}


def explained(error: RuntimeError, run: RunFolder, config: TrainingConfig) -> DenoiseError | None:
    """What an error of torch means to the user; None when that is not known."""
    text = str(error)
    if "loading state_dict" in text:
        return UsageError(
            f"{run.last}: its network is not the one of this recipe; resume with the options of its start"
        )
    if "shared memory" in text:
        return TrainingError(f"{text.splitlines()[0]}: go on with --resume --workers 0")
    if is_out_of_memory(error):
        return memory_error(config)
    if isinstance(error, torch.distributed.DistError) or "gloo" in text:
        return TrainingError("lost another process of this run; mend what it tells, then go on with --resume")
    return None


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
