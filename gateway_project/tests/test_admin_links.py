"""The admin's pages of every app, asked with links that somebody has mistyped or made up."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db

TOO_LARGE = "9" * 20  # for a column of 64 bits
LISTS = (
    "usage/usageevent/?window=all&team__id__exact=",
    *("usage/budget/?team__id__exact=", "usage/limit/?key__id__exact=", "usage/modelprice/?team__id__exact="),
    *("accounts/apikey/?team__id__exact=", "accounts/apikey/?user__id__exact="),
    *("policies/finding/?team__id__exact=", "policies/loggedcontent/?key__id__exact="),
)
NEW_ROWS = (
    *("usage/budget/add/?scope=team&team=", "usage/limit/add/?scope=key&key=", "usage/alertrule/add/?team="),
    *("usage/alertrule/add/?destinations=", "usage/modelprice/add/?team="),
    *("accounts/apikey/add/?team=", "accounts/apikey/add/?user="),
    *("accounts/team/add/?members=", "accounts/user/add/?groups=", "policies/policy/add/?team="),
)


@pytest.mark.parametrize("row", ["no-such-row", TOO_LARGE])
@pytest.mark.parametrize("path", LISTS)
def test_list_of_what_belongs_to_a_row_that_cannot_be_is_the_whole_list(
    admin_client: Client, path: str, row: str
) -> None:
    response = admin_client.get(f"/admin/{path}{row}")
    assert response.headers["location"].endswith("?e=1")


@pytest.mark.parametrize("row", ["no-such-row", TOO_LARGE])
@pytest.mark.parametrize("path", NEW_ROWS)
def test_form_for_a_new_row_of_an_owner_that_cannot_be_is_empty(admin_client: Client, path: str, row: str) -> None:
    response = admin_client.get(f"/admin/{path}{row}")
    assert response.status_code == 200
    assert row not in response.content.decode()
