"""In a real browser: several files, where they are dropped, and models that were learned."""

from __future__ import annotations

import base64
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tiny_model import save_tiny
from web_browser import (
    CHROMIUM,
    MISSING,
    command_line,
    downloaded,
    drop,
    opened,
    wait_for_result,
)
from web_server import serving

from denoise_se.image import Image
from denoise_se.image_io import write

pytest.importorskip("gradio", reason="the web extra is not installed")

pytest.importorskip("playwright", reason="playwright is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

SAMPLES = Path(__file__).parent.parent / "data" / "samples"


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


def drop_on(page, where: str, *files: Path) -> None:  # type: ignore[no-untyped-def]
    """As from a file manager, onto that element."""
    data = page.evaluate_handle(
        """files => { const data = new DataTransfer();
        for (const [name, content] of files)
          data.items.add(new File([Uint8Array.from(atob(content), letter => letter.charCodeAt(0))], name));
        return data; }""",
        [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files],
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
