"""The admin in a real browser: `admin_gateway` has an administrator, `page` is a tab that complains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from gateway_project.tests.admin_steps import PASSWORD
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.upstream import Upstream

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def admin_gateway(make_gateway: Callable[..., Any]) -> Iterator[GatewayProcess]:
    """With an administrator, and its static files collected as in production."""
    commands = (
        ("createsuperuser", "--noinput", "--username", "root", "--email", "root@example.org"),
        ("collectstatic", "--noinput", "-v", "0"),
    )
    with make_gateway("sqlite", commands=commands, DJANGO_SUPERUSER_PASSWORD=PASSWORD) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of; a test that foresaw it takes it out."""
    return []


@pytest.fixture
def page(context: BrowserContext, upstream: Upstream, complaints: list[str]) -> Iterator[Page]:
    """Fails the test for anything that the browser complains of, such as a blocked script."""
    page = context.new_page()
    page.set_default_timeout(40_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: _note_foreign(request.url, complaints))
    yield page
    assert complaints == []


def _note_foreign(url: str, complaints: list[str]) -> None:
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        complaints.append(f"asks another host: {url}")
