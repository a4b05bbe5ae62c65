"""Signing in: a page of the app's own look in place of Gradio's, and guesses one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from denoise_se.app.web_guard import (
    LOGIN,
    MAX_FORM_BYTES,
    Application,
    Message,
    Receive,
    Send,
    answer,
    body_of,
    path_of,
    replayed,
)
from denoise_se.app.web_parts import asset

PAUSE = 0.5  # seconds after a wrong password, in which no other is tried
PATIENCE = 10.0  # seconds for the form to arrive, in which others sign in


class Login:
    """An ASGI application around another; who is signed in, and the passwords, are Gradio's affair.

    tokens: Gradio's, by cookie; cookie_id: the end of its cookies' names.
    """

    def __init__(self, inner: Application, tokens: Mapping[str, str], cookie_id: str) -> None:
        self.inner, self.tokens = inner, tokens
        self.cookies = (f"access-token-{cookie_id}", f"access-token-unsecure-{cookie_id}")
        self.page = asset("web_login.html").encode()
        self.turn = asyncio.Lock()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = path_of(scope) if scope["type"] == "http" else None
        if path == "/" and not self._signed_in(scope["headers"]):
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")],
                }
            )
            await send({"type": "http.response.body", "body": self.page})
        elif path in LOGIN and scope["method"] == "POST":
            try:
                body = await asyncio.wait_for(body_of(receive, MAX_FORM_BYTES), PATIENCE)
            except TimeoutError:
                body = None
            if body is None:
                await answer(send, 408, "the name and the password did not arrive", plain=False)
                return
            async with self.turn:
                await self.inner(scope, replayed(body, receive), self._slowed(send))
        else:
            await self.inner(scope, receive, send)

    def _signed_in(self, headers: list[tuple[bytes, bytes]]) -> bool:
        sent: SimpleCookie = SimpleCookie()
        try:
            sent.load("; ".join(value.decode("latin-1") for key, value in headers if key.lower() == b"cookie"))
        except CookieError:
            return False
        return any(name in sent and sent[name].value in self.tokens for name in self.cookies)

    @staticmethod
    def _slowed(send: Send) -> Send:
        async def after_a_pause(message: dict[str, Any] | Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                await asyncio.sleep(PAUSE)
            await send(message)

        return after_a_pause
