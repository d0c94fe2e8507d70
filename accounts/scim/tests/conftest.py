"""An identity provider that calls /scim/v2."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from django.test import Client

from accounts.scim.tokens import create_token

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


class IdP:
    def __init__(self) -> None:
        self.token, self.secret = create_token("Entra ID")
        self.client = Client()

    def ask(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Any:
        sent = raw if raw is not None else b"" if body is None else orjson.dumps(body)
        given = {
            "Authorization": f"Bearer {self.secret}",
            **{name.replace("_", "-"): headers[name] for name in headers},
        }
        kind = given.pop("Content-Type", "application/scim+json")
        return self.client.generic(method, f"/scim/v2/{path}", sent, content_type=kind, headers=given)

    def get(self, path: str, **headers: str) -> Any:
        return self.ask("GET", path, **headers)

    def create(self, username: str, **fields: Any) -> dict[str, Any]:
        response = self.ask("POST", "Users", {"schemas": [USER], "userName": username, **fields})
        assert response.status_code == 201, response.content
        return dict(response.json())

    def create_group(self, name: str, *ids: str, **fields: Any) -> dict[str, Any]:
        members = [{"value": value} for value in ids]
        body = {"schemas": [GROUP], "displayName": name, "members": members, **fields}
        response = self.ask("POST", "Groups", body)
        assert response.status_code == 201, response.content
        return dict(response.json())

    def patch(self, path: str, *operations: dict[str, Any], status: int = 200, **headers: str) -> dict[str, Any]:
        response = self.ask("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)}, **headers)
        assert response.status_code == status, response.content
        return dict(response.json())


@pytest.fixture
def idp(db: None) -> IdP:
    return IdP()
