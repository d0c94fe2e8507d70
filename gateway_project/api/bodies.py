"""Bodies: JSON, and nothing that a database or a reader of JSON could choke on later."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser

from gateway_project.api.errors import BadRequest, TooLarge

DEEPEST = 40


class JsonParser(BaseParser):
    """Strict: UTF-8; no NaN, no infinity, no half surrogate pairs, no NUL, no key twice, not nested without end."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        text = stream.read(settings.MAX_BODY_BYTES + 1)
        if len(text) > settings.MAX_BODY_BYTES:
            raise TooLarge(f"The body may have {settings.MAX_BODY_BYTES:,} bytes.")
        try:
            found = json.loads(
                text.decode("utf-8"),
                parse_constant=_no_constant,
                parse_float=_finite,
                object_pairs_hook=_each_key_once,
            )
        except (ValueError, RecursionError):
            raise BadRequest("The body is not JSON, or has a key twice or a number out of range.") from None
        check(found)
        return found


def check(value: Any, depth: int = 0) -> None:
    """Raises BadRequest."""
    if depth > DEEPEST:
        raise BadRequest("The body is nested too deeply.")
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise BadRequest("A text in the body has a character that cannot be stored: NUL, or half of one.")
    elif isinstance(value, int):
        if abs(value) >= 2**63:
            raise BadRequest("A number in the body is too large.")
    elif isinstance(value, dict):
        for name, inner in value.items():
            check(name, depth + 1)
            check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check(inner, depth + 1)


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


class AlwaysJson(BaseContentNegotiation):
    """Whatever Accept says, as /v1 does. Bodies are JSON, or there is none."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        content_type = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == content_type), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type
