"""`denoise-se evaluate`: from options to methods and a table."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.markup import escape
from rich.progress import Progress

from denoise_se.app.console import message_console, table_console
from denoise_se.app.request import AUTO_MODELS
from denoise_se.errors import EXIT_DONE, EXIT_SOME_FAILED, PREFIX, UsageError


def run_evaluate(
    clean: list[Path],
    noises: list[str],
    pairs: tuple[Path, Path] | None,
    models: list[str],
    *,
    against: str | None,
    report: Path | None,
    crops: Path | None,
    sigma: str,
    estimate_quality: bool,
    self_ensemble: bool,
    quiet: bool,
) -> int:
    """Prints the table, writes the report and the picture of crops, and returns the exit code. Raises DenoiseError."""
    from denoise_se.denoiser import Denoiser
    from denoise_se.evaluation import evaluate
    from denoise_se.evaluation_methods import Method, ModelMethod, parse_against
    from denoise_se.evaluation_report import check_outputs, render, save_crops, write_report

    if sigma not in ("told", "auto"):
        raise UsageError(f"--sigma {sigma}: give told (the level of Gaussian noise is known) or auto (it is estimated)")
    check_outputs(report, crops, [*clean, *(pairs or ())])
    names = [n for m in models for n in (AUTO_MODELS.values() if m == "auto" else [m])]
    methods: list[Method] = []
    for name in dict.fromkeys(names):
        denoiser = Denoiser.load(name)
        methods.append(ModelMethod(denoiser.checkpoint.name, denoiser.network.channels, denoiser))
        if self_ensemble:
            eightfold = Denoiser.load(name, self_ensemble=True)
            methods.append(ModelMethod(f"{denoiser.checkpoint.name} x8", denoiser.network.channels, eightfold))
    methods += parse_against(against) if against else []
    with Progress(console=message_console(), disable=quiet) as progress:
        task = progress.add_task("measuring", total=None)
        result = evaluate(
            methods,
            clean=clean,
            noises=noises,
            pairs=[pairs] if pairs else [],
            tell_sigma=sigma == "told",
            estimate_quality=estimate_quality,
            on_progress=lambda done, total, label: progress.update(
                task, completed=done, total=total, description=escape(label[-50:])
            ),
        )
    table_console().print(render(result))
    if report is not None:
        write_report(report, result)
    if crops is not None:
        save_crops(crops, result)
    for failure in result.failures:
        print(f"{PREFIX}{failure}", file=sys.stderr)
    return EXIT_SOME_FAILED if result.failures else EXIT_DONE
