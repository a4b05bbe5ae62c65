"""The command `denoise-se train` and its options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from denoise_se.noise_spec import noise_help

train_app = typer.Typer()


class Strategy(StrEnum):
    """How `train` shares its batches: ddp also for one process."""

    AUTO = "auto"
    DDP = "ddp"


@train_app.command(
    epilog="Examples:\n\n  denoise-se train -o run shots --minutes 60\n\n"
    "  denoise-se train -o run --pairs noisy clean --minutes 60\n\n"
    "  denoise-se train -o run --clean photos --noise poisson-gaussian:gain=0.01,read=0.002 --init color"
)
def train(
    run: Annotated[Path, typer.Option("-o", "--output", help="Run folder to write.")],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Images; what they are is told by names and pixels, or by an option."),
    ] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="NOISY CLEAN", help="Two folders of the same file names."),
    ] = None,
    clean: Annotated[Path | None, typer.Option(help="Folder of clean images; needs --noise.")] = None,
    noise: Annotated[str | None, typer.Option(help=noise_help())] = None,
    burst: Annotated[
        Path | None, typer.Option(help="Folder with a sub-folder for each scene: several shots of it.")
    ] = None,
    noisy: Annotated[Path | None, typer.Option(help="Folder of noisy images without clean ones.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Start from a model: name, path or none. Left out: the shipped one that does best on the images, or "
            "color, or gray for grey ones, for white Gaussian noise."
        ),
    ] = None,
    val_pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="NOISY CLEAN", help="Validation pairs; at most 100, evenly spread."),
    ] = None,
    rehearse: Annotated[
        Path | None,
        typer.Option(help="Folder of other clean images to practise the start's own noise on, so as not to forget it."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML recipe; the options below override it.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Wall-clock budget; 30 where neither this nor --steps is given.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Step budget; 0 for none.")] = None,
    patch: Annotated[int | None, typer.Option(min=8, help="Side of the patches in pixels.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Patches per step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, patches and noise.")] = None,
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Refuse larger images.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that crop patches; 0 crops in this one.")] = 0,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs, or processes on the CPU, on each machine.", show_default="1, or as started"),
    ] = None,
    num_nodes: Annotated[
        int | None, typer.Option(min=1, help="Machines; see the README.", show_default="1, or as started")
    ] = None,
    strategy: Annotated[Strategy, typer.Option(help="How several devices train together.")] = Strategy.AUTO,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from RUN/last.ckpt.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train or fine-tune on your own noise; writes RUN/best.safetensors and a card with what was measured."""
    from denoise_se.app.train_command import Sources, run_train

    run_train(
        run,
        Sources(folder, pairs, clean, burst, noisy, noise, val_pairs, rehearse),
        init=init,
        config=config,
        overrides={"minutes": minutes, "steps": steps, "patch": patch, "batch": batch, "seed": seed},
        max_pixels=max_pixels,
        workers=workers,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy.value,
        resume=resume,
        quiet=quiet,
    )
