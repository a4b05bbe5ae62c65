"""`denoise-se denoise`: what it takes, writes, reports and says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from command_line import Run, needs_weights, save
from tiny_model import save_tiny

from denoise_se.errors import ImageError


def test_a_file_without_an_image_suffix_wants_a_format(run: Run, tiny: Path) -> None:
    save("a.png")
    Path("a.png").rename("a")
    result = run("denoise", "a", "-o", "out", "--model", tiny)
    assert result.code == 2 and "a: without the suffix of an image; add --format png" in result.err
    assert not Path("out").exists()
    assert run("denoise", "a", "-o", "out", "--model", tiny, "--format", "png").code == 0 and Path("out/a.png").exists()


def test_a_sigma_that_a_blind_model_does_not_use_is_said_once(run: Run, tmp_path: Path) -> None:
    blind = save_tiny(tmp_path / "blind.safetensors", noise_map=False)
    for name in ("a", "b"):
        save(f"in/{name}.png")
    result = run("denoise", "in", "-o", "out", "--model", blind, "--sigma", 20)
    assert result.code == 0 and result.err.count("blind is blind and does not use --sigma") == 1
    assert "--sigma" not in run("denoise", "in", "-o", "other", "--model", blind).err


def test_resuming_leaves_files_alone_that_no_run_wrote(run: Run, tiny: Path) -> None:
    save("in/a.png")
    save("in/b.png", 1)
    save("out/a.png", 2)
    before = Path("out/a.png").read_bytes()
    result = run("denoise", "in", "-o", "out", "--model", tiny, "--resume")
    assert result.code == 2 and "out/a.png: exists already, and no earlier run" in result.err
    assert Path("out/a.png").read_bytes() == before and not Path("out/b.png").exists()
    assert run("denoise", "in", "-o", "out", "--model", tiny, "--overwrite").code == 0
    assert run("denoise", "in", "-o", "out", "--model", tiny, "--resume", "--sigma", 9).code == 0


def test_at_strength_0_a_file_of_another_kind_than_its_name_stays_as_it_is(run: Run, tiny: Path) -> None:
    save("a.png")
    Path("in").mkdir()
    Path("a.png").rename("in/a.jpg")
    assert run("denoise", "in", "-o", "out", "--model", tiny, "--strength", 0).code == 0
    assert Path("out/a.jpg").read_bytes() == Path("in/a.jpg").read_bytes()


def test_alpha_that_is_opaque_everywhere_does_not_hinder_a_jpeg(run: Run, tiny: Path) -> None:
    opaque = np.dstack([np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8), np.full((24, 32), 255)])
    PIL.Image.fromarray(opaque.astype(np.uint8)).save("shot.png")
    result = run("denoise", "shot.png", "-o", "shot.jpg", "--model", tiny)
    assert result.code == 0 and "its alpha channel, opaque everywhere, is not written to JPG" in result.err
    opaque[0, 0, 3] = 254
    PIL.Image.fromarray(opaque.astype(np.uint8)).save("hole.png")
    result = run("denoise", "hole.png", "-o", "hole.jpg", "--model", tiny)
    assert result.code == 1 and "has transparency" in result.err


def test_a_report_that_fails_at_the_end_costs_no_image(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise ImageError("r.csv", "the report cannot be written (No space left on device)")

    save("in/a.png")
    Path("in/b.png").write_bytes(b"no image")
    monkeypatch.setattr("denoise_se.app.denoise_command.write_report", fail)
    result = run("denoise", "in", "-o", "out", "--model", tiny, "--report", "r.csv")
    assert result.code == 1 and "1 of 2 image(s) failed" in result.err and "r.csv: the report cannot be" in result.err


def test_a_folder_is_denoised_reported_and_refused_the_second_time(run: Run, tiny: Path) -> None:
    save("in/a.png")
    save("in/b.png", 1)
    save("ref/a.png", 2)
    first = run("denoise", "in", "-o", "out", "--model", tiny, "--reference", "ref", "--report", "deep/r.csv")
    assert first.code == 0 and "a.png" in first.out and "1 of 2 inputs have no reference" in first.err
    with Path("deep/r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "done"] and rows[0]["psnr"] and not rows[1]["psnr"]
    again = run("denoise", "in", "-o", "out", "--model", tiny)
    assert again.code == 2 and "--resume" in again.err and "--overwrite" in again.err
    assert "skipped" in run("denoise", "in", "-o", "out", "--model", tiny, "--resume").out.replace("done", "")
    assert "skipped" not in run("denoise", "in", "-o", "out", "--model", tiny, "--overwrite").out


@pytest.mark.parametrize("asked", [False, True])
def test_reports_hold_the_noise_always_and_a_csv_only_when_quality_is_to_be_estimated(
    run: Run, tiny: Path, asked: bool
) -> None:
    save("in/a.png")
    flag = ["--estimate-quality"] if asked else []
    for name in ("r.csv", "r.json", "r.html"):
        assert run("denoise", "in", "-o", "out", "--model", tiny, "--overwrite", "--report", name, *flag).code == 0
    columns = Path("r.csv").read_text().splitlines()[0]
    assert columns.endswith(",ssim") != asked and ("noise_before" in columns) == asked
    report = json.loads(Path("r.json").read_text())
    assert report["rows"][0]["noise_before"] > 0 and report["settings"]["model"] == str(tiny)
    told = report["rows"][0]["psnr_estimated"] is not None or report["rows"][0]["psnr_estimated_reason"] != ""
    assert told == asked
    page = Path("r.html").read_text()
    assert 'class="pair"' in page and ">noise before<" in page and f"<td>{tiny}</td>" in page
    resumed = run("denoise", "in", "-o", "out", "--model", tiny, "--resume", "--report", "r.html", *flag)
    assert "r.html: lacks the pictures, noise and estimates of 1 image(s)" in " ".join(resumed.err.split())


def test_one_bad_file_gives_exit_code_1_and_its_name_on_stderr(run: Run, tiny: Path) -> None:
    save("in/a.png")
    Path("in/bad.png").write_bytes(b"text")
    result = run("denoise", "in", "-o", "out", "--model", tiny, "--quiet")
    assert result.code == 1 and result.out == ""
    assert "in/bad.png: failed: " in result.err and "1 of 2" in result.err and Path("out/a.png").exists()


@needs_weights
def test_auto_takes_photo_for_colour_and_gray_for_grey(run: Run) -> None:
    save("in/colour.png")
    save("in/grey.png", shape=(20, 28))
    assert run("denoise", "in", "-o", "out", "--report", "r.csv").code == 0
    with Path("r.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == ["photo", "gray"]


def test_a_folder_is_resumed_into_itself_in_another_format(run: Run, tmp_path: Path, tiny: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 24, 3), 99, np.uint8))
    command = ["denoise", str(tmp_path), "-o", str(tmp_path), "--format", "tiff", "--model", str(tiny)]
    assert run(*command).code == 0
    cv2.imwrite(str(tmp_path / "b.png"), np.full((20, 24, 3), 99, np.uint8))
    result = run(*command, "--resume", "--json")
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0 and [row["status"] for row in rows] == ["skipped", "done"], result.err
    assert "1 file(s) that an earlier run wrote are no inputs" in result.err
    assert "exists already; add --resume" in run(*command).err
