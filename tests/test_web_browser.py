"""The web app in a real browser (chromium): what a person does, and that the download is the command line's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import pillow_heif
import pytest
import tifffile
from tiny_model import save_tiny
from web_browser import (
    CHROMIUM,
    MISSING,
    PATIENCE,
    browsing,
    downloaded,
    drop,
    opened,
    wait_for_another,
    wait_for_result,
)
from web_server import Server, serving

from denoise_se.image import Image
from denoise_se.image_io import read, write

pytest.importorskip("gradio", reason="the web extra is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]
SAMPLES = Path(__file__).parent.parent / "data" / "samples"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("web"), "--model", str(tiny), "--tile", "32") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser, server: Server) -> Iterator[object]:  # type: ignore[no-untyped-def]
    with opened(browser, server) as page:
        yield page


def command_line(*arguments: str | Path) -> None:
    words = [sys.executable, "-m", "denoise_se.app", "denoise", "--quiet", "--tile", "32", *map(str, arguments)]
    subprocess.run(words, check=True)


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
    assert "of its range as black" in page.text_content("#facts")
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


def test_a_running_job_is_cancelled_within_a_tile(page, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    drop(page, tmp_path / "large.png")
    page.wait_for_selector("#status [role=progressbar]")
    page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    page.click("#cancel")
    page.wait_for_selector("text=Cancelled")
    assert server.health()["working"] == 0
    assert page.locator(".viewer").is_hidden()
    page.wait_for_selector("#photo input[type=file]", state="attached")  # ready for the next one
    page.wait_for_selector("#examples button:visible")


def test_what_is_cancelled_does_not_leave_its_name_beside_another_photos_result(page, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    drop(page, SAMPLES / "noisy" / "coffee.png")
    wait_for_result(page)
    paste(page, tmp_path / "large.png", "large.png")
    page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    page.click("#cancel")
    page.wait_for_selector("text=Cancelled")
    page.wait_for_selector("#photo input[type=file]", state="attached")
    assert "large.png" not in str(page.text_content("#photo"))
    page.wait_for_selector(".viewer", state="hidden")


def test_what_is_moved_while_the_network_runs_counts(page, tiny: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 1)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    drop(page, tmp_path / "large.png")
    full = wait_for_result(page)
    page.click("#auto")  # runs the network again
    page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    page.fill("#strength input[type=number]", "0.4")
    page.keyboard.press("Enter")
    page.wait_for_selector("#cancel", state="hidden")
    wait_for_another(page, full)
    page.wait_for_selector("#facts >> text=--strength 0.4", state="attached")
    sigma = page.input_value("#sigma input[type=number]")
    result = downloaded(page, "#download", tmp_path)
    options = ["--model", tiny, "--strength", "0.4", "--sigma", sigma]
    command_line(tmp_path / "large.png", "-o", tmp_path / "expected.png", *options)
    assert result.read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_taking_the_photo_away_stops_its_work(page, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    drop(page, tmp_path / "large.png")
    page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    page.click("#photo [aria-label=Clear]")
    page.wait_for_selector("#examples button:visible")
    assert server.health()["working"] == 0
    assert page.locator("#status [role=progressbar]").count() == 0


def test_closing_the_page_stops_its_work(browser, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import time

    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    drop(page, tmp_path / "large.png")
    page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    assert server.health()["working"] == 1
    page.close()
    ended = time.monotonic() + 10
    while server.health()["working"]:
        assert time.monotonic() < ended, "work goes on though the page is closed"
        time.sleep(0.2)


def test_many_photos_come_as_a_zip_with_a_table_and_the_failure_by_name(page, tiny: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("camera.png", "coffee.png"):
        shutil.copy(SAMPLES / "noisy" / name, folder)
    (folder / "broken.png").write_text("no image")
    page.get_by_role("tab", name="Many photos").click()
    page.set_input_files("#photos input[type=file]", [str(path) for path in sorted(folder.iterdir())])
    page.wait_for_selector("#photos >> text=coffee")
    page.click("#start")
    assert "broken.png" in page.text_content("#batch-status .failures")
    assert page.locator("#table tbody tr").count() == 3
    archive = downloaded(page, "#zip", tmp_path)
    (folder / "broken.png").unlink()
    command_line(folder, "-o", tmp_path / "out", "--model", tiny)
    with zipfile.ZipFile(archive) as file:
        for name in ("camera.png", "coffee.png"):
            assert file.read(name) == (tmp_path / "out" / name).read_bytes()


def paste(page, path: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    page.evaluate(
        """([content, name]) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(content)], name, {type: 'image/png'}));
        document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true})); }""",
        [list(path.read_bytes()), name],
    )


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


def test_of_two_quick_clicks_the_last_one_counts(page) -> None:  # type: ignore[no-untyped-def]
    drop(page, SAMPLES / "noisy" / "coffee.png")
    wait_for_result(page)
    page.evaluate(
        "const click = i => document.querySelectorAll('#view input')[i].click(); click(1); setTimeout(click, 30, 0)"
    )
    page.wait_for_timeout(3000)
    assert page.locator("#view input:checked").get_attribute("value") == "compare"
    assert page.text_content(".tag.right") == "After"


def test_two_tabs_of_one_person_keep_to_their_own_photos(page, tiny: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = page.context.new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(page.url)
    drop(page, SAMPLES / "noisy" / "camera.png")
    drop(other, SAMPLES / "noisy" / "coffee.png")
    wait_for_result(page)
    wait_for_result(other)
    for tab, name in ((page, "camera"), (other, "coffee")):
        result = downloaded(tab, "#download", tmp_path)
        command_line(SAMPLES / "noisy" / f"{name}.png", "-o", tmp_path / f"{name}.png", "--model", tiny)
        assert result.name == f"{name}-denoised.png"
        assert result.read_bytes() == (tmp_path / f"{name}.png").read_bytes()


def test_pasting_another_photo_takes_the_place_of_the_first(page) -> None:  # type: ignore[no-untyped-def]
    drop(page, SAMPLES / "noisy" / "coffee.png")
    first = wait_for_result(page)
    paste(page, SAMPLES / "noisy" / "camera.png", "second.png")
    wait_for_another(page, first)
    page.wait_for_function("document.querySelector('.layer.before img').alt === 'second.png, before'")


def test_the_clean_photo_of_one_photo_is_not_compared_with_the_next(page) -> None:  # type: ignore[no-untyped-def]
    drop(page, SAMPLES / "noisy" / "coffee.png")
    first = wait_for_result(page)
    page.set_input_files("#reference input[type=file]", str(SAMPLES / "clean" / "coffee.png"))
    page.wait_for_selector("#facts >> text=PSNR")
    with unanswered(page):  # the next photo is there before the server has heard that the first one is gone
        paste(page, SAMPLES / "noisy" / "astronaut.png", "second.png")
        wait_for_another(page, first)
        page.wait_for_function("document.querySelector('.layer.before img').alt === 'second.png, before'")
    assert "coffee" not in str(page.text_content("#reference"))
    assert "PSNR" not in str(page.text_content("#facts"))


def test_a_photo_is_not_cancelled_by_what_was_asked_when_the_one_before_it_went(page, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 1)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    drop(page, SAMPLES / "noisy" / "coffee.png")
    first = wait_for_result(page)
    with unanswered(page):
        paste(page, tmp_path / "large.png", "large.png")
        page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    wait_for_another(page, first)
    page.wait_for_function("document.querySelector('.layer.before img').alt === 'large.png, before'")


@contextmanager
def unanswered(page) -> Iterator[None]:  # type: ignore[no-untyped-def]
    """Holds back what is asked of the server outside of its queue; uploads and the queue go on."""
    page.route("**/run/predict*", lambda route: None)
    yield
    page.unroute("**/run/predict*")  # lets go on what was held


def test_choosing_a_model_runs_the_network_once_so_that_cancel_is_the_end_of_it(  # type: ignore[no-untyped-def]
    browser, tiny: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    other = save_tiny(tmp_path / "other.safetensors")
    two = serving(tmp_path, "--model", str(tiny), "--model", str(other), "--tile", "32")
    with two as server, opened(browser, server) as page:
        drop(page, tmp_path / "large.png")
        wait_for_result(page)
        page.click("#model input")
        page.click("#model [role=option] >> text=other")
        page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
        page.click("#cancel")
        page.wait_for_selector("#status >> text=Cancelled")
        page.focus("#model input")
        page.keyboard.press("Tab")  # leaving the list is no choice
        page.wait_for_timeout(2000)
        assert "Cancelled" in page.text_content("#status") and server.health()["working"] == 0


def test_another_choice_ends_the_work_on_the_one_before(page, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    drop(page, tmp_path / "large.png")
    wait_for_result(page)
    page.click("#auto")
    page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    for level in ("40", "50"):
        page.fill("#sigma input[type=number]", level)
        page.keyboard.press("Enter")
    page.wait_for_selector("#facts >> text=--sigma 50", state="attached")
    page.wait_for_selector("#cancel", state="hidden")
    page.wait_for_timeout(1000)
    assert page.text_content("#status").strip() == "" and server.health() == {"status": "ok", "working": 0, "queued": 0}
    assert "--sigma 50" in page.text_content("#facts")


def test_who_waits_for_another_persons_photo_is_told(page, browser, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    drop(page, tmp_path / "large.png")
    page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    with opened(browser, server) as theirs:
        drop(theirs, SAMPLES / "noisy" / "camera.png")
        theirs.wait_for_selector("#status >> text=Waiting for its turn")
        assert server.health() == {"status": "ok", "working": 1, "queued": 1}
        theirs.click("#cancel")
        theirs.wait_for_selector("#status >> text=Cancelled")
        drop(theirs, SAMPLES / "noisy" / "coffee.png")
        page.click("#cancel")
        wait_for_result(theirs)


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


def drop_on(page, where: str, *files: Path) -> None:  # type: ignore[no-untyped-def]
    """As from a file manager, onto that element."""
    data = page.evaluate_handle(
        """files => { const data = new DataTransfer();
        for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
        return data; }""",
        [[file.name, list(file.read_bytes())] for file in files],
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event(where, kind, {"dataTransfer": data})


def test_a_clean_photo_that_is_dropped_onto_another_takes_its_place_and_not_the_noisy_ones(page) -> None:  # type: ignore[no-untyped-def]
    drop(page, SAMPLES / "noisy" / "coffee.png")
    wait_for_result(page)
    for name, where in (("astronaut", "#reference button"), ("coffee", "#reference .file-preview")):
        drop_on(page, where, SAMPLES / "clean" / f"{name}.png")
        page.wait_for_selector(f"#reference >> text={name}")
    page.wait_for_selector("#facts >> text=PSNR")
    assert page.get_attribute(".layer.before img", "alt") == "coffee.png, before"


@pytest.mark.parametrize("where", ["#photo button", "#top"])
def test_several_photos_that_are_dropped_where_one_belongs_go_where_several_do(page, where: str) -> None:  # type: ignore[no-untyped-def]
    page.wait_for_selector("#photo button")
    samples = sorted((SAMPLES / "noisy").glob("*.png"))[:2]
    drop_on(page, where, *samples)
    for sample in samples:
        page.wait_for_selector(f"#photos .file-preview >> text={sample.stem}")
    assert page.get_attribute("#tabs button[role=tab] >> text=Many photos", "aria-selected") == "true"
    page.click("#tabs button[role=tab] >> text=One photo")
    assert page.locator("#photo .file-preview").count() == 0
    drop_on(page, where, samples[0])
    wait_for_result(page)


def test_files_dropped_onto_a_filled_list_are_added_and_one_of_another_kind_hides_no_others(
    page, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    page.click("#tabs button[role=tab] >> text=Many photos")
    samples = sorted((SAMPLES / "noisy").glob("*.png"))[:3]
    page.set_input_files("#photos input[type=file]", [str(samples[0])])
    page.wait_for_selector(f"#photos .file-preview >> text={samples[0].stem}")
    drop_on(page, "#photos .file-preview tr", *samples[1:])
    page.wait_for_selector(f"#photos .file-preview >> text={samples[2].stem}")
    assert page.locator("#photos .file-preview tr").count() == 3
    (tmp_path / "note.txt").write_text("no photo")
    page.set_input_files("#photos input[type=file]", [str(tmp_path / "note.txt")])
    page.wait_for_selector("[data-testid=toast-body]")
    page.wait_for_timeout(1000)
    assert page.locator("#photos [data-testid=status-tracker]").is_hidden()


def test_what_an_earlier_batch_gave_does_not_stand_beside_the_next_ones_photos(page, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    page.click("#tabs button[role=tab] >> text=Many photos")
    page.set_input_files("#photos input[type=file]", [str(SAMPLES / "noisy" / "coffee.png")])
    page.click("#start")
    page.wait_for_selector("#zip")
    page.click("#photos [aria-label=Clear]")
    page.wait_for_selector("#photos input[type=file]", state="attached")
    page.set_input_files("#photos input[type=file]", [str(tmp_path / "large.png")])
    page.click("#start")
    page.wait_for_function("/Photo \\d+/.test(document.querySelector('#batch-status').textContent)")
    page.click("#batch-cancel")
    page.wait_for_selector("#batch-status >> text=Cancelled")
    assert page.locator("#zip").is_hidden() and page.text_content("#table").strip() == ""


def test_a_model_that_was_learned_here_can_be_removed_once_that_is_confirmed(browser, tmp_path: Path) -> None:
    learned = tmp_path / "models" / "my-camera"
    learned.mkdir(parents=True)
    save_tiny(learned / "best.safetensors")
    with serving(tmp_path) as server, opened(browser, server) as page:
        page.get_by_role("tab", name="Many photos").click()
        page.click("[aria-label=Model]:visible")
        page.click("[role=option] >> text=my-camera")
        page.get_by_role("tab", name="Learn the noise").click()
        page.click("#learned input")
        page.click("#learned [role=option] >> text=my-camera")
        questions: list[str] = []
        page.once("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
        page.click("#learned-remove")
        page.wait_for_timeout(1500)
        assert learned.is_dir() and "my-camera" in questions[0]
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("#learned-remove")
        page.wait_for_selector("text=my-camera is removed")
        assert not any((tmp_path / "models").iterdir())
        page.wait_for_selector("#learned", state="hidden")
        page.get_by_role("tab", name="Many photos").click()
        assert page.input_value("[aria-label=Model]:visible") == "auto"
