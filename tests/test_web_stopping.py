"""In a real browser: what stops work, what takes its place, and whose result is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tiny_model import save_tiny
from web_browser import (
    CHROMIUM,
    MISSING,
    PATIENCE,
    command_line,
    downloaded,
    drop,
    opened,
    paste,
    wait_for_another,
    wait_for_result,
)
from web_server import Server, serving

from denoise_se.image import Image
from denoise_se.image_io import write

pytest.importorskip("gradio", reason="the web extra is not installed")

pytest.importorskip("playwright", reason="playwright is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

SAMPLES = Path(__file__).parent.parent / "data" / "samples"


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
    page.click("#auto")
    page.fill("#sigma input[type=number]", "33")
    page.keyboard.press("Enter")  # runs the network again
    page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
    page.fill("#strength input[type=number]", "0.4")
    page.keyboard.press("Enter")
    page.wait_for_selector("#cancel", state="hidden")
    wait_for_another(page, full)
    page.wait_for_selector("#facts >> text=--strength 0.4", state="attached")
    result = downloaded(page, "#download", tmp_path)
    options = ["--model", tiny, "--strength", "0.4", "--sigma", "33"]
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
        assert page.input_value("#model input") != "other"  # but that of the result, which is still shown
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
    page.fill("#sigma input[type=number]", "30")
    page.keyboard.press("Enter")
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
    with opened(browser, server) as theirs:
        theirs.wait_for_selector("#photo input[type=file]", state="attached")
        drop(page, tmp_path / "large.png")
        page.wait_for_function("/Tile \\d+/.test(document.querySelector('#status').textContent)")
        drop(theirs, SAMPLES / "noisy" / "camera.png")
        theirs.wait_for_selector("#status >> text=Waiting for its turn")
        assert server.health() == {"status": "ok", "working": 1, "queued": 1}
        theirs.click("#cancel")
        theirs.wait_for_selector("#status >> text=Cancelled")
        drop(theirs, SAMPLES / "noisy" / "coffee.png")
        page.click("#cancel")
        wait_for_result(theirs)
