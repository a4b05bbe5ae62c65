"""`denoise-se models`: the catalogue."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from denoise_se.app.console import table_console
from denoise_se.checkpoint import CHECKPOINTS, load_checkpoint
from denoise_se.network import count_macs_per_pixel, count_parameters


def run_models() -> None:
    """Print every shipped model with what it is for, its parameters, cost and validation PSNR."""
    table = Table("model", "for", "channels", "noise level", "parameters", "MMAC a pixel", "measured")
    for name, entry in CHECKPOINTS.items():
        checkpoint = load_checkpoint(name)
        table.add_row(
            name,
            entry.purpose,
            str(entry.channels),
            "map" if checkpoint.config.noise_map else "blind",
            f"{count_parameters(checkpoint.network()):,}",
            f"{count_macs_per_pixel(checkpoint.config) / 1e6:.3f}",
            measured(checkpoint.psnr),
        )
    table_console().print(table)


def measured(psnr: Mapping[str, object]) -> str:
    """The PSNR at sigma 25 and on real photos, a line each; the card has the rest."""
    shown = {key: str(value).partition(",")[0] for key, value in psnr.items() if key.endswith((":25", "real"))}
    return "\n".join(f"{key}: {value}" for key, value in shown.items())
