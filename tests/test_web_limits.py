"""The web app over time and among strangers: the cache's age and size, other names and sites, ends in mid-work."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from tiny_model import save_tiny
from web_proxy import proxied
from web_server import Server, serving

from denoise_se.app import web_login
from denoise_se.app.web import check_port, import_gradio, make_app
from denoise_se.app.web_batch import Follower, gathered
from denoise_se.app.web_cache import MARK, Cache
from denoise_se.app.web_calls import Function
from denoise_se.app.web_guard import Guard
from denoise_se.app.web_options import WebOptions
from denoise_se.app.web_photo import refuse_many_pixels
from denoise_se.app.web_work import Crew, FullError, Work
from denoise_se.blending import Strength
from denoise_se.errors import UsageError
from denoise_se.image import Image
from denoise_se.image_io import write
from denoise_se.report import Row
from denoise_se.watcher import CancelledError

pytest.importorskip("gradio", reason="the web extra is not installed")
SAMPLES = Path(__file__).parent.parent / "data" / "samples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def large(folder: Path) -> Path:
    """A photo whose denoising takes some seconds."""
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8)
    write(folder / "large.png", Image(noise, None, "png"))
    return folder / "large.png"


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    ended = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ended, what
        time.sleep(0.2)


def asked(guard: Guard, path: str, headers: dict[str, str]) -> int:
    """The status of a GET."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    coded = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    asyncio.run(guard({"type": "http", "method": "GET", "path": path, "headers": coded}, receive, send))
    return int(sent[0]["status"])


ANY = tuple((name, "any") for name in ("model", "sigma", "strength", "chroma_strength", "format"))
FUNCTIONS = {
    0: Function("denoise", (("image", "file"), ("reference", "file"), *ANY)),
    2: Function("estimate", (("image", "file"),), frozenset({"image"})),
    3: Function("models", ()),
    4: Function("", (("photos", "files"), ("strength", "number"), ("model", "choice"))),
}


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return Guard(inner, Cache(tmp_path, 60, 10**9), 10**9, FUNCTIONS, ["denoise.example"])


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:7860", 200), ("localhost:7860", 200), ("[::1]:7860", 200), ("192.168.1.5", 200),
     ("denoise.example", 200), ("DENOISE.example:443", 200), (socket.gethostname(), 200),
     ("evil.example", 421), ("127.0.0.1.evil.example:7860", 421), ("localhost.evil.example", 421), ("1.2.3", 421),
     ("[oops", 421)],
)  # fmt: skip
def test_a_name_that_is_not_the_servers_is_refused_so_that_rebound_names_reach_nothing(
    guard: Guard, host: str, status: int
) -> None:
    assert asked(guard, "/config", {"Host": host}) == status
    assert asked(guard, "/config", {"Host": "127.0.0.1", "X-Forwarded-Host": host}) == status
    assert asked(guard, "/health", {"Host": host}) == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("denoise", 200),
        ("denoise/0123", 200),
        ("models", 200),
        ("v2/estimate", 200),
        ("nope", 404),
        ("v2/nope", 404),
        ("", 404),
    ],
)
def test_calls_reach_the_endpoints_that_there_are(guard: Guard, path: str, status: int) -> None:
    assert asked(guard, f"/gradio_api/call/{path}", {"Host": "localhost"}) == status


def test_the_list_of_routes_is_not_told_to_who_has_not_signed_in(guard: Guard) -> None:
    assert asked(guard, "/openapi.json", {}) == 403


def posted(application: Any, path: str, body: bytes, headers: Sequence[tuple[str, str]]) -> int:
    """The status of a POST."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    coded = [(key.lower().encode(), value.encode()) for key, value in headers]
    asyncio.run(application({"type": "http", "method": "POST", "path": path, "headers": coded}, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("denoise", b'{"data": [null, null, "auto", null, 1, null, "same"]}', 200),
        ("denoise", b'{"data": [null]}', 422),
        ("denoise", b'{"data": {"image": null}}', 422),
        ("denoise", b"[]", 422),
        ("estimate", b'{"data": [null]}', 200),
        ("models", b'{"data": [1]}', 422),
        ("v2/estimate", b'{"image": null}', 200),
        ("v2/estimate", b'{"images": null}', 422),
        ("v2/estimate", b"{}", 422),
        ("v2/estimate", b'{"image": "photo.jpg"}', 422),
        ("v2/estimate", b"[null]", 422),
        ("estimate", b'{"data": ["photo.jpg"]}', 422),
        ("estimate", b'{"data": [5]}', 422),
        ("estimate", b'{"data": [{"path": 5}]}', 422),
        ("estimate", b'{"data": [NaN]}', 403),
        ("estimate", b'{"data": [1e999]}', 403),
        ("estimate", b'{"data": [-Infinity]}', 403),
    ],
)
def test_a_call_with_other_values_than_the_endpoints_is_refused(
    guard: Guard, path: str, body: bytes, status: int
) -> None:
    assert posted(guard, f"/gradio_api/call/{path}", body, [("Host", "localhost")]) == status


@pytest.mark.parametrize("path", ["queue/join", "run/predict"])
@pytest.mark.parametrize(
    ("number", "data", "status"),
    [
        (4, [None, 1, "auto"], 200),
        (4, [[], 0.5, "auto"], 200),
        (4, [], 422),
        (4, None, 422),
        (4, [None, "1", "auto"], 422),
        (4, [None, None, "auto"], 422),
        (4, [None, 1, ["auto"]], 422),
        (4, ["photo.jpg", 1, "auto"], 422),
        (4, [["photo.jpg"], 1, "auto"], 422),
        (3, [], 200),
        (99999, [], 404),
        (-1, [], 404),
        ("3", [], 404),
        (True, [], 404),
        (None, [], 404),
    ],
)
def test_the_page_reaches_its_functions_with_what_they_take_alone(
    guard: Guard, path: str, number: object, data: object, status: int
) -> None:
    body = json.dumps({"data": data, "fn_index": number, "session_hash": "x"}).encode()
    assert posted(guard, f"/gradio_api/{path}", body, [("Host", "localhost")]) == status


@pytest.mark.parametrize("kind", ["application/json", "application/JSON", "text/plain", "multipart/form-data", None])
@pytest.mark.parametrize("path", ["/gradio_api/call/denoise", "/gradio_api/queue/join", "/gradio_api/upload/", "/else"])
def test_foreign_paths_are_refused_whatever_the_body_calls_itself(guard: Guard, path: str, kind: str | None) -> None:
    headers = [] if kind is None else [("Content-Type", kind)]
    body = b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}'
    assert posted(guard, path, body, headers) == 403
    assert posted(guard, path, b"path=/etc/passwd", headers) == 403
    own = guard.cache.files / "a.png"
    sent = {"data": [{"path": str(own)}, *[None] * 6], "fn_index": 0}
    assert posted(guard, path, json.dumps(sent).encode(), headers) == 200


@pytest.mark.parametrize("name", ["Content-Type", "Content-Length", "Host", "Origin", "Transfer-Encoding"])
def test_a_header_that_another_part_might_read_otherwise_is_refused(guard: Guard, name: str) -> None:
    assert posted(guard, "/gradio_api/call/denoise", b"{}", [(name, "1"), (name, "2")]) == 400


def test_an_upload_without_a_length_is_refused_as_its_size_cannot_be_limited(guard: Guard) -> None:
    assert posted(guard, "/gradio_api/upload", b"", [("Transfer-Encoding", "chunked")]) == 411
    assert posted(guard, "/gradio_api/upload", b"", [("Content-Length", "12")]) == 200
    assert posted(guard, "/gradio_api/upload", b"", [("Content-Length", str(10**9 + 1))]) == 413


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/login", "/login/"])
def test_a_length_that_is_told_beside_chunks_which_may_be_longer_is_refused(guard: Guard, path: str) -> None:
    assert posted(guard, path, b"", [("Content-Length", "5"), ("Transfer-Encoding", "chunked")]) == 411


def test_the_form_to_sign_in_cannot_bring_files_past_the_limits_of_uploads(guard: Guard) -> None:
    for path in ("/login", "/login/"):
        assert posted(guard, path, b"", [("Content-Length", "10001")]) == 413
        assert posted(guard, path, b"", [("Content-Length", "60")]) == 200


def test_a_form_that_does_not_arrive_keeps_nobody_else_from_signing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_login, "PATIENCE", 0.5)
    answers: dict[str, list[int]] = {"slow": [], "quick": []}

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"username=a&password=b"
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def sign_in(who: str) -> None:
        async def receive() -> dict[str, Any]:
            if who == "slow":
                await asyncio.sleep(60)
            return {"type": "http.request", "body": b"username=a&password=b"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answers[who].append(message["status"])

        await login({"type": "http", "method": "POST", "path": "/login", "headers": []}, receive, send)

    async def both() -> None:
        slow = asyncio.create_task(sign_in("slow"))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(sign_in("quick"), 0.3)
        await slow

    login = web_login.Login(inner, {}, "x")
    asyncio.run(both())
    assert answers == {"slow": [408], "quick": [200]}


def test_gradio_itself_takes_no_file_that_was_not_uploaded(tmp_path: Path, model: Path) -> None:
    # behind the guard, as a second wall
    from starlette.testclient import TestClient

    write(tmp_path / "secret.png", Image(np.full((16, 16, 1), 7, np.uint8), None, "png"))
    cache = Cache(tmp_path, 60, 10**9)
    app = make_app(WebOptions(models=(str(model),)), cache, Crew(1)).inner
    file = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    with TestClient(app) as client:
        data = {"data": [file, None, str(model), None, 1, None, "same"]}
        event = client.post("/gradio_api/call/denoise", json=data).json()["event_id"]
        answer = client.get(f"/gradio_api/call/denoise/{event}").text
    assert "event: error" in answer and "event: complete" not in answer
    assert not list(cache.files.rglob("*.png"))


def test_a_port_in_use_is_refused_before_anything_is_loaded() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: Address already in use; choose another"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


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


def test_pages_count_together(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 100, 100), np.uint8), photometric="minisblack")
    (tmp_path / "broken.png").write_bytes(b"no image")
    refuse_many_pixels([tmp_path / "broken.png", tmp_path / "stack.tif"], 50_000)
    with pytest.raises(UsageError, match=r"stack\.tif: has 50,000 pixels on its pages, and this server takes 49,999"):
        refuse_many_pixels([tmp_path / "stack.tif"], 49_999)


def test_old_uploads_and_those_that_were_broken_off_are_deleted_and_young_ones_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 60, 10**9)
    old, broken, young = (cache.files / name for name in ("old/a.png", "tmp12", "young/a.png"))
    for path in (old, broken, young):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    later = time.time() + 61
    os.utime(young, (later, later))
    cache.clean(later)
    assert not old.parent.exists() and not broken.exists() and young.exists()


def test_the_photos_that_a_killed_server_left_are_deleted_by_the_next_and_those_of_a_running_one_kept(
    tmp_path: Path,
) -> None:
    script = "import sys, time; from pathlib import Path; from denoise_se.app.web_cache import Cache\n"
    script += "cache = Cache(Path(sys.argv[1]), 60, 1); print(cache.root, flush=True); time.sleep(600)"
    servers = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    killed, running = (Path(str(server.stdout.readline()).strip()) for server in servers if server.stdout)
    for root in (killed, running):
        (root / "files" / "photo.png").write_bytes(b"photo")
    (tmp_path / "denoise-se-web-mine").mkdir()  # a person's own folder
    (tmp_path / "denoise-se-web-link").symlink_to(running)
    elsewhere = tmp_path / "denoise-se-web-elsewhere"  # on a folder that machines share: locks do not tell of theirs
    elsewhere.mkdir()
    (elsewhere / MARK).write_text("another-machine")
    os.utime(elsewhere / MARK, (0, 0))
    try:
        servers[0].kill()
        servers[0].wait()
        Cache(tmp_path, 60, 1).close()
        assert killed.is_dir()  # so young that it may be about to be locked
        for root in (killed, running):
            os.utime(root / MARK, (0, 0))
        Cache(tmp_path, 60, 1).close()
        assert sorted(tmp_path.iterdir()) == sorted(
            [running, elsewhere, tmp_path / "denoise-se-web-link", tmp_path / "denoise-se-web-mine"]
        )
        assert (running / "files" / "photo.png").read_bytes() == b"photo"
    finally:
        servers[1].kill()
        servers[1].wait()


def test_a_picture_that_is_ready_after_its_photo_has_gone_is_not_shown(tmp_path: Path, model: Path) -> None:
    # the next photo's result is there already; the older answer would show, and let people download, the one before
    import_gradio()
    import gradio

    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo import Photo
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    options, cache = WebOptions(models=(str(model),)), Cache(tmp_path, 60, 10**9)
    source = cache.samples / "noisy" / "camera.png"
    request = options.request(str(model), 25.0, Strength(1.0, 1.0), "same")
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
    leaving = Leaving(source, photo.folder, request, photo.recorded, photo.estimated, photo.size, photo.ranges)
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
    tmp_path: Path, model: Path
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
    options, cache = WebOptions(models=(str(model),)), Cache(tmp_path, 60, 10**9)
    request = options.request(str(model), None, Strength(1.0, 1.0), "same")
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
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
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
    options, cache, crew = WebOptions(models=(str(model),)), Cache(tmp_path, 60, 10**9), Crew(1)
    service = Service(options, cache, crew, School(options.shelf, tmp_path / "lessons", 10**8))
    with gradio.Blocks():
        photo, batch, learn = PhotoTab(service), BatchTab(service), web_learn_tab.LearnTab(service, [])
    sample, ann = str(cache.samples / "noisy" / "camera.png"), SimpleNamespace(session_hash="ann")
    asked = (sample, None, str(model), True, 25.0, 1.0, False, 1.0, "same", "compare", 1, None, 1.0)

    async def last(updates: AsyncIterator[Any]) -> Any:
        with pytest.raises(ZeroDivisionError):
            async for update in updates:
                shown = update
        return shown

    for tab, updates in (
        (photo, photo.denoise(*asked, ann)),
        (batch, batch.denoise([sample], 1.0, str(model), "same", ann)),
    ):
        shown = asyncio.run(last(updates))
        assert "a mistake of the program (ZeroDivisionError)" in shown[tab.status]
        assert shown[tab.cancel]["visible"] is False
    assert "a mistake of the program (ZeroDivisionError)" in asyncio.run(last(learn.show([sample])))
    crew.close()


def test_a_photo_in_which_no_noise_is_found_says_what_to_do_unless_nothing_was_asked_for(
    tmp_path: Path, model: Path
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
    options, cache = WebOptions(models=(str(model),)), Cache(tmp_path, 60, 10**9)
    with gradio.Blocks():
        tab = PhotoTab(Service(options, cache, Crew(1), School(options.shelf, tmp_path / "lessons", 10**8)))
    for sigma, strength, told in ((None, 1.0, True), (None, 0.0, False), (5.0, 1.0, False)):
        request = options.request(str(model), sigma, Strength(1.0, 1.0), "same")
        photo = Photo.denoised(source, cache.folder(), request, None, Work("ann"))
        shown = tab.look(str(source), None, strength, False, 1.0, "same", "compare", 1, photo)
        assert ("No noise was found" in shown[tab.facts]) is told
    request = options.request(str(model), None, Strength(1.0, 1.0), "same")
    batch = web_batch.run([source, grainy], cache.folder(), request, Work("ann"))
    assert [text for text in batch.notices if "no noise was found" in text] == [
        "even.png: no noise was found, so none was removed; if you see some, take the model “photo”, "
        "or set the level under “One photo”"
    ]


def test_a_result_that_cannot_be_saved_as_asked_stays_for_another_format_and_is_made_beside_the_event_loop(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_gradio()
    import gradio

    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    source = tmp_path / "seen-through.png"
    grain = np.random.default_rng(0).integers(60, 190, (64, 64, 4), np.uint8)
    write(source, Image(grain[..., :3], grain[..., 3], "png"))
    options, cache, crew = WebOptions(models=(str(model),)), Cache(tmp_path, 60, 10**9), Crew(1)
    with gradio.Blocks():
        tab = PhotoTab(Service(options, cache, crew, School(options.shelf, tmp_path / "lessons", 10**8)))
    threads, looks = [], tab._looks
    monkeypatch.setattr(tab, "_looks", lambda *asked: [threads.append(threading.current_thread()), looks(*asked)][1])

    async def last() -> dict[Any, Any]:
        asked = (str(source), None, str(model), True, 25.0, 1.0, False, 1.0, "jpg", "compare", 1, None, 1.0)
        return [update async for update in tab.denoise(*asked, SimpleNamespace(session_hash="ann"))][-1]

    shown = asyncio.run(last())
    photo = shown[tab.state]
    assert "class=problem" in shown[tab.status] and shown[tab.panel]["visible"] and shown[tab.viewer] is None
    assert photo.folder.is_dir() and threading.main_thread() not in threads and len(threads) == 1
    again = tab.look(str(source), None, 1.0, False, 1.0, "png", "compare", 1, photo)
    assert again[tab.status] == "" and Path(again[tab.viewer]["after"]).is_file()
    crew.close()


def test_a_double_click_denoises_all_photos_once(tmp_path: Path, model: Path) -> None:
    import_gradio()
    import gradio

    from denoise_se.app.web_batch_tab import BatchTab
    from denoise_se.app.web_learning import School
    from denoise_se.app.web_service import Service

    options, cache, crew = WebOptions(models=(str(model),)), Cache(tmp_path, 60, 10**9), Crew(1)
    with gradio.Blocks():
        tab = BatchTab(Service(options, cache, crew, School(options.shelf, tmp_path / "lessons", 10**8)))

    async def click() -> dict[Any, Any]:
        shown: dict[Any, Any] = {}
        asked = ([str(cache.samples / "noisy" / "camera.png")], 1.0, str(model), "same")
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


def test_the_size_is_told_while_another_thread_deletes_folders(tmp_path: Path) -> None:
    cache, ended = Cache(tmp_path, 60, 10**9), threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for number in range(20):
                (cache.files / f"{number}/deeper").mkdir(parents=True)
            for number in range(20):
                shutil.rmtree(cache.files / str(number))

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        limit = time.monotonic() + 2
        while time.monotonic() < limit:
            assert cache.size() == 0
    finally:
        ended.set()
        other.join()


def test_the_cache_is_full_by_the_size_of_all_its_files_and_not_before(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 60, 0)
    cache.max_bytes = 1000
    (cache.folder() / "result.png").write_bytes(bytes(1000))
    assert not cache.full
    (cache.files / "upload.png").write_bytes(bytes(1))
    assert cache.full
    with pytest.raises(UsageError, match="space for uploads and results is used up"):
        cache.folder()
    cache.max_bytes = 1001
    (cache.files / "another name.png").hardlink_to(cache.files / "upload.png")
    assert not cache.full
    assert cache.without_folders(f"{cache.files}/x1/photos/a b.png: 16 bits") == "a b.png: 16 bits"


def test_what_still_waits_when_the_server_ends_is_not_begun() -> None:
    crew, begun = Crew(1), threading.Event()

    def work_on(work: Work[None]) -> None:
        while True:
            begun.set()
            work.step(0.5, "working")

    with crew.started(work_on) as running:
        begun.wait(10)
        crew.end()
        with crew.started(work_on) as waiting:
            for work in (running, waiting):
                with pytest.raises(CancelledError):
                    work.future.result(timeout=10)
    crew.close()


def test_no_more_waits_than_may_and_what_waits_ends_at_once_when_it_is_stopped() -> None:
    crew, going = Crew(1, waiting=1), threading.Event()
    try:
        with crew.started(lambda work: going.wait(60), "ann") as running:
            wait_until(lambda: crew.running == 1, 10, "it does not begin")
            with crew.started(lambda work: None, "bob") as waiting:
                assert (crew.running, crew.waiting) == (1, 1)
                with pytest.raises(FullError, match="the queue is full, 1 requests wait"), crew.started(lambda work: 0):
                    pass
                crew.stop("bob")
                with pytest.raises(CancelledError):
                    waiting.result()
                assert (crew.running, crew.waiting, waiting.replaced) == (1, 0, False)
            with crew.started(lambda work: "newer", "ann", replaces=True) as newer:
                assert running.replaced and running.stopped.is_set()
                going.set()
                wait_until(newer.future.done, 10, "it does not begin")
                assert newer.result() == "newer"
    finally:
        going.set()
        crew.close()


def test_what_overtakes_an_older_stop_is_not_ended_by_it_nor_by_older_work() -> None:
    crew, going = Crew(1), threading.Event()
    try:
        with (
            crew.started(lambda work: going.wait(60), "ann", replaces=True, asked=1) as older,
            crew.started(lambda work: "newer", "ann", replaces=True, asked=3) as newer,
        ):
            assert older.replaced and older.stopped.is_set()
            crew.stop("ann", 2)
            assert crew.has_newer("ann", 2) and not crew.has_newer("ann", 3)
            with (
                crew.started(lambda work: "late", "ann", replaces=True, asked=2) as late,
                pytest.raises(CancelledError),
            ):
                late.result()
            going.set()
            assert late.replaced and not newer.replaced and newer.result() == "newer"
    finally:
        going.set()
        crew.close()


def test_a_photo_that_is_there_before_the_one_before_it_is_heard_to_be_gone_is_denoised(
    tmp_path: Path, model: Path
) -> None:
    import_gradio()
    import gradio

    from denoise_se.app.web_learning import School
    from denoise_se.app.web_photo_tab import PhotoTab
    from denoise_se.app.web_service import Service

    options, cache, crew = WebOptions(models=(str(model),)), Cache(tmp_path, 60, 10**9), Crew(1)
    with gradio.Blocks():
        tab = PhotoTab(Service(options, cache, crew, School(options.shelf, tmp_path / "lessons", 10**8)))
    ann: Any = SimpleNamespace(session_hash="ann")

    def denoised(photo: Path | None, moment: float) -> Any:
        given = None if photo is None else str(photo)
        return tab.denoise(
            given, None, str(model), True, 25.0, 1.0, False, 1.0, "same", "compare", 1, None, moment, ann
        )

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
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from denoise_se.app import web_photo

    class Cancelled(Work[None]):
        def step(self, share: float, label: str) -> None:
            super().step(share, label)
            if label == "Estimating the noise":
                self.stopped.set()

    estimated, estimate = [], web_photo.estimate_noise
    monkeypatch.setattr(web_photo, "estimate_noise", lambda page: [estimate(page), estimated.append(page)][0])
    request = WebOptions(models=(str(model),)).request(str(model), None, Strength(), "same")
    with pytest.raises(CancelledError):
        web_photo.Photo.denoised(SAMPLES / "noisy" / "camera.png", tmp_path, request, None, Cancelled("ann"))
    assert estimated == []


def test_the_progress_of_many_photos_at_work_together_never_falls() -> None:
    work: Work[None] = Work("somebody")
    follower, shares = Follower(work, 4), []
    told = [(0, 1), (0, 1), (1, 1), (0, 1), None, (1, 1), (1, 1), None, None, (1, 1), None]
    for tiles in told:  # three photos begin, and each ends before the one before it is written
        follower.row(Row("in", "out", "done")) if tiles is None else follower.tiles(*tiles)
        shares.append(work.share)
    assert shares == sorted(shares) and shares[-1] == 1.0


@pytest.mark.slow
def test_what_is_older_than_it_may_be_is_deleted_and_the_page_is_told(tmp_path: Path, model: Path) -> None:
    from gradio_client import Client, handle_file

    with serving(tmp_path, "--model", str(model), "--keep", "0.4") as server:
        person = Client(server.url, verbose=False)
        sample = SAMPLES / "noisy" / "camera.png"
        person.predict(image=handle_file(str(sample)), api_name="/denoise")
        found = [path for path in server.cache.rglob("camera.png") if "files" in path.parts]
        uploaded, kept = sorted(found, key=lambda path: path.read_bytes() != sample.read_bytes())  # and no copy of it
        assert server.get(f"/gradio_api/file={kept}")[0] == 200
        wait_until(lambda: not kept.exists() and not uploaded.exists(), 90, "old files are not deleted")
        assert server.get(f"/gradio_api/file={kept}")[0] in (403, 404)
        gone = {"path": str(uploaded), "meta": {"_type": "gradio.FileData"}}
        sent = {"data": [gone, None, str(model), None, 1, None, "same"]}
        assert server.post("/gradio_api/call/denoise", sent)[0] < 500
        assert any(server.cache.rglob("samples/noisy/camera.png")), "the examples are not uploads"


@pytest.mark.slow
def test_a_full_cache_refuses_uploads_with_a_reason_until_it_is_emptied(tmp_path: Path, model: Path) -> None:
    large_file = tmp_path / "two.tif"
    large_file.write_bytes(bytes(2_000_000))

    def upload() -> tuple[int, str]:
        import httpx

        with large_file.open("rb") as file:
            answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("two.tif", file)})
        return answer.status_code, answer.text

    with serving(tmp_path, "--model", str(model), "--cache-size", "1", "--keep", "0.1") as server:
        assert upload()[0] == 200
        status, text = upload()
        assert status == 507 and "used up; try again in a few minutes" in text
        assert server.health()["status"] == "ok"
        wait_until(lambda: upload()[0] == 200, 30, "the cache is not emptied")


@pytest.mark.slow
def test_no_address_is_ever_fetched(tmp_path: Path, model: Path) -> None:
    with socket.socket() as listener, serving(tmp_path, "--model", str(model)) as server:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(1.0)
        port = listener.getsockname()[1]
        own = [f"http://127.0.0.1:{port}/x.png", f"http://localhost:{port}/x.png", f"//127.0.0.1:{port}/x.png"]
        public = ["https://example.org/x.png", "http://[2001:db8::1]/x.png", "ftp://192.0.2.1/x.png"]
        for address in own + public:
            file = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
            data = [file, None, str(model), None, 1, None, "same"]
            for route in ("/gradio_api/call/denoise", "/gradio_api/queue/join"):
                status, _ = server.post(route, {"data": data, "session_hash": "x", "fn_index": 0})
                assert status == 403, address
            for route in ("/gradio_api/file=", "/gradio_api/proxy=", "/gradio_api/stream/", "/file="):
                assert server.get(route + address)[0] in (403, 404), route
        # an upload whose address alone is foreign: the path counts, the address is not looked at
        file = {"path": str(next(server.cache.rglob("samples/noisy/camera.png"))), "url": own[0]}
        data = [{**file, "meta": {"_type": "gradio.FileData"}}, None, str(model), None, 1, None, "same"]
        server.post("/gradio_api/call/denoise", {"data": data})
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_a_photo_ends_the_server_within_seconds(
    tmp_path: Path, model: Path, number: signal.Signals, code: int
) -> None:
    from gradio_client import Client, handle_file

    with serving(tmp_path, "--model", str(model), "--tile", "32") as server:
        person = Client(server.url, verbose=False)
        person.submit(image=handle_file(str(large(tmp_path))), api_name="/denoise")
        wait_until(lambda: server.health()["working"] == 1, 60, "the work does not begin")
        server.process.send_signal(number)
        assert server.process.wait(30) == code
        assert not any(server.cache.iterdir())
        assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx: apt-get install nginx-light")
def test_it_works_behind_nginx_under_a_path(tmp_path: Path, model: Path) -> None:
    from gradio_client import Client, handle_file

    options = ("--model", str(model), "--root-path", "/denoise", "--allow-host", "lab.example")
    with serving(tmp_path, *options) as server, proxied(tmp_path, server) as url:
        outside = Server(url, server.process, server.cache)
        status, page = outside.get("/denoise/", {"Host": "lab.example"})
        assert status == 200 and b"/denoise" in page
        assert outside.get("/denoise/health")[0] == 200
        assert outside.get("/denoise/config", {"Host": "evil.example"})[0] == 421
        assert outside.get("/denoise/gradio_api/file=/etc/passwd")[0] == 403
        person = Client(f"{url}/denoise/", verbose=False)
        noisy = SAMPLES / "noisy" / "camera.png"
        result, report = person.predict(image=handle_file(str(noisy)), api_name="/denoise")
        command = ["denoise", str(noisy), "-o", str(tmp_path / "out.png"), "--model", str(model), "--quiet"]
        subprocess.run([sys.executable, "-m", "denoise_se.app", *command], check=True)
        assert report["status"] == "done"
        assert Path(result).read_bytes() == (tmp_path / "out.png").read_bytes()
