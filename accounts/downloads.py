"""Files that are made while they are sent, so that their size does not matter."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

Parts = Generator[bytes, None, None]
Response = TypeVar("Response", bound=HttpResponseBase)


def streamed(request: HttpRequest, name: str, content_type: str, parts: Parts) -> StreamingHttpResponse:
    """A download of `parts`, each asked for when the one before has gone to the client."""
    # Django reads a plain generator to its end before it sends anything under ASGI, and an asynchronous one under WSGI.
    content = _InThread(parts) if isinstance(request, ASGIRequest) else parts
    response = StreamingHttpResponse(content, content_type=content_type)
    response["X-Accel-Buffering"] = "no"  # a proxy in front is not to collect it either
    return as_attachment(response, name)


def as_attachment(response: Response, name: str) -> Response:
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "private, no-store"
    return response


class _InThread:
    """Asks for each part in the request's own thread: the event loop, which also serves /v1, never waits for one."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __aiter__(self) -> _InThread:
        return self

    async def __anext__(self) -> bytes:
        part = await sync_to_async(self._next)()
        if part is None:
            raise StopAsyncIteration
        return part

    def _next(self) -> bytes | None:
        return next(self._parts, None)

    def close(self) -> None:
        """Django calls this in that same thread, so never while a part is being made."""
        self._parts.close()
