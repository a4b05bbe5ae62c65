"""`denoise-se quantize`: the int8 calibration of a checkpoint, beside its weights and in its card."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from denoise_se.calibration import MOST_LOSS, Calibration, calibrate, write_calibration
from denoise_se.checkpoint import open_checkpoint
from denoise_se.errors import UsageError

HEADING = "## int8"


def run_quantize(model: str, clean: Path) -> None:
    """Calibrate on images of `clean`, write FILE.int8.json, and say what it costs."""
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    checkpoint = open_checkpoint(model)
    calibration = calibrate(checkpoint, clean, console.print)
    try:
        path = write_calibration(checkpoint, calibration)
        card = checkpoint.path.with_suffix(".md")
        if card.is_file():
            card.write_text(with_int8(card.read_text(encoding="utf-8"), calibration), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{checkpoint.path.parent}: cannot be written ({error.strerror})") from error
    verdict = "auto may take it" if calibration.worst_loss <= MOST_LOSS else "auto will not take it"
    console.print(f"{path}: costs at most {calibration.worst_loss:.3f} dB; {verdict}")


def with_int8(card: str, calibration: Calibration) -> str:
    """The card with its section on int8 replaced, or put before the limits."""
    before, _, rest = card.partition(f"{HEADING}\n")
    if rest:
        rest = "".join(rest.partition("## ")[1:])
    else:
        before, limits, after = card.partition("## Limits")
        rest = limits + after
    lines = [
        HEADING,
        "",
        f"Calibrated on {calibration.data}; PSNR lost against fp32, on other images of them, with weights of 8 or 7 "
        "bits (for CPUs without VNNI), whichever lose more:",
        "",
        *(f"- {noise}: {decibels:.3f} dB" for noise, decibels in calibration.loss.items()),
        "",
        "",
    ]
    return before + "\n".join(lines) + rest
