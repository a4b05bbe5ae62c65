"""One photo in the web app, without a browser: what the page is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from web_server import serving, wait_until

from denoise_se.app.web import import_gradio
from denoise_se.app.web_cache import Cache
from denoise_se.app.web_options import WebOptions
from denoise_se.app.web_photo import refuse_many_pixels
from denoise_se.app.web_work import Crew, Work
from denoise_se.blending import Strength
from denoise_se.errors import UsageError
from denoise_se.image import Image
from denoise_se.image_io import write
from denoise_se.watcher import CancelledError

pytest.importorskip("gradio", reason="the web extra is not installed")

SAMPLES = Path(__file__).parent.parent / "data" / "samples"


def test_pages_count_together(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 100, 100), np.uint8), photometric="minisblack")
    (tmp_path / "broken.png").write_bytes(b"no image")
    refuse_many_pixels([tmp_path / "broken.png", tmp_path / "stack.tif"], 50_000)
    with pytest.raises(UsageError, match=r"stack\.tif: has 50,000 pixels on its pages, and this server takes 49,999"):
        refuse_many_pixels([tmp_path / "stack.tif"], 49_999)


def test_a_picture_that_is_ready_after_its_photo_has_gone_is_not_shown(tmp_path: Path, tiny: Path) -> None:
    # the next photo's result is there already; the older answer would show, and let people download, the one before
    import_gradio()
    import gradio

    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo import Photo
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    options, cache = WebOptions(models=(str(tiny),)), Cache(tmp_path, 60, 10**9)
    source = cache.samples / "noisy" / "camera.png"
    request = options.request(str(tiny), 25.0, Strength(1.0, 1.0), "same")
    photo = Photo.denoised(source, cache.folder(), request, None, Work("ann"))
    with gradio.Blocks():
        tab = PhotoTab(Service(options, cache, Crew(1), School(options.shelf, tmp_path / "lessons", 10**8)))

    class Leaving(Photo):
        def pictures(self, *asked: Any) -> Any:
            shown = super().pictures(*asked)
            self.remove()
            return shown

    as_they_stand = (1.0, False, 1.0, "same", "compare", 1)
    assert tab.state in tab.look(str(source), None, *as_they_stand, photo)
    leaving = Leaving(**{field.name: getattr(photo, field.name) for field in fields(photo)})
    assert list(tab.look(str(source), None, *as_they_stand, leaving)) == [tab.status]
    assert list(tab.look(str(tmp_path / "next.png"), None, *as_they_stand, photo)) == [tab.status]  # it is on its way
    # cancelling takes out what has no result, the clean photo of an example too
    ann: Any = SimpleNamespace(session_hash="ann")
    nothing = (None, None)
    assert (
        tab.give_up(str(tmp_path / "next.png"), photo, 1.0, ann) == tab.give_up(str(source), None, 1.0, ann) == nothing
    )
    assert None not in tab.give_up(str(source), photo, 1.0, ann)


def test_noise_that_is_told_to_a_model_at_another_level_says_so_and_stays_on_the_slider(
    tmp_path: Path, tiny: Path
) -> None:
    import_gradio()
    import cv2
    import gradio

    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo import Photo
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(128, 128)), (0, 0), 1)
    noisy = np.clip(np.rint(128 + 60 * grain / grain.std()), 0, 255).astype(np.uint8)
    source = tmp_path / "coarse.png"
    cv2.imwrite(str(source), noisy)
    options, cache = WebOptions(models=(str(tiny),)), Cache(tmp_path, 60, 10**9)
    request = options.request(str(tiny), None, Strength(1.0, 1.0), "same")
    photo = Photo.denoised(source, cache.folder(), request, None, Work("ann"))
    with gradio.Blocks():
        tab = PhotoTab(Service(options, cache, Crew(1), School(options.shelf, tmp_path / "lessons", 10**8)))
    assert 30 < photo.estimated.sigma < 100 < photo.estimated.level
    shown = tab.look(str(source), None, 1.0, False, 1.0, "same", "compare", 1, photo)
    assert f"{photo.estimated.sigma:.1f} of 255, treated as {photo.estimated.level:.1f} of 255" in shown[tab.facts]
    controls = tab._level(request.denoiser_for(1), photo, True)
    assert controls[tab.sigma]["value"] == tab.sigma.maximum == 100


def test_noise_is_told_in_the_values_of_floats_that_go_beyond_0_to_1_and_weak_noise_is_not_told_as_none() -> None:
    from denoise_se.app.web_parts import noise_level
    from denoise_se.value_range import WHOLE, ValueRange

    assert noise_level(38971.1, ValueRange(-1000.0, 4000.0)) == "153 in the file's values"
    assert [noise_level(sigma, WHOLE) for sigma in (25.04, 0.04, 0.0)] == ["25.0 of 255", "0.04 of 255", "0.0 of 255"]


def test_a_mistake_of_the_program_is_told_on_the_page_and_reaches_the_log(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_gradio()
    import gradio

    from denoise_se.app import web_batch, web_learn_tab, web_photo
    from denoise_se.app.web_batch_tab import BatchTab
    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    def broken(*given: object, **named: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(web_photo, "estimate_noise", broken)
    monkeypatch.setattr(web_batch, "run", broken)
    monkeypatch.setattr(web_learn_tab, "measure", broken)
    options, cache, crew = WebOptions(models=(str(tiny),)), Cache(tmp_path, 60, 10**9), Crew(1)
    service = Service(options, cache, crew, School(options.shelf, tmp_path / "lessons", 10**8))
    with gradio.Blocks():
        photo, batch, learn = PhotoTab(service), BatchTab(service), web_learn_tab.LearnTab(service, [])
    sample, ann = str(cache.samples / "noisy" / "camera.png"), SimpleNamespace(session_hash="ann")
    asked = (sample, None, str(tiny), True, 25.0, 1.0, False, 1.0, "same", "compare", 1, None, 1.0)

    async def last(updates: AsyncIterator[Any]) -> Any:
        with pytest.raises(ZeroDivisionError):
            async for update in updates:
                shown = update
        return shown

    for tab, updates in (
        (photo, photo.denoise(*asked, ann)),
        (batch, batch.denoise([sample], 1.0, str(tiny), "same", ann)),
    ):
        shown = asyncio.run(last(updates))
        assert "a mistake of the program (ZeroDivisionError)" in shown[tab.status]
        assert shown[tab.cancel]["visible"] is False
    assert "a mistake of the program (ZeroDivisionError)" in asyncio.run(last(learn.show([sample])))
    crew.close()


def test_a_level_taken_over_from_the_estimate_runs_nothing_until_it_is_moved(tmp_path: Path, tiny: Path) -> None:
    import_gradio()
    import gradio

    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    options, cache, crew = WebOptions(models=(str(tiny),)), Cache(tmp_path, 60, 10**9), Crew(1)
    with gradio.Blocks():
        tab = PhotoTab(Service(options, cache, crew, School(options.shelf, tmp_path / "lessons", 10**8)))
    sample, moments = str(cache.samples / "noisy" / "camera.png"), iter(range(1, 9))

    async def answers(auto: bool, sigma: float, old: Any) -> list[dict[Any, Any]]:
        look = (1.0, False, 1.0, "same", "compare", 1)
        asked = (sample, None, str(tiny), auto, sigma, *look, old, float(next(moments)))
        return [update async for update in tab.denoise(*asked, SimpleNamespace(session_hash="ann"))]

    first = asyncio.run(answers(True, 25.0, None))[-1]
    photo, level = first[tab.state], first[tab.sigma]["value"]
    assert level == round(photo.estimated.level, 1)
    for auto in (False, True):  # the box is cleared, and ticked again
        assert asyncio.run(answers(auto, level, photo)) == [{tab.sigma: gradio.update(visible=not auto)}]
    moved = asyncio.run(answers(False, level + 1, photo))[-1][tab.state]
    assert moved.request.sigma == level + 1 and not photo.folder.exists()
    assert asyncio.run(answers(False, level, moved))[-1][tab.state].request.sigma == level
    crew.close()


def test_a_photo_in_which_no_noise_is_found_says_what_to_do_unless_nothing_was_asked_for(
    tmp_path: Path, tiny: Path
) -> None:
    import_gradio()
    import gradio

    from denoise_se.app import web_batch
    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo import Photo
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    source, grainy = tmp_path / "even.png", tmp_path / "grainy.png"
    grain = np.random.default_rng(0).integers(60, 190, (64, 64, 3), np.uint8)
    for path, pixels in ((source, np.full_like(grain, 99)), (grainy, grain)):
        write(path, Image(pixels, None, "png"))
    options, cache = WebOptions(models=(str(tiny),)), Cache(tmp_path, 60, 10**9)
    with gradio.Blocks():
        tab = PhotoTab(Service(options, cache, Crew(1), School(options.shelf, tmp_path / "lessons", 10**8)))
    for sigma, strength, told in ((None, 1.0, True), (None, 0.0, False), (5.0, 1.0, False)):
        request = options.request(str(tiny), sigma, Strength(1.0, 1.0), "same")
        photo = Photo.denoised(source, cache.folder(), request, None, Work("ann"))
        shown = tab.look(str(source), None, strength, False, 1.0, "same", "compare", 1, photo)
        assert ("No noise was found" in shown[tab.facts]) is told
    request = options.request(str(tiny), None, Strength(1.0, 1.0), "same")
    batch = web_batch.run([source, grainy], cache.folder(), request, Work("ann"))
    assert [text for text in batch.notices if "no noise was found" in text] == [
        "even.png: no noise was found, so none was removed; if you see some, take the model “photo”, "
        "or set the level under “One photo”"
    ]


def test_a_result_that_cannot_be_saved_as_asked_stays_for_another_format_and_is_made_beside_the_event_loop(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_gradio()
    import gradio

    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    source = tmp_path / "seen-through.png"
    grain = np.random.default_rng(0).integers(60, 190, (64, 64, 4), np.uint8)
    write(source, Image(grain[..., :3], grain[..., 3], "png"))
    options, cache, crew = WebOptions(models=(str(tiny),)), Cache(tmp_path, 60, 10**9), Crew(1)
    with gradio.Blocks():
        tab = PhotoTab(Service(options, cache, crew, School(options.shelf, tmp_path / "lessons", 10**8)))
    threads, looks = [], tab._looks
    monkeypatch.setattr(tab, "_looks", lambda *asked: [threads.append(threading.current_thread()), looks(*asked)][1])

    async def last() -> dict[Any, Any]:
        asked = (str(source), None, str(tiny), True, 25.0, 1.0, False, 1.0, "jpg", "compare", 1, None, 1.0)
        return [update async for update in tab.denoise(*asked, SimpleNamespace(session_hash="ann"))][-1]

    shown = asyncio.run(last())
    photo = shown[tab.state]
    assert "class=problem" in shown[tab.status] and shown[tab.panel]["visible"] and shown[tab.viewer] is None
    assert photo.folder.is_dir() and threading.main_thread() not in threads and len(threads) == 1
    again = tab.look(str(source), None, 1.0, False, 1.0, "png", "compare", 1, photo)
    assert again[tab.status] == "" and Path(again[tab.viewer]["after"]).is_file()
    crew.close()


def test_a_photo_that_is_there_before_the_one_before_it_is_heard_to_be_gone_is_denoised(
    tmp_path: Path, tiny: Path
) -> None:
    import_gradio()
    import gradio

    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    options, cache, crew = WebOptions(models=(str(tiny),)), Cache(tmp_path, 60, 10**9), Crew(1)
    with gradio.Blocks():
        tab = PhotoTab(Service(options, cache, crew, School(options.shelf, tmp_path / "lessons", 10**8)))
    ann: Any = SimpleNamespace(session_hash="ann")

    def denoised(photo: Path | None, moment: float) -> Any:
        given = None if photo is None else str(photo)
        return tab.denoise(given, None, str(tiny), True, 25.0, 1.0, False, 1.0, "same", "compare", 1, None, moment, ann)

    async def follow() -> list[dict[Any, Any]]:
        with crew.started(lambda work: busy.wait(60)):  # somebody else's photo
            following = denoised(cache.samples / "noisy" / "camera.png", 3.0)
            shown = [await anext(following)]
            tab.stop(2.0, ann)
            emptied = [update async for update in denoised(None, 1.0)]
            busy.set()
        return [*emptied, *shown, *[update async for update in following]]

    busy = threading.Event()
    emptied, *shown = asyncio.run(follow())
    assert list(emptied) == [tab.status]
    assert "camera.png" in shown[-1][tab.viewer]["after_alt"] and "Cancelled" not in str(shown)
    crew.close()


def test_a_photo_is_cancelled_while_its_noise_is_estimated(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from denoise_se.app import web_photo

    class Cancelled(Work[None]):
        def step(self, share: float, label: str) -> None:
            super().step(share, label)
            if label == "Estimating the noise":
                self.stopped.set()

    estimated, estimate = [], web_photo.estimate_noise
    monkeypatch.setattr(web_photo, "estimate_noise", lambda page: [estimate(page), estimated.append(page)][0])
    request = WebOptions(models=(str(tiny),)).request(str(tiny), None, Strength(), "same")
    with pytest.raises(CancelledError):
        web_photo.Photo.denoised(SAMPLES / "noisy" / "camera.png", tmp_path, request, None, Cancelled("ann"))
    assert estimated == []


@pytest.mark.slow
def test_what_is_older_than_it_may_be_is_deleted_and_the_page_is_told(tmp_path: Path, tiny: Path) -> None:
    from gradio_client import Client, handle_file

    with serving(tmp_path, "--model", str(tiny), "--keep", "0.4") as server:
        person = Client(server.url, verbose=False)
        sample = SAMPLES / "noisy" / "camera.png"
        person.predict(image=handle_file(str(sample)), api_name="/denoise")
        found = [path for path in server.cache.rglob("camera.png") if "files" in path.parts]
        uploaded, kept = sorted(found, key=lambda path: path.read_bytes() != sample.read_bytes())  # and no copy of it
        assert server.get(f"/gradio_api/file={kept}")[0] == 200
        wait_until(lambda: not kept.exists() and not uploaded.exists(), 90, "old files are not deleted")
        assert server.get(f"/gradio_api/file={kept}")[0] in (403, 404)
        gone = {"path": str(uploaded), "meta": {"_type": "gradio.FileData"}}
        sent = {"data": [gone, None, str(tiny), None, 1, None, "same"]}
        assert server.post("/gradio_api/call/denoise", sent)[0] < 500
        assert any(server.cache.rglob("samples/noisy/camera.png")), "the examples are not uploads"
