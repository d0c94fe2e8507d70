"""What people do in the admin, in a browser."""

from __future__ import annotations

from playwright.sync_api import Page

from gateway_project.tests.gateway_process import GatewayProcess

PASSWORD = "correct horse battery staple"


def sign_in(page: Page, gateway: GatewayProcess) -> None:
    page.goto(f"{gateway.url}/admin/")
    page.get_by_label("Username").fill("root")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Overview").wait_for()


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()


def choose(page: Page, field: str, text: str) -> None:
    """In a field that searches while one types."""
    page.locator(f"#id_{field} + .select2-container").click()
    page.keyboard.type(text)
    page.locator(".select2-results__option--highlighted", has_text=text).wait_for()
    page.keyboard.press("Enter")
