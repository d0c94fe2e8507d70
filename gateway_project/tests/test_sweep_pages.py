"""Every page there is, with a piece of HTML in every text that it could show, and with the headers it comes with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import islice, product
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.test import Client

from gateway_project.tests.sweep import HTML, NUMBER, Maker, World, routes

pytestmark = pytest.mark.django_db
TYPED = dict.fromkeys(("q", "next", "p", "search", "filter", "error", "o", "page", "team", "model"), f"\"'>{HTML}999>")
SECRET = re.compile(r"(sk-gh|gh-mt|gh-scim)-[0-9A-Za-z]{12}-[0-9A-Za-z]{49}")
HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin"}
KEPT_BY_NONE = re.compile("no-store|private")
POLICY = {"default-src": "'self'", "object-src": "'none'", "base-uri": "'self'", "frame-ancestors": "'none'"}
SCRIPT_URL = re.compile(r"(href|src|action|formaction)\s*=\s*[\"']?\s*javascript:", re.IGNORECASE)


@pytest.fixture
def world() -> World:
    return Maker().world_with_everything()


def pages(world: World, client: Client, *, admin: bool, query: str = "") -> Iterator[tuple[str, Any, str]]:
    """(address, response, text) of each page in HTML."""
    alike: Counter[str] = Counter()
    for route in routes():
        if route.template.startswith("admin/") != admin:
            continue
        kind = route.name.rpartition("_")[2] if admin else ""
        alike[kind] += kind in ("history", "delete", "add")  # one template for all models
        if alike[kind] > 1:
            continue
        for path in world.paths(route):
            response = client.get(path + query)
            if response.headers.get("Content-Type", "").startswith("text/html"):
                yield path, response, response.content.decode()


def wrong_in(body: str) -> str:
    """What of it a browser would take for more than text."""
    if HTML in body:
        at = body.index(HTML)
        return body[max(0, at - 80) : at + 60]
    found = SCRIPT_URL.search(body)
    return found[0] if found else ""


@pytest.mark.parametrize("admin", [False, True], ids=["portal", "admin"])
def test_no_text_becomes_a_part_of_a_page(world: World, admin: bool) -> None:
    wrong, shown = [], 0
    for client in [world.client(world.root)] if admin else [world.client(world.alice), world.client(world.root)]:
        for path, response, body in pages(world, client, admin=admin):
            shown += bool(NUMBER.search(body))
            if problem := wrong_in(body):
                wrong.append((path, problem))
            if response.status_code >= 500:
                wrong.append((path, str(response.status_code)))
    assert not wrong, "\n".join(map(str, wrong))
    assert shown >= (60 if admin else 12), "too few pages show anything to be a test"


def test_nothing_typed_into_an_address_becomes_a_part_of_a_page(world: World) -> None:
    wrong = []
    for client in (world.client(None), world.client(world.alice)):
        for path, response, body in pages(world, client, admin=False, query="?" + urlencode(TYPED)):
            if problem := wrong_in(body):
                wrong.append((path, problem))
            if response.status_code >= 500:
                wrong.append((path, str(response.status_code)))
    assert not wrong, "\n".join(map(str, wrong))


class Markup(HTMLParser):
    """Finds scripts in a page, and attributes that are some."""

    def __init__(self, body: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.feed(body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script" and "src" not in given and given.get("type") != "application/json":
            self.scripts.append("<script>")
        self.scripts += [f"{tag} {name}" for name in given if name.startswith("on") or name == "style"]


def complaints(world: World, response: Any) -> Iterator[str]:
    """What is not as it should be with an answer from outside the admin."""
    headers = response.headers
    for name, value in HEADERS.items():
        if headers.get(name) != value:
            yield f"{name}: {headers.get(name)}"
    policy = headers.get("Content-Security-Policy", "")
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    if "unsafe" in policy or "*" in policy or any(directives.get(name) != of for name, of in POLICY.items()):
        yield policy
    for name, cookie in response.cookies.items():
        if not cookie["httponly"] or cookie["samesite"] not in ("Lax", "Strict"):
            yield f"cookie {name}"
    if response.streaming:
        return
    body = response.content.decode("utf-8", "replace")
    if headers.get("Content-Type", "").startswith("text/html"):
        yield from Markup(body).scripts
    kept = headers.get("Cache-Control", "")
    if (SECRET.search(body) and "no-store" not in kept) or (world.leaks(body) and not KEPT_BY_NONE.search(kept)):
        yield f"Cache-Control: {kept}"


def test_every_answer_outside_the_admin_keeps_browsers_in_check(world: World) -> None:
    """Security headers, a strict policy and pages that need no looser one, cookies, and nothing personal in caches."""
    clients = [world.client(user) for user in (None, world.alice, world.root)]
    wrong, seen = [], 0
    for route in routes():
        if not route.template.startswith("admin/"):
            for path, client in product(islice(world.paths(route), 1), clients):
                response = client.get(path)
                seen += 1
                wrong += [(path, response.status_code, problem) for problem in complaints(world, response)]
    assert not wrong, "\n".join(map(str, wrong))
    assert seen > 180


def test_cookies_before_signing_in_are_kept_from_scripts_and_other_sites(db: None) -> None:
    cookies = Client().get("/accounts/login/").cookies
    assert settings.CSRF_COOKIE_NAME in cookies
    assert all(cookie["httponly"] and cookie["samesite"] == "Lax" for cookie in cookies.values())


def test_production_sends_cookies_over_tls_only() -> None:
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY", "CSRF_COOKIE_HTTPONLY",
             "SECURE_SSL_REDIRECT", "SECURE_HSTS_INCLUDE_SUBDOMAINS")  # fmt: skip
    code = (
        "import json; from gateway_project import settings as s; "
        f"print(json.dumps([[getattr(s, n) for n in {names!r}], s.SECURE_HSTS_SECONDS, s.DEBUG, "
        "getattr(s, 'SESSION_COOKIE_SAMESITE', 'Lax'), getattr(s, 'CSRF_COOKIE_SAMESITE', 'Lax')]))"
    )
    production = {
        **{name: os.environ[name] for name in ("PATH", "DATA_DIR") if name in os.environ},
        "DATABASE_URL": "postgres://u:p@db/gatehouse",
        "SECRET_KEY": "s" * 60,
        "KEY_PEPPERS": "p" * 60,
        "ENCRYPTION_KEYS": "e" * 60,
        "AUDIT_KEYS": "a" * 60,
        "PUBLIC_URL": "https://gateway.example.org",
    }
    ran = subprocess.run(
        [sys.executable, "-c", code], env=production, cwd=settings.BASE_DIR, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    flags, hsts, debug, *same_site = json.loads(ran.stdout)
    assert all(flags)
    assert hsts >= 31_536_000
    assert not debug
    assert set(same_site) <= {"Lax", "Strict"}
