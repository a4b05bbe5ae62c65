"""What a batch measures against references."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from batch_runs import Recorder, picture, run, save
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from denoise_se import image_io
from denoise_se.blending import Strength
from denoise_se.denoiser import Denoiser
from denoise_se.file_work import Settings

pytestmark = pytest.mark.usefixtures("in_empty_folder")


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


@pytest.mark.parametrize("scale", [1, 1 / 65535])
def test_counts_are_compared_with_floats_of_their_own_values_or_from_0_to_1(denoiser: Denoiser, scale: float) -> None:
    counts = picture(shape=(24, 32), dtype=np.uint16)
    for folder in ("in", "ref"):
        Path(folder).mkdir()
    tifffile.imwrite("in/a.tif", counts, photometric="minisblack")
    tifffile.imwrite("ref/a.tif", ((counts + 6.5535) * scale).astype(np.float32), photometric="minisblack")
    (row,) = run(denoiser, reference=Path("ref")).rows
    assert row.psnr_noisy == pytest.approx(80, abs=0.1)  # 1e-4 of the range


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
