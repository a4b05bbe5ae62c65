"""What is refused before Gradio sees it, and what Gradio itself refuses."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web_server import serving

from denoise_se.app.web import make_app
from denoise_se.app.web_cache import Cache
from denoise_se.app.web_calls import Function
from denoise_se.app.web_guard import Guard
from denoise_se.app.web_options import WebOptions
from denoise_se.app.web_work import Crew
from denoise_se.image import Image
from denoise_se.image_io import write

pytest.importorskip("gradio", reason="the web extra is not installed")


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


def test_gradio_itself_takes_no_file_that_was_not_uploaded(tmp_path: Path, tiny: Path) -> None:
    # behind the guard, as a second wall
    from starlette.testclient import TestClient

    write(tmp_path / "secret.png", Image(np.full((16, 16, 1), 7, np.uint8), None, "png"))
    cache = Cache(tmp_path, 60, 10**9)
    app = make_app(WebOptions(models=(str(tiny),)), cache, Crew(1)).inner
    file = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    with TestClient(app) as client:
        data = {"data": [file, None, str(tiny), None, 1, None, "same"]}
        event = client.post("/gradio_api/call/denoise", json=data).json()["event_id"]
        answer = client.get(f"/gradio_api/call/denoise/{event}").text
    assert "event: error" in answer and "event: complete" not in answer
    assert not list(cache.files.rglob("*.png"))


@pytest.mark.slow
def test_no_address_is_ever_fetched(tmp_path: Path, tiny: Path) -> None:
    with socket.socket() as listener, serving(tmp_path, "--model", str(tiny)) as server:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(1.0)
        port = listener.getsockname()[1]
        own = [f"http://127.0.0.1:{port}/x.png", f"http://localhost:{port}/x.png", f"//127.0.0.1:{port}/x.png"]
        public = ["https://example.org/x.png", "http://[2001:db8::1]/x.png", "ftp://192.0.2.1/x.png"]
        for address in own + public:
            file = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
            data = [file, None, str(tiny), None, 1, None, "same"]
            for route in ("/gradio_api/call/denoise", "/gradio_api/queue/join"):
                status, _ = server.post(route, {"data": data, "session_hash": "x", "fn_index": 0})
                assert status == 403, address
            for route in ("/gradio_api/file=", "/gradio_api/proxy=", "/gradio_api/stream/", "/file="):
                assert server.get(route + address)[0] in (403, 404), route
        # an upload whose address alone is foreign: the path counts, the address is not looked at
        file = {"path": str(next(server.cache.rglob("samples/noisy/camera.png"))), "url": own[0]}
        data = [{**file, "meta": {"_type": "gradio.FileData"}}, None, str(tiny), None, 1, None, "same"]
        server.post("/gradio_api/call/denoise", {"data": data})
        with pytest.raises(TimeoutError):
            listener.accept()
