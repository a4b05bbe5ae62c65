"""In a real browser: one photo, from the drop to the download."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import PIL.Image
import pillow_heif
import pytest
import tifffile
from web_browser import (
    CHROMIUM,
    MISSING,
    command_line,
    downloaded,
    drop,
    paste,
    wait_for_another,
    wait_for_result,
)
from web_server import Server

from denoise_se.image import Image
from denoise_se.image_io import read, write

pytest.importorskip("gradio", reason="the web extra is not installed")

pytest.importorskip("playwright", reason="playwright is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

SAMPLES = Path(__file__).parent.parent / "data" / "samples"


def test_a_photo_is_dropped_compared_weakened_and_downloaded_with_the_command_lines_bytes(
    page, tiny: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    noisy = SAMPLES / "noisy" / "coffee.png"
    drop(page, noisy)
    full = wait_for_result(page)
    page.focus(".split")
    before = page.evaluate("document.querySelector('.divider').getBoundingClientRect().left")
    for _ in range(200):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('.divider').getBoundingClientRect().left") > before + 50
    page.click("[data-zoom='2']")
    assert page.evaluate("document.querySelector('.stage img').getBoundingClientRect().width") == 600
    page.fill("#strength input[type=number]", "0.4")
    page.keyboard.press("Enter")
    wait_for_another(page, full)
    result = downloaded(page, "#download", tmp_path)
    assert result.name == "coffee-denoised.png"
    command_line(noisy, "-o", tmp_path / "expected.png", "--model", tiny, "--strength", "0.4")
    assert result.read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_a_sixteen_bit_tiff_is_shown_and_comes_back_in_sixteen_bits(page, tiny: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pixels = np.random.default_rng(3).integers(10_000, 50_000, (80, 120, 3)).astype(np.uint16)
    write(tmp_path / "scan.tif", Image(pixels, None, "tiff"))
    drop(page, tmp_path / "scan.tif")
    wait_for_result(page)
    assert page.evaluate("document.querySelector('.stage img').naturalWidth") == 120
    result = downloaded(page, "#download", tmp_path)
    command_line(tmp_path / "scan.tif", "-o", tmp_path / "expected.tif", "--model", tiny)
    assert result.suffix == ".tif" and read(result).bit_depth == 16
    assert result.read_bytes() == (tmp_path / "expected.tif").read_bytes()


def test_a_tomogram_of_signed_integers_is_seen_in_the_range_that_it_uses(page, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ramp = np.tile(np.linspace(-1000, 3000, 128), (96, 1)) + np.random.default_rng(0).normal(0, 100, (96, 128))
    tifffile.imwrite(tmp_path / "ct.tif", ramp.astype(np.int16), photometric="minisblack")
    drop(page, tmp_path / "ct.tif")
    wait_for_result(page)
    assert re.search(r"shown with -1,\d{3} as black and 3,\d{3} as white", page.text_content("#facts"))
    assert "in the file's values" in page.text_content("#facts") and not page.is_visible("#apart")
    left, right = page.evaluate("""() => {
        const drawing = Object.assign(document.createElement('canvas'), {width: 128, height: 96}).getContext('2d')
        drawing.drawImage(document.querySelector('.layer.before img'), 0, 0)
        const mean = x => drawing.getImageData(x, 0, 8, 96).data.reduce((sum, v, i) => sum + (i % 4 ? 0 : v), 0) / 768
        return [mean(0), mean(120)]
    }""")
    assert left < 40 and right > 215


def test_the_noise_does_not_shine_through_what_is_seen_through(page, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    grain = np.random.default_rng(0).integers(60, 190, (96, 96, 3), np.uint8)
    write(tmp_path / "glass.png", Image(grain, np.full((96, 96), 90, np.uint8), "png"))
    drop(page, tmp_path / "glass.png")
    wait_for_result(page)
    box = page.locator(".stage").bounding_box()
    middle = [box[at] + box[size] / 2 for at, size in (("x", "width"), ("y", "height"))]
    after = {"x": middle[0] + 30, "y": middle[1] + 30, "width": 60, "height": 60}
    both = page.screenshot(clip=after)
    page.evaluate("document.querySelector('.layer.before').style.visibility = 'hidden'")
    assert page.screenshot(clip=after) == both


def test_a_phones_photo_is_shown_upright_and_comes_back_as_png(page, tiny: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    exif = PIL.Image.Exif()
    exif[274] = 6  # a phone that was held upright
    with PIL.Image.open(SAMPLES / "noisy" / "coffee.png") as sample:
        photo = pillow_heif.from_pillow(sample.convert("RGB").crop((0, 0, 160, 96)))
    photo.info["exif"] = exif.tobytes()
    photo.save(tmp_path / "IMG_1.HEIC", quality=90)
    drop(page, tmp_path / "IMG_1.HEIC")
    wait_for_result(page)
    assert page.evaluate("document.querySelector('.stage img').naturalWidth") == 96
    assert "96" in page.text_content("#facts") and "160" in page.text_content("#facts")
    result = downloaded(page, "#download", tmp_path)
    command_line(tmp_path / "IMG_1.HEIC", "-o", tmp_path / "expected.png", "--model", tiny)
    assert result.name == "IMG_1-denoised.png"
    assert result.read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_a_broken_file_is_named_with_its_reason_and_the_next_photo_works(page, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    drop(page, tmp_path / "broken.png")
    assert "broken.png" in page.text_content("#status .problem")
    assert page.locator(".viewer").is_hidden()
    page.click("#examples button[data-name='camera.png']")
    wait_for_result(page)
    assert "PSNR" in page.text_content("#facts")
    page.click("text=Removed noise")
    page.wait_for_function("document.querySelector('.tag.right').textContent === 'Removed noise'")
    page.click("text=Error map")
    page.wait_for_function("document.querySelector('.tag.right').textContent === 'Error after'")


def test_a_photo_can_be_pasted(page) -> None:  # type: ignore[no-untyped-def]
    page.wait_for_selector("#photo input[type=file]", state="attached")
    paste(page, SAMPLES / "noisy" / "camera.png", "pasted.png")
    wait_for_result(page)
    assert page.get_attribute(".layer.before img", "alt") == "pasted.png, before"


def test_all_pages_of_a_tiff_are_denoised_and_each_can_be_looked_at(page, tiny: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pages = np.random.default_rng(4).integers(0, 65536, (3, 60, 90)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    drop(page, tmp_path / "stack.tif")
    first = wait_for_result(page)
    assert "3 pages" in page.text_content("#facts")
    page.fill("#page input[type=number]", "3")
    page.keyboard.press("Enter")
    wait_for_another(page, first)
    result = downloaded(page, "#download", tmp_path)
    command_line(tmp_path / "stack.tif", "-o", tmp_path / "expected.tif", "--model", tiny)
    assert result.read_bytes() == (tmp_path / "expected.tif").read_bytes()
    assert tifffile.imread(result).shape == (3, 60, 90)


def test_a_clean_photo_given_later_brings_scores_and_the_error_map(page) -> None:  # type: ignore[no-untyped-def]
    drop(page, SAMPLES / "noisy" / "coffee.png")
    wait_for_result(page)
    assert page.locator("text=Error map").count() == 0
    page.set_input_files("#reference input[type=file]", str(SAMPLES / "clean" / "coffee.png"))
    page.wait_for_selector("#facts >> text=PSNR")
    page.click("text=Error map")
    page.wait_for_function("document.querySelector('.tag.right').textContent === 'Error after'")


def test_the_noise_level_is_set_by_keys_and_an_emptied_field_keeps_it(page) -> None:  # type: ignore[no-untyped-def]
    drop(page, SAMPLES / "noisy" / "coffee.png")
    first = wait_for_result(page)
    page.click("#auto")
    page.wait_for_selector("#sigma input[type=range]")
    page.focus("#sigma input[type=range]")
    page.keyboard.press("End")
    page.wait_for_selector("#facts >> text=--sigma 100", state="attached")
    wait_for_another(page, first)
    page.fill("#sigma input[type=number]", "")
    page.keyboard.press("Tab")
    assert page.input_value("#sigma input[type=number]") == "100"
    page.fill("#sigma input[type=number]", "30")
    page.keyboard.press("Enter")
    page.wait_for_selector("#facts >> text=--sigma 30", state="attached")


def test_a_number_out_of_its_range_becomes_the_nearest_in_it_and_that_is_what_is_run(page, server: Server) -> None:  # type: ignore[no-untyped-def]
    drop(page, SAMPLES / "noisy" / "coffee.png")
    wait_for_result(page)
    page.click("#auto")
    page.wait_for_selector("#sigma input[type=range]")
    for typed, level in (("150", "100"), ("-5", "0")):
        page.fill("#sigma input[type=number]", typed)
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#facts >> text=--sigma {level}", state="attached")
        assert page.input_value("#sigma input[type=number]") == level
    for typed, strength in (("-1", "0"), ("7", "1"), ("0.5", "0.5")):
        page.fill("#strength input[type=number]", typed)
        page.keyboard.press("Enter")
        assert page.input_value("#strength input[type=number]") == strength
    page.wait_for_selector("#facts >> text=--strength 0.5", state="attached")
    assert page.locator("[data-testid=toast-body]").count() == 0
    assert "Traceback" not in (server.cache.parent / "log").read_text()
