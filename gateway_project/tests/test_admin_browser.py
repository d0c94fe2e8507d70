"""The admin in a real browser, with the real server and its Content-Security-Policy: from signing in to a call."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Error, Page

from gateway_project.tests.admin_steps import choose, save, sign_in
from gateway_project.tests.clients import answer_text, call
from gateway_project.tests.gateway_process import GatewayProcess

pytestmark = pytest.mark.slow

PHONE_PAGES = (
    "usage/usageevent/dashboard/",
    "usage/usageevent/chargeback/",
    *("", "accounts/apikey/", "accounts/apikey/add/", "accounts/team/", "accounts/user/", "accounts/user/1/change/"),
    *("proxy/provider/", "proxy/provider/add/", "proxy/model/", "proxy/model/1/change/", "usage/usageevent/"),
    *("policies/wordlist/", "policies/wordlist/add/", "policies/wordlist/1/change/?kind=shipped"),
    *("policies/wordlist/1/import/", "policies/finding/", "policies/finding/overview/"),
    *("policies/loggedcontent/", "policies/contentview/"),
    *("usage/alert/", "usage/alertrule/", "usage/alertrule/1/change/", "usage/alertdestination/add/"),
)
# The theme makes things of spans and divs that can be clicked; each must also take the focus.
UNREACHABLE = """
    [...document.querySelectorAll("span[x-on\\\\:click], div[x-on\\\\:click]")]
        .filter(element => element.offsetParent && element.tabIndex < 0 && !element.closest("a, button"))
        .map(element => element.outerHTML)
"""


def test_from_signing_in_to_a_call(admin_gateway: GatewayProcess, page: Page) -> None:
    sign_in(page, admin_gateway)

    page.goto(f"{admin_gateway.url}/admin/proxy/provider/add/")
    page.get_by_label("Name").fill("parrot")
    page.get_by_label("Kind").select_option("mistral")
    assert page.get_by_label("Base URL").get_attribute("placeholder") == "https://api.mistral.ai/v1"
    page.get_by_label("Kind").select_option("echo")
    save(page)
    page.get_by_text("was added successfully. It is live in about a second.").wait_for()

    page.goto(f"{admin_gateway.url}/admin/proxy/model/add/")
    page.locator("#id_name").fill("parrot-1")
    page.locator("#id_routes-0-provider").select_option(label="parrot")
    save(page)
    page.get_by_text("was added successfully.").wait_for()

    page.goto(f"{admin_gateway.url}/admin/accounts/apikey/add/")
    page.get_by_label("Name").fill("browser")
    choose(page, "team", "research")
    page.locator("[name=models_allowed_0][value=some]").check()
    choose(page, "models_allowed_1", "parrot-1")
    save(page)
    page.get_by_text("Copy it now: it is shown this once.").wait_for()
    secret = page.get_by_label("API key", exact=True).input_value()
    assert secret in page.locator("#snippet-curl").inner_text()
    page.locator("[data-copy=new-secret]").click()
    page.get_by_role("button", name="Copied").wait_for()

    assert _answer(admin_gateway, secret) == "Hello parrot"

    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("link", name="browser").wait_for()
    assert secret not in page.content()
    with pytest.raises(Error, match="ERR_CACHE_MISS"):  # "Confirm form resubmission": the page was kept by nobody
        page.go_back()


def test_pages_fit_a_phone_and_charts_are_drawn(admin_gateway: GatewayProcess, page: Page) -> None:
    admin_gateway.event_of(call(admin_gateway, "gpt-test").headers["x-request-id"])
    admin_gateway.manage("roll_up")
    sign_in(page, admin_gateway)
    assert page.locator("canvas.chart").count() == 6
    assert page.evaluate("[...document.querySelectorAll('canvas.chart')].every(canvas => Chart.getChart(canvas))")
    page.set_viewport_size({"width": 420, "height": 900})
    for path in PHONE_PAGES:
        page.goto(f"{admin_gateway.url}/admin/{path}")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 420, path


def test_everything_is_reachable_by_keyboard(admin_gateway: GatewayProcess, page: Page) -> None:
    sign_in(page, admin_gateway)
    page.keyboard.press("Control+k")
    page.locator("#search-input-command:focus").wait_for()
    page.keyboard.type("gpt-test")
    page.locator("#command-results-list").get_by_text("gpt-test", exact=True).wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#id_name").wait_for()
    assert page.evaluate(UNREACHABLE) == []


def _answer(gateway: GatewayProcess, secret: str) -> str:
    """Of the new model to the new key, which are live in about a second."""
    prompt = [{"role": "user", "content": "Hello parrot"}]
    deadline = time.monotonic() + 3
    while True:
        response = call(gateway, "parrot-1", key=secret, messages=prompt)
        if response.status_code == 200 or time.monotonic() > deadline:
            return answer_text(response)
        time.sleep(0.1)
