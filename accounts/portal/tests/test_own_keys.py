"""My keys: made within what the team allows, shown once, rotated with an overlap, revoked; and only mine."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import catalogue, services
from accounts.authentication import InvalidKey, check_now
from accounts.models import ApiKey, Membership, Team, User
from accounts.portal import key_budgets, snippets
from accounts.portal.keys import PLAYGROUND
from usage.models import Budget
from usage.pricing import NANO

pytestmark = pytest.mark.django_db
MODELS = ["big", "small"]


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = dict.fromkeys(catalogue._sources, list)
    names = lambda: list(MODELS)  # noqa: E731
    monkeypatch.setattr(
        catalogue, "_sources", {**sources, "models": names, "callable": names, "endpoints": lambda: ["embeddings"]}
    )


@pytest.fixture
def mine(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


def ask(client: Client, team: Team | str, **changed: Any) -> Any:
    """Sends the form for a new key."""
    value = str(team.pk) if isinstance(team, Team) else team
    form = {"name": "laptop", "team": value, "which_models": "all", "expires": "90", "budget_per": "month"}
    return client.post("/keys/new/", {**form, **changed})


def secret_on(page: Any) -> str:
    found = re.search(r"sk-gh-[A-Za-z0-9_-]+", page.text)
    assert found
    return found.group()


def principal_of(secret: str) -> Any:
    return check_now(secret, services.peppers())


# --- making one -----------------------------------------------------------------------------------------------------
def test_key_is_made_for_me_in_my_team_and_works(mine: Client, alice: User, research: Team) -> None:
    page = ask(mine, research, which_models="some", models=["small"], endpoints=["embeddings"])
    principal = principal_of(secret_on(page))
    assert (principal.user_id, principal.team_id) == (alice.pk, research.pk)
    assert (principal.models, principal.endpoints) == ({"small"}, {"embeddings"})
    key = ApiKey.objects.get()
    assert abs((key.expires_at or timezone.now()) - timezone.now() - timedelta(days=90)) < timedelta(minutes=1)


def test_secret_is_on_that_one_page_and_kept_by_nobody(mine: Client, research: Team) -> None:
    page = ask(mine, research)
    secret = secret_on(page)
    assert (page.status_code, "no-store" in page.headers["cache-control"]) == (200, True)
    assert all(secret not in str(value) for value in mine.session.values())
    for path in ("/keys/", f"/keys/{ApiKey.objects.get().public_id}/", "/keys/new/"):
        assert secret not in mine.get(path).text
    assert "no-store" in mine.get("/keys/new/").headers["cache-control"]


def test_form_that_is_sent_again_makes_no_second_key(mine: Client, research: Team) -> None:
    ask(mine, research)
    again = ask(mine, research)
    assert (again.status_code, ApiKey.objects.count()) == (422, 1)
    assert "You already have a key of this name in this team." in again.text


@pytest.mark.parametrize(("expires", "day"), [("never", ""), ("day", "2030-05-01")])
def test_expiry_is_of_my_choice(mine: Client, research: Team, expires: str, day: str) -> None:
    ask(mine, research, expires=expires, expires_on=day)
    assert ApiKey.objects.get().expires_at == (datetime(2030, 5, 2, tzinfo=UTC) if day else None)


def test_personal_team_is_made_with_its_first_key(mine: Client, alice: User) -> None:
    assert ask(mine, "personal").status_code == 200
    assert ApiKey.objects.get().team.personal_of == alice


# --- what is refused ------------------------------------------------------------------------------------------------
def test_no_key_in_a_team_that_i_am_not_in(mine: Client, charlie: User) -> None:
    answer = ask(mine, Team.objects.get(name="sales"))
    assert (answer.status_code, ApiKey.objects.count()) == (422, 0)


def test_no_key_in_a_team_that_is_switched_off(mine: Client, research: Team) -> None:
    research.disabled = True
    research.save()
    assert (ask(mine, research).status_code, ApiKey.objects.count()) == (422, 0)


@pytest.mark.parametrize("whose", ["team", "person"])
def test_no_model_beyond_what_team_and_person_may_use(mine: Client, alice: User, research: Team, whose: str) -> None:
    limited: Any = research if whose == "team" else alice
    limited.models_allowed = ["small"]
    limited.save()
    assert ask(mine, research, which_models="some", models=["small", "big"]).status_code == 422
    assert ApiKey.objects.count() == 0
    assert ask(mine, research, which_models="some", models=["small"]).status_code == 200


def test_model_of_another_of_my_teams_is_not_for_this_one(mine: Client, alice: User, research: Team) -> None:
    research.models_allowed = ["small"]
    research.save()
    Membership.objects.create(user=alice, team=Team.objects.create(name="free"))
    answer = ask(mine, research, which_models="some", models=["big"])
    assert "The team does not allow big." in answer.text
    assert ApiKey.objects.count() == 0


@pytest.mark.parametrize(
    ("per", "usd", "status"),
    [("month", "50", 200), ("month", "50.01", 422), ("day", "50.01", 422), ("total", "80", 200)],
)
def test_budget_stays_within_the_teams(mine: Client, research: Team, per: str, usd: str, status: int) -> None:
    Budget.objects.create(scope="team", team=research, unit="usd", limit=50 * NANO, per="month")
    assert ask(mine, research, budget_usd=usd, budget_per=per).status_code == status
    made = Budget.objects.filter(scope="key").values_list("limit", "per")
    assert list(made) == ([(int(float(usd) * NANO), per)] if status == 200 else [])


def test_key_above_the_threshold_has_to_be_asked_for(
    mine: Client, research: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[int | None, str]] = []
    monkeypatch.setattr(key_budgets, "_needs_request", [lambda *budget: judged.append(budget) or budget[0] is None])
    answer = ask(mine, research)
    assert "has to be asked for" in answer.text
    assert (answer.status_code, ApiKey.objects.count()) == (422, 0)
    assert ask(mine, research, budget_usd="1").status_code == 200
    assert judged == [(None, ""), (NANO, "month")]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": PLAYGROUND.upper()},
        {"which_models": "some"},
        {"which_models": "some", "models": ["no such model"]},
        {"expires": "day"},
        {"expires": "day", "expires_on": "2001-01-01"},
        {"budget_usd": "0"},
        {"budget_usd": "-5"},
        {"budget_usd": "NaN"},
        {"budget_usd": "1", "budget_per": "century"},
        {"endpoints": ["no such endpoint"]},
    ],
)
def test_form_that_makes_no_sense_makes_no_key(mine: Client, research: Team, changed: dict[str, Any]) -> None:
    assert (ask(mine, research, **changed).status_code, ApiKey.objects.count()) == (422, 0)


# --- what becomes of it ---------------------------------------------------------------------------------------------
@pytest.fixture
def made(alice: User, research: Team) -> tuple[ApiKey, str]:
    return services.create_key("editor", research, alice)


def generation_on(page: Any) -> str:
    found = re.search(r'name="generation" value="([0-9a-f]+)"', page.text)
    assert found
    return found.group(1)


def test_rotated_key_has_a_new_secret_and_the_old_one_works_for_a_while(mine: Client, made: tuple[ApiKey, str]) -> None:
    key, old = made
    url = f"/keys/{key.public_id}/rotate/"
    page = mine.post(url, {"overlap": "hour", "generation": generation_on(mine.get(url))})
    new = secret_on(page)
    assert new != old
    assert principal_of(new).key_id == principal_of(old).key_id == key.pk
    assert "no-store" in page.headers["cache-control"]


def test_rotation_that_is_sent_again_does_not_rotate_again(mine: Client, made: tuple[ApiKey, str]) -> None:
    url = f"/keys/{made[0].public_id}/rotate/"
    form = {"overlap": "now", "generation": generation_on(mine.get(url))}
    new = secret_on(mine.post(url, form))
    assert mine.post(url, form).status_code == 302
    assert principal_of(new)


def test_revoked_key_is_refused_and_stays_so(mine: Client, made: tuple[ApiKey, str]) -> None:
    key, secret = made
    assert mine.get(f"/keys/{key.public_id}/revoke/").status_code == 200
    assert principal_of(secret)  # only asked
    mine.post(f"/keys/{key.public_id}/revoke/")
    with pytest.raises(InvalidKey):
        principal_of(secret)
    assert mine.get(f"/keys/{key.public_id}/rotate/").status_code == 302
    assert "Revoked" in mine.get("/keys/").text


@pytest.mark.parametrize("page", ["", "rotate/", "revoke/"])
def test_key_of_somebody_else_is_not_there(mine: Client, bob: User, research: Team, page: str) -> None:
    key, secret = services.create_key("bobs", research, bob)
    for send in (mine.get, mine.post):
        answer = send(f"/keys/{key.public_id}/{page}", {"overlap": "now", "generation": "0"})
        assert answer.status_code in (404, 405)
    assert "bobs" not in mine.get("/keys/").text
    assert principal_of(secret)


@pytest.mark.parametrize("page", ["", "new/", "abc/", "abc/rotate/", "abc/revoke/"])
def test_pages_need_somebody_signed_in(client: Client, page: str) -> None:
    assert client.get(f"/keys/{page}").status_code == 302


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "Its time is over"),
        ({"disabled": True}, "It was switched off"),
        ({"previous_until": datetime(2100, 1, 1, tzinfo=UTC)}, "the one before still does"),
    ],
)
def test_state_is_explained(mine: Client, made: tuple[ApiKey, str], change: dict[str, Any], words: str) -> None:
    key = made[0]
    for name, value in change.items():
        setattr(key, name, value)
    key.save()
    assert words in mine.get(f"/keys/{key.public_id}/").text


def test_key_of_a_team_that_i_left_says_so(mine: Client, alice: User, made: tuple[ApiKey, str]) -> None:
    Membership.objects.filter(user=alice).delete()
    assert "You are no longer in this team" in mine.get("/keys/").text


def test_list_takes_a_few_queries_however_many_keys(
    mine: Client, alice: User, research: Team, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        key, _ = services.create_key(f"key {number}", research, alice)
        Budget.objects.create(scope="key", key=key, limit=NANO)
    with django_assert_max_num_queries(15):
        page = mine.get("/keys/")
    assert page.text.count("$1.00 left of $1.00 a month") == 30


def test_form_takes_a_few_queries_however_many_teams(
    mine: Client, alice: User, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        Membership.objects.create(user=alice, team=Team.objects.create(name=f"team {number}"))
    with django_assert_max_num_queries(15):
        assert "team 29" in mine.get("/keys/new/").text


# --- snippets -------------------------------------------------------------------------------------------------------
def test_snippets_have_the_address_the_key_and_a_model(mine: Client, research: Team, settings: Any) -> None:
    settings.PUBLIC_URL = "https://llm.example.org"
    research.models_allowed = ["small"]
    research.save()
    text = ask(mine, research).text
    assert text.count("https://llm.example.org/v1") >= 6
    assert "small" in text and "big" not in text


def test_every_tool_is_shown_as_the_gateway_can_serve_it() -> None:
    known = {snippet.id: snippet for snippet in snippets.snippets("https://x/v1", "sk-1", "m", [])}
    assert list(known) == ["curl", "python", "javascript", "langchain", "claude-code", "codex"]
    assert not known["claude-code"].code and 'wire_api = "chat"' in known["codex"].code
    served = {one.id: one.code for one in snippets.snippets("https://x/v1", "sk-1", "m", ["messages", "responses"])}
    assert 'ANTHROPIC_BASE_URL="https://x"' in served["claude-code"] and 'wire_api = "responses"' in served["codex"]
    assert not re.search(r"<\w+>", "".join(served.values()))


def test_name_is_escaped_wherever_it_is_shown(mine: Client, alice: User, research: Team) -> None:
    marker = "<script>alert(1)</script>\"'"
    page = ask(mine, research, name=marker)
    key = ApiKey.objects.get()
    research.name = marker
    research.save()
    pages = [page, ask(mine, research, name=marker)]
    pages += [
        mine.get(f"/keys/{path}")
        for path in ("", "new/", *(f"{key.public_id}/{end}" for end in ("", "rotate/", "revoke/")))
    ]
    for shown in pages:
        assert "<script>alert" not in shown.text
        assert "&lt;script&gt;alert" in shown.text
