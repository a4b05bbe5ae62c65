"""`denoise-se ablation`: the table of block variants, for those who work on the network."""

from __future__ import annotations

from pathlib import Path

from denoise_se.app.console import table_console
from denoise_se.atomic_file import write_whole
from denoise_se.errors import UsageError
from denoise_se.output_file import check_output


def run_ablation(clean: Path, report: Path, *, steps: int, batch: int, only: list[str] | None) -> None:
    """Train every variant (or those named) on the grey images below `clean`, and write the table to `report`."""
    from denoise_se import ablation
    from denoise_se.file_pairs import PairedFiles
    from denoise_se.fitting import trainer_precision
    from denoise_se.training_config import TrainingConfig
    from denoise_se.training_images import load_pairs, split_validation

    check_output("--report", report, (".md",))
    unknown = [name for name in only or [] if name not in ablation.VARIANTS]
    if unknown:
        raise UsageError(f"--only {unknown[0]!r} is no variant; one of {', '.join(ablation.VARIANTS)}")
    precision = "bf16" if trainer_precision("auto") == "bf16-mixed" else "fp32"
    config = TrainingConfig(steps=steps, batch=batch, learning_rate=2e-3, minutes=0, precision=precision)  # type: ignore[arg-type]
    train, validation = split_validation(load_pairs(PairedFiles(None, clean), 1, config.patch))
    console = table_console()
    trials = ablation.run_ablation(
        only or list(ablation.VARIANTS), train, validation, config, lambda trial: console.print(trial)
    )
    table = ablation.as_markdown(trials)
    how = f"{steps} steps of {batch} patches of {config.patch} pixels, {config.noise}, {precision}, seed {config.seed}"
    where = f"{len(validation)} validation images of {clean.name}"
    write_whole(report, f"{how}; {where}.\n\n{table}".encode())
    console.print(table)
