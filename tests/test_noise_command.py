"""`denoise-se noise`: what it estimates and measures, says, writes and refuses."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from command_line import Run, save


def test_a_profile_and_its_plot_never_replace_an_image(run: Run) -> None:
    save("shots/1.png", 1)
    before = Path("shots/1.png").read_bytes()
    result = run("noise", "profile", "shots/1.png", "-o", "p.json", "--plot", "shots/../shots/1.png")
    assert result.code == 2 and "is one of the images to measure" in result.err
    assert Path("shots/1.png").read_bytes() == before and not Path("p.json").exists()


def test_a_profile_names_every_image_that_does_not_fit(run: Run) -> None:
    rng = np.random.default_rng(0)
    shapes = {"a.png": (80, 80, 3), "b.png": (80, 80, 3), "grey.png": (80, 80), "small.png": (80, 40, 3)}
    for name, shape in shapes.items():
        PIL.Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(name)
    Path("broken.png").write_bytes(b"no image")
    result = run("noise", "profile", *shapes, "broken.png", "-o", "p.json")
    assert result.code == 2 and not Path("p.json").exists()
    assert "broken.png: " in result.err
    assert "3 problem(s)" in result.err and "grey.png: is grey, most are colour" in result.err
    assert "small.png: has 40x80 pixels; a profile needs at least 64x64" in result.err


def test_noise_of_floats_of_any_range_is_told_in_their_own_units(run: Run) -> None:
    from denoise_se.noise_profile import NoiseProfile

    scene = np.linspace(-1000, 3000, 128)[:, None]
    tomogram = scene + np.random.default_rng(0).normal(0, 50, (128, 128))
    tifffile.imwrite("ct.tif", tomogram.astype(np.float32), photometric="minisblack")
    result = run("noise", "estimate", "ct.tif")
    (own,) = re.findall(r"\(([\d.]+) of 1\)", result.out)
    assert result.code == 0 and float(own) == pytest.approx(50, rel=0.1)
    result = run("noise", "profile", "ct.tif", "-o", "p.json")
    profile = NoiseProfile.load(Path("p.json"))
    assert result.code == 0 and "from -1" in profile.source
    (span,) = re.findall(r"in units of ([\d.e+]+) of", profile.source)
    assert float(profile.variance(0.5)[0]) ** 0.5 * float(span) == pytest.approx(50, rel=0.1)


def test_an_estimate_says_what_auto_gives_a_model_of_a_picture_with_coarse_grain(run: Run, tiny: Path) -> None:
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(128, 128)), (0, 0), 0.8)
    PIL.Image.fromarray(np.rint(128 + 8 * grain / grain.std()).astype(np.uint8)).save("a.png")
    line = next(line for line in run("noise", "estimate", "a.png").out.splitlines() if "a.png" in line)
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert run("denoise", "a.png", "-o", "b.png", "--model", tiny, "--report", "r.csv").code == 0
    row = next(csv.DictReader(Path("r.csv").read_text(encoding="utf-8").splitlines()))
    assert float(cells[-1]) == pytest.approx(float(row["sigma"]), abs=0.006)
    assert float(cells[-1]) > 1.5 * float(cells[1]) > 1.5 * 6


def test_an_estimate_says_that_noise_is_multiplicative_and_how_strong(run: Run) -> None:
    bright = np.linspace(0.1, 0.9, 256) * np.ones((256, 1))
    noisy = bright * (1 + 0.1 * np.random.default_rng(0).normal(size=bright.shape))
    assert cv2.imwrite("speckled.png", np.rint(65535 * noisy.clip(0, 1)).astype(np.uint16))
    assert "speckle:0.10" in "".join(run("noise", "estimate", "speckled.png").out.split())


def test_pictures_in_which_no_noise_is_found_are_told_of_where_it_was_asked_for(run: Run, tiny: Path) -> None:
    Path("in").mkdir()
    for name in ("a", "b"):
        PIL.Image.new("RGB", (40, 40), (99, 99, 99)).save(f"in/{name}.png")
    save("in/noisy.png", shape=(64, 64, 3))
    result = run("denoise", "in", "-o", "out", "--model", tiny)
    assert result.code == 0 and result.err.count("no noise was found") == 1
    assert "note: in/a.png, in/b.png: no noise was found" in result.err
    for number, options in enumerate((["--sigma", "5"], ["--strength", "0"])):
        assert "no noise" not in run("denoise", "in", "-o", f"out{number}", "--model", tiny, *options).err


def test_measuring_names_every_file_that_cannot_be_read_before_any_work(run: Run) -> None:
    save("clean/a.png")
    Path("clean/b.png").write_bytes(b"")
    Path("clean/c.png").write_bytes(b"text")
    result = run("evaluate", "--clean", "clean", "--noise", "gaussian:25", "--against", "nlm")
    assert result.code == 2 and "2 file(s) cannot be measured" in result.err
    assert "b.png: is empty" in result.err and "c.png" in result.err


def test_noise_of_files_is_estimated_and_bad_ones_are_named(run: Run) -> None:
    rng = np.random.default_rng(0)
    flat = np.clip(rng.normal(128, 10, (128, 128)), 0, 255).astype(np.uint8)
    PIL.Image.fromarray(flat).save("[b]flat.png")
    Path("bad.png").write_bytes(b"text")
    result = run("noise", "estimate", "[b]flat.png", "bad.png")
    assert result.code == 1 and "bad.png" in result.err
    row = next(line for line in result.out.splitlines() if "[b]flat.png" in line)
    assert float(row.split("│")[2]) == pytest.approx(10, abs=1)


def test_the_noise_of_a_folder_and_of_each_page_of_a_stack_is_estimated(run: Run) -> None:
    rng = np.random.default_rng(0)
    Path("shots").mkdir()
    pages = np.clip(rng.normal(30_000, 2570, (3, 128, 128)), 0, 65535).astype(np.uint16)
    tifffile.imwrite("shots/s.tif", pages, photometric="minisblack")
    result = run("noise", "estimate", "shots")
    assert result.code == 0 and not result.err
    for page in (1, 2, 3):
        row = next(line for line in result.out.splitlines() if f"shots/s.tif (page {page})" in line)
        sigma, counts, *_ = row.split("│")[2].split()
        assert float(sigma) == pytest.approx(10, abs=1) and float(counts.strip("(")) == pytest.approx(2570, rel=0.1)
    assert run("noise", "profile", "shots", "--series", "burst", "-o", "c.json").code == 0
    tifffile.imwrite("dim.tif", pages // 16, photometric="minisblack")
    assert "of their range from 0.0148 on" in " ".join(
        run("noise", "estimate", "dim.tif", "--series", "burst").out.split()
    )
    alone = run("noise", "estimate", "none.png")
    assert alone.code == 2 and not alone.out and "none.png: no such file or folder" in alone.err


def save_burst(folder: str, shots: int = 4, side: int = 96) -> list[str]:
    """16-bit shots of a slope with gain 0.004, read noise 0.01 and rows of 0.02, as PNG; their paths."""
    Path(folder).mkdir()
    rng = np.random.default_rng(0)
    clean = np.tile(np.linspace(0.2, 0.8, side), (side, 1))
    paths = []
    for shot in range(shots):
        noise = rng.normal(0, np.sqrt(0.004 * clean + 1e-4)) + rng.normal(0, 0.02, (side, 1))
        paths.append(f"{folder}/{shot}.png")
        cv2.imwrite(paths[-1], np.clip(np.rint(65535 * (clean + noise)), 0, 65535).astype(np.uint16))
    return paths


def test_a_burst_is_profiled_drawn_and_made_a_noise_model(run: Run) -> None:
    from denoise_se.noise_profile import NoiseProfile

    shots = save_burst("shots")
    result = run("noise", "profile", *shots, "--series", "burst", "-o", "c.json", "--plot", "c.png")
    assert result.code == 0 and "profile:c.json" in result.err and "grey" in result.out
    profile = NoiseProfile.load("c.json")
    assert profile.gain[0] == pytest.approx(0.004, rel=0.1) and profile.row[0] == pytest.approx(0.02, rel=0.2)
    assert cv2.imread("c.png").shape[1] > 1000
    shown = run("noise", "estimate", *shots, "--series", "burst")
    assert shown.code == 0 and f"{profile.gain[0]:.2e}" in shown.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["profile", "shots/0.png", "-o", "c.txt"], "c.txt: unknown kind of file; use .json"),
        (["profile", "shots/0.png", "-o", "no/c.json"], "name a file in a folder that exists"),
        (["profile", "shots/0.png", "-o", "c.json", "--plot", "c.bmp"], "--plot c.bmp: unknown kind"),
        (["profile", "shots/0.png", "-o", "c.json", "--series", "films"], "give burst or flats"),
        (["profile", "shots/0.png", "-o", "c.json", "--series", "burst"], "at least two shots"),
        (["estimate", "shots/0.png", "small.png", "--series", "burst"], "at least 64x64"),
        (["profile", "shots/0.png", "rgb.png", "-o", "c.json"], "profile them apart"),
    ],
)
def test_a_profile_that_cannot_be_measured_is_refused_and_nothing_written(
    run: Run, arguments: list[str], words: str
) -> None:
    save_burst("shots", 1)
    cv2.imwrite("small.png", np.zeros((20, 20), np.uint8))
    cv2.imwrite("rgb.png", np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8))
    result = run("noise", *arguments)
    assert result.code == 2 and words in result.err
    assert not list(Path().glob("c.*"))


def test_pixels_that_are_no_numbers_are_told_of_when_noise_is_measured(run: Run, tmp_path: Path, tiny: Path) -> None:
    pixels = np.random.default_rng(0).uniform(0.2, 0.8, (96, 96)).astype(np.float32)
    pixels[3, :5] = np.nan
    for folder in ("noisy", "clean"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", pixels, photometric="minisblack")
    result = run("noise", "profile", str(tmp_path / "noisy" / "a.tif"), "-o", str(tmp_path / "p.json"))
    assert "a.tif: 5 non-finite" in result.err, result.err
    result = run("evaluate", "--pairs", str(tmp_path / "noisy"), str(tmp_path / "clean"), "--model", str(tiny))
    assert "5 non-finite" in result.out + result.err
