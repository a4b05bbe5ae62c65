"""`denoise-se benchmark`: from options to contenders, a table and a plot."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

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
    import torch

    from denoise_se.benchmark import run_benchmark
    from denoise_se.benchmark_report import check_outputs, render, write_plot, write_report
    from denoise_se.contender import Contender

    check_outputs(report, plot)
    if threads:
        torch.set_num_threads(threads)
    contenders, left_out = [], []
    for model in models:
        for backend in _items(backends):
            for precision in _items(precisions):
                contender = Contender(model, True, backend, precision)
                try:
                    contender.method()
                except UsageError as error:
                    left_out.append(f"{model} {backend} {precision} left out: {error}")
                else:
                    contenders.append(contender)
    contenders += [Contender(item, False) for item in _items(against or "")]
    with Progress(console=Console(stderr=True), disable=quiet) as progress:
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
    console = Console(markup=False, emoji=False)
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
