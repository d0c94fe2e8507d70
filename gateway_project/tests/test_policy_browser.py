"""Policies in a browser, with real calls: made, tried, published, rolled back; rules moved by mouse and keyboard."""

from __future__ import annotations

import time

import pytest
from httpx import Response
from playwright.sync_api import Locator, Page, expect

from gateway_project.tests.admin_steps import save, sign_in
from gateway_project.tests.clients import call
from gateway_project.tests.gateway_process import GatewayProcess

pytestmark = pytest.mark.slow

MESSAGE = "Keep our project names out of prompts."
PAGES = ("", "add/?start=watch", "1/change/", "1/try/", "1/versions/", "1/roll-back/1/")


def ask(gateway: GatewayProcess, text: str) -> Response:
    return call(gateway, "gpt-test", messages=[{"role": "user", "content": text}])


def wait_for_answer(gateway: GatewayProcess, text: str, status: int) -> Response:
    """What is published is live in about a second."""
    deadline = time.monotonic() + 3
    while (response := ask(gateway, text)).status_code != status and time.monotonic() < deadline:
        time.sleep(0.1)
    assert response.status_code == status
    return response


def rule(page: Page, number: int) -> Locator:
    return page.locator("[data-rule]").nth(number - 1)


def titles(page: Page) -> list[str]:
    return page.locator("[data-rule] [data-title]").all_inner_texts()


def try_it(page: Page, text: str) -> Locator:
    page.get_by_label("Request", exact=True).fill(text)
    page.get_by_role("button", name="Try these rules").click()
    trial = page.locator("[data-trial]")
    trial.wait_for()
    return trial


def publish(page: Page, number: int) -> None:
    page.get_by_role("button", name="Save and publish").click()
    page.get_by_text(f"Published version {number} of names. It is live in about a second.").wait_for()


def test_policy_is_made_tried_published_and_rolled_back(admin_gateway: GatewayProcess, page: Page) -> None:
    sign_in(page, admin_gateway)

    page.goto(f"{admin_gateway.url}/admin/policies/wordlist/add/")
    page.locator("#id_name").fill("projects")
    page.locator("#id_entries").fill("Nightingale\nproject xylo*")
    save(page)
    page.get_by_text("It is live in about a second.").wait_for()

    page.goto(f"{admin_gateway.url}/admin/policies/policy/")
    page.get_by_text("A policy is a list of rules for calls").wait_for()
    page.get_by_role("link", name="Add policy").first.click()
    page.locator("#id_name").fill("names")
    page.locator("#id_everyone").check()
    page.locator("[data-add=wordlist]").click()
    first = rule(page, 1)
    first.get_by_label("projects").check()
    first.get_by_label("Message for the caller").fill(MESSAGE)
    first.get_by_label("Dry run").check()
    expect(first.locator("[data-badge=dry_run]")).to_be_visible()
    publish(page, 1)
    assert ask(admin_gateway, "Tell me about Nightingale").status_code == 200

    rule(page, 1).get_by_label("Dry run").uncheck()
    trial = try_it(page, "Tell me about <b>Nightingale</b>")
    expect(trial.get_by_text("The request is blocked.")).to_be_visible()
    expect(trial.get_by_text(MESSAGE)).to_be_visible()
    expect(trial.locator("mark")).to_have_text("Nightingale1 projects")
    assert ask(admin_gateway, "Tell me about Nightingale").status_code == 200  # only tried
    publish(page, 2)
    refused = wait_for_answer(admin_gateway, "Tell me about NIGHTINGALE", 400)
    assert refused.json()["error"]["message"] == MESSAGE
    assert refused.json()["error"]["code"] == "policy_violation"

    page.get_by_role("link", name="All versions").click()
    page.get_by_role("link", name="Roll back to version 1").click()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_text("names is back at what version 1 said, as version 3.").wait_for()
    wait_for_answer(admin_gateway, "Tell me about Nightingale", 200)

    _check_phone(page, admin_gateway)


def _check_phone(page: Page, gateway: GatewayProcess) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    for path in PAGES:
        page.goto(f"{gateway.url}/admin/policies/policy/{path}")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 420, path


def test_rules_are_moved_by_mouse_and_by_keyboard(admin_gateway: GatewayProcess, page: Page) -> None:
    sign_in(page, admin_gateway)
    page.goto(f"{admin_gateway.url}/admin/policies/policy/add/?start=limits")
    page.locator("#id_name").fill("moved")
    assert titles(page) == ["Max tokens", "Max prompt characters", "Loop breaker"]

    rule(page, 3).locator(".gh-rule-handle").drag_to(rule(page, 1).locator(".gh-rule-handle"))
    expect(page.locator("[data-said]")).to_have_text("Loop breaker is rule 1 of 3 now.")
    assert titles(page) == ["Loop breaker", "Max tokens", "Max prompt characters"]

    page.get_by_role("button", name="Move Max tokens down").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-said]")).to_have_text("Max tokens is rule 3 of 3 now.")
    # Its button is switched off at the end of the list, and the focus must not get lost.
    expect(page.get_by_role("button", name="Move Max tokens up")).to_be_focused()

    page.keyboard.press("Enter")
    page.get_by_role("button", name="Save without publishing").click()
    page.get_by_text("Nothing of moved is in force before you publish it.").wait_for()
    assert titles(page) == ["Loop breaker", "Max tokens", "Max prompt characters"]
    rows = admin_gateway.query(
        "SELECT check_name FROM policies_rule JOIN policies_policy ON policy_id = policies_policy.id"
        " WHERE policies_policy.name = 'moved' ORDER BY position"
    )
    assert [row["check_name"] for row in rows] == ["loop", "max_tokens", "max_prompt_chars"]


def test_wrong_rule_is_unfolded_with_what_was_typed(admin_gateway: GatewayProcess, page: Page) -> None:
    sign_in(page, admin_gateway)
    page.goto(f"{admin_gateway.url}/admin/policies/policy/add/?start=limits")
    rule(page, 2).locator("[data-fold]").click()
    rule(page, 2).get_by_label("Limit", exact=True).fill("-5")
    rule(page, 2).locator("[data-fold]").click()
    page.get_by_role("button", name="Save without publishing").click()
    page.get_by_text("Please correct rule 2 (Max prompt characters).").wait_for()
    expect(rule(page, 2).get_by_label("Limit", exact=True)).to_have_value("-5")
    expect(rule(page, 2).locator(".gh-field-errors")).to_be_visible()
    expect(rule(page, 1).locator(".gh-rule-body")).to_be_hidden()
