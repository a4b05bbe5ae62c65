"""Batches that were stopped or killed, and go on."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from batch_runs import Recorder, digest, load, outputs, picture, resumed, run, save

from denoise_se.denoiser import Denoiser
from denoise_se.errors import UsageError
from denoise_se.file_work import Settings
from denoise_se.report import Row
from denoise_se.restorer import Band
from denoise_se.scanlines import Scanlines
from denoise_se.stop import Stop
from denoise_se.tiling import Span
from denoise_se.watcher import Watcher

pytestmark = pytest.mark.usefixtures("in_empty_folder")


def test_resuming_skips_what_is_done_and_redoes_what_changed(denoiser: Denoiser) -> None:
    for i in range(4):
        save(f"in/{i}.png", picture(i))
    Path("in/4.png").write_bytes(b"bad")
    run(denoiser)
    times = {name: Path("out", name).stat().st_mtime_ns for name in outputs()}
    assert set(resumed(denoiser).values()) == {"skipped", "failed"}
    assert {name: Path("out", name).stat().st_mtime_ns for name in outputs()} == times
    save("in/1.png", picture(9))
    Path("out/2.png").unlink()
    save("in/4.png", picture(4))
    assert resumed(denoiser) == {
        "0.png": "skipped", "1.png": "done", "2.png": "done", "3.png": "skipped", "4.png": "done",
    }  # fmt: skip
    assert np.array_equal(load("out/1.png"), denoiser(picture(9), sigma=25.0))
    recorder = Recorder()
    assert set(resumed(denoiser, fingerprint={"weights": "other"}, watcher=recorder).values()) == {"done"}
    assert recorder.notices == [
        "0.png, 1.png, 2.png, 3.png, 4.png: made with other settings or another version before, so done again"
    ]
    resumed(denoiser, fingerprint={"weights": "other"}, watcher=(quiet := Recorder()))
    assert not quiet.notices


def test_an_output_that_was_damaged_since_is_done_again_and_said(denoiser: Denoiser) -> None:
    for i in range(3):
        save(f"in/{i}.png", picture(i))
    run(denoiser)
    whole = Path("out/1.png").read_bytes()
    Path("out/1.png").write_bytes(whole[:-20])
    recorder = Recorder()
    assert resumed(denoiser, watcher=recorder) == {"0.png": "skipped", "1.png": "done", "2.png": "skipped"}
    assert recorder.notices == ["1.png: cut or changed since they were written, so done again"]
    assert Path("out/1.png").read_bytes() == whole


def test_skipped_images_are_measured_too(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    save("ref/a.png", picture(1))
    (first,) = run(denoiser, reference=Path("ref")).rows
    (again,) = run(denoiser, Settings(25.0, resume=True), reference=Path("ref")).rows
    assert again.status == "skipped" and (again.psnr, again.ssim_noisy) == (first.psnr, first.ssim_noisy)
    assert (again.width, again.height, again.bit_depth) == (32, 24, 8)


def test_skipped_images_have_their_size_and_how_they_were_made(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    tifffile.imwrite("in/b.tif", np.stack([picture(), picture(1)]))  # by rows
    first = run(denoiser).rows
    for old, new in zip(first, run(denoiser, Settings(25.0, resume=True)).rows, strict=True):
        assert new == replace(old, status="skipped") and new.seconds and (new.model, new.sigma) == ("tiny", 25.0)
    assert (first[0].width, first[0].height, first[0].channels, first[0].bit_depth) == (32, 24, 3, 8)


def test_a_manifest_with_odd_facts_is_not_believed(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    run(denoiser)
    manifest = Path("out/.denoise-se-manifest.jsonl")
    for odd in ({"model": 3, "sigma": "much", "seconds": True, "other": 1}, [1], None):
        manifest.write_text(json.dumps({**json.loads(manifest.read_text().splitlines()[-1]), "facts": odd}))
        (again,) = run(denoiser, Settings(25.0, resume=True)).rows
        assert (again.status, again.model, again.sigma, again.seconds) == ("skipped", "", None, None)


def test_files_that_were_there_without_a_record_are_neither_taken_for_done_nor_replaced(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    save("out/a.png", picture(5))
    before = digest("out/a.png")
    with pytest.raises(UsageError, match=r"out/a\.png: exists already, and no earlier run"):
        resumed(denoiser)
    assert digest("out/a.png") == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_current_image_and_can_be_resumed(
    denoiser: Denoiser, number: signal.Signals, code: int
) -> None:
    for i in range(8):
        save(f"in/{i}.png", picture(i))

    class Signalling(Recorder):
        def row(self, row: Row) -> None:
            super().row(row)
            if len(self.rows) == 2:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    outcome = run(denoiser, watcher=Signalling())
    assert signal.getsignal(number) == before
    assert outcome.exit_code == code and 2 <= len(outcome.rows) < 8
    assert outputs() == [Path(row.output).name for row in outcome.rows]
    statuses = resumed(denoiser)
    assert list(statuses.values()).count("skipped") == len(outcome.rows) and len(outputs()) == 8


def test_a_signal_during_the_last_image_changes_nothing(denoiser: Denoiser) -> None:
    save("in/a.png", picture())

    class Signalling(Watcher):
        def tiles(self, done: int, total: int) -> None:
            if done == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    assert run(denoiser, watcher=Signalling()).exit_code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("pages", [1, 2])
def test_a_signal_ends_an_image_of_several_tiles_between_two_of_them(
    denoiser: Denoiser, number: signal.Signals, code: int, pages: int
) -> None:
    save("in/a.png", picture())
    for name in ("b", "c"):
        tifffile.imwrite(f"in/{name}.tif", np.stack(pages * [picture(1, (128, 96, 3))]), photometric="rgb")
    tiled = Denoiser(denoiser.checkpoint, denoiser.backend, tile=32)
    tiles = []

    class Signalling(Watcher):
        def tiles(self, done: int, total: int) -> None:
            tiles.append(done)
            if total == 12 * pages and done == 2:
                os.kill(os.getpid(), number)

    outcome = run(tiled, watcher=Signalling())
    assert outcome.exit_code == code and [Path(row.output).stem for row in outcome.rows] == ["a"]
    assert tiles[-1] == 2 and outputs() == ["a.png"]


def test_a_second_signal_ends_the_program_at_once_with_its_code(capfd: pytest.CaptureFixture[str]) -> None:
    with Stop().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(SystemExit) as end:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert end.value.code == 143 and capfd.readouterr().err == "denoise-se: interrupted\n"


class Inverting(Denoiser):
    """Computes without threads, so that it can run in a forked process."""

    def fits_in_lane(self, height: int, width: int, channels: int) -> bool:
        return False

    def bands(self, source: Scanlines, *arguments: Any) -> Iterator[Band]:
        noisy = source.rows(0, source.shape[0])
        yield Band(Span(0, len(noisy)), noisy, 255 - noisy)


def fork_and_run(denoiser: Denoiser, wait: int, seconds: float) -> None:
    """Resume the batch in another process and kill it `seconds` after `wait` newly finished images."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:

        class Telling(Watcher):
            def row(self, row: Row) -> None:
                if row.status == "done":
                    os.write(writing, b".")

        run(denoiser, Settings(25.0, resume=True), watcher=Telling())
        os._exit(0)
    os.close(writing)
    for _ in range(wait):
        os.read(reading, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_leave_whole_files_only_and_resume_to_the_clean_result(denoiser: Denoiser) -> None:
    inverting = Inverting(denoiser.checkpoint, denoiser.backend)
    for i in range(160):
        save(f"in/{i:03d}.png", picture(i, (64, 64, 3)))
    run(inverting, out="whole")
    clean = {path.name: digest(path) for path in Path("whole").glob("*.png")}
    chance = random.Random(3)
    for kill in range(8):
        fork_and_run(inverting, wait=1 + chance.randrange(3), seconds=chance.random() * 0.01)
        for path in Path("out").glob("*.png"):
            assert digest(path) == clean[path.name], f"kill {kill}: {path} is not whole"
    Path("out/.0123abcd.tmp").touch()
    times = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    assert 8 <= len(times) < 160, "the kills came too early or too late to show anything"
    statuses = resumed(inverting)
    assert {path.name: digest(path) for path in Path("out").glob("*.png")} == clean
    assert list(statuses.values()).count("skipped") == len(times)
    assert all(Path("out", name).stat().st_mtime_ns == at for name, at in times.items())
    assert not list(Path("out").glob(".*.tmp"))
