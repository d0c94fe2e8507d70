"""The least that a gateway on ASGI and aiohttp can do: no key, no JSON, no books. The yardstick of every ratio.

`UPSTREAM` and `STREAM_UPSTREAM` in the environment are the base URLs for whole and for streamed answers.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from yarl import URL

WHOLE = URL(os.environ["UPSTREAM"] + "/chat/completions")
STREAMED = URL(os.environ["STREAM_UPSTREAM"] + "/chat/completions")
HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-upstream"}

_session: aiohttp.ClientSession


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    url = STREAMED if b'"stream":true' in body else WHOLE
    async with _session.post(url, data=body, headers=HEADERS) as reply:
        headers = [(b"content-type", reply.headers["content-type"].encode())]
        if url is WHOLE:
            answer = await reply.read()
            headers.append((b"content-length", b"%d" % len(answer)))
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": answer})
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        while chunk := await reply.content.readany():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})


async def lifespan(
    receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    global _session
    await receive()
    connector = aiohttp.TCPConnector(limit=0)
    _session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _session.close()
    await send({"type": "lifespan.shutdown.complete"})
