"""The commands that make shipped checkpoints, which help does not list: `ablation`, `ship` and `quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

developer_app = typer.Typer()


@developer_app.command(hidden=True)
def ablation(
    clean: Annotated[Path, typer.Option(help="Folder of clean images.")],
    report: Annotated[Path, typer.Option(help="Table to write, .md.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each variant.")] = 500,
    batch: Annotated[int, typer.Option(min=1, help="Patches per step.")] = 8,
    only: Annotated[list[str] | None, typer.Option(help="Name of a variant; may be repeated.")] = None,
) -> None:
    """Train every block variant equally and print PSNR, parameters, MACs and time (developers)."""
    from denoise_se.app.ablation_command import run_ablation

    run_ablation(clean, report, steps=steps, batch=batch, only=only)


@developer_app.command(hidden=True)
def ship(
    name: Annotated[str, typer.Argument(help="Name of the catalogue.")],
    weights: Annotated[Path, typer.Argument(help="best.safetensors of a run.")],
    evaluations: Annotated[list[Path] | None, typer.Argument(help="JSON reports of `evaluate`.")] = None,
) -> None:
    """Make a run's best weights a shipped checkpoint with its card (developers)."""
    from denoise_se.app.ship_command import run_ship

    run_ship(name, weights, evaluations or [])


@developer_app.command(hidden=True)
def quantize(
    model: Annotated[str, typer.Argument(help="A name of the catalogue, or a .safetensors path.")],
    clean: Annotated[Path, typer.Option(help="Folder of clean images like those it was trained on.")],
) -> None:
    """Calibrate int8 for a checkpoint, measure what it costs, and keep both beside the weights (developers)."""
    from denoise_se.app.quantize_command import run_quantize

    run_quantize(model, clean)
