"""The form to sign in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from denoise_se.app import web_login

pytest.importorskip("gradio", reason="the web extra is not installed")


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
