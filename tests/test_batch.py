"""Running a plan: what is written, what is reported, and what survives failures, signals and kills."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from denoise_se import atomic_file, image_io, manifest, pipeline, scanlines
from denoise_se import denoiser as denoiser_module
from denoise_se.batch import Outcome, run_batch
from denoise_se.blending import Strength
from denoise_se.denoiser import Denoiser
from denoise_se.errors import ImageError, UsageError
from denoise_se.file_work import Settings
from denoise_se.inspection import Inspector
from denoise_se.plan import make_plan
from denoise_se.report import Row
from denoise_se.restorer import Band, RestoredTile
from denoise_se.scanlines import Scanlines
from denoise_se.stop import Stop
from denoise_se.tiling import Span
from denoise_se.watcher import CancelledError, Watcher

FINGERPRINT = {"weights": "tiny"}


@pytest.fixture(scope="module")
def denoiser(tiny: Path) -> Denoiser:
    return Denoiser.load(tiny, device="cpu")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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


# --- what is written -------------------------------------------------------------------------------------------------


def test_every_output_is_what_the_denoiser_makes_of_its_input(denoiser: Denoiser) -> None:
    for i in range(3):
        save(f"in/{i}.png", picture(i))
    outcome = run(denoiser)
    assert outcome.exit_code == 0 and outputs() == ["0.png", "1.png", "2.png"]
    for i, row in enumerate(outcome.rows):
        expected = denoiser(picture(i), sigma=25.0)
        assert np.array_equal(load(f"out/{i}.png"), expected) and not np.array_equal(expected, picture(i))
        assert (row.input, row.output, row.status) == (f"in/{i}.png", f"out/{i}.png", "done")
        assert (row.width, row.height, row.channels, row.bit_depth) == (32, 24, 3, 8)
        assert row.model == "tiny" and row.sigma == 25.0 and row.seconds is not None and row.psnr is None


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_strength_zero_gives_the_same_bytes_in_the_same_format(denoiser: Denoiser, name: str) -> None:
    save(f"in/{name}", picture(), quality=80)
    assert run(denoiser, Settings(25.0, strength=Strength(0, 0))).exit_code == 0
    assert digest(f"in/{name}") == digest(f"out/{name}")


@pytest.mark.parametrize("pages", [1, 2])
def test_strength_zero_gives_a_tiff_back_whose_kind_of_values_is_not_written(denoiser: Denoiser, pages: int) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (pages, 20, 24))
    values[0, 3, 3] = np.nan
    Path("in").mkdir()
    tifffile.imwrite("in/a.tif", values, photometric="minisblack", metadata=None)
    watcher = Recorder()
    assert run(denoiser, Settings(25.0, strength=Strength(0, 0)), watcher=watcher).exit_code == 0
    assert digest("in/a.tif") == digest("out/a.tif") and watcher.notices == []


def test_palette_tiffs_of_several_pages_are_denoised_like_their_colours(denoiser: Denoiser) -> None:
    pages = [PIL.Image.fromarray(picture(seed)).quantize(16) for seed in range(2)]
    Path("in").mkdir()
    pages[0].save("in/a.tif", save_all=True, append_images=pages[1:])
    assert run(denoiser).exit_code == 0
    for page, written in zip(pages, tifffile.imread("out/a.tif"), strict=True):
        assert np.array_equal(written, denoiser(np.asarray(page.convert("RGB")), sigma=25.0))


def test_strength_zero_into_another_format_keeps_the_pixels(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    assert run(denoiser, Settings(25.0, strength=Strength(0, 0)), format="tiff").exit_code == 0
    assert np.array_equal(load("out/a.tiff"), picture())


def test_each_image_gets_the_denoiser_of_its_channels(denoiser: Denoiser) -> None:
    asked = []
    save("in/a.png", picture())
    save("in/b.png", picture(shape=(24, 32)))

    def find(channels: int) -> Denoiser:
        asked.append(channels)
        return denoiser

    assert run(find).exit_code == 0 and asked == [3, 1]
    assert PIL.Image.open("out/b.png").mode == "L"


# --- metrics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), [("a.png", np.uint8), ("a.jpg", np.uint8), ("deep.png", np.uint16)])
def test_metrics_are_those_of_the_written_file(denoiser: Denoiser, name: str, dtype: type) -> None:
    clean = np.linspace(0.2, 0.8, 24 * 32 * 3).reshape(24, 32, 3) * np.iinfo(dtype).max
    noisy = clean + np.random.default_rng(1).normal(0, 0.05 * np.iinfo(dtype).max, clean.shape)
    for folder, values in (("in", noisy), ("ref", clean)):
        Path(folder).mkdir()
        cv2.imwrite(f"{folder}/{name}", np.clip(values, 0, np.iinfo(dtype).max).round().astype(dtype))
    (row,) = run(denoiser, reference=Path("ref")).rows
    reference, before, after = (cv2.imread(f"{folder}/{name}", cv2.IMREAD_UNCHANGED) for folder in ("ref", "in", "out"))
    assert after.dtype == dtype
    for image, psnr, ssim in ((before, row.psnr_noisy, row.ssim_noisy), (after, row.psnr, row.ssim)):
        top = np.iinfo(dtype).max
        assert psnr == pytest.approx(peak_signal_noise_ratio(reference, image, data_range=top), abs=0.02)
        assert ssim == pytest.approx(
            structural_similarity(
                reference, image, data_range=top, channel_axis=2, gaussian_weights=True, use_sample_covariance=False
            ),
            abs=2e-3,
        )


def test_an_exact_result_has_infinite_psnr_and_a_tiny_one_no_ssim(denoiser: Denoiser) -> None:
    for folder in ("in", "ref"):
        save(f"{folder}/tiny.png", picture(shape=(3, 5, 3)))
    (row,) = run(denoiser, Settings(25.0, strength=Strength(0, 0)), reference=Path("ref")).rows
    assert row.psnr == row.psnr_noisy == np.inf and row.ssim is None


def test_a_16_bit_image_is_compared_with_an_8_bit_reference_on_one_scale(denoiser: Denoiser) -> None:
    save("ref/a.png", picture())
    Path("in").mkdir()
    cv2.imwrite("in/a.png", picture()[..., ::-1].astype(np.uint16) * 257)
    (row,) = run(denoiser, reference=Path("ref")).rows
    assert row.psnr_noisy is not None and row.psnr_noisy > 100, "257 * v is v on the other scale"
    assert row.bit_depth == 16


def test_grey_written_in_a_format_without_grey_is_still_measured(denoiser: Denoiser) -> None:
    save("in/a.png", picture(shape=(24, 32)))
    save("ref/a.png", picture(shape=(24, 32)))
    (row,) = run(denoiser, format="webp", reference=Path("ref")).rows
    assert row.status == "done" and row.psnr_noisy == np.inf and row.psnr is not None and 0 < row.psnr < 99


@pytest.mark.parametrize("format", ["same", "png", "bmp"])
def test_a_turned_photo_is_compared_as_it_is_shown(denoiser: Denoiser, format: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    smooth = np.repeat(np.linspace(40, 200, 32 * 3).reshape(1, 32, 3), 24, axis=0).astype(np.uint8)
    save("in/a.jpg", smooth, quality=98, exif=exif)
    save("ref/a.png", np.rot90(smooth, -1))
    (row,) = run(denoiser, Settings(25.0, strength=Strength(0, 0)), format=format, reference=Path("ref")).rows
    assert row.status == "done"
    assert row.psnr_noisy is not None and row.psnr_noisy > 30 and row.psnr == pytest.approx(row.psnr_noisy, abs=1)


def test_a_reference_that_cannot_be_compared_is_said_and_costs_nothing_else(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    save("in/b.png", picture())
    save("ref/a.png", picture(shape=(20, 32, 3)))
    Path("ref/b.png").write_bytes(b"no image")
    watcher = Recorder()
    outcome = run(denoiser, reference=Path("ref"), watcher=watcher)
    assert outcome.exit_code == 0 and [row.psnr for row in outcome.rows] == [None, None]
    assert any("ref/a.png" in text and "32x20" in text and "32x24" in text for text in watcher.notices)
    assert any("ref/b.png" in text and "in/b.png" in text for text in watcher.notices)


def test_an_output_that_was_changed_since_costs_its_scores_alone(denoiser: Denoiser) -> None:
    Path("in").mkdir()
    for name in "ab":
        tifffile.imwrite(f"in/{name}.tif", picture(), photometric="rgb")
    shutil.copytree("in", "ref")
    run(denoiser, reference=Path("ref"))
    size = Path("out/a.tif").stat().st_size
    image = image_io.read("out/a.tif")
    image_io.write("out/a.tif", replace(image, pixels=np.ascontiguousarray(image.pixels.swapaxes(0, 1))))
    assert Path("out/a.tif").stat().st_size == size
    watcher = Recorder()
    outcome = run(denoiser, Settings(25.0, resume=True), reference=Path("ref"), watcher=watcher)
    assert [row.psnr is None for row in outcome.rows] == [True, False]
    assert {text.partition("out/a.tif")[0] for text in watcher.notices} == {"in/a.tif: no PSNR: "}


# --- failures --------------------------------------------------------------------------------------------------------


def test_bad_files_fail_alone_by_name_and_in_order(denoiser: Denoiser) -> None:
    for i in (0, 3):
        save(f"in/{i}.png", picture(i))
    Path("in/1.png").write_bytes(Path("in/0.png").read_bytes()[:200])
    Path("in/2.png").write_bytes(b"")
    Path("in/4.png").symlink_to("nowhere.png")
    os.mkfifo("in/5.png")  # whoever opens it waits for ever
    watcher = Recorder()
    outcome = run(denoiser, watcher=watcher)
    assert outcome.exit_code == 1 and outputs() == ["0.png", "3.png"]
    assert [row.status for row in outcome.rows] == ["done", "failed", "failed", "done", "failed", "failed"]
    assert all(row.error and "in/" not in row.error for row in outcome.rows if row.status == "failed")
    assert tuple(watcher.rows) == outcome.rows


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (RuntimeError("first line\nsecond"), "RuntimeError: first line"),
        (ValueError("odd"), "ValueError: odd"),
        (MemoryError(), "--tile"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "--tile"),
        (ImageError("x", "reason"), "reason"),
        (KeyError("gone"), "gone"),
    ],
)
def test_whatever_a_denoiser_raises_costs_one_image(denoiser: Denoiser, error: Exception, part: str) -> None:
    for i in range(3):
        save(f"in/{i}.png", picture(i))

    class Failing(Denoiser):
        def tiles(self, source: Scanlines, *arguments: Any) -> Iterator[RestoredTile]:
            if np.array_equal(source.rows(0, 24), picture(1)):
                raise error
            return denoiser.tiles(source, *arguments)

    outcome = run(Failing(denoiser.checkpoint, denoiser.backend))
    assert [row.status for row in outcome.rows] == ["done", "failed", "done"] and outcome.exit_code == 1
    assert part in outcome.rows[1].error and "\n" not in outcome.rows[1].error
    assert outputs() == ["0.png", "2.png"]


# --- many small images, denoised side by side ------------------------------------------------------------------------


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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more_fails_each_image_by_name_and_leaves_nothing(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    save("in/a.png", picture())
    save("in/b.png", picture(1))

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic_file.os, "fsync", refuse)
    outcome = run(denoiser)
    assert [row.status for row in outcome.rows] == ["failed", "failed"] and outcome.exit_code == 1
    assert all(os.strerror(number) in row.error for row in outcome.rows)
    assert outputs() == []


def test_an_output_folder_that_cannot_be_made_is_named(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    Path("file").write_bytes(b"")
    with pytest.raises(ImageError, match=r"file/out: the output folder cannot be made"):
        run(denoiser, out="file/out")


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="needs chattr")
def test_an_output_folder_that_takes_no_file_is_found_out_before_any_work(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    Path("out").mkdir()
    if subprocess.run(["chattr", "+i", "out"], capture_output=True, check=False).returncode:
        pytest.skip("no such attribute here")
    watcher = Recorder()
    try:
        with pytest.raises(ImageError, match=r"out/a\.png: cannot be written \(Operation not permitted\), nor can"):
            run(denoiser, watcher=watcher)
    finally:
        subprocess.run(["chattr", "-i", "out"], check=True)
    assert not watcher.rows


def test_leftovers_of_killed_runs_go_also_when_all_is_done_again_and_what_only_looks_like_one_stays(
    denoiser: Denoiser,
) -> None:
    save("in/a.png", picture())
    run(denoiser)
    Path("out/.0123abcd.tmp").write_bytes(b"half")
    Path("out/.4567abcd.tmp").mkdir()
    jobs = make_plan([Path("in")], Path("out"), replace=True)
    run_batch(jobs, lambda channels: denoiser, Settings(25.0), fingerprint=FINGERPRINT)
    assert not Path("out/.0123abcd.tmp").exists() and Path("out/.4567abcd.tmp").is_dir()


def test_a_subfolder_that_is_a_file_fails_its_images_alone(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    save("in/x/b.png", picture())
    Path("out").mkdir()
    Path("out/x").write_bytes(b"")
    outcome = run(denoiser, recursive=True)
    assert [row.status for row in outcome.rows] == ["done", "failed"]


def test_too_many_pixels_are_refused_by_the_option_s_name(denoiser: Denoiser) -> None:
    save("in/a.png", picture())
    (row,) = run(denoiser, Settings(25.0, max_pixels=100)).rows
    assert row.status == "failed" and "--max-pixels" in row.error


def test_what_is_converted_is_said_of_its_file_in_later_runs_too(denoiser: Denoiser) -> None:
    palette = PIL.Image.fromarray(picture()).quantize(8)
    Path("in").mkdir()
    palette.save("in/palette.png")
    Path("in/deep.png").touch()
    cv2.imwrite("in/deep.png", picture(dtype=np.uint16))
    watcher = Recorder()
    assert run(denoiser, format="jpg", watcher=watcher).exit_code == 0
    assert [(row.input, row.notices) for row in watcher.rows] == [
        ("in/deep.png", ("16-bit image written as 8-bit JPG",)),
        ("in/palette.png", ("palette image written as RGB",)),
    ]
    again = run(denoiser, Settings(25.0, resume=True), format="jpg")
    assert [(row.status, row.notices) for row in again.rows] == [("skipped", row.notices) for row in watcher.rows]


# --- resuming --------------------------------------------------------------------------------------------------------


def resumed(denoiser: Denoiser, **options: object) -> dict[str, str]:
    outcome = run(denoiser, Settings(25.0, resume=True), **options)  # type: ignore[arg-type]
    return {Path(row.input).name: row.status for row in outcome.rows}


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


def test_a_run_with_an_inspector_gives_pictures_noise_and_an_estimate_or_a_reason(
    tmp_path: Path, denoiser: Denoiser
) -> None:
    noisy = np.clip(128 + np.random.default_rng(0).normal(0, 12, (90, 120, 3)), 0, 255).astype(np.uint8)
    (tmp_path / "in").mkdir()
    PIL.Image.fromarray(noisy).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    plan = make_plan([tmp_path / "in"], tmp_path / "out")
    inspector = Inspector(20_000, quality=True)
    rows = run_batch(plan, lambda _: denoiser, Settings(sigma=12), fingerprint={}, inspector=inspector).rows
    done, failed = rows
    assert done.noise_before == pytest.approx(12, rel=0.05) and done.noise_after is not None
    assert (done.psnr_estimated is None) == bool(done.psnr_estimated_reason)
    assert list(inspector.previews) == [done.output] and inspector.previews[done.output].size == (120, 90)
    assert failed.status == "failed" and failed.noise_before is None
