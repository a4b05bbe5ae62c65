"""The web app in a real browser (chromium): what a person does, and that the download is the command line's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_model import save_tiny
from web_server import Server, serving

from denoise_se.image_io import Image, read, write

pytest.importorskip("gradio", reason="the web extra is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
SAMPLES = Path(__file__).parent.parent / "data" / "samples"
PATIENCE = 120_000  # milliseconds; other work may run on the machine
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("web"), "--model", str(model), "--tile", "32") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server: Server) -> Iterator[object]:  # type: ignore[no-untyped-def]
    """A fresh page. It fails the test when the page asks another host for anything, or a script fails."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    strangers: list[str] = []
    own = (server.url, "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(own) else strangers.append(request.url))
    page.on("pageerror", lambda error: strangers.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector("#photo input[type=file]", state="attached")
    yield page
    context.close()
    assert strangers == []


def drop(page, path: Path) -> None:  # type: ignore[no-untyped-def]
    page.set_input_files("#photo input[type=file]", str(path))


def wait_for_result(page) -> str:  # type: ignore[no-untyped-def]
    """The path of the picture that is shown on the right."""
    page.wait_for_selector(".viewer[data-ready]")
    return str(page.get_attribute(".viewer", "data-ready"))


def wait_for_another(page, last: str) -> None:  # type: ignore[no-untyped-def]
    page.wait_for_function("last => document.querySelector('.viewer').dataset.ready !== last", arg=last)


def downloaded(page, button: str, folder: Path) -> Path:  # type: ignore[no-untyped-def]
    with page.expect_download() as event:
        page.click(button)
    target = folder / event.value.suggested_filename
    event.value.save_as(target)
    return target


def command_line(*arguments: str | Path) -> None:
    words = [sys.executable, "-m", "denoise_se.app", "denoise", "--quiet", "--tile", "32", *map(str, arguments)]
    subprocess.run(words, check=True)


def test_a_photo_is_dropped_compared_weakened_and_downloaded_with_the_command_lines_bytes(
    page, model: Path, tmp_path: Path
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
    command_line(noisy, "-o", tmp_path / "expected.png", "--model", model, "--strength", "0.4")
    assert result.read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_a_sixteen_bit_tiff_is_shown_and_comes_back_in_sixteen_bits(page, model: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pixels = np.random.default_rng(3).integers(10_000, 50_000, (80, 120, 3)).astype(np.uint16)
    write(tmp_path / "scan.tif", Image(pixels, None, "tiff"))
    drop(page, tmp_path / "scan.tif")
    wait_for_result(page)
    assert page.evaluate("document.querySelector('.stage img').naturalWidth") == 120
    result = downloaded(page, "#download", tmp_path)
    command_line(tmp_path / "scan.tif", "-o", tmp_path / "expected.tif", "--model", model)
    assert result.suffix == ".tif" and read(result).bit_depth == 16
    assert result.read_bytes() == (tmp_path / "expected.tif").read_bytes()


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


def test_closing_the_page_stops_its_work(browser, server: Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import time

    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(tmp_path / "large.png", Image(noise, None, "png"))
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    page.wait_for_selector("#photo input[type=file]", state="attached")
    drop(page, tmp_path / "large.png")
    page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    assert server.health()["working"] == 1
    page.close()
    ended = time.monotonic() + 10
    while server.health()["working"]:
        assert time.monotonic() < ended, "work goes on though the page is closed"
        time.sleep(0.2)


def test_many_photos_come_as_a_zip_with_a_table_and_the_failure_by_name(page, model: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
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
    command_line(folder, "-o", tmp_path / "out", "--model", model)
    with zipfile.ZipFile(archive) as file:
        for name in ("camera.png", "coffee.png"):
            assert file.read(name) == (tmp_path / "out" / name).read_bytes()


def test_a_photo_can_be_pasted(page, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    content = list((SAMPLES / "noisy" / "camera.png").read_bytes())
    page.evaluate(
        """content => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(content)], 'pasted.png', {type: 'image/png'}));
        document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true})); }""",
        content,
    )
    wait_for_result(page)
    assert page.get_attribute(".layer.before img", "alt") == "pasted.png, before"


def test_every_control_has_a_name_for_screen_readers(page) -> None:  # type: ignore[no-untyped-def]
    page.click("#examples button[data-name='camera.png']")
    wait_for_result(page)
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input:not([type=file]), select')].filter(e => e.offsetParent)
        .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.title || e.labels?.length
        || e.closest('label'))).map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    assert page.locator("footer").is_hidden()
