"""Many photos in the web app: one batch, as on the command line, and a zip of what it wrote."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import count
from pathlib import Path

from denoise_se.app.request import LEFT_ALONE, Request
from denoise_se.app.web_cache import linked
from denoise_se.app.web_parts import without_options
from denoise_se.app.web_photo import page_of, refuse_many_pixels
from denoise_se.app.web_work import Work
from denoise_se.batch import run_batch
from denoise_se.disk_space import shortage
from denoise_se.display import thumbnail
from denoise_se.errors import ImageError, UsageError
from denoise_se.formats import output_suffix
from denoise_se.image_io import write
from denoise_se.plan import listed, make_plan
from denoise_se.report import METRICS, Row, na, shown, write_report
from denoise_se.watcher import Watcher

COLUMNS = ("input", "status", "error", "width", "height", "bit_depth", "model", "sigma", "seconds")


@dataclass(frozen=True)
class Batch:
    """A finished batch: `rows` with the names of files, a `thumbnail` for each that was done, and the `archive`."""

    rows: tuple[Row, ...]
    thumbnails: tuple[tuple[str, str], ...]
    archive: Path
    notices: tuple[str, ...]


class Follower(Watcher):
    """Moves the progress of a piece of work by images and their tiles."""

    def __init__(self, work: Work, total: int) -> None:
        self.work, self.total, self.finished = work, total, 0
        self.notices: list[str] = []

    def row(self, row: Row) -> None:
        self.finished += 1
        self.notices += [f"{Path(row.input).name}: {text}" for text in row.notices]
        self.tiles(0, 1)

    def tiles(self, done: int, total: int) -> None:
        share = min(1.0, (self.finished + done / max(total, 1)) / self.total)
        share = max(self.work.share, share)  # several images may be at work
        self.work.step(share, f"Photo {min(self.finished + 1, self.total)} of {self.total}")

    def notice(self, text: str) -> None:
        self.notices.append(text)


def run(sources: Sequence[Path], folder: Path, request: Request, work: Work) -> Batch:
    """Denoise the photos into `folder`. Raises UsageError before any work, and CancelledError within a tile."""
    refuse_many_pixels(sources, request.max_pixels)
    photos = folder / "photos"  # so that those whose turn comes late are not deleted by their age
    try:
        plan = make_plan(gathered(sources, photos, request.format), folder / "denoised", format=request.format)
        if short := shortage(plan, max_pixels=request.max_pixels):
            raise UsageError(short)
        follower = Follower(work, len(plan.jobs))
        rows = run_batch(
            plan, request.denoiser_for, request.settings(), fingerprint=request.fingerprint(), watcher=follower
        ).rows
    finally:
        shutil.rmtree(photos, ignore_errors=True)
    named = tuple(
        replace(row, input=Path(row.input).name, output=Path(row.output).name, error=without_options(row.error))
        for row in rows
    )
    thumbnails: list[tuple[str, str]] = []
    for row in rows:
        work.step(1.0, "Making the zip")
        if row.status == "done":
            small = folder / f"{len(thumbnails)}.png"
            try:
                write(small, thumbnail(page_of(Path(row.output), 0, request.max_pixels)))
            except ImageError as error:
                follower.notice(f"{Path(row.output).name}: no thumbnail: {error.reason}")
                continue
            thumbnails.append((str(small), Path(row.output).name))
    if alone := [row.input for row in named if request.left_alone(row)]:
        mend = "if you see some, take the model “photo”, or set the level under “One photo”"
        follower.notice(f"{listed(alone)}: {LEFT_ALONE}; {mend}")
    archive = folder / "denoised.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:  # images do not get smaller
        for row in rows:
            if row.status == "done":
                file.write(row.output, Path(row.output).name)
        for name in ("report.csv", "report.html"):
            write_report(folder / name, named)
            file.write(folder / name, name)
    return Batch(named, tuple(thumbnails), archive, tuple(follower.notices))


def gathered(sources: Sequence[Path], folder: Path, format: str) -> list[Path]:
    """The photos in a new folder, as links where that can be; where some would get results of one name under names with
    numbers: "IMG_1.png", "IMG_1-2.png". Raises UsageError for one that is not there any more."""

    def result(name: str) -> str:
        return (Path(name).stem + output_suffix(name, format)).casefold()

    folder.mkdir()
    taken = {result(source.name) for source in sources}
    seen: set[str] = set()
    apart = []
    for source in sources:
        name = source.name
        if result(name) in seen:
            names = (f"{source.stem}-{number}{source.suffix}" for number in count(2))
            name = next(name for name in names if result(name) not in taken)
        taken.add(result(name))
        seen.add(result(name))
        apart.append(linked(source, folder / name))
    return apart


def as_table(rows: Sequence[Row]) -> str:
    """The rows as an HTML table, failures first; columns that say nothing of any row are left out."""
    measured = any(row.psnr is not None for row in rows)
    filled = [name for name in COLUMNS if any(shown(row, name) for row in rows)]
    columns = (*filled, *(METRICS if measured else ()))
    head = "".join(f"<th scope=col>{name.replace('_', ' ')}</th>" for name in columns)
    body = ""
    for row in sorted(rows, key=lambda row: row.status != "failed"):
        cells = [(name, na(row, name) if name in METRICS else shown(row, name)) for name in columns]
        told = "".join(f"<td class={name}>{escape(cell)}</td>" for name, cell in cells)
        body += f"<tr class={row.status}>{told}</tr>"
    table = f"<table class=report><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=scroll tabindex=0 role=region aria-label='Results of all photos'>{table}</div>"


def as_summary(rows: Sequence[Row]) -> str:
    """How many are done, and every failure by name with its reason."""
    failed = [row for row in rows if row.status == "failed"]
    done = sum(row.status == "done" for row in rows)
    text = f"<p class=ok>{done} of {len(rows)} photos denoised.</p>"
    if failed:
        items = "".join(f"<li><b>{escape(row.input)}</b>: {escape(row.error)}</li>" for row in failed)
        text += f"<div class=failures role=alert><p>{len(failed)} failed:</p><ul>{items}</ul></div>"
    return text
