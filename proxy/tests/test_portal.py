"""Models and playground in the portal: what a person may use and what it costs them, and a key that is lent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.authentication import InvalidKey, check_now
from accounts.models import ApiKey, Membership, Team, User
from accounts.portal import key_budgets
from accounts.portal.keys import PLAYGROUND
from accounts.services import peppers, revoke_key
from proxy.models import Model, Provider, Route
from usage.models import Budget, ModelPrice
from usage.pricing import NANO

pytestmark = pytest.mark.django_db
MARKER = "<script>alert(1)</script>\"'"


def offer(name: str, kind: str = "vllm", **fields: Any) -> Model:
    provider, _ = Provider.objects.get_or_create(name=f"p-{kind}", kind=kind)
    model = Model.objects.create(name=name, **fields)
    Route.objects.create(model=model, provider=provider)
    return model


def price(model: str, usd: int, team: Team | None = None) -> None:
    ModelPrice.objects.create(
        model=model,
        team=team,
        valid_from=timezone.now() - timedelta(days=1),
        input_nano_usd_per_mtok=usd * NANO,
        output_nano_usd_per_mtok=2 * usd * NANO,
    )


@pytest.fixture
def mine(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


# --- models ---------------------------------------------------------------------------------------------------------
def test_models_are_those_that_one_of_my_teams_allows(mine: Client, alice: User, research: Team) -> None:
    for name in ("allowed", "forbidden", "beyond-me"):
        offer(name)
    offer("switched-off", enabled=False)
    Model.objects.create(name="without-a-route")
    research.models_allowed = ["allowed", "beyond-me", "switched-off", "without-a-route"]
    alice.models_allowed = ["allowed", "forbidden", "switched-off", "without-a-route"]
    research.save()
    alice.save()
    Team.objects.create(name="mine", personal_of=alice, models_allowed=[])
    assert [row.name for row in mine.get("/my-models/").context["rows"]] == ["allowed"]


def test_model_says_which_of_my_teams_allow_it(mine: Client, alice: User, research: Team) -> None:
    offer("shared")
    closed = Team.objects.create(name="closed", models_allowed=[])
    Membership.objects.create(user=alice, team=closed)
    assert mine.get("/my-models/").context["rows"][0].teams == ["research", "Just me (personal)"]


def test_price_is_that_of_my_team_where_it_has_its_own(mine: Client, research: Team) -> None:
    offer("priced", context_window=128_000)
    price("priced", 3)
    price("priced", 1, research)
    price("priced", 9, Team.objects.create(name="others"))
    rows = mine.get("/my-models/").context["rows"][0].prices
    assert [(row.teams, row.input, row.output) for row in rows] == [
        ("", "$3.00", "$6.00"),
        ("research", "$1.00", "$2.00"),
    ]
    assert "128,000" in mine.get("/my-models/").text


def test_price_that_nobody_knows_is_said_so(mine: Client) -> None:
    offer("own-server")
    offer("echo", kind="echo")
    rows = {row.name: row.prices for row in mine.get("/my-models/").context["rows"]}
    assert rows["own-server"] == []
    assert rows["echo"][0].input == "$0.00"


@pytest.mark.parametrize(
    ("term", "found"), [("GPT", ["gpt-one", "gpt-two"]), ("cheap gpt", ["gpt-two"]), ("nick", ["gpt-one"]), ("%", [])]
)
def test_models_are_searched_by_all_their_words(mine: Client, term: str, found: list[str]) -> None:
    offer("gpt-one", aliases=["nickname"])
    offer("gpt-two", description="Cheap and good")
    page = mine.get("/my-models/", {"q": term})
    assert [row.name for row in page.context["rows"]] == found
    assert found or "No model fits" in page.text


def test_without_a_model_the_page_says_what_to_do(mine: Client) -> None:
    for path in ("/my-models/", "/playground/"):
        assert "There is no model for you yet" in mine.get(path).text


def test_pages_take_a_few_queries_however_many_models(
    mine: Client, alice: User, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        offer(f"model-{number}")
        price(f"model-{number}", 1)
        Membership.objects.create(user=alice, team=Team.objects.create(name=f"team {number}"))
    for path in ("/my-models/", "/playground/"):
        with django_assert_max_num_queries(15):
            assert "model-19" in mine.get(path).text


@pytest.mark.parametrize("path", ["/my-models/", "/playground/"])
def test_texts_are_escaped(mine: Client, research: Team, path: str) -> None:
    offer("m", description=MARKER)
    research.name = MARKER
    research.save()
    text = mine.get(path, {"q": "m", "model": MARKER}).text
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert "<script>alert" not in mine.get(path, {"q": MARKER}).text


# --- the playground's key -------------------------------------------------------------------------------------------
def lend(client: Client, team: Team | str) -> Any:
    return client.post("/playground/key/", {"team": str(team.pk) if isinstance(team, Team) else team})


def test_key_is_lent_for_a_quarter_of_an_hour(mine: Client, alice: User, research: Team) -> None:
    answer = lend(mine, research)
    principal = check_now(answer.json()["key"], peppers())
    assert (principal.user_id, principal.team_id) == (alice.pk, research.pk)
    assert principal.endpoints == frozenset({"chat/completions"})
    assert principal.expires_at is not None
    assert abs(principal.expires_at - timezone.now().timestamp() - 900) < 60
    assert "no-store" in answer.headers["cache-control"]


def test_key_is_one_for_each_person_and_team_and_not_among_mine(mine: Client, research: Team) -> None:
    given = [lend(mine, research).json() for _ in range(2)]
    assert [one["live_in_s"] > 0 for one in given] == [False, True]
    first, second = (one["key"] for one in given)
    assert first != second
    assert check_now(first, peppers()) == check_now(second, peppers())
    assert ApiKey.objects.count() == 1
    assert PLAYGROUND not in mine.get("/keys/").text


def test_key_of_long_ago_no_longer_works(mine: Client, research: Team) -> None:
    secret = lend(mine, research).json()["key"]
    key = ApiKey.objects.get()
    key.expires_at = timezone.now()
    key.save()
    with pytest.raises(InvalidKey):
        check_now(secret, peppers())
    assert lend(mine, research).status_code == 200


def test_no_key_in_a_team_that_is_not_mine(mine: Client, charlie: User) -> None:
    answer = lend(mine, Team.objects.get(name="sales"))
    assert (answer.status_code, ApiKey.objects.count()) == (403, 0)
    assert answer.json() == {"error": "You are not in this team, or it is switched off."}


def test_key_that_was_switched_off_stays_so(mine: Client, research: Team) -> None:
    lend(mine, research)
    revoke_key(ApiKey.objects.get())
    assert lend(mine, research).status_code == 403


def test_key_may_spend_no_more_than_one_that_nobody_has_to_ask_for(
    mine: Client, research: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_budgets, "_free_amount", [lambda: 5 * NANO])
    lend(mine, research)
    lend(mine, research)
    assert list(Budget.objects.values_list("scope", "limit", "per")) == [("key", 5 * NANO, "month")]


def test_key_is_lent_by_post_alone_and_with_a_token(alice: User, research: Team) -> None:
    client = Client(enforce_csrf_checks=True)
    assert lend(client, research).status_code == 403
    client.force_login(alice)
    assert lend(client, research).status_code == 403
    assert client.get("/playground/key/").status_code == 405
    assert ApiKey.objects.count() == 0
