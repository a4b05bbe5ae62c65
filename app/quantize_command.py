"""`denoise-se quantize`: the int8 calibration of a checkpoint, beside its weights and in its card."""

from __future__ import annotations

from pathlib import Path

from denoise_se.app.console import line_console
from denoise_se.calibration import MOST_LOSS, calibrate, write_calibration
from denoise_se.checkpoint import open_checkpoint
from denoise_se.errors import UsageError, reason
from denoise_se.model_card import note_calibration


def run_quantize(model: str, clean: Path) -> None:
    """Calibrate on images of `clean`, write FILE.int8.json, and say what it costs."""
    console = line_console()
    checkpoint = open_checkpoint(model)
    calibration = calibrate(checkpoint, clean, console.print)
    try:
        path = write_calibration(checkpoint, calibration)
        note_calibration(checkpoint.path.with_suffix(".md"), calibration)
    except OSError as error:
        raise UsageError(f"{checkpoint.path.parent}: cannot be written ({reason(error)})") from error
    verdict = "auto may take it" if calibration.worst_loss <= MOST_LOSS else "auto will not take it"
    console.print(f"{path}: costs at most {calibration.worst_loss:.3f} dB; {verdict}")
