"""What budgets, top-ups, rate limits and the settings of money may be, and that the gateway hears of every change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import reset_tzpath

import pytest
from django.core.exceptions import ValidationError

from accounts import catalogue, versions
from accounts.models import ApiKey, Team, User
from accounts.services import create_key
from usage import budgets
from usage.budgets import MOST, money_settings, save_budget, save_limit, save_money_settings, top_up
from usage.models import Budget, Limit, MoneySettings, TopUp
from usage.pricing import NANO
from usage.windows import zone_of

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue._sources, "models", lambda: ["gpt", "gpt-mini"])


@pytest.fixture
def key(research: Team, alice: User) -> ApiKey:
    return create_key("laptop", research, alice)[0]


def budget(**fields: Any) -> Budget:
    return Budget(**{"scope": "installation", "limit": 10 * NANO, "per": "day", **fields})


def saved(**fields: Any) -> Budget:
    row = budget(**fields)
    save_budget(row)
    return row


def check_wrong(save: Any, row: Any, field: str, words: str) -> None:
    """Refused because of this field alone, and nothing is written."""
    before = type(row).objects.count()
    with pytest.raises(ValidationError) as caught:
        save(row)
    assert list(caught.value.message_dict) == [field]
    assert words in " ".join(caught.value.message_dict[field])
    assert type(row).objects.count() == before


def version() -> int:
    return versions.current().get(versions.LIMITS, 0)


# --- whose calls ----------------------------------------------------------------------------------------------------
def test_budget_is_for_what_its_scope_names(research: Team, alice: User, key: ApiKey) -> None:
    rows = [
        saved(),
        saved(scope="team", team=research),
        saved(scope="user", user=alice),
        saved(scope="key", key=key, model="gpt"),
    ]
    assert [row.owner_id for row in rows] == [None, research.pk, alice.pk, key.pk]


@pytest.mark.parametrize("scope", ["team", "user", "key"])
def test_budget_of_nobody_is_refused(scope: str) -> None:
    check_wrong(save_budget, budget(scope=scope), scope, "Choose whose calls count")


def test_second_owner_is_refused(research: Team, alice: User) -> None:
    check_wrong(save_budget, budget(scope="team", team=research, user=alice), "user", "Must be empty")
    check_wrong(save_limit, Limit(scope="client_ip", team=research, requests_per_minute=1), "team", "Must be empty")


def test_budget_for_an_unknown_model_is_refused() -> None:
    check_wrong(save_budget, budget(model="gtp"), "model", "There is no model 'gtp'")


def test_model_that_is_gone_does_not_keep_a_budget_from_being_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = saved(model="gpt", on_exhaustion="fall_back", fallback_model="gpt-mini")
    monkeypatch.setitem(catalogue._sources, "models", list)
    row.limit = 5 * NANO
    save_budget(row)
    assert Budget.objects.get().limit == 5 * NANO


@pytest.mark.parametrize("change", [{"scope": "user"}, {"model": "gpt"}])
def test_whose_calls_count_cannot_be_changed(research: Team, alice: User, change: dict[str, Any]) -> None:
    row = saved(scope="team", team=research)
    if change == {"scope": "user"}:
        change = {"scope": "user", "team": None, "user": alice}
    for name, value in change.items():
        setattr(row, name, value)
    check_wrong(save_budget, row, "scope", "make another one instead")


def test_unit_cannot_be_changed() -> None:
    row = saved()
    row.unit = "tokens"
    check_wrong(save_budget, row, "unit", "make another budget instead")


# --- amounts and windows --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "wrong", "words"),
    [
        ({"limit": -1}, "limit", "Must be between 0 and $1,000,000,000"),
        ({"limit": MOST[Budget.Unit.USD] + 1}, "limit", "Must be between"),
        ({"limit": 10**15 + 1, "unit": "tokens"}, "limit", "1,000,000,000,000,000 tokens"),
        ({"soft": 0}, "soft", "less than the limit"),
        ({"soft": 10 * NANO}, "soft", "less than the limit"),
        ({"timezone": "Mars/Olympus"}, "timezone", "'Mars/Olympus' is no time zone"),
        ({"timezone": "../etc/passwd"}, "timezone", "is no time zone"),
        ({"per": "year"}, "per", "not a valid choice"),
    ],
    ids=str,
)
def test_budget_that_makes_no_sense_is_refused(fields: dict[str, Any], wrong: str, words: str) -> None:
    check_wrong(save_budget, budget(**fields), wrong, words)


@pytest.mark.parametrize("name", ["localtime", "posixrules", "right/Europe/Berlin"])
def test_time_zone_that_is_another_on_each_machine_is_none(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(resources.files("tzdata.zoneinfo").joinpath("UTC").read_bytes())
    reset_tzpath([tmp_path])
    try:
        assert zone_of(name)
        check_wrong(save_budget, budget(timezone=name), "timezone", f"'{name}' is no time zone")
    finally:
        reset_tzpath()
        zone_of.cache_clear()


def test_budget_of_nothing_is_possible() -> None:
    assert saved(limit=0).limit == 0


# --- when it is spent -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Name the model"),
        ({"fallback_model": "gtp"}, "There is no model 'gtp'"),
        ({"fallback_model": "gpt", "model": "gpt"}, "the model of this budget itself"),
    ],
    ids=str,
)
def test_cheaper_model_must_be_another_one_that_exists(fields: dict[str, Any], words: str) -> None:
    check_wrong(save_budget, budget(on_exhaustion="fall_back", **fields), "fallback_model", words)


def test_budget_that_refuses_names_no_cheaper_model() -> None:
    assert saved(on_exhaustion="refuse", fallback_model="gpt").fallback_model == ""


# --- top-ups --------------------------------------------------------------------------------------------------------
def test_top_up_is_for_the_window_of_its_moment(admin_user: User) -> None:
    row = saved(timezone="Europe/Berlin")
    given = top_up(row, 5 * NANO, " a demo ", admin_user, at=NOON)
    assert given.window_start == datetime(2026, 11, 19, 23, tzinfo=UTC)
    assert (given.amount, given.reason, given.by, given.budget) == (5 * NANO, "a demo", admin_user, row)


def test_top_up_can_be_taken_back_down_to_nothing() -> None:
    row = saved()
    top_up(row, 5 * NANO, "a demo", None, at=NOON)
    top_up(row, -15 * NANO, "was a mistake", None, at=NOON)
    with pytest.raises(ValidationError, match=r"Takes more than there is: \$0 at most"):
        top_up(row, -1, "more", None, at=NOON)


def test_top_up_of_another_window_is_not_there_to_be_taken() -> None:
    row = saved()
    top_up(row, 5 * NANO, "a demo", None, at=NOON - timedelta(days=1))
    top_up(row, 5 * NANO, "a demo", None, at=NOON + timedelta(days=1))
    with pytest.raises(ValidationError, match=r"\$10 at most"):
        top_up(row, -11 * NANO, "too much", None, at=NOON)


@pytest.mark.parametrize(
    ("amount", "reason", "field"),
    [(0, "why", "amount"), (1, "", "reason"), (1, " ", "reason"), (MOST[Budget.Unit.USD], "why", "amount")],
    ids=str,
)
def test_top_up_that_makes_no_sense_is_refused(amount: int, reason: str, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        top_up(saved(), amount, reason, None)
    assert list(caught.value.message_dict) == [field]
    assert not TopUp.objects.exists()


# --- rate limits ----------------------------------------------------------------------------------------------------
def test_limit_that_limits_nothing_is_refused() -> None:
    check_wrong(save_limit, Limit(scope="installation"), "requests_per_minute", "at least one of the three")


@pytest.mark.parametrize("rate", [0, 2**31])
def test_rate_no_ledger_can_hold_is_refused(rate: int) -> None:
    check_wrong(save_limit, Limit(scope="installation", tokens_per_minute=rate), "tokens_per_minute", "between 1 and")


@pytest.mark.parametrize("fields", [{}, {"scope": "client_ip"}, {"model": "gpt"}], ids=str)
def test_second_limit_for_the_same_is_refused(fields: dict[str, Any]) -> None:
    wanted = {"scope": "installation", "requests_per_minute": 60, **fields}
    save_limit(Limit(**wanted))
    check_wrong(save_limit, Limit(**wanted), "scope", "There is a limit for this already")


def test_limits_of_team_and_client_ips_stand_side_by_side(research: Team) -> None:
    save_limit(Limit(scope="team", team=research, requests_per_minute=600))
    save_limit(Limit(scope="team", team=research, model="gpt", requests_per_minute=60))
    save_limit(Limit(scope="client_ip", requests_per_minute=30, max_parallel=2))
    assert Limit.objects.count() == 3


# --- the settings of money ------------------------------------------------------------------------------------------
def test_settings_are_there_before_anybody_saved_them() -> None:
    assert (money_settings().timezone, money_settings().default_max_tokens) == ("UTC", 4096)


def test_settings_stay_one_row() -> None:
    for zone in ("Europe/Berlin", "Asia/Tokyo"):
        row = money_settings()
        row.timezone = zone
        save_money_settings(row)
    assert list(MoneySettings.objects.values_list("timezone", flat=True)) == ["Asia/Tokyo"]


def test_currency_is_written_in_capitals() -> None:
    row = MoneySettings(currency="eur", units_per_usd=Decimal("0.92"))
    save_money_settings(row)
    assert money_settings().currency == "EUR"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"timezone": "Berlin"}, "timezone"),
        ({"timezone": ""}, "timezone"),
        ({"currency": "EURO"}, "currency"),
        ({"currency": "12 "}, "currency"),
        ({"currency": "EUR", "units_per_usd": Decimal(0)}, "units_per_usd"),
        ({"currency": "USD", "units_per_usd": Decimal("0.9")}, "units_per_usd"),
        ({"throttle_s": 0}, "throttle_s"),
        ({"default_max_tokens": 0}, "default_max_tokens"),
        ({"events_kept_days": 0}, "events_kept_days"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError) as caught:
        save_money_settings(MoneySettings(**fields))
    assert list(caught.value.message_dict) == [wrong]


# --- live -----------------------------------------------------------------------------------------------------------
def test_every_change_is_told_to_the_gateway_whoever_makes_it(research: Team) -> None:
    def told(change: Any) -> bool:
        before = version()
        change()
        return version() > before

    row = saved(scope="team", team=research)
    assert told(lambda: saved(scope="team", team=research, per="month"))
    assert told(row.save)
    assert told(lambda: top_up(row, NANO, "a demo", None))
    assert told(lambda: save_limit(Limit(scope="team", team=research, max_parallel=3)))
    assert told(lambda: save_money_settings(money_settings()))
    assert told(lambda: Limit.objects.all().delete())
    assert told(research.delete)
    assert not Budget.objects.exists()


def test_refused_change_is_not_told() -> None:
    row = saved()
    before = version()
    with pytest.raises(ValidationError):
        budgets.top_up(row, 0, "why", None)
    assert version() == before
