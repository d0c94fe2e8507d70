from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import catalogue
from accounts.forms import ApiKeyForm, NewApiKeyForm, RotateForm, TeamForm
from accounts.models import ApiKey, Team, User
from accounts.services import create_key, personal_team

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_sources", {"models": lambda: ["gpt-a", "gpt-b"], "endpoints": lambda: ["models"]})


def team_form(team: Team | None = None, **data: Any) -> TeamForm:
    return TeamForm(data={"name": "research", **data}, instance=team)


# --- allow-lists ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "stored"),
    [
        ({"models_allowed_0": "every"}, None),
        ({"models_allowed_0": "every", "models_allowed_1": ["gpt-a"]}, None),
        ({"models_allowed_0": "some", "models_allowed_1": ["gpt-a"]}, ["gpt-a"]),
        ({"models_allowed_0": "some"}, []),
    ],
)
def test_allow_list_is_everything_or_only_what_was_chosen(data: dict[str, Any], stored: list[str] | None) -> None:
    form = team_form(**data)
    assert form.is_valid(), form.errors
    assert form.save().models_allowed == stored


def test_allow_list_missing_in_the_answer_does_not_open_it() -> None:
    assert "models_allowed" in team_form(Team(models_allowed=["gpt-a"])).errors


def test_name_that_is_not_offered_cannot_be_chosen() -> None:
    assert "models_allowed" in team_form(models_allowed_0="some", models_allowed_1=["unknown"]).errors


def test_name_that_is_gone_stays_choosable_where_it_is_stored() -> None:
    team = Team(name="research", models_allowed=["gone"])
    assert "gone (no longer here)" in str(TeamForm(instance=team))
    assert "gone" not in str(TeamForm())
    assert team_form(team, models_allowed_0="some", models_allowed_1=["gone"]).is_valid()


def test_new_name_is_offered_at_the_next_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue._sources, "models", lambda: ["brand-new"])
    assert "brand-new" in str(TeamForm())


def test_stored_list_is_shown_as_chosen() -> None:
    form = TeamForm(instance=Team(models_allowed=["gpt-b"]))
    assert form["models_allowed"].value() == ["some", ["gpt-b"]]
    assert 'value="gpt-b" selected' in str(form)


def test_unchanged_list_is_not_a_change() -> None:
    team = Team(name="research", models_allowed=["gpt-b"])
    assert not team_form(team, models_allowed_0="some", models_allowed_1=["gpt-b"]).has_changed()


# --- keys -----------------------------------------------------------------------------------------------------------
def key_form(**data: Any) -> NewApiKeyForm:
    return NewApiKeyForm(data={"name": "app", "models_allowed_0": "every", "endpoints_allowed_0": "every", **data})


def test_key_needs_an_owner_or_a_team(research: Team) -> None:
    assert "Choose an owner, or a team" in key_form().errors["__all__"][0]
    assert key_form(team=research.pk).is_valid()


def test_owner_must_be_in_the_team(research: Team, alice: User, charlie: User) -> None:
    assert key_form(team=research.pk, user=alice.pk).is_valid()
    assert "not in the team" in key_form(team=research.pk, user=charlie.pk).errors["user"][0]


def test_owner_without_a_team_means_their_personal_one(alice: User) -> None:
    assert key_form(user=alice.pk).is_valid()


def test_name_is_taken_once_for_an_owner_and_team(alice: User, research: Team) -> None:
    create_key("app", personal_team(alice), alice)
    create_key("service", research)
    assert "already a key of this name" in key_form(user=alice.pk).errors["name"][0]
    assert "name" in key_form(name="service", team=research.pk).errors
    assert key_form(user=alice.pk, team=research.pk).is_valid()


def test_expiry_must_be_in_the_future(research: Team) -> None:
    assert "has passed" in key_form(team=research.pk, expires_at="2020-01-01 00:00").errors["expires_at"][0]


def test_expired_key_can_still_be_renamed(research: Team) -> None:
    key, _ = create_key("app", research)
    key.expires_at = timezone.now().replace(microsecond=0) - timedelta(days=1)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=key.expires_at)
    data = {
        "name": "renamed",
        "team": research.pk,
        "expires_at": key.expires_at.strftime("%Y-%m-%d %H:%M:%S"),
        "models_allowed_0": "every",
        "endpoints_allowed_0": "every",
    }
    form = ApiKeyForm(data=data, instance=key)
    assert form.is_valid(), form.errors


# --- rotation -------------------------------------------------------------------------------------------------------
def rotate_form(**data: Any) -> RotateForm:
    form = RotateForm({"generation": "g", **data})
    form.is_valid()
    return form


@pytest.mark.parametrize(("choice", "hours"), [("now", 0), ("hour", 1), ("day", 24), ("week", 168)])
def test_overlap_is_one_of_the_usual_ones(choice: str, hours: int) -> None:
    assert rotate_form(overlap=choice).overlap_from_now() == timedelta(hours=hours)


def test_overlap_ends_at_a_time_of_choice() -> None:
    until = timezone.localtime() + timedelta(days=30)
    form = rotate_form(overlap="until", until_0=until.strftime("%Y-%m-%d"), until_1=until.strftime("%H:%M:%S"))
    assert form.errors == {}
    assert timedelta(days=29, hours=23) < form.overlap_from_now() <= timedelta(days=30)


@pytest.mark.parametrize("until", [None, "2020-01-01", "2999-01-01"])
def test_time_of_choice_must_be_soon_and_not_past(until: str | None) -> None:
    time = {"until_0": until, "until_1": "12:00"} if until else {}
    assert "until" in rotate_form(overlap="until", **time).errors


# --- networks -------------------------------------------------------------------------------------------------------
EVERY_MODEL = {"models_allowed_0": "every"}


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("", None),
        (" \r\n", None),
        ("192.0.2.9/24\r\n\r\n2001:db8::1", ["192.0.2.0/24", "2001:db8::1"]),
        ("10.0.0.1, 10.0.0.2", ["10.0.0.1", "10.0.0.2"]),
    ],
)
def test_networks_are_typed_one_on_a_line(typed: str, stored: list[str] | None) -> None:
    form = team_form(**EVERY_MODEL, networks_allowed=typed)
    assert form.is_valid(), form.errors
    assert form.save().networks_allowed == stored


def test_network_that_is_none_is_named() -> None:
    errors = team_form(**EVERY_MODEL, networks_allowed="192.0.2.0/24\nhome").errors
    assert "“home” is neither an address nor a network" in errors["networks_allowed"][0]


def test_networks_come_back_as_they_were_typed() -> None:
    team = Team(name="research", networks_allowed=["192.0.2.0/24", "2001:db8::1"])
    assert "192.0.2.0/24\n2001:db8::1</textarea>" in str(TeamForm(instance=team))


def test_networks_written_otherwise_are_no_change() -> None:
    team = Team(name="research", networks_allowed=["192.0.2.0/24"])
    assert "networks_allowed" not in team_form(team, **EVERY_MODEL, networks_allowed="192.0.2.7/24").changed_data
