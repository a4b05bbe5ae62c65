"""A real server of the web app in a process of its own, with a tiny network, for the tests that talk to it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """AssertionError with `what` where it is not true in time."""
    ended = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ended, what
        time.sleep(0.2)


@dataclass
class Server:
    """A running server: its address, process and the folder that holds its cache."""

    url: str
    process: subprocess.Popen[str]
    cache: Path

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        return self.send("GET", path, None, headers)

    def post(self, path: str, payload: object, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.send("POST", path, body, {"Content-Type": "application/json", **(headers or {})})

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str] | None) -> tuple[int, bytes]:
        """The status and the body, of refusals too."""
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def announce(self, path: str, length: int) -> int:
        """The status for a POST whose header announces so many bytes, before any is sent."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.putheader("Content-Length", str(length))
        connection.endheaders()
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    def health(self) -> dict[str, object]:
        return json.loads(self.get("/health")[1])


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """`denoise-se web` with these options, ready; ended at the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cache = folder / "cache"
    cache.mkdir()
    own = ("--port", str(port), "--cache", str(cache), "--models-dir", str(folder / "models"))
    command = [sys.executable, "-m", "denoise_se.app", "web", *own, *options]
    log = (folder / "log").open("w+")
    process = subprocess.Popen(command, stderr=log, stdout=log, text=True)
    server = Server(f"http://127.0.0.1:{port}", process, cache)
    try:
        for _ in range(240):
            if process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            try:
                if server.get("/health")[0] == 200:
                    break
            except OSError:
                time.sleep(0.5)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
        log.close()
