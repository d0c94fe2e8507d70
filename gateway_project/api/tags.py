"""ETags: which state of an object a reader has seen, and whether a writer has seen the newest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from typing import Any

from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from gateway_project.api.errors import BadRequest, Changed

_TAG = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*')


def tag_of(shown: Any, without: Collection[str] = ()) -> str:
    """Of an object as it is shown, but for what changes by itself, such as when a key was last used."""
    if isinstance(shown, dict):
        shown = {name: value for name, value in shown.items() if name not in without}
    text = json.dumps(shown, sort_keys=True, cls=JSONEncoder)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def check_match(request: Request, tag: str) -> None:
    """If-Match: raises Changed, or BadRequest for what is no list of tags."""
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return
    # Compared strongly: a weak tag never matches.
    if tag not in [text for weak, text in _tags(given, "If-Match") if not weak]:
        raise Changed("It has changed since you read it. Read it again, and decide anew.")


def is_known(request: Request, tag: str) -> bool:
    """If-None-Match: whether the reader has this state already."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    return given.strip() == "*" or tag in [text for _, text in _tags(given, "If-None-Match")]


def _tags(given: str, header: str) -> list[tuple[bool, str]]:
    found = []
    for part in given.split(","):
        match = _TAG.fullmatch(part)
        if match is None:
            raise BadRequest(f'{header} is a list of entity tags, such as "5f1c".', header)
        found.append((match[1] is not None, match[2]))
    return found
