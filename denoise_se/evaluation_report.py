"""What an evaluation shows: the table on the terminal, the report file, and the picture of crops."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from denoise_se.atomic_file import write_whole
from denoise_se.channel_names import KINDS
from denoise_se.crops import crops_png
from denoise_se.estimate_error import EstimateError, estimate_errors
from denoise_se.evaluation_methods import NOISY
from denoise_se.evaluation_scores import Evaluation, ImageScore, MeanScore
from denoise_se.markdown import markdown_table
from denoise_se.output_file import check_output, refuse_among
from denoise_se.published import CITATIONS, published
from denoise_se.report import without_infinity

if TYPE_CHECKING:
    from rich.console import Group

REPORT_SUFFIXES = (".csv", ".json", ".md")
_COLUMNS = ("test set", "noise", "method", "images", "PSNR dB", "SSIM", "MAE", "s/MP")
_ERROR_COLUMNS = (
    "test set",
    "noise",
    "sigma",
    "method",
    "images",
    "estimated",
    "mean dB",
    "median |dB|",
    "worst dB",
    "within margin",
)
_ERRORS_TITLE = "PSNR estimated without the clean images, less the true one"
_PUBLISHED_TITLE = "Published, not re-measured (their own protocols)"


def check_outputs(report: Path | None, crops: Path | None, measured: Sequence[Path] = ()) -> None:
    """Refuse, before any work, a report or picture of a kind that is not written, in a folder that is not there, or a
    picture among those of the folders `measured`."""
    check_output("--report", report, REPORT_SUFFIXES)
    check_output("--crops", crops, (".png",))
    refuse_among("--crops", crops, measured)


def render(evaluation: Evaluation) -> Group:
    """The measured means as a table for a rich console, then published figures where the set is known, then notes."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    measured = Table(*_COLUMNS, title="Measured in this run", title_justify="left")
    for column in measured.columns[3:]:
        column.justify = "right"
    previous = None
    for mean in evaluation.means():
        if previous is not None and previous != (mean.test_set, mean.channels, mean.noise):
            measured.add_section()
        previous = (mean.test_set, mean.channels, mean.noise)
        measured.add_row(*(Text(cell) for cell in _cells(mean)))
    parts: list[Any] = [measured, Text(_conditions(evaluation))]
    errors = estimate_errors(evaluation.scores)
    if errors:
        table = Table(*_ERROR_COLUMNS, title=_ERRORS_TITLE, title_justify="left")
        for error in errors:
            table.add_row(*(Text(cell) for cell in _error_cells(error)))
        parts.append(table)
    rows = _published_rows(evaluation)
    if rows:
        table = Table(
            "test set", "noise", "method", "PSNR dB", title=_PUBLISHED_TITLE, title_justify="left", style="dim"
        )
        for row in rows:
            table.add_row(
                *(Text(cell) for cell in (row["test_set"], row["noise"], row["method"], f"{row['psnr']:.2f}"))
            )
        parts.append(table)
    parts += [Text(f"note: {note}") for note in evaluation.remarks()]
    return Group(*parts)


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Write `.csv` (a row for each image and method), `.json` (everything) or `.md` (the tables), whole or not at all.

    Raises `UsageError` for another suffix, `DenoiseError` when the file cannot be written.
    """
    writers = {".csv": _csv, ".json": _json, ".md": _markdown}
    check_outputs(path, None)
    write_whole(path, writers[path.suffix.lower()](evaluation).encode(errors="backslashreplace"))


def save_crops(path: Path, evaluation: Evaluation) -> None:
    """Write the picture of the crops where the methods differ most as a PNG, whole or not at all."""
    check_outputs(None, path)
    write_whole(path, crops_png(evaluation.crops))


def _csv(evaluation: Evaluation) -> str:
    text = io.StringIO()
    columns = [field.name for field in fields(ImageScore) if field.name != "estimate"]
    estimated = any(score.estimate is not None for score in evaluation.scores)
    writer = csv.DictWriter(
        text, columns + (["psnr_estimated", "psnr_margin"] if estimated else []), lineterminator="\n"
    )
    writer.writeheader()
    for score in evaluation.scores:
        row = {name: getattr(score, name) for name in columns}
        if score.estimate is not None:
            row |= {"psnr_estimated": score.estimate.psnr, "psnr_margin": score.estimate.margin}
        writer.writerow(row)
    return text.getvalue()


def _json(evaluation: Evaluation) -> str:
    return json.dumps(
        {
            "machine": evaluation.machine,
            "threads": evaluation.threads,
            "means": [without_infinity(asdict(mean)) for mean in evaluation.means()],
            "images": [without_infinity(asdict(score)) for score in evaluation.scores],
            "estimate_errors": [asdict(error) for error in estimate_errors(evaluation.scores)],
            "notes": list(evaluation.notes),
            "failures": list(evaluation.failures),
            "published_not_remeasured": _published_rows(evaluation),
        },
        indent=1,
        ensure_ascii=False,
        allow_nan=False,
    )


def _markdown(evaluation: Evaluation) -> str:
    lines = markdown_table(_COLUMNS, [_cells(mean) for mean in evaluation.means()])
    lines += ["", _conditions(evaluation), *(f"Note: {note}" for note in evaluation.remarks())]
    errors = estimate_errors(evaluation.scores)
    if errors:
        lines += ["", f"**{_ERRORS_TITLE}**", ""]
        lines += markdown_table(_ERROR_COLUMNS, [_error_cells(error) for error in errors])
    rows = _published_rows(evaluation)
    if rows:
        cells = [[row["test_set"], row["noise"], row["method"], f"{row['psnr']:.2f}", row["source"]] for row in rows]
        lines += ["", f"**{_PUBLISHED_TITLE}**", ""]
        lines += markdown_table(("test set", "noise", "method", "PSNR dB", "source"), cells)
    return "\n".join(lines) + "\n"


def _cells(mean: MeanScore) -> list[str]:
    return [
        _set_name(mean),
        mean.noise,
        mean.method,
        str(mean.images),
        "n/a" if mean.psnr is None else f"{mean.psnr:.2f}",
        "n/a" if mean.ssim is None else f"{mean.ssim:.4f}",
        f"{mean.mean_absolute_error:.2f}",
        "" if mean.method == NOISY else f"{mean.seconds_per_megapixel:.2f}",
    ]


def _error_cells(error: EstimateError) -> list[str]:
    sigma = "estimated" if error.told is None else f"{error.told:g}"
    values = (error.mean, error.median_absolute, error.worst)
    return [
        error.test_set,
        error.noise,
        sigma,
        error.method,
        str(error.images),
        str(error.estimates),
        *("n/a" if value is None else f"{value:.2f}" for value in values),
        str(error.covered),
    ]


def _set_name(mean: MeanScore) -> str:
    return f"{mean.test_set} ({KINDS[mean.channels]})"


def _conditions(evaluation: Evaluation) -> str:
    return f"Times on {evaluation.machine}, {evaluation.threads} thread(s). MAE: mean absolute error, 8-bit units."


def _published_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Published figures for the sets, channels and single sigmas that were measured."""
    rows = []
    for mean in evaluation.means():
        if mean.method == NOISY and mean.sigma is not None:
            for method, value in published(mean.test_set, mean.channels, mean.sigma).items():
                rows.append(
                    {
                        "test_set": _set_name(mean),
                        "noise": mean.noise,
                        "method": method,
                        "psnr": value,
                        "source": CITATIONS[method],
                    }
                )
    return rows
