"""Many photos in the web app, without a browser."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from denoise_se.app.web import import_gradio
from denoise_se.app.web_batch import Follower, gathered
from denoise_se.app.web_cache import Cache
from denoise_se.app.web_options import WebOptions
from denoise_se.app.web_work import Crew, Work
from denoise_se.errors import UsageError
from denoise_se.report import Row

pytest.importorskip("gradio", reason="the web extra is not installed")


def test_photos_of_one_name_get_numbers(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/IMG_1.png", "b/IMG_1.png", "c/img_1-2.png", "d/IMG_1.jpg", "e/IMG_1.png")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        path.write_bytes(bytes([number]))
    apart = gathered(paths, tmp_path / "photos", "same")
    assert [path.name for path in apart] == ["IMG_1.png", "IMG_1-3.png", "img_1-2.png", "IMG_1.jpg", "IMG_1-4.png"]
    assert [path.read_bytes() for path in apart] == [bytes([number]) for number in range(5)]
    names = [path.name for path in gathered(paths, tmp_path / "tiffs", "tiff")]
    assert names == ["IMG_1.png", "IMG_1-3.png", "img_1-2.png", "IMG_1-4.jpg", "IMG_1-5.png"]
    raws = [tmp_path / name for name in ("a/x.dng", "b/x.nef", "c/x.tiff")]  # of which each becomes x.tiff
    for path in raws:
        path.touch()
    assert [path.name for path in gathered(raws, tmp_path / "raws", "same")] == ["x.dng", "x-2.nef", "x-3.tiff"]
    with pytest.raises(UsageError, match=r"gone\.png: cannot be read .*; upload it again"):
        gathered([tmp_path / "gone.png"], tmp_path / "none", "same")


def test_a_double_click_denoises_all_photos_once(tmp_path: Path, tiny: Path) -> None:
    import_gradio()
    import gradio

    from denoise_se.app.web_batch_tab import BatchTab
    from denoise_se.app.web_learning import School
    from denoise_se.app.web_service import Service

    options, cache, crew = WebOptions(models=(str(tiny),)), Cache(tmp_path, 60, 10**9), Crew(1)
    with gradio.Blocks():
        tab = BatchTab(Service(options, cache, crew, School(options.shelf, tmp_path / "lessons", 10**8)))

    async def click() -> dict[Any, Any]:
        shown: dict[Any, Any] = {}
        asked = ([str(cache.samples / "noisy" / "camera.png")], 1.0, str(tiny), "same")
        async for update in tab.denoise(*asked, SimpleNamespace(session_hash="ann")):
            shown |= update
        return shown

    async def twice() -> list[dict[Any, Any]]:
        with crew.started(lambda work: busy.wait(60)):  # somebody else's photo
            both = [asyncio.create_task(click()) for _ in range(2)]
            await asyncio.sleep(0.1)
            busy.set()
            return await asyncio.gather(*both)

    busy = threading.Event()
    first, second = asyncio.run(twice())
    assert len(list(cache.files.rglob("denoised.zip"))) == 1
    assert "1 of 1 photos denoised" in second[tab.status] and tab.archive in second
    assert "Cancelled" not in str(first[tab.status]) and first[tab.archive]["visible"] is False
    crew.close()


def test_the_progress_of_many_photos_at_work_together_never_falls() -> None:
    work: Work[None] = Work("somebody")
    follower, shares = Follower(work, 4), []
    told = [(0, 1), (0, 1), (1, 1), (0, 1), None, (1, 1), (1, 1), None, None, (1, 1), None]
    for tiles in told:  # three photos begin, and each ends before the one before it is written
        follower.row(Row("in", "out", "done")) if tiles is None else follower.tiles(*tiles)
        shares.append(work.share)
    assert shares == sorted(shares) and shares[-1] == 1.0
