"""Tables of the admin that are wider than the screen, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

import gateway_project

pytestmark = pytest.mark.slow

STYLES = Path(gateway_project.__file__).parent / "static/admin/gatehouse.css"
WIDTH, HEIGHT, EDGE = 200, 60, 6


def table(page: Page, width: int) -> None:
    inside = f'<div style="width: {width}px; height: {HEIGHT}px"></div>'
    box = f'<div class="gh-table-box" style="width: {WIDTH}px">{inside}</div>'
    page.set_content(f"<style>body {{ margin: 0 }} {STYLES.read_text()}</style>{box}")


def edges(page: Page) -> tuple[bytes, bytes]:
    """What the left and the right edge look like, inside the border."""
    middle = {"y": HEIGHT / 2, "width": EDGE, "height": 4}
    return (
        page.screenshot(clip={"x": 2, **middle}),
        page.screenshot(clip={"x": WIDTH - EDGE - 2, **middle}),
    )


def test_shade_shows_at_which_side_a_table_goes_on(page: Page) -> None:
    table(page, WIDTH - 2)
    plain = edges(page)[0]
    assert edges(page) == (plain, plain)
    table(page, 2 * WIDTH)
    left, right = edges(page)
    assert left == plain != right
    page.locator(".gh-table-box").evaluate("box => box.scrollLeft = box.scrollWidth")
    left, right = edges(page)
    assert left != plain == right
