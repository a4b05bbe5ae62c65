"""Many small images, denoised side by side."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_runs import FINGERPRINT, Recorder, load, outputs, picture, resumed, run, save

from denoise_se import denoiser as denoiser_module
from denoise_se import pipeline, scanlines
from denoise_se.batch import run_batch
from denoise_se.denoiser import Denoiser
from denoise_se.file_work import Settings
from denoise_se.inspection import Inspector
from denoise_se.plan import make_plan
from denoise_se.report import Row
from denoise_se.restorer import RestoredTile
from denoise_se.scanlines import Scanlines
from denoise_se.watcher import CancelledError, Watcher

pytestmark = pytest.mark.usefixtures("in_empty_folder")


@pytest.fixture
def in_lanes(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Denoiser:
    """A denoiser of three lanes, whatever this machine has, and 80 pictures of seven sizes."""
    module = pytest.importorskip("denoise_se.openvino_backend")
    monkeypatch.setattr(module, "granted_cores", lambda: 3)
    monkeypatch.setattr(pipeline, "FEWEST_FOR_LANES", 5)
    for i in range(80):
        save(f"in/{i:02d}.png", picture(i, (20 + i % 7, 30 - i % 5, 3)))
    return Denoiser.load(tiny, device="cpu", backend="openvino")


def test_many_small_images_become_what_they_become_alone(in_lanes: Denoiser) -> None:
    Path("in/40.png").write_bytes(b"no picture")
    save("in/41.png", picture(41, (1030, 1030, 3)))  # gets all cores
    together, at_once, most = threading.Lock(), 0, 0

    class Counting(Denoiser):
        def noise_level(self, *arguments: Any) -> Any:
            nonlocal at_once, most
            with together:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.002)
            with together:
                at_once -= 1
            return super().noise_level(*arguments)

    watcher = Recorder()
    outcome = run(Counting(in_lanes.checkpoint, in_lanes.backend), watcher=watcher)
    assert outcome.exit_code == 1 and [row.status for row in outcome.rows].count("failed") == 1
    assert [Path(row.input).stem for row in outcome.rows] == [f"{i:02d}" for i in range(80)]
    assert tuple(watcher.rows) == outcome.rows and outcome.rows[40].status == "failed"
    assert most > 1, "no two of them were at work together"
    for i in set(range(80)) - {40}:
        assert np.array_equal(load(f"out/{i:02d}.png"), in_lanes(load(f"in/{i:02d}.png"), 25.0))
    for i in range(0, 80, 3):
        Path(f"out/{i:02d}.png").unlink()
    again = resumed(in_lanes)
    assert [again[f"{i:02d}.png"] for i in range(80)] == [
        "failed" if i == 40 else "skipped" if i % 3 else "done" for i in range(80)
    ]


def test_a_report_has_the_same_of_many_small_images_as_of_few(in_lanes: Denoiser) -> None:
    jobs = make_plan([Path("in")], Path("out"), replace=False)
    inspector = Inspector(10_000, noise=True)
    options: dict[str, Any] = {"fingerprint": FINGERPRINT, "inspector": inspector}
    rows = run_batch(jobs, lambda channels: in_lanes, Settings(25.0), **options).rows
    few = Inspector(10_000, noise=True)
    alone = make_plan([Path("in/70.png")], Path("alone"), replace=False)
    row = run_batch(alone, lambda channels: in_lanes, Settings(25.0), **options | {"inspector": few}).rows[0]
    assert (rows[70].noise_before, rows[70].noise_after) == (row.noise_before, row.noise_after)
    assert row.noise_before is not None and len(inspector.previews) == 80
    assert inspector.previews[rows[70].output] == few.previews[row.output]


def test_what_one_of_many_small_images_raises_costs_it_alone(in_lanes: Denoiser) -> None:
    class Failing(Denoiser):
        def tiles(self, source: Scanlines, *arguments: Any) -> Iterator[RestoredTile]:
            if np.array_equal(source.rows(0, source.shape[0]), picture(21, (20, 29, 3))):
                raise RuntimeError("odd")
            return super().tiles(source, *arguments)

    outcome = run(Failing(in_lanes.checkpoint, in_lanes.backend))
    assert [i for i, row in enumerate(outcome.rows) if row.status == "failed"] == [21]
    assert "RuntimeError: odd" in outcome.rows[21].error and len(outputs()) == 79


def test_a_signal_among_many_small_images_leaves_what_its_rows_say(in_lanes: Denoiser) -> None:
    class Signalling(Recorder):
        def row(self, row: Row) -> None:
            super().row(row)
            if len(self.rows) == 30:
                os.kill(os.getpid(), signal.SIGINT)

    outcome = run(in_lanes, watcher=Signalling())
    assert outcome.exit_code == 130 and 30 <= len(outcome.rows) <= 30 + 2 * 3 + 1
    assert outputs() == [Path(row.output).name for row in outcome.rows]
    assert list(resumed(in_lanes).values()).count("skipped") == len(outcome.rows) and len(outputs()) == 80


def test_cancelling_many_small_images_ends_at_once_and_leaves_whole_files(in_lanes: Denoiser) -> None:
    class Cancelling(Watcher):
        finished = 0

        def row(self, row: Row) -> None:
            self.finished += 1

        def tiles(self, done: int, total: int) -> None:
            if self.finished >= 10:
                raise CancelledError

    with pytest.raises(CancelledError):
        run(in_lanes, watcher=Cancelling())
    assert 10 <= len(outputs()) <= 10 + 2 * 3 + 1
    assert all(load(f"out/{name}").shape == load(f"in/{name}").shape for name in outputs())


def test_a_signal_among_lanes_with_nothing_to_take_out_is_no_error(
    in_lanes: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (denoiser_module, scanlines):
        monkeypatch.setattr(module, "BAND", 8)  # so that images that are only copied have several parts
    first = threading.Lock()

    class Signalling(Watcher):
        def tiles(self, done: int, total: int) -> None:
            if 0 < done < total and threading.current_thread() is not threading.main_thread():
                if first.acquire(blocking=False):
                    os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)

    outcome = run(in_lanes, Settings(0.0), watcher=Signalling())
    assert outcome.exit_code == 130 and first.locked()
    assert outputs() == [Path(row.output).name for row in outcome.rows]
