"""The portal in a real browser, with the real server and its Content-Security-Policy."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from gateway_project.tests import services
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.portal_steps import GIVE_ALICE_A_PASSWORD, barriers, sign_in_to_portal

pytestmark = pytest.mark.slow
PAGES = ("/keys/new/", "/usage/?days=7&measure=calls&by=key", "/usage/calls/", "/playground/?model=echo")


@pytest.fixture(scope="module")
def portal(make_gateway: Callable[..., Any]) -> Iterator[GatewayProcess]:
    """Where alice has a password, and its static files are collected as in production."""
    commands = (("shell", "-v", "0", "-c", GIVE_ALICE_A_PASSWORD), ("collectstatic", "--noinput", "-v", "0"))
    with make_gateway("sqlite", commands=commands) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def axe() -> str:
    return services.axe()


def make_key(page: Page, portal: GatewayProcess, name: str) -> str:
    """With the page that shows it still open."""
    page.goto(f"{portal.url}/keys/new/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Only these:").check()
    page.get_by_label("echo", exact=True).check()
    page.get_by_role("button", name="Make the key").click()
    page.get_by_text("Copy it now: it is shown this once").wait_for()
    return page.get_by_label("API key", exact=True).input_value()


def test_from_signing_in_to_a_call_and_its_usage_in_less_than_a_minute(portal: GatewayProcess, page: Page) -> None:
    begun = time.monotonic()
    sign_in_to_portal(page, portal)
    page.get_by_role("link", name="Make another").click()
    secret = make_key(page, portal, "laptop")
    page.locator("[data-copy=new-secret]").click()
    page.get_by_role("button", name="Copied").wait_for()

    snippet = page.locator("#code-curl").inner_text()
    assert secret in snippet
    done = subprocess.run(["bash", "-c", f"{snippet} -s"], capture_output=True, text=True, timeout=20, check=True)
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"] == "Hello"

    page.get_by_role("link", name="I have copied it").click()
    calls = page.locator("table.calls")
    while not calls.get_by_role("row").filter(has_text="laptop").count():  # written a moment after the answer
        page.goto(f"{portal.url}/usage/calls/")
    assert "Answered" in calls.inner_text()
    assert time.monotonic() - begun < 60


def test_secret_is_gone_when_the_page_is_left_or_loaded_again(portal: GatewayProcess, page: Page) -> None:
    sign_in_to_portal(page, portal)
    secret = make_key(page, portal, "once")
    assert secret not in page.url and page.url.startswith(f"{portal.url}/keys/")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("once Works")
    assert secret not in page.content()

    second = make_key(page, portal, "twice")
    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("link", name="twice").wait_for()
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_contain_text("twice")
    assert second not in page.content()
    assert all(second not in str(kept) for kept in page.evaluate("[{...localStorage}, {...sessionStorage}]"))


def test_playground_streams_an_answer_and_books_it(portal: GatewayProcess, page: Page) -> None:
    sign_in_to_portal(page, portal)
    page.goto(f"{portal.url}/playground/?model=echo")
    calls: list[Any] = []
    page.on("request", lambda request: calls.append(request) if request.url.endswith("/v1/chat/completions") else None)
    page.get_by_label("Message").fill("Say <b>this</b>\nagain")
    page.keyboard.press("Control+Enter")
    page.get_by_text("Answered in").wait_for()
    assert page.locator(".turn-assistant .turn-text").inner_text() == "Say <b>this</b>\nagain"
    assert page.locator(".turn-text b").count() == 0
    assert json.loads(calls[0].post_data)["stream"] is True
    event = portal.event_of(calls[0].response().headers["x-request-id"])
    assert (event["model"], event["status"]) == ("echo", 200)
    assert event["key_label"].startswith("Playground") and event["user_id"]
    secret = calls[0].headers["authorization"].removeprefix("Bearer ")
    assert secret not in page.content()


def test_playground_stops_when_told_and_says_what_went_wrong(
    portal: GatewayProcess, page: Page, complaints: list[str]
) -> None:
    sign_in_to_portal(page, portal)
    page.goto(f"{portal.url}/playground/?model=patient/hang-midway")
    page.get_by_label("Message").fill("Tell me")
    page.get_by_role("button", name="Send").click()
    page.locator(".turn-assistant .turn-text").filter(has_text="w0").wait_for()  # and then nothing, for half a minute
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    page.get_by_label("Model").select_option("400")
    page.get_by_label("Message").fill("Tell me")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).not_to_be_empty()
    expect(page.get_by_label("Message")).to_have_value("Tell me")
    assert "400" in complaints.pop()  # the browser notes every refused call


def test_nothing_keeps_people_out_in_light_or_dark(portal: GatewayProcess, browser: Browser, axe: str) -> None:
    """And no page is wider than a phone."""
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page = context.new_page()
        page.set_default_timeout(40_000)
        sign_in_to_portal(page, portal)
        make_key(page, portal, "for everybody")
        own = page.url
        found = {"the secret": barriers(page, axe)}
        links = page.locator("nav.side a").evaluate_all("links => links.map(link => link.href)")
        ours = [*(f"{portal.url}{path}" for path in PAGES), *(f"{own}{end}" for end in ("", "rotate/", "revoke/"))]
        for url in [*links, *ours]:
            page.goto(url)
            found[url] = barriers(page, axe)
            assert page.evaluate("document.scrollingElement.scrollWidth") <= 390, url
        assert {url: faults for url, faults in found.items() if faults} == {}
