"""The management API of a running gateway on PostgreSQL: what is sent several times at once is done once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from gateway_project.tests.gateway_process import GatewayProcess

AT_ONCE = 8


def test_what_is_sent_at_once_is_done_once(gateway_on: Callable[[str], GatewayProcess]) -> None:
    gateway = gateway_on("postgres")
    gateway.manage("shell", "-c", "from accounts.models import User; User.objects.create_superuser('api-root')")
    secret = str(gateway.manage("create_token", "races", "--user", "api-root", "--scopes", "*", "--quiet")).strip()
    headers = {"Authorization": f"Bearer {secret.splitlines()[-1]}"}
    with httpx.Client(base_url=f"{gateway.url}/api/v1/", headers=headers, timeout=60) as client:
        made = _at_once(lambda _: client.post("teams", json={"name": "once"}, headers={"Idempotency-Key": "k"}))
        assert set(made) <= {201, 409}
        assert made[201] >= 1
        listed = client.get("teams", params={"name": "once"}).json()["data"]
        assert len(listed) == 1

        url = f"teams/{listed[0]['id']}"
        tag = client.get(url).headers["etag"]
        changed = _at_once(lambda n: client.patch(url, json={"cost_center": f"c{n}"}, headers={"If-Match": tag}))
        assert changed == {200: 1, 412: AT_ONCE - 1}

        named = _at_once(lambda _: client.post("teams", json={"name": "same"}))
        assert (named[201], set(named) - {201, 400, 409}) == (1, set())
        assert json.loads(client.get("me").content)["username"] == "api-root"


def _at_once(send: Callable[[int], Any]) -> Counter[int]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Counter(reply.status_code for reply in pool.map(send, range(AT_ONCE)))
