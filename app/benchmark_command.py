"""`denoise-se benchmark`: from options to contenders, a table and a plot."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from rich.markup import escape
from rich.progress import Progress

from denoise_se.app.console import message_console, table_console
from denoise_se.errors import UsageError


def run_benchmark_command(
    models: list[str],
    backends: str,
    precisions: str,
    *,
    against: str | None,
    clean: list[Path],
    sigma: float,
    side: int,
    rounds: int,
    sizes: str,
    threads: int,
    memory: bool,
    report: Path | None,
    plot: Path | None,
    quiet: bool,
) -> None:
    """Raises DenoiseError; prints the tables and writes the report and the plot."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # every engine heeds it, and so do the processes that are started
    import torch

    from denoise_se.benchmark import run_benchmark
    from denoise_se.benchmark_report import check_outputs, render, write_plot, write_report
    from denoise_se.contender import Contender
    from denoise_se.threads import granted_cores

    check_outputs(report, plot, clean)
    torch.set_num_threads(granted_cores())
    engines = [(backend, precision) for backend in _items(backends) for precision in _items(precisions)]
    asked = [Contender(model, True, *engine) for model in models for engine in engines]
    for item in _items(against or ""):
        asked.append(Contender(item, False))
        if item.startswith("dncnn=") and "openvino" in _items(backends):
            asked.append(Contender(item, False, "openvino"))
    contenders, left_out = [], []
    for contender in asked:
        try:
            contender.method()
        except UsageError as error:
            if not contender.ours and not contender.backend:
                raise
            left_out.append(f"{contender.label} {contender.backend} {contender.precision} left out: {error}")
        else:
            contenders.append(contender)
    if not contenders:
        raise UsageError("no engine can run what was asked for: " + "; ".join(left_out))
    with Progress(console=message_console(), disable=quiet) as progress:
        task = progress.add_task("measuring", total=None)
        result = run_benchmark(
            contenders,
            clean or [Path(str(resources.files("denoise_se.examples") / "clean"))],
            sigma=sigma,
            rounds=rounds,
            side=side,
            sizes=_megapixels(sizes),
            memory=memory,
            on_progress=lambda done, total, label: progress.update(
                task, completed=done, total=total, description=escape(label[-50:])
            ),
        )
    console = table_console()
    console.print(render(result))
    for line in left_out:
        console.print(f"note: {line}")
    if report is not None:
        write_report(report, result)
    if plot is not None:
        write_plot(plot, result)


def _items(text: str) -> list[str]:
    return [item for item in (part.strip() for part in text.split(",")) if item]


def _megapixels(text: str) -> list[float]:
    try:
        sizes = [float(item) for item in _items(text)]
    except ValueError:
        sizes = [0.0]
    if any(not 0 < size <= 1000 for size in sizes):
        raise UsageError(f"--sizes {text}: give megapixels joined by commas, as 0.1,1,4")
    return sizes
