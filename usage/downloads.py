"""Downloads of usage: each is in the audit trail."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from accounts import downloads
from accounts.audit import record
from accounts.downloads import Parts


def streamed(request: HttpRequest, name: str, content_type: str, parts: Parts) -> StreamingHttpResponse:
    """As accounts.downloads has it."""
    _record(name)
    return downloads.streamed(request, name, content_type, parts)


def whole(name: str, content_type: str, content: bytes) -> HttpResponse:
    _record(name)
    return downloads.as_attachment(HttpResponse(content, content_type=content_type), name)


def _record(name: str) -> None:
    record("usage.exported", ("usage.download", "", name))
