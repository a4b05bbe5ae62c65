"""`denoise-se train`: from options to images, a recipe and a run."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing import get_start_method
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from rich.console import Console

from denoise_se.app.console import message_console
from denoise_se.errors import DatasetError, DivergedError, Interrupted, UsageError, reason
from denoise_se.remote_files import real_path

if TYPE_CHECKING:
    from denoise_se.checkpoint import Checkpoint
    from denoise_se.training_config import TrainingConfig
    from denoise_se.training_layout import Layout
    from denoise_se.training_plan import TrainingPlan

SAID = {"pairs": "pairs", "burst": "bursts", "noisy": "noisy pictures only", "clean": "clean images"}
GENTLE = {"learning_rate": 5e-4, "warmup_steps": 20}  # fine-tuning, unless the recipe says otherwise


@dataclass(frozen=True)
class Sources:
    """What is learnt from: one of `folder`, `pairs`, `clean` with `noise`, `burst` and `noisy`. What is validated on,
    else a part of it, and what is rehearsed on."""

    folder: Path | None = None
    pairs: tuple[Path, Path] | None = None
    clean: Path | None = None
    burst: Path | None = None
    noisy: Path | None = None
    noise: str | None = None
    val_pairs: tuple[Path, Path] | None = None
    rehearse: Path | None = None

    def check(self, run: Path, recipe: Mapping[str, Any]) -> None:
        """Raises UsageError for what does not go together, DatasetError for no folder, and NoiseSpecError."""
        if sum(option is not None for option in (self.folder, self.pairs, self.clean, self.burst, self.noisy)) != 1:
            raise UsageError(
                "give one of: a folder, --pairs NOISY CLEAN, --clean DIR with --noise SPEC, --burst DIR or --noisy DIR"
            )
        if self.noise is not None and self.folder is None and self.clean is None:
            raise UsageError("--noise goes with --clean; the others bring their own noise")
        if self.clean is not None and not (self.noise or recipe.get("noise")):
            raise UsageError("--clean needs the noise to add: --noise gaussian:5-50, for instance")
        alone = (self.folder, self.clean, self.burst, self.noisy, self.rehearse)
        for source in (*alone, *(self.pairs or ()), *(self.val_pairs or ())):
            if source is not None and source.name.startswith("--"):
                raise UsageError(f"{source}: is an option, where a folder is wanted; --pairs takes two, NOISY CLEAN")
            if source is not None and not source.exists():
                raise DatasetError(f"{source}: no such folder")
            if source is not None and real_path(run).is_relative_to(real_path(source)):
                raise UsageError(f"-o {run}: lies inside {source}, all of whose pictures are read; give another folder")

        from denoise_se.noise import parse_noise_spec

        for spec in (self.noise, recipe.get("noise")):
            if spec:
                parse_noise_spec(str(spec))

    def layout(self, recipe: Mapping[str, Any], tell: Callable[[str], None]) -> Layout:
        """Raises DatasetError for a folder that cannot be read or understood."""
        from denoise_se.file_pairs import PairedFiles
        from denoise_se.training_layout import Layout, recognise

        if self.folder is not None:
            found = recognise(self.folder, has_noise=bool(self.noise or recipe.get("noise")))
            tell(f"{self.folder}: taken as {SAID[found.kind]}: {found.why}")
            if self.noise is not None and found.kind != "clean":
                raise UsageError(
                    f"--noise goes with clean images, and {self.folder} is taken as {SAID[found.kind]}; leave it out"
                )
            return found
        if self.pairs is not None:
            return Layout("pairs", self.pairs[1], PairedFiles(*self.pairs), "")
        if self.clean is not None:
            return Layout("clean", self.clean, PairedFiles(None, self.clean), "")
        folder = self.burst or self.noisy
        assert folder is not None  # as `check` has seen
        return Layout("burst" if self.burst else "noisy", folder, None, "")


def run_train(
    run: Path,
    sources: Sources,
    *,
    init: str | None,
    config: Path | None,
    overrides: dict[str, Any],
    max_pixels: int | None,
    workers: int,
    devices: int | None,
    num_nodes: int | None,
    strategy: Literal["auto", "ddp"],
    resume: bool,
    quiet: bool,
) -> None:
    """Raises DenoiseError before the first step for a request or data that cannot be used."""
    recipe = read_recipe(config) | {key: value for key, value in overrides.items() if value is not None}
    if recipe.get("steps") and "minutes" not in recipe:
        recipe["minutes"] = 0.0
    sources.check(run, recipe)

    from denoise_se.checkpoint import load_checkpoint

    start, said = (None, "random weights") if init in (None, "none") else (load_checkpoint(str(init)), str(init))

    from denoise_se.fitting import fit
    from denoise_se.heap import keep_freed_memory
    from denoise_se.image_io import DEFAULT_MAX_PIXELS
    from denoise_se.place import this_rank
    from denoise_se.ranks import Ranks
    from denoise_se.resumption import check_run
    from denoise_se.training_start import channels_of
    from denoise_se.warm_start import in_channels

    console = message_console(quiet=this_rank() > 0)
    check_run(run, resume)  # before the images are read
    layout = sources.layout(recipe, console.print)
    recipe["noise"] = (sources.noise or recipe["noise"]) if layout.kind == "clean" else None
    if init is None:
        start, said = shipped_start(layout, recipe, max_pixels or DEFAULT_MAX_PIXELS)
    settled = make_config(recipe, start)
    if init is not None and settled.network.channels == 1 and channels_of(layout, None) == 3:
        console.print(
            "note: the network is for grey images, so colour is learnt as its brightness; --init color keeps it"
        )
    start = start and in_channels(start, settled.network.channels)
    again = [sys.executable, "-m", "denoise_se.app", *sys.argv[1:]]
    ranks = Ranks.from_environment(devices, num_nodes, strategy, again)
    ranks.check_batch(settled.batch)
    plan, on_disk = read_images(
        run, sources, layout, settled, start, max_pixels or DEFAULT_MAX_PIXELS, ranks.devices, console
    )
    for line in plan.warnings:
        console.print(f"warning: {line}")
    for line in plan.notes:
        console.print(line)
    console.print(f"{len(plan.train)} images for training, {len(plan.validation)} for validation; start: {said}")
    console.print(f"training {budget_of(plan.config)}")
    keep_freed_memory()
    try:
        result = fit(
            run,
            plan.config,
            plan.train,
            plan.validation,
            data=plan.data,
            start=start,
            resume=resume,
            workers=0 if on_disk and get_start_method() != "fork" else workers,  # which would get copies in memory
            quiet=quiet or not console.is_terminal,
            objective=plan.objective,
            risk=plan.risk,
            report=plan.report,
            ranks=ranks,
            rehearsal=plan.rehearsal,
            tell=None if quiet or console.is_terminal else console.print,
        )
    except (Interrupted, DivergedError) as error:
        if this_rank():  # the first process says it for all
            sys.exit(error.exit_code)
        raise
    for key, value in result.record.summary().items():
        console.print(f"{key}: {value}")
    if this_rank() == 0 and plan.clean and find_spec("openvino"):
        console.print(f"int8: {run_calibration(result.best, plan)}")
    model = shlex.quote(str(result.best))
    console.print(f"wrote {result.best}; use it with: denoise-se denoise INPUT -o OUT --model {model}")


def shipped_start(layout: Layout, recipe: Mapping[str, Any], max_pixels: int) -> tuple[Checkpoint, str]:
    """The shipped weights that suit the images, and how they are called. Raises UsageError for a network of a recipe
    that is none."""
    from denoise_se.noise import parse_noise_spec
    from denoise_se.training_start import channels_of, choose_start

    noise = parse_noise_spec(str(recipe["noise"])) if recipe["noise"] else None
    own = make_config({"network": recipe["network"]}, None).network.channels if "network" in recipe else None
    chosen = choose_start(layout, own or channels_of(layout, noise), noise, max_pixels)
    return chosen.checkpoint, f"{chosen.name} ({chosen.why})"


def read_images(
    run: Path,
    sources: Sources,
    layout: Layout,
    config: TrainingConfig,
    start: Checkpoint | None,
    max_pixels: int,
    processes: int,
    console: Console,
) -> tuple[TrainingPlan, bool]:
    """The plan, with all images read, and whether some of them lie on the disk of the run's folder, which is made for
    them. Raises DenoiseError."""
    from denoise_se.file_pairs import PairedFiles
    from denoise_se.loaded import Reading
    from denoise_se.pixel_store import PixelStore
    from denoise_se.training_plan import plan_training

    status = console.status("reading the images ...")
    if not console.is_terminal:
        console.print("reading the images ...")
    new = not run.exists()
    with status, undone(run if new else None):
        store = PixelStore(run, processes=processes, tell=lambda kept: status.update(f"reading the images: {kept}"))
        held_out = PairedFiles(*sources.val_pairs) if sources.val_pairs else None
        plan = plan_training(layout, config, start, held_out, sources.rehearse, Reading(store.keep, max_pixels))
    if store.mapped:
        console.print(f"{store}: the disk of {run} gives that room until the run ends")
    return plan, store.mapped > 0


@contextmanager
def undone(folder: Path | None) -> Iterator[None]:
    """Takes an empty folder away again where the block fails."""
    try:
        yield
    except BaseException:
        if folder is not None:
            with suppress(OSError):
                folder.rmdir()
        raise


def budget_of(config: TrainingConfig) -> str:
    """When a run ends, and how to say otherwise."""
    steps, minutes = f"for {config.steps:,} steps", f"for {config.minutes:g} minute{'' if config.minutes == 1 else 's'}"
    if not config.steps:
        return f"{minutes} (--minutes or --steps changes that)"
    return f"{steps} or {minutes}, whichever ends first" if config.minutes else steps


def run_calibration(weights: Path, plan: TrainingPlan) -> str:
    """Calibrates int8 for a run's weights, beside them and in its card; says whether it will be used."""
    from denoise_se.calibration import IMAGES, MOST_LOSS, SIDE, calibrate_run, write_calibration
    from denoise_se.checkpoint import open_checkpoint
    from denoise_se.model_card import note_calibration

    checkpoint = open_checkpoint(weights)
    train, validation = (plan.report.batches(pairs, IMAGES // 2, SIDE) for pairs in (plan.train, plan.validation))
    calibration = calibrate_run(checkpoint, train, validation)
    try:
        write_calibration(checkpoint, calibration)
        note_calibration(weights.with_name("card.md"), calibration)
    except OSError as error:
        return f"cannot be kept ({reason(error)}), so float is used"
    if calibration.worst_loss == math.inf:
        return "gives values that are not finite, so float is used"
    if calibration.worst_loss > MOST_LOSS:
        return f"would cost {calibration.worst_loss:.3f} dB, so float is used"
    return f"costs {max(0.0, calibration.worst_loss):.3f} dB, so it is used on x86 processors"


def read_recipe(path: Path | None) -> dict[str, Any]:
    """The YAML mapping in `path`, or nothing; UsageError when it is none."""
    if path is None:
        return {}
    try:
        if not path.is_file():  # opening a pipe would wait for a writer for ever
            raise UsageError(f"--config {path}: is no file")
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: cannot be read as YAML ({error})") from error
    if not isinstance(recipe, dict):
        raise UsageError(f"--config {path}: holds no mapping of training fields")
    try:
        make_config(recipe | {"minutes": recipe.get("minutes") or 1.0}, None)  # --steps may be the budget
    except UsageError as error:
        raise UsageError(f"--config {path}: {error}") from error
    return recipe


def make_config(recipe: dict[str, Any], start: Checkpoint | None) -> TrainingConfig:
    """The recipe; with a start its network is the start's, and unset rates are those of fine-tuning."""
    from denoise_se.training_config import TrainingConfig

    if start is None:
        return TrainingConfig.from_dict(recipe)
    minutes = recipe.get("minutes", 0.0)
    if "validations" not in recipe and isinstance(minutes, int | float) and 0 < minutes < 10:
        recipe = recipe | {"validations": max(3, round(minutes))}  # each costs seconds that a short run needs
    rates = {key: value for key, value in GENTLE.items() if key not in recipe}
    own_network = "network" in recipe
    config = TrainingConfig.from_dict(recipe | rates)
    return config if own_network else replace(config, network=start.config)
