"""Batches over small files in the current folder, as tests run them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

from denoise_se import manifest
from denoise_se.batch import Outcome, run_batch
from denoise_se.denoiser import Denoiser
from denoise_se.file_work import Settings
from denoise_se.plan import make_plan
from denoise_se.report import Row
from denoise_se.watcher import Watcher

FINGERPRINT = {"weights": "tiny"}


def picture(seed: int = 0, shape: tuple[int, ...] = (24, 32, 3), dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def save(name: str, pixels: np.ndarray, **options: object) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(name, **options)


def load(name: str) -> np.ndarray:
    return np.asarray(PIL.Image.open(name))


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Recorder(Watcher):
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.notices: list[str] = []

    def row(self, row: Row) -> None:
        self.rows.append(row)
        self.notices += [f"{row.input}: {text}" for text in row.notices]

    def notice(self, text: str) -> None:
        self.notices.append(text)


def run(
    denoiser: Denoiser | Callable[[int], Denoiser],
    settings: Settings | None = None,
    *,
    watcher: Watcher | None = None,
    fingerprint: dict[str, object] | None = None,
    out: str = "out",
    **plan: object,
) -> Outcome:
    settings = settings or Settings(sigma=25.0)
    jobs = make_plan([Path("in")], Path(out), replace=settings.resume, **plan)  # type: ignore[arg-type]
    find = (lambda channels: denoiser) if isinstance(denoiser, Denoiser) else denoiser
    return run_batch(jobs, find, settings, fingerprint=fingerprint or FINGERPRINT, watcher=watcher, workers=2)


def outputs() -> list[str]:
    return sorted(path.name for path in Path("out").iterdir() if path.name != manifest.NAME)


def resumed(denoiser: Denoiser, **options: object) -> dict[str, str]:
    outcome = run(denoiser, Settings(25.0, resume=True), **options)  # type: ignore[arg-type]
    return {Path(row.input).name: row.status for row in outcome.rows}
