"""`denoise-se web`: the server. Options, limits and signals here; the page in web_page.py."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from denoise_se.app.web_cache import Cache
from denoise_se.app.web_calls import functions_of
from denoise_se.app.web_guard import Application, Guard
from denoise_se.app.web_login import Login
from denoise_se.app.web_options import WebOptions
from denoise_se.app.web_work import Crew
from denoise_se.errors import UsageError, exit_code_of

if TYPE_CHECKING:
    from fastapi import FastAPI

FILES_A_REQUEST = 10  # of the largest size: what one upload may have in all
GRACE = 5  # seconds that open connections have when the server ends


def run_web(options: WebOptions) -> int:
    """Serve until a signal. Returns 143 after SIGTERM, 130 after Ctrl-C. Raises UsageError before any of it."""
    options.check()
    try:
        import uvicorn

        import_gradio()
    except ImportError as error:
        raise UsageError(f'the web app needs Gradio ({error}); pip install "denoise-se[web]"') from error
    check_port(options.host, options.port)
    try:
        cache = Cache(options.cache, options.keep, options.cache_size)
    except OSError as error:
        raise UsageError(f"--cache {options.cache or tempfile.gettempdir()}: {error.strerror}; name another") from error
    ended = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = exit_code_of(number)

    try:
        # uvicorn stops at a signal and then raises it again for these, the handlers that it found
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, note)
        crew = Crew(options.jobs, options.queue)
        config = uvicorn.Config(
            make_app(options, cache, crew),
            host=options.host,
            port=options.port,
            log_level="warning",
            timeout_graceful_shutdown=GRACE,
            server_header=False,
            proxy_headers=False,
        )
        logging.getLogger("uvicorn.error").addFilter(is_ours)
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"serving on http://{host}:{options.port}{options.root_path}/ (Ctrl-C ends it)", file=sys.stderr)
        server = uvicorn.Server(config)
        ends = server.handle_exit

        def end(number: int, frame: FrameType | None) -> None:
            crew.end()  # so that those who wait for it are answered, and their connections closed
            ends(number, frame)

        server.handle_exit = end  # type: ignore[method-assign, assignment]
        server.run()
    finally:
        cache.close()
    return ended


def is_ours(record: logging.LogRecord) -> bool:
    """False for the 7 kB that Gradio logs when somebody waits for an event that there is not, who is told so."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, RuntimeError) and type(error.__cause__).__name__ == "HTTPException")


def check_port(host: str, port: int) -> None:
    """UsageError when no server can listen there."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror}; choose another with --port") from error


def import_gradio() -> Any:
    """Gradio, with everything off that would leave this machine."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_RUN_HISTORY="False"
    )
    import gradio

    return gradio


def make_app(options: WebOptions, cache: Cache, crew: Crew) -> Guard:
    """The ASGI application: the guard, /health, and the page."""
    os.environ["GRADIO_TEMP_DIR"] = str(cache.files)
    gradio = import_gradio()
    from fastapi import FastAPI

    from denoise_se.app.web_learning import School
    from denoise_se.app.web_page import looks, make_page
    from denoise_se.app.web_service import Service

    school = School(options.shelf, cache.root / "lessons", options.max_pixels)
    page = make_page(Service(options, cache, crew, school))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        cache.clean_regularly()
        yield
        crew.close()
        await asyncio.to_thread(school.close)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "working": crew.running, "queued": crew.waiting + len(page._queue)}

    accounts = options.accounts()
    gradio.mount_gradio_app(
        app,
        page,
        "/",
        server_name=options.host,
        server_port=options.port,
        root_path=options.root_path or None,
        auth=accounts or None,
        allowed_paths=[str(cache.samples)],
        max_file_size=options.max_upload,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        **looks(),
    )
    page.has_launched = True  # else Gradio, whose page is mounted, takes any file of the machine for an upload
    inner: Application = app
    if accounts:
        mounted: Any = app.routes[-1].app  # type: ignore[attr-defined]  # the Mount that was just added
        inner = Login(inner, mounted.tokens, mounted.cookie_id)
    most = options.max_upload * min(options.max_files, FILES_A_REQUEST)
    return Guard(inner, cache, most, functions_of(page), options.names)
