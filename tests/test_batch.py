"""What a batch writes, and what fails alone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from batch_runs import FINGERPRINT, Recorder, digest, load, outputs, picture, run, save

from denoise_se import atomic_file
from denoise_se.batch import run_batch
from denoise_se.blending import Strength
from denoise_se.denoiser import Denoiser
from denoise_se.errors import ImageError
from denoise_se.file_work import Settings
from denoise_se.inspection import Inspector
from denoise_se.plan import make_plan
from denoise_se.restorer import RestoredTile
from denoise_se.scanlines import Scanlines

pytestmark = pytest.mark.usefixtures("in_empty_folder")


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
