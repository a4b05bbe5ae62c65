"""The report as one HTML page that needs nothing else: sortable rows, pictures before and after, a dialog to compare.

The page forbids itself every outside request. Pictures stay base64 text until they come near the window, so that ten
thousand rows open and scroll; how many bytes each image's pictures take is set in `preview`.
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from denoise_se.channel_names import KINDS
from denoise_se.preview import Preview
from denoise_se.report import Row, means, shown, shown_number

RANK = {"failed": 0, "done": 1, "skipped": 2}


@dataclass(frozen=True)
class Column:
    """A column of numbers or short texts; it is left out where no row has a value."""

    name: str
    label: str
    text: bool = False


COLUMNS = (
    Column("status", "status", text=True),
    Column("model", "model", text=True),
    Column("sigma", "sigma"),
    Column("seconds", "seconds"),
    Column("noise_before", "noise before"),
    Column("noise_after", "noise after"),
    Column("psnr_estimated", "PSNR estimated"),
    Column("psnr_noisy", "PSNR before"),
    Column("psnr", "PSNR after"),
    Column("ssim_noisy", "SSIM before"),
    Column("ssim", "SSIM after"),
)


def as_html(
    rows: Sequence[Row], previews: Mapping[str, Preview] | None = None, settings: Mapping[str, object] | None = None
) -> str:
    """The page. `previews` are by the rows' `output`; `settings` are shown as they are, name and value.

    Failed rows come first, the others in their order.
    """
    previews = previews or {}
    columns = [column for column in COLUMNS if any(getattr(row, column.name) not in (None, "") for row in rows)]
    ordered = sorted(rows, key=lambda row: RANK[row.status])
    some = bool(previews)
    missing = sum(row.status == "done" and row.output not in previews for row in rows) if some else 0
    parts = {
        "figures": "".join(_figure(*figure) for figure in _figures(rows)),
        "settings": "".join(f"<tr><td>{_safe(k)}</td><td>{_safe(v)}</td></tr>" for k, v in (settings or {}).items()),
        "note": f"<p>{missing} image(s) have no pictures here: there is room for so many only.</p>" if missing else "",
        "head": _head(columns, some),
        "body": "\n".join(_row(row, columns, previews.get(row.output), some) for row in ordered),
        "foot": _foot(rows, columns, some),
    }
    page = files("denoise_se").joinpath("report_page.html").read_text(encoding="utf-8")
    pieces = page.split("{{")
    # not by replacing one after the other, as a file name may look like a mark
    filled = [pieces[0], *(parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:]))]
    return "".join(filled)


def _figures(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """(class, label, value) of what stands above the table."""
    counts = {status: sum(row.status == status for row in rows) for status in ("done", "skipped", "failed")}
    shown_counts = [(status, status, str(n)) for status, n in counts.items() if n or status == "done"]
    averages = means(rows)
    seconds = sum(row.seconds or 0 for row in rows)
    figures = [*shown_counts, ("", "seconds in the network", f"{seconds:.1f}")]
    for before, after, label in (
        ("noise_before", "noise_after", "mean noise, 8-bit units"),
        ("psnr_noisy", "psnr", "mean PSNR, dB"),
        ("ssim_noisy", "ssim", "mean SSIM"),
    ):
        if averages[before] is not None and averages[after] is not None:
            values = (shown_number(name, averages[name]) for name in (before, after))
            figures.append(("", label, " → ".join(values)))
    if averages["psnr_estimated"] is not None:
        told = sum(row.psnr_estimated is not None for row in rows)
        value = f"{shown_number('psnr_estimated', averages['psnr_estimated'])} ({told} of {counts['done']})"
        figures.append(("", "mean PSNR estimated, dB", value))
    return figures


def _figure(kind: str, label: str, value: str) -> str:
    return f'<div class="{kind}"><dl><dt>{label}</dt><dd>{value}</dd></dl></div>'


def _head(columns: Sequence[Column], pictures: bool) -> str:
    heads = [("name text", "image"), ("", "size"), *(("text" if c.text else "", c.label) for c in columns)]
    cells = [
        f'<th role="columnheader" scope="col" class="{kind}"><button type="button">{label}</button></th>'
        for kind, label in heads
    ]
    first = '<th role="columnheader" scope="col" class="pictures text">before, after</th>'
    return (first if pictures else "") + "".join(cells)


def _row(row: Row, columns: Sequence[Column], preview: Preview | None, pictures: bool) -> str:
    source, target = PurePath(row.input), PurePath(row.output)
    where = source.parent, target.parent if source.name == target.name else target
    name = f"<b><bdi>{_safe(source.name)}</bdi></b><small>{' → '.join(f'<bdi>{_safe(p)}</bdi>' for p in where)}</small>"
    if row.error:
        name += f'<div class="error">{_safe(row.error)}</div>'
    if row.psnr_estimated_reason:
        name += f"<small>PSNR not estimated: {_safe(row.psnr_estimated_reason)}</small>"
    name += "".join(f"<small>{_safe(notice)}</small>" for notice in row.notices)
    size, kind = "", ""
    if row.width and row.height:
        size = f"{row.width}×{row.height}"
        kind = f"{KINDS.get(row.channels or 0, '')}, {row.bit_depth} bit"
    cells = [_cell(name, source.name, "name text"), _cell(_with_small(size, kind), _pixels(row), label="size")]
    for column in columns:
        value = getattr(row, column.name)
        text = _safe(shown(row, column.name))
        if column.name == "psnr_estimated" and row.psnr_margin is not None:
            text = _with_small(text, f"± {row.psnr_margin:.2f}")
        cells.append(_cell(text, value, f"text {column.name}" if column.text else "", column.label))
    first = (
        f'<td role="cell" class="pictures">{_pair(source.name, preview) if preview else ""}</td>' if pictures else ""
    )
    return f'<tr role="row" class="{row.status}">{first}{"".join(cells)}</tr>'


def _with_small(text: str, note: str) -> str:
    return f"{text}<small> {note}</small>" if note else text


def _pixels(row: Row) -> int | None:
    return row.width * row.height if row.width and row.height else None


def _cell(content: str, value: object = None, kind: str = "", label: str = "") -> str:
    plain = {"inf": "Infinity"}.get(str(value), str(value)) if value is not None else ""
    named = f' data-label="{label}"' if label else ""
    return f'<td role="cell" class="{kind}" data-value="{_safe(plain)}"{named}>{content}</td>'


def _pair(name: str, preview: Preview) -> str:
    def text(picture: bytes) -> str:
        return b64encode(picture).decode("ascii")

    before, after = (
        f'<img alt="{when}" decoding="async" data-type="webp" data-bytes="{text(picture)}">'
        for when, picture in zip(("before", "after"), preview.thumbnails, strict=True)
    )
    facts = {
        "name": name,
        "size": " ".join(map(str, preview.size)),
        "box": " ".join(map(str, preview.box)),
        "change": f"{preview.change:.2f}",
        "before": text(preview.crops[0]),
        "after": text(preview.crops[1]),
    }
    listed = " ".join(f'data-{key}="{_safe(value)}"' for key, value in facts.items())
    label = _safe(f"Compare {name} before and after")
    return f'<button type="button" class="pair" aria-label="{label}" {listed}>{before}{after}</button>'


def _foot(rows: Sequence[Row], columns: Sequence[Column], pictures: bool) -> str:
    averages = means(rows)
    cells = [_cell("mean of all that have a number", kind="name text"), _cell("")]
    cells += [_cell(shown_number(c.name, averages.get(c.name)), label=c.label) for c in columns]
    return ('<td role="cell"></td>' if pictures else "") + "".join(cells)


def _safe(value: object) -> str:
    return html.escape(str(value))
