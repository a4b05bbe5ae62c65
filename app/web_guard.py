"""What is refused before Gradio sees it: other sites, addresses to fetch, foreign paths, floods, and unused routes."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from denoise_se.app.web_cache import FULL, Cache
from denoise_se.app.web_calls import Function, Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_JSON_BYTES = 1 << 20
# of which servers and frameworks take the first or the last, so that two of them would tell us another thing than them
ONCE = (b"host", b"origin", b"content-type", b"content-length", b"transfer-encoding", b"x-forwarded-host")
API = "/gradio_api/"
# Gradio serves these for uses that this app does not have: fetching addresses, skipping the queue, editing, recording;
# and a list of its routes, to people who have not signed in as well
CLOSED = (
    "/monitoring",
    "/openapi.json",
    *(
        API + name
        for name in (
            "proxy=",
            "stream/",
            "run/",
            "api/",
            "vibe-",
            "undo-vibe-edit",
            "process_recording",
            "run-history",
            "runs",
            "deep_link",
            "component_server",
            "dev/",
            "custom_component",
            "profiling",
        )
    ),
)
# whose bodies are files and a form; all others are JSON, whatever their headers call them
LOGIN = ("/login", "/login/")
FREE_BODIES = (API + "upload", *LOGIN)
MAX_FORM_BYTES = 10_000  # a name and a password
# the page's own way to functions that need no queue; Gradio refuses the others here, as its `api_open` is off
DIRECT = API + "run/predict"
BY_NUMBER = (DIRECT, API + "queue/join")  # whose bodies tell which function they call
# Gradio's page has inline scripts and compiles its templates; everything else comes from this server or not at all
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; "
        b"object-src 'none'; base-uri 'self'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)


class Guard:
    """An ASGI application around another. Refusals are JSON `{"detail": ...}`, or text, with 400, 403, 404, 411, 413,
    421, 422 or 507.

    functions: those that may be called, by number; names: what the server may be called besides an address, localhost
    and the machine's own name.
    """

    def __init__(
        self,
        inner: Application,
        cache: Cache,
        max_request_bytes: int,
        functions: Mapping[int, Function],
        names: Iterable[str] = (),
    ) -> None:
        self.inner, self.cache, self.max_request_bytes = inner, cache, max_request_bytes
        self.functions = functions
        self.endpoints = {function.name: function for function in functions.values() if function.name}
        self.names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self.inner(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is None and scope["method"] == "POST" and path_of(scope) not in FREE_BODIES:
            body = await body_of(receive, MAX_JSON_BYTES)
            refused = self._refused_body(body, path_of(scope))
            receive = replayed(body or b"", receive)
        if refused is not None:
            await answer(send, *refused, plain=scope["path"].endswith(API + "upload"))
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        with suppress(asyncio.CancelledError):  # the server ends, and this was still open when its patience did
            await self.inner(scope, receive, send_with_headers)

    def _refused(self, scope: Message, headers: dict[str, str]) -> tuple[int, str] | None:
        path = path_of(scope)
        sent = [key.lower() for key, _ in scope["headers"]]
        for name in ONCE:
            if sent.count(name) > 1:
                return 400, f"the request has two {name.decode()} headers"
        # a page of another site whose name now leads here (DNS rebinding) is no stranger to the browser: its name tells
        for host in (headers.get("host", ""), headers.get("x-forwarded-host", "")):
            if host and path != "/health" and not self._is_own(host):
                return 421, f"this server is not known as {host[:200]}; start it with --allow-host and that name"
        if is_foreign(headers) and not (scope["method"] in ("GET", "HEAD") and path in ("/", "/health")):
            return 403, "this server answers its own pages only, not those of other sites"
        if path.startswith(CLOSED) and path != DIRECT:
            return 403, "this address is closed"
        called = called_in(path)
        if called is not None and called not in self.endpoints:
            return 404, f"there is no such endpoint; those of this server are {', '.join(self.endpoints)}"
        if path.startswith(API + "file=") and not self._may_serve(path.removeprefix(API + "file=")):
            return 403, "only files of this server's cache are served"
        if scope["method"] == "POST":
            # a body in chunks is as long as it likes, whatever length is told beside them (RFC 9112, 6.1)
            if path in FREE_BODIES and ("content-length" not in headers or "transfer-encoding" in headers):
                return 411, "an upload must tell its length, and come as a whole"
            length = headers.get("content-length", "0")
            most = MAX_FORM_BYTES if path in LOGIN else self.max_request_bytes
            if not length.isdecimal() or int(length) > most:
                fewer = "" if path in LOGIN else "; send fewer files at once"
                return 413, f"what is sent here may have {most:,} bytes in all{fewer}"
            if path == API + "upload" and self.cache.full:
                return 507, FULL
        return None

    def _is_own(self, host: str) -> bool:
        """Whether a Host header (name or address, perhaps a port) is one of ours; an address cannot be rebound."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            if name in self.names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_serve(self, path: str) -> bool:
        return not is_address(path) and self.cache.holds(path)

    def _refused_body(self, body: bytes | None, path: str) -> Refusal | None:
        if body is None:
            return 413, f"a request may have {MAX_JSON_BYTES:,} bytes; upload files first, then name their paths"
        try:
            # Python takes NaN and Infinity too, which are no JSON
            payload = json.loads(body or b"null", parse_constant=finite, parse_float=finite)
        except (ValueError, RecursionError):
            return 403, "the request is not JSON"
        for file in _paths(payload):
            if is_address(file):
                return 403, "addresses are not fetched; upload the file itself"
            if not self._may_serve(file):
                return 403, "a path must be that of an upload"
            self.cache.keep(file)  # its turn in the queue may come when it is old
        return self._refused_call(path, payload)

    def _refused_call(self, path: str, payload: Any) -> Refusal | None:
        told = payload if isinstance(payload, dict) else {}
        if (called := called_in(path)) is not None:
            function = self.endpoints[called]
            named = path.startswith(API + "call/v2/")  # which takes values by their names
            return function.refused_by_name(payload) if named else function.refused(told.get("data"))
        if path in BY_NUMBER:
            number = told.get("fn_index")
            if type(number) is not int or number not in self.functions:
                return 404, "this page has no such function; reload it"
            return self.functions[number].refused(told.get("data"))
        return None


def finite(number: str) -> float:
    """A number of a JSON document. Raises ValueError for one that no float can hold."""
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is no finite number")
    return value


def is_foreign(headers: dict[str, str]) -> bool:
    """Whether a browser says that the request comes from another site's page."""
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    # behind a proxy the address that the browser saw stands in X-Forwarded-Host, which no other site's page can set
    own = {headers.get("host"), headers.get("x-forwarded-host")} - {None}
    return urlsplit(origin).netloc not in own


def is_address(path: str) -> bool:
    """Whether a "path" is something to fetch: it has a scheme, or names a host."""
    plain = unquote(path).strip()
    return "://" in plain or plain.startswith(("//", "\\\\")) or plain.lower().startswith(("data:", "file:"))


def _paths(payload: Any) -> Iterator[str]:
    """Every "path" of every object in a JSON document, however deep."""
    waiting = [payload]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str):
                yield value["path"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def called_in(path: str) -> str | None:
    """The endpoint that a path names; None for another path."""
    if not path.startswith(API + "call/"):
        return None
    return path.removeprefix(API + "call/").removeprefix("v2/").split("/")[0]


def path_of(scope: Message) -> str:
    """The path of a request below the server's own."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


async def body_of(receive: Receive, most: int) -> bytes | None:
    """The whole body, None when it is longer than `most` bytes."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body"):
            return body


def replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def answer(send: Send, status: int, detail: Any, plain: bool) -> None:
    """A refusal. plain: Gradio's page shows the answer to an upload as it is."""
    kind, body = (b"text/plain", detail) if plain else (b"application/json", json.dumps({"detail": detail}))
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *HEADERS]})
    await send({"type": "http.response.body", "body": body.encode()})
