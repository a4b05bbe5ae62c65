"""`denoise-se noise`: what the noise of an image is like."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from denoise_se.errors import EXIT_DONE, EXIT_SOME_FAILED, ImageError
from denoise_se.image_io import read
from denoise_se.noise_estimation import estimate_noise


def run_estimate(files: list[Path]) -> int:
    """Print a row per file; returns the exit code."""
    table = Table(Column("file", overflow="fold"), "sigma (8-bit units)", "gain", "read noise", "correlation (h, v)")
    code = EXIT_DONE
    for path in files:
        try:
            noise = estimate_noise(read(path).pixels)
        except ImageError as error:
            print(f"denoise-se: {error}", file=sys.stderr)
            code = EXIT_SOME_FAILED
            continue
        table.add_row(
            str(path),
            f"{noise.sigma:.2f}",
            f"{noise.gain:.2e}",
            f"{noise.read_noise:.2e}",
            ", ".join(f"{value:.2f}" for value in noise.correlation),
        )
    Console(width=None if sys.stdout.isatty() else 140, markup=False, emoji=False).print(table)
    return code
