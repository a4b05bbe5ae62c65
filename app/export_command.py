"""`denoise-se export`: a model as a file for other programs."""

from __future__ import annotations

from pathlib import Path

from denoise_se.app.console import line_console
from denoise_se.checkpoint import open_checkpoint
from denoise_se.export import MOST_DIFFERENCE, export


def run_export(model: str, out: Path, overwrite: bool) -> None:
    """Write the file or files, and print what they take and how near they come to torch."""
    checkpoint = open_checkpoint(model)
    paths, difference = export(checkpoint, out, overwrite=overwrite)
    sigma = ", sigma [1] in 8-bit units" if checkpoint.config.noise_map else ""
    console = line_console()
    console.print(f"wrote {' and '.join(map(str, paths))}")
    console.print(f"inputs: image [1, {checkpoint.config.channels}, H, W] in [0, 1]{sigma}; output: restored")
    console.print(f"largest difference from torch: {difference:.2g} (allowed: {MOST_DIFFERENCE:g})")
