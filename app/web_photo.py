"""One photo in the web app: the network runs once, everything after it comes from what was kept."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from denoise_se.app.request import Request
from denoise_se.app.web_work import Work
from denoise_se.batch import run_batch
from denoise_se.blending import Strength
from denoise_se.display import BROWSER_FORMATS, RESIDUAL_GAIN, as_shown, difference, residual, shown_range
from denoise_se.errors import ImageError, UsageError
from denoise_se.formats import output_suffix
from denoise_se.image import Image
from denoise_se.image_io import open_pages, probe, write
from denoise_se.level_grid import Known
from denoise_se.noise_estimation import NoiseEstimate, estimate_noise
from denoise_se.opened_file import WHOLE_BYTES
from denoise_se.page import ImagePage, stored_bytes
from denoise_se.plan import make_plan
from denoise_se.recorded import Recorded, record
from denoise_se.report import Row
from denoise_se.scanlines import Scanlines
from denoise_se.value_range import WHOLE, ValueRange

TURNED = (5, 6, 7, 8)  # EXIF orientations by a quarter
MOST_KEPT = 4  # written results of one photo, for going back and forth between two strengths


@dataclass(frozen=True)
class Saved:
    """A written result and what the batch reports of it."""

    path: Path
    row: Row


@dataclass(frozen=True)
class Photo:
    """A denoised photo: `source` as uploaded, `folder` for all that is made of it.

    recorded: the network's result for each page; estimated: the first page's noise; size: its width and height as it is
    shown; ranges: what each page shows as black to white; colour: whether a page has colours.
    """

    source: Path
    folder: Path
    request: Request
    recorded: tuple[Recorded, ...]
    estimated: NoiseEstimate
    size: tuple[int, int]
    ranges: tuple[ValueRange, ...]
    colour: bool
    reference: Path | None = None
    kept: dict[Request, Saved] = field(default_factory=dict)
    _last: list[object] = field(default_factory=lambda: [None])  # one list for all copies

    @classmethod
    def denoised(cls, source: Path, folder: Path, request: Request, reference: Path | None, work: Work) -> Photo:
        """Read a photo and run the network over it. Raises DenoiseError, and CancelledError within a tile."""
        work.step(0.0, "Reading")
        refuse_many_pixels([source], request.max_pixels)
        recorded, ranges, colour = [], [], False
        with open_pages(source, max_pixels=request.max_pixels) as pages:
            for number, page in enumerate(pages):
                if len(pages) == 1 and stored_bytes(page) <= WHOLE_BYTES:
                    page = ImagePage(page.image())
                if number == 0:
                    height, width = page.shape[:2]
                    size = (height, width) if page.metadata.orientation in TURNED else (width, height)
                    estimated = estimate_noise(Watched(page, partial(work.step, 0.0, "Estimating the noise")))
                    work.step(0.0, "Loading the model")  # the first time its graph is made too
                ranges.append(shown_range(page))
                colour |= page.shape[2] == 3
                tiles = partial(_tiles, work, number, len(pages))
                denoiser = request.denoiser_for(page.shape[2])
                known: Known | None = request.sigma
                if number == 0 and known is None:  # which is not estimated twice
                    known = denoiser.level_for(page, estimated)
                recorded.append(record(denoiser, page, folder / f"page-{number}.npy", known, progress=tiles))
        return cls(source, folder, request, tuple(recorded), estimated, size, tuple(ranges), colour, reference)

    @property
    def pages(self) -> int:
        return len(self.recorded)

    def at(self, strength: Strength, format: str) -> Request:
        """What was asked for, at this strength and in this format."""
        return replace(self.request, strength=strength, format=format)

    def saved(self, strength: Strength, format: str) -> Saved:
        """The result at this strength, written by the same batch as the command line's, or as it was written before.

        Raises DenoiseError: the format cannot hold the image, or the photo has been deleted by age.
        """
        if not (self.source.exists() and self.folder.exists()):
            raise UsageError("this photo has been deleted from the server by its age; drop it again")
        for used in (self.source, self.folder):  # keeps them from being deleted by age
            os.utime(used)
        request = self.at(strength, format)
        if (kept := self.kept.get(request)) is not None:
            return kept
        home = Path(tempfile.mkdtemp(dir=self.folder))
        target = home / f"{self.source.stem}-denoised{output_suffix(self.source, format)}"
        plan = make_plan([self.source], target, format=format, reference=self.reference, replace=True)
        pages = iter(self.recorded)
        rows = run_batch(plan, lambda channels: next(pages), request.settings(), fingerprint={}).rows
        if rows[0].status == "failed":
            raise UsageError(f"{self.source.name}: {rows[0].error}")
        saved = self.kept[request] = Saved(target, rows[0])
        while len(self.kept) > MOST_KEPT:
            oldest = self.kept.pop(next(iter(self.kept)))
            shutil.rmtree(oldest.path.parent, ignore_errors=True)
        return saved

    def pictures(self, saved: Saved, view: str, page: int = 0) -> Mapping[str, str]:
        """What the viewer shows of one page: files that a browser can decode, by role.

        view: "compare" (before and after), "residual" or "difference". Raises DenoiseError.
        """
        if view == "difference":
            if self.reference is None:
                raise UsageError("give a clean photo to compare with first")
            before = self._map(saved, "difference", page, self.source)
            return {"before": before, "after": self._map(saved, "difference", page)}
        before = self._viewable(self.source, page)
        after = self._map(saved, "residual", page) if view == "residual" else self._viewable(saved.path, page)
        return {"before": before, "after": after}

    def compared_with(self, reference: Path | None) -> Photo:
        """The same photo with this clean reference; nothing is run again."""
        return self if reference == self.reference else replace(self, reference=reference, kept={})

    @property
    def turn(self) -> object:
        """Stands for what was asked of this photo last, with whatever reference; its removal is the last."""
        return self._last[0]

    def next_turn(self) -> object:
        """For one who asks now: when `turn` is another one at the end, the answer is out of date."""
        self._last[0] = turn = object()
        return turn

    def remove(self) -> None:
        """Deletes what was made, not the upload."""
        self.next_turn()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _viewable(self, path: Path, page: int) -> str:
        if probe(path).format in BROWSER_FORMATS and self.ranges[page] == WHOLE:
            return str(path)
        made = self.folder / f"{path.parent.name}-{path.stem}-{page}-shown.png"
        if not made.exists():
            write(made, as_shown(page_of(path, page, self.request.max_pixels), self.ranges[page]))
        return str(made)

    def _map(self, saved: Saved, kind: str, page: int, of: Path | None = None) -> str:
        made = saved.path.with_name(f"{'before' if of else 'after'}-{page}-{kind}.png")
        if not made.exists():
            of_what = self.source if kind == "residual" else self.reference or self.source
            draw, gain = residual if kind == "residual" else difference, RESIDUAL_GAIN / self.ranges[page].span
            pixels = self.request.max_pixels
            write(made, draw(page_of(of_what, page, pixels), page_of(of or saved.path, page, pixels), gain))
        return str(made)


class Watched:
    """Scanlines that call `told` whenever rows of them are read."""

    def __init__(self, inner: Scanlines, told: Callable[[], None]) -> None:
        self.inner, self.told = inner, told

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.inner.shape

    @property
    def dtype(self) -> np.dtype:
        return self.inner.dtype

    def rows(self, start: int, stop: int) -> np.ndarray:
        self.told()
        return self.inner.rows(start, stop)


def refuse_many_pixels(files: Sequence[Path], most: int) -> None:
    """UsageError for a file whose pages have more pixels together than a photo may have, as what is kept of them fills
    the disk."""
    for file in files:
        try:
            found = probe(file)
        except ImageError:
            continue  # told when it is read
        pixels = found.width * found.height * found.frames
        if found.frames > 1 and pixels > most:
            raise UsageError(f"{file.name}: has {pixels:,} pixels on its pages, and this server takes {most:,}")


def page_of(path: Path, page: int, max_pixels: int) -> Image:
    """One page of a file, from 0. Raises ImageError, for a page that it does not have too."""
    with open_pages(path, max_pixels=max_pixels) as pages:
        if page >= len(pages):
            raise ImageError(path, f"has {len(pages)} page(s), and page {page + 1} was asked for")
        return pages[page].image()


def _tiles(work: Work, page: int, pages: int, done: int, total: int) -> None:
    """A progress callback of the library, for one of so many pages."""
    of_page = f"Page {page + 1} of {pages}, tile" if pages > 1 else "Tile"
    work.step((page + done / max(total, 1)) / pages, f"{of_page} {min(done + 1, total)} of {total}")


def command_line(photo: Photo, strength: Strength, format: str) -> str:
    """The command that gives the same file."""
    source, request = photo.source, photo.request
    words = ["denoise-se", "denoise", source.name, "-o", f"{source.stem}-denoised{output_suffix(source, format)}"]
    if request.model != "auto":
        file = Path(request.model)
        words += ["--model", f"{file.parent.name}/{file.name}" if file.stem == "best" else file.name]
    if request.sigma is not None:
        words += ["--sigma", f"{request.sigma:g}"]
    for option in ("precision", "backend", "device", "tile"):
        if (value := getattr(request.engine, option)) != "auto":
            words += [f"--{option}", str(value)]
    if request.engine.self_ensemble:
        words += ["--self-ensemble"]
    if strength.luma != 1:
        words += ["--strength", f"{strength.luma:g}"]
    if strength.chroma != strength.luma:
        words += ["--chroma-strength", f"{strength.chroma:g}"]
    return shlex.join(words)
