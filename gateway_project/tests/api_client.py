"""A program that uses the management API in a test."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import User
from accounts.tokens.services import create_token


class Program:
    """Calls with a token of `user` for `scopes`; `may` are permissions that the user gets, such as view_team."""

    def __init__(self, user: User, *scopes: str, may: tuple[str, ...] = ()) -> None:
        for name in may:
            app, _, codename = name.rpartition(".")
            found = Permission.objects.filter(codename=codename)
            user.user_permissions.add(*(found.filter(content_type__app_label=app) if app else found))
        self.user = user
        self.token, self.secret = create_token("program", user, scopes or ["*"])
        self._client = Client(headers={"authorization": f"Bearer {self.secret}"})

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """`headers` with _ for -."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        content = {} if body is None else {"data": body, "content_type": "application/json"}
        return self._client.generic(method, f"/api/v1/{path}", **_encoded(content), headers=given)

    def get(self, path: str, **headers: str) -> Any:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, {} if body is None else body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Any:
        return self.call("PATCH", path, body, **headers)

    def put(self, path: str, body: Any, **headers: str) -> Any:
        return self.call("PUT", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.call("DELETE", path, **headers)


def _encoded(content: dict[str, Any]) -> dict[str, Any]:
    if content and not isinstance(content["data"], str | bytes):
        content["data"] = json.dumps(content["data"])
    return content


def error(reply: Any, status: int) -> dict[str, Any]:
    """The error that a reply is, in the one shape."""
    assert reply.status_code == status, (reply.status_code, reply.content)
    assert reply["Content-Type"] == "application/json"
    found: dict[str, Any] = reply.json()["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    return found
