"""What a batch did, row by row: as a table on the terminal, and as CSV, JSON or HTML files."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from denoise_se.atomic_file import replacing
from denoise_se.errors import ImageError, UsageError
from denoise_se.metrics import mean_finite

if TYPE_CHECKING:
    from rich.table import Table

REPORT_SUFFIXES = (".csv", ".json", ".html")
MOST_ROWS = 20  # on the terminal; the report file has all of them


@dataclass(frozen=True)
class Row:
    """One image of a batch. `status` is "done", "skipped" or "failed"; sigma in 8-bit units, None for a blind model.

    PSNR in dB, inf for identical images; SSIM None under 7x7 pixels; all four None without a reference.
    """

    input: str
    output: str
    status: str
    error: str = ""
    width: int | None = None
    height: int | None = None
    channels: int | None = None
    bit_depth: int | None = None
    model: str = ""
    sigma: float | None = None
    seconds: float | None = None
    psnr_noisy: float | None = None
    psnr: float | None = None
    ssim_noisy: float | None = None
    ssim: float | None = None


COLUMNS = tuple(field.name for field in fields(Row))
METRICS = ("psnr_noisy", "psnr", "ssim_noisy", "ssim")


def check_report(path: Path | None) -> None:
    """UsageError when no report of this name can be written."""
    if path is not None and path.suffix.lower() not in REPORT_SUFFIXES:
        raise UsageError(f"--report {path}: its suffix is none of {', '.join(REPORT_SUFFIXES)}")
    if path is not None and path.is_dir():
        raise UsageError(f"--report {path}: is a folder; give a file name")
    if path is not None and any(parent.exists() and not parent.is_dir() for parent in path.parents):
        raise UsageError(f"--report {path}: a file stands where its folder should be; choose another name")


def means(rows: Sequence[Row]) -> dict[str, float | None]:
    """The mean of each metric over the rows that have a finite one."""
    return {name: mean_finite(getattr(row, name) for row in rows) for name in METRICS}


def write_report(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows in the format of the suffix, atomically. ImageError when it cannot be written."""
    text = {".csv": as_csv, ".json": as_json, ".html": as_html}[path.suffix.lower()](rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            # names of files are bytes, not always text
            file.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise ImageError(path, f"the report cannot be written ({error.strerror})") from error


def as_csv(rows: Sequence[Row]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in asdict(row).items()} for row in rows)
    return file.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    """An object with "rows" and "means"; an infinite PSNR is the string "inf", as JSON has no infinity."""

    def plain(value: object) -> object:
        return "inf" if isinstance(value, float) and math.isinf(value) else value

    listed = [{key: plain(value) for key, value in asdict(row).items()} for row in rows]
    return json.dumps({"rows": listed, "means": means(rows)}, indent=1, ensure_ascii=False, allow_nan=False)


def as_html(rows: Sequence[Row]) -> str:
    """One self-contained page; a click on a heading sorts by it."""
    head = "".join(f"<th scope=col><button>{name.replace('_', ' ')}</button></th>" for name in COLUMNS)
    body = "".join(
        f"<tr class={row.status}>" + "".join(f"<td>{html.escape(shown(row, name))}</td>" for name in COLUMNS) + "</tr>"
        for row in rows
    )
    averages = means(rows)
    foot = "".join(f"<td>{shown_metric(name, averages[name]) if name in METRICS else ''}</td>" for name in COLUMNS)
    counts = ", ".join(f"{sum(row.status == s for row in rows)} {s}" for s in ("done", "skipped", "failed"))
    return PAGE.format(counts=counts, head=head, body=body, foot=foot)


def shown(row: Row, name: str) -> str:
    value = getattr(row, name)
    if name in METRICS:
        return shown_metric(name, value)
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)


def shown_metric(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if name.startswith("psnr") else f"{value:.4f}"


def as_table(rows: Sequence[Row]) -> Table:
    """For the terminal: failures first, then the first of the others, and the means."""
    from rich.table import Table

    measured = any(row.psnr is not None for row in rows)
    table = Table("image", "status", "size", "model", "sigma", "seconds", *(METRICS if measured else ()))
    ranked = sorted(rows, key=lambda row: row.status != "failed")
    for row in ranked[:MOST_ROWS]:
        size = f"{row.width}x{row.height}" if row.width else ""
        cells = [Path(row.input).name, row.status, size, row.model, shown(row, "sigma"), shown(row, "seconds")]
        table.add_row(*cells, *(na(row, name) for name in METRICS if measured))
    if len(rows) > MOST_ROWS:
        table.add_row(f"and {len(rows) - MOST_ROWS} more")
    if measured:
        averages = means(rows)
        table.add_section()
        table.add_row("mean", "", "", "", "", "", *(shown_metric(name, averages[name]) for name in METRICS))
    return table


def na(row: Row, name: str) -> str:
    """A metric, or "n/a" where the image is too small for it."""
    return "n/a" if getattr(row, name) is None and row.psnr is not None else shown(row, name)


PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>denoise-se report</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color-scheme: light dark }}
table {{ border-collapse: collapse }}
td, th {{ padding: .3rem .7rem; border-bottom: 1px solid #8884; text-align: left }}
th button {{ all: unset; cursor: pointer; font-weight: 600 }} th button:focus-visible {{ outline: 2px solid }}
.failed td {{ color: #c33 }} .skipped td {{ opacity: .6 }} tfoot td {{ font-weight: 600 }}
</style>
<h1>denoise-se</h1><p>{counts}</p>
<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot><tr>{foot}</tr></tfoot></table>
<script>
document.querySelectorAll("th button").forEach((button, column) => button.onclick = () => {{
  const body = document.querySelector("tbody"), sign = button.dataset.sign = button.dataset.sign == 1 ? -1 : 1;
  const text = row => row.cells[column].textContent;
  const compare = (a, b) => isNaN(a - b) || a === "" || b === "" ? a.localeCompare(b) : a - b;
  body.append(...[...body.rows].sort((a, b) => sign * compare(text(a), text(b))));
}});
</script></html>
"""
