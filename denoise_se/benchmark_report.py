"""What a benchmark shows: tables, the report file, and PSNR against time as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from denoise_se.atomic_file import write_whole
from denoise_se.benchmark import Benchmark, Result
from denoise_se.channel_names import KINDS
from denoise_se.markdown import markdown_table
from denoise_se.output_file import PLOT_SUFFIXES, check_output, drawn, refuse_among

if TYPE_CHECKING:
    from rich.console import Group

REPORT_SUFFIXES = (".json", ".md")
COLUMNS = ("method", "images", "PSNR dB", "ms", "s/MP", "MMAC/pixel", "GFLOP/s", "of peak", "peak MB", "front")


def check_outputs(report: Path | None, plot: Path | None, measured: Sequence[Path] = ()) -> None:
    """Refuse, before any work, a file of a kind that is not written, in a folder that is not there, or a plot among the
    pictures of the folders `measured`."""
    check_output("--report", report, REPORT_SUFFIXES)
    check_output("--plot", plot, PLOT_SUFFIXES)
    refuse_among("--plot", plot, measured)


def render(benchmark: Benchmark) -> Group:
    """The tables for a rich console."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    for title, columns, rows in _tables(benchmark):
        table = Table(*columns, title=title, title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        parts.append(table)
    return Group(*parts, *(Text(line) for line in _conditions(benchmark)))


def write_report(path: Path, benchmark: Benchmark) -> None:
    """Write `.json` (everything) or `.md` (the tables), whole or not at all. Raises DenoiseError."""
    text = _json(benchmark) if path.suffix.lower() == ".json" else _markdown(benchmark)
    write_whole(path, text.encode(errors="backslashreplace"))


def write_plot(path: Path, benchmark: Benchmark) -> None:
    """PSNR against seconds a megapixel for grey and for colour, and the cost against size. Raises DenoiseError."""
    from matplotlib.figure import Figure

    panels = [channels for channels in (1, 3) if any(channels in row.psnr for row in benchmark.results)]
    figure = Figure(figsize=(6 * (len(panels) + bool(benchmark.growth)), 4.5), layout="constrained")
    axes = iter(figure.subplots(1, max(1, len(panels) + bool(benchmark.growth)), squeeze=False)[0])
    for channels in panels:
        plot = next(axes)
        front = benchmark.front(channels)
        steps = [r.seconds_per_megapixel for r in front], [r.psnr[channels] for r in front]
        plot.step(*steps, where="post", color="0.8", lw=1)
        for row in benchmark.results:
            if channels in row.psnr:
                color = "tab:blue" if row.contender.ours else "tab:gray"
                place = (row.seconds_per_megapixel, row.psnr[channels])
                plot.plot(*place, "o", color=color)
                plot.annotate(row.contender.name, place, (4, 4), textcoords="offset points", fontsize=7)
        plot.set(xscale="log", xlabel="seconds a megapixel", ylabel=f"PSNR in dB, sigma {benchmark.sigma:g}")
        plot.set_title(f"{KINDS[channels]}: {', '.join(benchmark.sets)}")
        plot.margins(x=0.25)
    if benchmark.growth:
        plot = next(axes)
        for name in dict.fromkeys(row.contender for row in benchmark.growth):
            rows = [row for row in benchmark.growth if row.contender == name]
            plot.plot([row.megapixels for row in rows], [row.seconds_per_megapixel for row in rows], "o-", label=name)
        plot.set(xscale="log", xlabel="megapixels", ylabel="seconds a megapixel", title="cost against size")
        plot.set_ylim(0)
        plot.legend(fontsize=7)
    write_whole(path, drawn(figure, path.suffix))


def _tables(benchmark: Benchmark) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
    on_front = {id(row) for channels in (1, 3) for row in benchmark.front(channels)}
    rows = [_cells(row, benchmark.peak_gflops, id(row) in on_front) for row in benchmark.results]
    tables: list[tuple[str, tuple[str, ...], list[list[str]]]]
    tables = [(f"One picture of {benchmark.results[0].pixels:,} pixels", COLUMNS, rows)]
    if benchmark.growth:
        names = list(dict.fromkeys(row.contender for row in benchmark.growth))
        costs = {(row.megapixels, row.contender): row.seconds_per_megapixel for row in benchmark.growth}
        sizes = sorted({row.megapixels for row in benchmark.growth})
        cells = [[f"{size:g}", *(f"{costs[size, name]:.2f}" for name in names)] for size in sizes]
        tables.append(("Seconds a megapixel against size", ("megapixels", *names), cells))
    return tables


def _cells(row: Result, peak: float, front: bool) -> list[str]:
    macs, gflops = row.contender.macs_per_pixel, row.gflops
    return [
        row.contender.name,
        KINDS.get(row.contender.channels or 0, "both"),
        " / ".join(f"{psnr:.2f}" for _, psnr in sorted(row.psnr.items())),
        f"{1000 * row.seconds:.0f}",
        f"{row.seconds_per_megapixel:.2f}",
        "" if macs is None else f"{macs / 1e6:.3f}",
        "" if gflops is None else f"{gflops:.0f}",
        "" if gflops is None else f"{gflops / peak:.0%}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
        "yes" if front else "",
    ]


def _conditions(benchmark: Benchmark) -> list[str]:
    measured = f"PSNR: Gaussian noise of sigma {benchmark.sigma:g} on {', '.join(benchmark.sets)}. " * bool(
        benchmark.sets
    )
    speed = f"{benchmark.machine}, {benchmark.threads} thread(s), matrix product {benchmark.peak_gflops:.0f} GFLOP/s."
    return [measured + speed, *(f"note: {note}" for note in benchmark.notes)]


def _markdown(benchmark: Benchmark) -> str:
    lines: list[str] = []
    for title, columns, rows in _tables(benchmark):
        lines += [f"**{title}**", ""]
        lines += [*markdown_table(columns, rows), ""]
    return "\n".join([*lines, *_conditions(benchmark)]) + "\n"


def _json(benchmark: Benchmark) -> str:
    rows = []
    for row in benchmark.results:
        own = {key: value for key, value in asdict(row.contender).items() if value != ""}
        rows.append(
            own
            | {
                "name": row.contender.name,
                "channels": row.contender.channels,
                "psnr": {KINDS[channels]: psnr for channels, psnr in row.psnr.items()},
                "seconds": row.seconds,
                "pixels": row.pixels,
                "macs_per_pixel": row.contender.macs_per_pixel,
                "gflops": row.gflops,
                "peak_bytes": row.peak_bytes,
            }
        )
    content = {
        "machine": benchmark.machine,
        "threads": benchmark.threads,
        "matrix_gflops": benchmark.peak_gflops,
        "sigma": benchmark.sigma,
        "sets": list(benchmark.sets),
        "results": rows,
        "growth": [asdict(row) for row in benchmark.growth],
        "notes": list(benchmark.notes),
    }
    return json.dumps(content, indent=1, ensure_ascii=False)
