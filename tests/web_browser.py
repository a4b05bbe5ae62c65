"""A real browser (Debian's chromium, without a window) for the tests of the web app's page."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from web_server import Server

CHROMIUM = shutil.which("chromium")
MISSING = "no chromium: apt-get install chromium"
PATIENCE = 240_000  # milliseconds; other work may run on the machine
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def browsing() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, server: Server, **context: Any) -> Iterator[Any]:
    """A fresh page at the app. Raises AssertionError when it asks another host for anything, or a script fails."""
    own = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True, **context})
    page = own.new_page()
    page.set_default_timeout(PATIENCE)
    strangers: list[str] = []
    addresses = (server.url, "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(addresses) else strangers.append(request.url))
    page.on("pageerror", lambda error: strangers.append(str(error)))
    page.goto(server.url)
    yield page
    own.close()
    assert strangers == []


def drop(page: Any, path: Path) -> None:
    page.wait_for_selector("#photo input[type=file]", state="attached")
    page.set_input_files("#photo input[type=file]", str(path))


def paste(page: Any, path: Path, name: str) -> None:
    """From the clipboard."""
    page.evaluate(
        """([content, name]) => { const data = new DataTransfer();
        const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
        data.items.add(new File([bytes], name, {type: 'image/png'}));
        document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true})); }""",
        [base64.b64encode(path.read_bytes()).decode(), name],
    )


def wait_for_result(page: Any) -> str:
    """The path of the picture that is shown on the right."""
    page.wait_for_selector(".viewer[data-ready]")
    return str(page.get_attribute(".viewer", "data-ready"))


def wait_for_another(page: Any, last: str) -> None:
    page.wait_for_function("last => document.querySelector('.viewer').dataset.ready !== last", arg=last)


def downloaded(page: Any, button: str, folder: Path) -> Path:
    with page.expect_download() as event:
        page.click(button)
    target = folder / event.value.suggested_filename
    event.value.save_as(target)
    return target


def command_line(*arguments: str | Path) -> None:
    """What the command line makes, to compare with."""
    words = [sys.executable, "-m", "denoise_se.app", "denoise", "--quiet", "--tile", "32", *map(str, arguments)]
    subprocess.run(words, check=True)
