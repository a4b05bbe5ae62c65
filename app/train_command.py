"""`denoise-se train`: from options to images, a recipe and a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from denoise_se.errors import UsageError

if TYPE_CHECKING:
    from denoise_se.checkpoint import Checkpoint
    from denoise_se.training_config import TrainingConfig

GENTLE = {"learning_rate": 5e-4, "warmup_steps": 50}  # fine-tuning, unless the recipe says otherwise


def run_train(
    run: Path,
    *,
    pairs: tuple[Path, Path] | None,
    clean: Path | None,
    noise: str | None,
    noisy: Path | None,
    init: str | None,
    val_pairs: tuple[Path, Path] | None,
    config: Path | None,
    overrides: dict[str, Any],
    workers: int,
    resume: bool,
    quiet: bool,
) -> None:
    """Raises DenoiseError before the first step for a request or data that cannot be used."""
    recipe = read_recipe(config) | {key: value for key, value in overrides.items() if value is not None}
    if noisy is not None:
        raise UsageError("--noisy: training without clean images is not available yet; use --pairs or --clean")
    if (pairs is None) == (clean is None):
        raise UsageError("give either --pairs NOISY CLEAN, or --clean DIR with --noise SPEC")
    if pairs is not None and noise is not None:
        raise UsageError("--noise goes with --clean; --pairs bring their own noise")
    if clean is not None and not (noise or recipe.get("noise")):
        raise UsageError("--clean needs the noise to add: --noise gaussian:5-50, for instance")
    if recipe.get("steps") and "minutes" not in recipe:
        recipe["minutes"] = 0.0
    recipe["noise"] = None if pairs is not None else noise or recipe["noise"]

    from denoise_se.checkpoint import load_checkpoint
    from denoise_se.noise import parse_noise_spec

    if recipe["noise"]:
        parse_noise_spec(str(recipe["noise"]))
    init = init or ("photo" if pairs is not None else "color")
    start = None if init == "none" else load_checkpoint(init)

    from denoise_se.datasets import SMALLEST_SIDE, PairedFiles, load_pairs, refuse_shared_images, split_validation
    from denoise_se.training import fit

    recipe_config = make_config(recipe, start)
    channels, patch = recipe_config.network.channels, recipe_config.patch
    files = PairedFiles(*pairs) if pairs else PairedFiles(None, clean)  # type: ignore[arg-type]
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print("reading the images ...")
    images = load_pairs(files, channels, max(patch, SMALLEST_SIDE))
    if val_pairs is not None:
        train, validation = images, load_pairs(PairedFiles(*val_pairs), channels, SMALLEST_SIDE)
    else:
        train, validation = split_validation(images)
    refuse_shared_images(train, validation)
    where = f"{pairs[0].name} and {pairs[1].name} (pairs)" if pairs else f"{files.clean.name} (clean)"
    console.print(f"{len(train)} images for training, {len(validation)} for validation; start: {init}")
    result = fit(
        run,
        recipe_config,
        train,
        validation,
        data=f"{where}, {len(train)} images",
        start=start,
        resume=resume,
        workers=workers,
        quiet=quiet or not console.is_terminal,
    )
    for key, value in result.summary().items():
        console.print(f"{key}: {value}")
    console.print(f"wrote {result.best}; use it with: denoise-se denoise INPUT -o OUT --model {result.best}")


def read_recipe(path: Path | None) -> dict[str, Any]:
    """The YAML mapping in `path`, or nothing; UsageError when it is none."""
    if path is None:
        return {}
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: cannot be read as YAML ({error})") from error
    if not isinstance(recipe, dict):
        raise UsageError(f"--config {path}: holds no mapping of training fields")
    return recipe


def make_config(recipe: dict[str, Any], start: Checkpoint | None) -> TrainingConfig:
    """The recipe; with a start its network is the start's, and unset rates are those of fine-tuning."""
    from denoise_se.training_config import TrainingConfig

    if start is None:
        return TrainingConfig.from_dict(recipe)
    rates = {key: value for key, value in GENTLE.items() if key not in recipe}
    own_network = "network" in recipe
    config = TrainingConfig.from_dict(recipe | rates)
    return config if own_network else replace(config, network=start.config)
