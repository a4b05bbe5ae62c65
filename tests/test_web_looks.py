"""What the web app's page is like to use: on a phone, by keyboard, for a screen reader (axe-core), and signing in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_model import save_tiny
from web_browser import CHROMIUM, MISSING, drop, opened, wait_for_result
from web_server import Server, serving

from denoise_se.app.web_batch import as_table
from denoise_se.report import Row

pytest.importorskip("gradio", reason="the web extra is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]
TABS = ("One photo", "Many photos", "Learn the noise")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("web")
    model = save_tiny(folder / "tiny.safetensors")
    accounts = folder / "accounts"
    accounts.write_text("lab:secret\n")
    with serving(folder, "--model", str(model), "--auth-file", str(accounts)) as server:
        yield server


def sign_in(page: Any, password: str = "secret") -> None:
    page.fill("input[name=username]", "lab")
    page.fill("input[name=password]", password)
    page.keyboard.press("Enter")


def complaints(page: Any) -> list[str]:
    """What axe-core finds: names, roles, contrast, landmarks."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['html'][:150]}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_signing_in_and_every_tab_pass_the_accessibility_rules(browser: Any, server: Server, scheme: str) -> None:
    with opened(browser, server, color_scheme=scheme) as page:
        page.wait_for_selector("form")
        assert complaints(page) == []
        sign_in(page)
        page.click("#examples button[data-name='camera.png']")
        wait_for_result(page)
        for tab in TABS:
            page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(500)
            assert complaints(page) == [], tab


def test_nothing_runs_over_the_edge_of_a_phone(browser: Any, server: Server) -> None:
    with opened(browser, server, **PHONE) as page:
        sign_in(page)
        page.click("#examples button[data-name='camera.png']")
        wait_for_result(page)
        for tab in TABS:
            page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
        page.get_by_role("tab", name=TABS[0]).click()
        stage, panel = (page.locator(name).bounding_box() for name in (".stage", "#panel"))
        assert stage["width"] == pytest.approx(panel["width"], abs=2)


def test_why_a_photo_is_refused_stands_on_the_screen_of_a_small_phone(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_text("no image")
    with opened(browser, server, **{**PHONE, "viewport": {"width": 390, "height": 664}}) as page:
        sign_in(page)
        drop(page, tmp_path / "broken.png")
        page.wait_for_selector("#status .problem")
        page.wait_for_selector("#examples button:visible")
        told = page.locator("#status .problem").bounding_box()
        assert told["y"] + told["height"] <= 664


def test_failures_and_long_names_do_not_stretch_the_table_of_many_photos(browser: Any, server: Server) -> None:
    reason = "cannot be read: " + "the file ends before its pixels do, so take it from the camera again " * 2
    rows = [Row(f"{'long-name-' * 20}.png", "", "failed", reason), Row("b.png", "b.png", "done", width=9, height=9)]
    with opened(browser, server, **PHONE) as page:
        sign_in(page)
        page.get_by_role("tab", name="Many photos").click()
        page.wait_for_selector("#table .prose", state="attached")
        page.evaluate("html => { document.querySelector('#table .prose').innerHTML = html; }", as_table(rows))
        parts = (".report", ".failed", ".failed .error")
        table, failed, error = (page.locator(f"#table {part}").bounding_box() for part in parts)
        assert table["width"] < 1100 and failed["height"] < 220 and error["width"] > 250
        for name in ("table", "tr", "thead"):
            border = page.evaluate(f"getComputedStyle(document.querySelector('#table {name}')).borderTopWidth")
            assert border == "0px", name
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_every_box_for_files_has_a_name_of_its_own_and_nothing_unseen_is_reached(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        sign_in(page)
        page.click("#examples button[data-name='camera.png']")
        wait_for_result(page)
        assert page.get_by_role("button", name="file", exact=True).count() == 0
        page.click("#reference [aria-label=Clear]")
        page.wait_for_selector("#reference button[aria-label='Clean photo to compare with']")
        page.click("#photo [aria-label=Clear]")
        page.wait_for_selector("#photo button[aria-label^='Drop a noisy photo here']")


def test_the_keyboard_alone_reaches_an_example_and_moves_the_divider(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        sign_in(page)
        page.wait_for_selector("#examples button")
        press_until(page, "document.activeElement.dataset?.name === 'camera.png'")
        page.keyboard.press("Enter")
        wait_for_result(page)
        press_until(page, "document.activeElement.classList.contains('stage')")
        place = "document.querySelector('.layer.before img').style.transform"
        for key in ("+", "+", "ArrowRight", "ArrowDown"):
            old = page.evaluate(place)
            page.keyboard.press(key)
            assert page.evaluate(place) != old, key
        press_until(page, "document.activeElement.classList.contains('split')")
        before = page.evaluate("document.querySelector('.divider').getBoundingClientRect().left")
        for _ in range(30):
            page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.querySelector('.divider').getBoundingClientRect().left") < before
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        press_until(page, "document.activeElement.closest('#strength input[type=range]') !== null")
        last = str(page.get_attribute(".viewer", "data-ready"))
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("last => document.querySelector('.viewer').dataset.ready !== last", arg=last)


def press_until(page: Any, there: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(there):
            return
    raise AssertionError(f"60 tabs and not there: {there}")


def test_a_wrong_password_is_told_and_nothing_is_shown(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        sign_in(page, "guess")
        page.wait_for_selector("#wrong:visible")
        assert page.text_content("#wrong") == "Name or password is wrong."
        assert "examples" not in page.content()
        assert server.get("/config")[0] == 401
        sign_in(page)
        page.wait_for_selector("#examples button")


def test_a_shared_server_teaches_no_models_unless_told_to(browser: Any, server: Server) -> None:
    with opened(browser, server) as page:
        sign_in(page)
        page.get_by_role("tab", name="Learn the noise").click()
        page.wait_for_selector("text=switched off on this server")
        assert page.locator("#learn-start").count() == 0
