"""What a batch did, row by row: as a table on the terminal, and as CSV and JSON files; `html_report` has the page."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from denoise_se.atomic_file import replacing
from denoise_se.errors import ImageError, UsageError, reason
from denoise_se.metrics import mean_finite
from denoise_se.output_file import check_writable
from denoise_se.remote_files import Location

if TYPE_CHECKING:
    from rich.table import Table

    from denoise_se.preview import Preview

REPORT_SUFFIXES = (".csv", ".json", ".html")
MOST_ROWS, MOST_REASONS = 20, 3  # on the terminal; the report file has all of them


@dataclass(frozen=True)
class Row:
    """One image of a batch. `status` is "done", "skipped" or "failed"; `sigma`, in 8-bit units, is what the network was
    told of the noise, None for a blind model.

    PSNR in dB, inf for identical images; SSIM None under 7x7 pixels; all four None without a reference. The noise
    before and after is estimated, in 8-bit units; so is `psnr_estimated`, with half its 95 % interval, `psnr_margin`,
    or None for the reason given. All None where nobody asked for them. `notices` say what was converted or left out.
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
    noise_before: float | None = None
    noise_after: float | None = None
    psnr_estimated: float | None = None
    psnr_margin: float | None = None
    psnr_estimated_reason: str = ""
    notices: tuple[str, ...] = ()

    def noticed(self, *notices: str) -> Row:
        """The row with these notices too, each once."""
        return replace(self, notices=tuple(dict.fromkeys((*self.notices, *notices))))


FIELDS = tuple(field.name for field in fields(Row))
COLUMNS = FIELDS[: FIELDS.index("noise_before")]  # of a CSV file
ESTIMATED = FIELDS[: FIELDS.index("notices")]  # of one that has estimates
METRICS = ("psnr_noisy", "psnr", "ssim_noisy", "ssim")
# what a skipped file's row has from the manifest, and of which types
FACTS = {"model": (str,), "sigma": (int, float), "seconds": (int, float), "notices": (list,)}
ESTIMATES = ("noise_before", "noise_after", "psnr_estimated", "psnr_margin")


def facts(row: Row) -> dict[str, object]:
    """What the manifest keeps for the reports of later runs, which skip the file."""
    known = {name: value for name in FACTS if (value := getattr(row, name)) not in ("", None, ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}


def known_facts(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a manifest, which anybody may have changed."""
    known = {name: kept[name] for name, kinds in FACTS.items() if type(kept.get(name)) in kinds}
    return {name: tuple(map(str, value)) if isinstance(value, list) else value for name, value in known.items()}


def check_report(path: Location | None) -> None:
    """UsageError when no report of this name can be written."""
    if path is not None and path.suffix.lower() not in REPORT_SUFFIXES:
        raise UsageError(f"--report {path}: its suffix is none of {', '.join(REPORT_SUFFIXES)}")
    if isinstance(path, Path):
        check_writable("--report", path)


def means(rows: Sequence[Row]) -> dict[str, float | None]:
    """The mean of each metric and estimate over the rows that have a finite one."""
    return {name: mean_finite(getattr(row, name) for row in rows) for name in (*METRICS, *ESTIMATES)}


def write_report(
    path: Location,
    rows: Sequence[Row],
    *,
    previews: Mapping[str, Preview] | None = None,
    settings: Mapping[str, object] | None = None,
    estimates: bool = False,
) -> None:
    """Write the rows in the format of the suffix, atomically. ImageError when it cannot be written.

    `previews`, by the rows' output, are for the page, `settings` of the run for the page and JSON; `estimates` adds the
    estimates to a CSV file, which the others hold anyway.
    """
    if path.suffix.lower() == ".csv":
        text = as_csv(rows, estimates=estimates)
    elif path.suffix.lower() == ".json":
        text = as_json(rows, settings)
    else:
        from denoise_se.html_report import as_html  # it shows Row, so it imports this module

        text = as_html(rows, previews, settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            # names of files are bytes, not always text
            file.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise ImageError(path, f"the report cannot be written ({reason(error)})") from error


def as_csv(rows: Sequence[Row], *, estimates: bool = False) -> str:
    """The columns of the contract; after them, when asked for, the estimates. "n/a" stands for a number that there
    cannot be, as an SSIM of less than 7x7 pixels; what was not measured is empty."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ESTIMATED if estimates else COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: "n/a" if is_na(row, key) else value for key, value in asdict(row).items()} for row in rows)
    return file.getvalue()


def as_json(rows: Sequence[Row], settings: Mapping[str, object] | None = None) -> str:
    """An object with "settings", "rows" and "means"; see `without_infinity`."""
    listed = [without_infinity(asdict(row)) for row in rows]
    report = {"settings": dict(settings or {}), "rows": listed, "means": means(rows)}
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)


def without_infinity(row: Mapping[str, Any]) -> dict[str, Any]:
    """An infinite number, as the PSNR of identical images, as the string "inf": JSON has no infinity."""
    infinite = {name: str(value) for name, value in row.items() if isinstance(value, float) and math.isinf(value)}
    return {**row, **infinite}


def shown(row: Row, name: str) -> str:
    value = getattr(row, name)
    return shown_number(name, value) if value is None or isinstance(value, float) else str(value)


def shown_number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if name.startswith("ssim") else f"{value:.2f}"


def as_table(rows: Sequence[Row], engine: str = "") -> Table:
    """For the terminal: failures first, then the first of the others, and the means; `engine` says what computed."""
    from rich.table import Table

    measured = any(row.psnr is not None for row in rows)
    numbers = METRICS if measured else ()
    if any(row.psnr_estimated is not None or row.psnr_estimated_reason for row in rows):
        numbers = (*numbers, "noise_before", "noise_after", "psnr_estimated")
    table = Table("image", "status", "size", "model", "sigma", "seconds", *(n.replace("_", "\n") for n in numbers))
    caption = [f"computed by {engine}"] if engine else []
    reasons = Counter(row.psnr_estimated_reason for row in rows if row.psnr_estimated_reason)
    caption += [f"PSNR not estimated for {count}: {text}" for text, count in reasons.most_common(MOST_REASONS)]
    if len(reasons) > MOST_REASONS:
        caption.append(f"and for {len(reasons) - MOST_REASONS} more reasons, which --report has")
    table.caption = "\n".join(caption) or None
    names = short_names(rows)
    ranked = sorted(rows, key=lambda row: row.status != "failed")
    for row in ranked[:MOST_ROWS]:
        size = f"{row.width}x{row.height}" if row.width else ""
        cells = [names[row.input], row.status, size, row.model, shown(row, "sigma"), shown(row, "seconds")]
        table.add_row(*cells, *(na(row, name) for name in numbers))
    if len(rows) > MOST_ROWS:
        table.add_row(f"and {len(rows) - MOST_ROWS} more")
    if numbers:
        averages = means(rows)
        table.add_section()
        table.add_row("mean", "", "", "", "", "", *(shown_number(name, averages[name]) for name in numbers))
    return table


def short_names(rows: Sequence[Row]) -> dict[str, str]:
    """The names of the inputs, by them: without the folders that all lie in."""
    parts = {row.input: Path(row.input).parts for row in rows}
    steps = zip(*(part[:-1] for part in parts.values()), strict=False)
    shared = sum(1 for _ in takewhile(lambda step: len(set(step)) == 1, steps))
    return {name: str(Path(*part[shared:])) if shared else name for name, part in parts.items()}


def na(row: Row, name: str) -> str:
    """A number, or "n/a" where there cannot be one."""
    return "n/a" if is_na(row, name) else shown(row, name)


def is_na(row: Row, name: str) -> bool:
    """Whether a number was asked for, and the image is too small for it or its noise does not allow it."""
    if name not in (*METRICS, *ESTIMATES) or getattr(row, name) is not None:
        return False
    return row.psnr is not None if name in METRICS else row.psnr_estimated_reason != ""
