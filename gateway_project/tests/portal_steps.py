"""What people do in the portal, in a browser, and what axe says of a page."""

from __future__ import annotations

from typing import Any, Literal

from playwright.sync_api import Page

from gateway_project.tests.admin_steps import PASSWORD
from gateway_project.tests.gateway_process import GatewayProcess

# For manage.py shell: alice of the cast gets a password, and manages her team.
GIVE_ALICE_A_PASSWORD = f"""
from accounts.models import Membership, User
alice = User.objects.get(username="alice")
alice.set_password({PASSWORD!r})
alice.first_name = "Alice"
alice.save()
membership = Membership.objects.get(user=alice, team__name="research")
membership.role = Membership.Role.MANAGER
membership.save()
"""
SERIOUS = {"serious", "critical"}
# Nothing but the colours differs.
SCHEMES: dict[Literal["light", "dark"], list[str]] = {"light": [], "dark": ["color-contrast"]}
RUN = """async (rules) => {
    const options = rules.length ? {runOnly: rules} : {};
    const found = await axe.run(document, {resultTypes: ["violations"], ...options});
    return found.violations.map(({id, impact, help, nodes}) =>
        ({id, impact, help, where: nodes.slice(0, 3).map(node => node.html.slice(0, 200))}));
}"""


def sign_in_to_portal(page: Page, gateway: GatewayProcess, username: str = "alice") -> None:
    page.goto(f"{gateway.url}/")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Welcome").wait_for()


def barriers(page: Page, axe: str) -> list[Any]:
    """What axe finds that keeps people out, in light and in dark; `axe`: its source. The page stays dark."""
    found: list[Any] = []
    page.evaluate(axe)
    for scheme, rules in SCHEMES.items():
        page.emulate_media(color_scheme=scheme)
        found += [{"in": scheme, **one} for one in page.evaluate(RUN, rules) if one["impact"] in SERIOUS]
    return found
