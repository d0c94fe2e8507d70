"""My usage in the portal: what is left, what was used and why a call was refused; of mine and of what I manage."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import services
from accounts.models import ApiKey, Membership, Team, User
from usage.models import Budget, Limit
from usage.portal import calls
from usage.pricing import NANO
from usage.rollups import roll_up_all
from usage.tests.events import add

pytestmark = pytest.mark.django_db
MARKER = "<script>alert(1)</script>\"'"
ESCAPED = "&lt;script&gt;alert(1)"


@pytest.fixture
def key(alice: User, research: Team) -> ApiKey:
    return services.create_key("laptop", research, alice)[0]


@pytest.fixture
def mine(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


def used(key: ApiKey, at: datetime | None = None, **columns: Any) -> None:
    """One call of the key just now, rolled up."""
    add(at or timezone.now(), **{**owner_of(key), **columns})
    roll_up_all()


def owner_of(key: ApiKey) -> dict[str, Any]:
    return {"key_id": key.pk, "user_id": key.user_id, "team_id": key.team_id, "key_label": str(key)}


# --- what is left ---------------------------------------------------------------------------------------------------
def test_every_budget_that_holds_for_me_says_what_is_left_and_when_it_resets(
    mine: Client, alice: User, research: Team, key: ApiKey
) -> None:
    Budget.objects.create(scope="key", key=key, limit=2 * NANO, per="day")
    Budget.objects.create(scope="user", user=alice, limit=3 * NANO, per="month")
    Budget.objects.create(scope="team", team=research, limit=5000, unit="tokens", per="total")
    used(key, cost_nano_usd=NANO // 2, prompt_tokens=1000, completion_tokens=0)
    text = mine.get("/usage/").text
    assert "$1.50 left of $2.00 a day" in text
    assert "$2.50 left of $3.00 a month" in text
    assert "4,000 tokens left of 5,000 tokens in total" in text
    assert "Does not reset" in text and "Resets in" in text
    assert "$1.50 left of $2.00 a day" in mine.get("/").text


def test_spent_budget_says_so_and_what_happens(mine: Client, alice: User, key: ApiKey) -> None:
    Budget.objects.create(
        scope="user", user=alice, limit=NANO, per="month", on_exhaustion="fall_back", fallback_model="small"
    )
    used(key, cost_nano_usd=NANO)
    text = mine.get("/usage/").text
    assert "Spent" in text and "Until then calls go to small." in text


def test_budgets_of_others_are_not_shown(mine: Client, bob: User, charlie: User, key: ApiKey) -> None:
    sales = Team.objects.get(name="sales")
    Budget.objects.create(scope="user", user=bob, limit=7 * NANO)
    Budget.objects.create(scope="team", team=sales, limit=8 * NANO)
    Budget.objects.create(scope="installation", limit=9 * NANO)
    text = mine.get("/usage/").text
    assert not any(amount in text for amount in ("$7.00", "$8.00", "$9.00"))


def test_budget_of_everybody_is_shown_when_it_is_spent_without_its_figures(mine: Client, key: ApiKey) -> None:
    Budget.objects.create(scope="installation", limit=9 * NANO)
    used(key, cost_nano_usd=10 * NANO)
    text = mine.get("/usage/").text
    assert "Everybody&#x27;s calls together have used it up." in text and "$9.00" not in text


def test_rate_limits_are_said_in_words(mine: Client, research: Team) -> None:
    Limit.objects.create(scope="team", team=research, requests_per_minute=60, max_parallel=4)
    assert "Team research: 60 calls a minute, 4 calls at the same time." in mine.get("/usage/").text


# --- what was used --------------------------------------------------------------------------------------------------
def test_sums_are_shown_by_day_key_and_model(mine: Client, key: ApiKey) -> None:
    used(key, model="gpt-a", cost_nano_usd=2 * NANO, prompt_tokens=30, completion_tokens=12)
    text = mine.get("/usage/?measure=tokens&by=key&days=7").text
    assert text.count("<title>") == 8  # the page's, and one for each day
    for words in ("$2.00", "42 tokens", "gpt-a", "laptop", "<rect"):
        assert words in text


def test_chart_has_the_same_as_a_table(mine: Client, key: ApiKey) -> None:
    used(key, cost_nano_usd=2 * NANO)
    text = mine.get("/usage/").text
    assert text.count('<th scope="row">') >= 30
    assert 'role="img"' in text and "All figures are in the table below." in text


def test_use_of_others_is_not_in_mine(mine: Client, bob: User, research: Team, key: ApiKey) -> None:
    other = services.create_key("bobs", research, bob)[0]
    used(other, model="secret-model")
    for path in ("/usage/", "/usage/calls/"):
        assert "secret-model" not in mine.get(path).text


@pytest.mark.parametrize("path", ["/usage/", "/usage/calls/"])
def test_manager_sees_the_service_keys_of_the_team_and_a_member_does_not(
    mine: Client, alice: User, research: Team, path: str
) -> None:
    service = services.create_key("batch", research)[0]
    used(service, model="nightly")
    url = f"{path}?of={research.pk}"
    assert mine.get(url).status_code == 404
    Membership.objects.filter(user=alice, team=research).update(role=Membership.Role.MANAGER)
    assert "nightly" in mine.get(url).text
    assert "nightly" not in mine.get(path).text


@pytest.mark.parametrize("path", ["/usage/", "/usage/calls/"])
def test_key_of_somebody_else_is_not_there(mine: Client, bob: User, research: Team, path: str) -> None:
    other = services.create_key("bobs", research, bob)[0]
    assert mine.get(f"{path}?key={other.public_id}").status_code == 404


def test_one_key_alone(mine: Client, alice: User, research: Team, key: ApiKey) -> None:
    other = services.create_key("other", research, alice)[0]
    used(key, model="gpt-a")
    used(other, model="gpt-b")
    text = mine.get(f"/usage/?key={key.public_id}").text
    assert "gpt-a" in text and "gpt-b" not in text


@pytest.mark.parametrize("query", ["days=x", "measure=y&by=z", "of=", "before=zzz&after=1", "days=9999999999"])
def test_address_that_makes_no_sense_shows_the_usual_page(mine: Client, query: str) -> None:
    assert mine.get(f"/usage/?{query}").status_code == mine.get(f"/usage/calls/?{query}").status_code == 200


@pytest.mark.parametrize("query", ["of=x", "of=0", "key=%00", "of=99999999999999999999999"])
def test_what_is_not_there_is_a_404(mine: Client, query: str) -> None:
    assert mine.get(f"/usage/?{query}").status_code == mine.get(f"/usage/calls/?{query}").status_code == 404


# --- my calls -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"status": 200}, "Answered"),
        ({"status": 429, "error_code": "insufficient_quota", "refused_by": "research: US dollars per month"},
         "A budget has no room for it. See above when it resets, or ask for more. It was: research: US dollars"),
        ({"status": 429, "error_code": "rate_limit_exceeded", "refused_by": "alice"}, "It was: alice."),
        ({"status": 400, "error_code": "policy_violation"}, "A rule of your organisation"),
        ({"status": 404, "error_code": "model_not_found"}, "There is no such model"),
        ({"status": 400}, "The request was not as the API wants it"),
        ({"status": 499, "error_code": "client_disconnected"}, "Your program left"),
        ({"status": 502, "error_code": "upstream_unavailable"}, "The provider could not be reached"),
        ({"status": 418, "error_code": "teapot"}, "The provider refused it (teapot)."),
        ({"status": 0}, "The gateway stopped in the middle."),
        ({"status": 200, "error_code": "policy_violation"}, "Broken off"),
        ({"status": 200, "spent_budget_id": 1, "upstream_model": "tiny"}, "a cheaper model answered: tiny."),
    ],
)  # fmt: skip
def test_call_says_how_it_ended_and_why(mine: Client, key: ApiKey, columns: dict[str, Any], words: str) -> None:
    used(key, **columns)
    assert words in mine.get("/usage/calls/").text


def test_refusal_by_a_policy_says_what_its_rule_says(
    mine: Client, key: ApiKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(key, status=400, error_code="policy_violation")
    monkeypatch.setattr(calls, "_policy_messages", [lambda ids: dict.fromkeys(ids, f"No {MARKER} of clients.")])
    assert f"No {ESCAPED}" in mine.get("/usage/calls/").text


def test_calls_are_paged_by_their_ids(mine: Client, key: ApiKey) -> None:
    for number in range(30):
        add(timezone.now() - timedelta(minutes=30 - number), **owner_of(key), model=f"model-{number:02}")
    first = mine.get("/usage/calls/")
    assert "model-29" in first.text and "model-05" in first.text and "model-04" not in first.text
    older = first.context["older_url"]
    second = mine.get(f"/usage/calls/{older}")
    assert "model-04" in second.text and "model-05" not in second.text
    assert "model-29" in mine.get(f"/usage/calls/{second.context['newer_url']}").text


def test_only_what_was_not_answered(mine: Client, key: ApiKey) -> None:
    used(key, model="good")
    used(key, model="bad", status=502, error_code="upstream_unavailable")
    text = mine.get("/usage/calls/?show=refused").text
    assert "bad" in text and "good" not in text


# --- all of it ------------------------------------------------------------------------------------------------------
def test_pages_take_a_few_queries_however_much_there_is(
    mine: Client, alice: User, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        team = Team.objects.create(name=f"team {number}")
        Membership.objects.create(user=alice, team=team, role=Membership.Role.MANAGER)
        key, _ = services.create_key(f"key {number}", team, alice)
        Budget.objects.create(scope="key", key=key, limit=NANO)
        Budget.objects.create(scope="team", team=team, limit=NANO)
        add(timezone.now(), **owner_of(key), model=f"m{number}", status=400, error_code="policy_violation")
    roll_up_all()
    for path in ("/usage/", "/usage/calls/", "/"):
        with django_assert_max_num_queries(15):
            assert mine.get(path).status_code == 200


def test_names_are_escaped_wherever_they_are_shown(mine: Client, alice: User, research: Team, key: ApiKey) -> None:
    research.name = alice.first_name = key.name = MARKER
    for row in (research, alice, key):
        row.save()
    Budget.objects.create(scope="team", team=research, limit=NANO, model=MARKER)
    Budget.objects.create(scope="key", key=key, limit=NANO, on_exhaustion="fall_back", fallback_model=MARKER)
    Limit.objects.create(scope="team", team=research, max_parallel=1, model=MARKER)
    used(key, model=MARKER, status=429, error_code="insufficient_quota", refused_by=MARKER)
    used(key, model="m", status=418, error_code=MARKER)
    for path in ("/", "/usage/", "/usage/calls/"):
        text = mine.get(path).text
        assert ESCAPED in text and "<script>alert" not in text
