"""What is worth an alert: budgets, error rate, latency, providers, blocked keys, failed sign-ins, keys that expire."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.test import Client, RequestFactory
from django.urls import reverse

from accounts.models import ApiKey, Team, User
from accounts.services import create_key
from usage import rollups
from usage.alert_models import Alert, SignInFailures
from usage.alerts import sign_ins, sources, traffic
from usage.alerts.sources import BlockedKey
from usage.models import Budget, TopUp
from usage.tests.alerts import MINUTE, found, rule
from usage.tests.events import NOON, add

pytestmark = pytest.mark.django_db

USD = 10**9


@pytest.fixture(autouse=True)
def nobody_lends_anything() -> Iterator[None]:
    before = sources._repeated_blocks
    sources.set_repeated_blocks(None)
    yield
    sources.set_repeated_blocks(before)


def calls(count: int, *, at: Any = NOON, **changed: Any) -> None:
    add(at, count, **changed)
    rollups.roll_up()


def failures(count: int, **changed: Any) -> None:
    calls(count, **({"status": 504, "error_code": "upstream_timeout"} | changed))


# --- budgets ---------------------------------------------------------------------------------------------------------
def budget(team: Team, **changed: Any) -> Budget:
    return Budget.objects.create(**({"scope": "team", "team": team, "limit": USD, "per": "month"} | changed))


def spend(team: Team, usd_cents: int, at: Any = NOON, **changed: Any) -> None:
    calls(1, at=at, team_id=team.pk, cost_nano_usd=usd_cents * USD // 100, **changed)


A_MONTH = "the budget of $1.00 a month"


def test_budget_fires_at_each_share_once(research: Team) -> None:
    rule("budget")
    budget(research)
    spend(research, 49)
    assert found() == []
    spend(research, 1)
    assert found() == [f"Team research: 50 % of {A_MONTH} is used"]
    spend(research, 35)
    assert found(NOON + MINUTE)[1:] == [f"Team research: 80 % of {A_MONTH} is used"]
    spend(research, 15)
    spend(research, 15)
    assert found(NOON + 2 * MINUTE)[2:] == [f"Team research: 100 % of {A_MONTH} is used"]
    assert [alert.severity for alert in Alert.objects.order_by("pk")] == ["info", "warning", "critical"]
    assert len(found(NOON + 5 * MINUTE)) == 3


def test_alert_of_a_budget_says_how_much_of_what_until_when(research: Team) -> None:
    rule("budget", thresholds=[50], soft=False)
    spent = budget(research)
    spend(research, 60)
    found()
    alert = Alert.objects.get()
    assert alert.text == "$0.60 of $1.00, 60 %, from 2026-11-01 00:00 to 2026-12-01 00:00 UTC."
    assert alert.facts == {
        "budget_id": spent.pk, "scope": "team", "owner": "research", "model": "", "unit": "nano_usd",
        "threshold_percent": 50, "spent": 600_000_000, "limit": USD, "soft": None, "per": "month",
        "window_start": "2026-11-01T00:00:00+00:00", "window_end": "2026-12-01T00:00:00+00:00",
    }  # fmt: skip


def test_next_window_of_a_budget_fires_anew(research: Team) -> None:
    rule("budget", thresholds=[50])
    budget(research, per="day")
    for day in range(2):
        spend(research, 60, at=NOON + timedelta(days=day))
        found(NOON + timedelta(days=day))
    assert list(Alert.objects.order_by("pk").values_list("subject", "resolved_at")) == [
        (f"budget {Budget.objects.get().pk} window 2026-11-20T00:00 limit 1000000000 50 %", NOON + timedelta(days=1)),
        (f"budget {Budget.objects.get().pk} window 2026-11-21T00:00 limit 1000000000 50 %", None),
    ]


def topped_up(spent: Budget, usd_cents: int, at: Any = NOON) -> None:
    first = NOON.replace(day=1, hour=0)
    TopUp.objects.create(budget=spent, amount=usd_cents * USD // 100, window_start=first, reason="more", at=at)


def test_shares_of_what_a_top_up_has_added_fire_too(research: Team) -> None:
    rule("budget", thresholds=[80, 100])
    spent = budget(research)
    spend(research, 100)
    found()
    topped_up(spent, 100)
    assert len(found(NOON + MINUTE)) == 1
    assert Alert.objects.get().resolved_at == NOON + MINUTE
    spend(research, 70)
    assert found(NOON + 2 * MINUTE)[1:] == ["Team research: 80 % of the budget of $2.00 a month is used"]
    spend(research, 30)
    assert found(NOON + 3 * MINUTE)[2:] == ["Team research: 100 % of the budget of $2.00 a month is used"]


def test_top_up_that_is_taken_back_brings_no_second_alert(research: Team) -> None:
    rule("budget", thresholds=[80])
    spent = budget(research)
    spend(research, 90)
    found()
    for amount in (100, -100):
        topped_up(spent, amount)
        assert len(found()) == 1


def test_of_shares_that_are_reached_at_once_only_the_highest_is_told(research: Team) -> None:
    rule("budget", thresholds=[50, 80, 90, 100])
    spent = budget(research)
    spend(research, 98)
    assert found() == [f"Team research: 90 % of {A_MONTH} is used"]
    without_room(spent)
    assert found(NOON + MINUTE)[1:] == [f"Team research: {A_MONTH} is exhausted"]
    assert Alert.objects.filter(resolved_at=None).count() == 1


def test_budgets_of_one_owner_are_told_apart(research: Team) -> None:
    rule("budget", thresholds=[80])
    for per in ("day", "week", "total"):
        budget(research, per=per, counts_from=NOON - timedelta(days=1))
    spend(research, 80)
    assert found() == [
        "Team research: 80 % of the budget of $1.00 a day is used",
        "Team research: 80 % of the budget of $1.00 a week is used",
        "Team research: 80 % of the budget of $1.00 in total is used",
    ]


def test_budget_of_tokens_fires_in_tokens(research: Team) -> None:
    rule("budget", thresholds=[100])
    budget(research, unit="tokens", limit=120)
    calls(1, team_id=research.pk)
    found()
    assert Alert.objects.get().text.startswith("120 tokens of 120 tokens, 100 %,")
    assert Alert.objects.get().text.endswith("Its calls are refused.")


def test_soft_limit_fires_where_the_rule_wants_it(research: Team) -> None:
    rule("budget", thresholds=[])
    budget(research, soft=USD // 4)
    spend(research, 30)
    assert found() == [f"Team research: the soft limit of {A_MONTH} is reached"]
    assert "The soft limit is $0.25." in Alert.objects.get().text
    rule("budget", thresholds=[], soft=False)
    Alert.objects.all().delete()
    assert found() == []


def without_room(refused_by: Budget, at: Any = NOON, **changed: Any) -> None:
    kept_out = {"status": 429, "error_code": "insufficient_quota", "attempts": 0, "cost_nano_usd": 0}
    calls(1, at=at, spent_budget_id=refused_by.pk, **(kept_out | changed))


def test_budget_without_room_for_another_call_is_exhausted_once(research: Team) -> None:
    rule("budget", thresholds=[100])
    nearly_spent = budget(research)
    spend(research, 99)
    assert found() == []
    without_room(nearly_spent)
    assert found() == [f"Team research: {A_MONTH} is exhausted"]
    alert = Alert.objects.get()
    assert (alert.severity, alert.facts["threshold_percent"], alert.facts["no_room"]) == ("critical", 100, True)
    assert alert.text.startswith("$0.99 of $1.00, 99 %,")
    assert alert.text.endswith("What is left is less than a call may cost: calls are refused.")
    spend(research, 2)
    assert len(found(NOON + MINUTE)) == 1


def test_budget_whose_calls_fall_back_is_exhausted_too(research: Team) -> None:
    rule("budget", thresholds=[100])
    falling_back = budget(research, on_exhaustion="fall_back", fallback_model="small")
    spend(research, 99)
    without_room(falling_back, status=200, error_code="", attempts=1)
    assert found() == [f"Team research: {A_MONTH} is exhausted"]
    assert Alert.objects.get().text.endswith("calls are sent to a cheaper model.")


def test_only_the_budget_that_had_no_room_is_exhausted(research: Team) -> None:
    """Not another one that the call counted on, and none because a provider has no quota left."""
    rule("budget", thresholds=[100])
    budget(research)
    spend(research, 99)
    without_room(budget(Team.objects.create(name="sales")), team_id=research.pk, at=NOON - 5 * MINUTE)
    calls(1, team_id=research.pk, status=429, error_code="insufficient_quota")
    assert found() == []


def test_refusal_of_the_window_before_exhausts_nothing(research: Team) -> None:
    rule("budget", thresholds=[100])
    daily = budget(research, per="day")
    without_room(daily, at=NOON - timedelta(days=1))
    spend(research, 99)
    assert found() == []


def test_rule_that_does_not_watch_100_per_cent_says_nothing_of_refusals(research: Team) -> None:
    rule("budget", thresholds=[50, 99])
    without_room(budget(research))
    assert found() == []


def test_dear_call_that_finds_no_room_does_not_use_up_the_alert_of_the_end(research: Team) -> None:
    rule("budget", thresholds=[100])
    half_spent = budget(research)
    spend(research, 50)
    without_room(half_spent)
    assert found() == [f"Team research: a call may cost more than is left of {A_MONTH}"]
    spend(research, 49)
    assert found(NOON + 5 * MINUTE)[1:] == [f"Team research: {A_MONTH} is exhausted"]


def test_refusal_before_a_top_up_says_nothing_of_the_budget_since(research: Team) -> None:
    rule("budget", thresholds=[100])
    spent = budget(research)
    spend(research, 98)
    without_room(spent)
    topped_up(spent, 20, at=NOON + timedelta(seconds=1))
    assert found(NOON + MINUTE) == []


def test_refusal_of_a_while_ago_says_nothing_of_a_budget_that_has_room(research: Team) -> None:
    """Its limit may have been raised since."""
    rule("budget", thresholds=[100])
    without_room(budget(research))
    assert found(NOON + 5 * MINUTE) == []


@pytest.mark.parametrize("changed", [{"enabled": False}, {"limit": 0}], ids=["switched off", "allows nothing"])
def test_budget_without_shares_fires_nothing(research: Team, changed: dict[str, Any]) -> None:
    rule("budget")
    budget(research, **changed)
    spend(research, 60)
    assert found() == []


def test_budget_rule_of_a_team_watches_its_budgets_and_those_of_its_keys(research: Team) -> None:
    rule("budget", thresholds=[50], team=research)
    key, _ = create_key("app", research)
    sales = Team.objects.create(name="sales")
    budget(research)
    budget(sales)
    Budget.objects.create(scope="key", key=key, limit=USD)
    for team in (research, sales):
        spend(team, 60, key_id=key.pk if team is research else None)
    assert sorted(found()) == [
        f"Key app ({key.public_id}): 50 % of {A_MONTH} is used",
        f"Team research: 50 % of {A_MONTH} is used",
    ]


def test_ten_budgets_are_asked_for_together(research: Team, django_assert_max_num_queries: Any) -> None:
    watching_rule = rule("budget")
    for number in range(10):
        budget(Team.objects.create(name=f"team {number}"))
    from usage.alerts import conditions

    with django_assert_max_num_queries(10):
        assert list(conditions.budgets(watching_rule, NOON)) == []


# --- error rate and latency ------------------------------------------------------------------------------------------
def test_error_rate_fires_from_so_many_calls_on() -> None:
    rule("errors", percent=10, at_least=20, minutes=10)
    calls(17)
    failures(2)
    assert found(NOON + MINUTE) == []
    calls(1)
    assert found(NOON + MINUTE) == ["10 % of calls fail"]
    assert Alert.objects.get().text == "2 of 20 calls failed in the last 10 minutes."


def test_error_rate_knows_no_refused_and_no_abandoned_calls() -> None:
    rule("errors", percent=10, at_least=20)
    calls(20)
    calls(100, status=429, error_code="rate_limit_exceeded")
    calls(100, status=499)
    assert found(NOON + MINUTE) == []
    failures(3)
    assert found(NOON + MINUTE) == ["13 % of calls fail"]


def test_error_rate_forgets_what_was_before_its_window() -> None:
    rule("errors", minutes=10)
    failures(30)
    assert found(NOON + 11 * MINUTE) == []


def test_error_rate_of_a_provider_reads_its_events_only() -> None:
    rule("errors", provider="azure")
    failures(30, provider="openai")
    assert found(NOON + MINUTE) == []
    failures(30, provider="azure")
    assert found(NOON + MINUTE) == ["100 % of calls fail of provider azure"]


def test_error_rate_of_a_busy_model_reads_its_newest_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "EVENTS_READ", 20)
    rule("errors", model="gpt", percent=50)
    failures(100)
    calls(20, at=NOON + MINUTE)
    assert found(NOON + 2 * MINUTE) == []


def test_latency_fires_above_the_95th_percentile() -> None:
    rule("latency", latency_ms=10_000, at_least=20, minutes=15)
    calls(19, latency_us=1_000_000)
    calls(1, latency_us=90_000_000)
    assert found(NOON + MINUTE) == []
    calls(3, latency_us=90_000_000)
    (title,) = found(NOON + MINUTE)
    assert title.startswith("Calls are slow: p95 ")


def test_latency_of_a_team_reads_its_events_only(research: Team) -> None:
    rule("latency", latency_ms=10_000, team=research)
    calls(30, latency_us=90_000_000)
    assert found(NOON + MINUTE) == []
    calls(30, latency_us=90_000_000, team_id=research.pk)
    assert found(NOON + MINUTE)[0].startswith("Calls are slow of team research: p95 ")


# --- providers -------------------------------------------------------------------------------------------------------
def test_provider_is_down_and_back() -> None:
    rule("provider")
    failures(5)
    assert found(NOON + MINUTE) == ["Provider openai is down"]
    calls(2, at=NOON + 2 * MINUTE)
    found(NOON + 2 * MINUTE)
    assert Alert.objects.get().resolved_at is None  # two may be luck
    calls(1, at=NOON + 2 * MINUTE)
    found(NOON + 3 * MINUTE)
    assert Alert.objects.get().resolved_at == NOON + 3 * MINUTE


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "context_length_exceeded"),
        (429, "rate_limit_exceeded"),
        (499, ""),
        (500, "internal_error"),
        (503, "check_failed"),
        (0, "gateway_died"),
    ],
)
def test_what_is_not_the_providers_fault_does_not_make_it_down(status: int, code: str) -> None:
    rule("provider")
    failures(10, status=status, error_code=code)
    assert found(NOON + MINUTE) == []


def test_provider_is_not_down_when_it_was_not_asked() -> None:
    rule("provider")
    failures(10, attempts=0)
    assert found(NOON + MINUTE) == []


def test_quiet_provider_is_seen_beside_a_busy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "EVENTS_READ", 50)
    rule("provider")
    failures(6, provider="quiet")
    calls(300, at=NOON + MINUTE, provider="busy")
    assert found(NOON + 2 * MINUTE) == ["Provider quiet is down"]


def test_provider_whose_calls_others_answer_is_down_too() -> None:
    rule("provider")
    calls(6, provider="azure", attempts=2, failed_tries="openai:503")
    assert found(NOON + MINUTE) == ["Provider openai is down"]
    calls(3, at=NOON + 2 * MINUTE, provider="openai")
    found(NOON + 2 * MINUTE)
    assert Alert.objects.get().resolved_at


def test_every_provider_that_failed_before_the_last_one_did_is_down() -> None:
    rule("provider")
    failures(6, provider="groq", attempts=3, failed_tries="openai:502,azure:429")
    assert sorted(found(NOON + MINUTE)) == [f"Provider {name} is down" for name in ("azure", "groq", "openai")]


def test_provider_that_answers_when_it_is_asked_again_is_not_down() -> None:
    rule("provider")
    calls(6, attempts=3, failed_tries="openai:503,openai:503")
    assert found(NOON + MINUTE) == []


def test_failed_tries_are_seen_beside_many_calls_that_succeed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "EVENTS_READ", 50)
    rule("provider")
    calls(6, provider="busy", attempts=2, failed_tries="quiet:503")
    calls(300, at=NOON + MINUTE, provider="busy")
    assert found(NOON + 2 * MINUTE) == ["Provider quiet is down"]


@pytest.mark.parametrize(
    ("failed_tries", "names"),
    [
        ("", set()),
        ("a:503", {"a"}),
        ("a:503,b:429,a:504", {"a", "b"}),
        ("a:503,b:5", {"a", "b"}),
        ("a:503,long-na", {"a"}),
    ],
    ids=["none", "one", "several", "cut off in the status", "cut off in the name"],
)
def test_failed_tries_name_the_providers(failed_tries: str, names: set[str]) -> None:
    assert traffic.providers_of(failed_tries) == names


# --- blocks ----------------------------------------------------------------------------------------------------------
def test_repeated_blocks_fire_for_the_key(research: Team) -> None:
    asked: list[Any] = []

    def blocked(since: Any, at_least: int) -> list[BlockedKey]:
        asked.append((since, at_least))
        return [BlockedKey(7, "laptop (abc)", research.pk, 25), BlockedKey(8, "phone (def)", None, 21)]

    sources.set_repeated_blocks(blocked)
    rule("blocks", team=research)
    assert found() == ["Key laptop (abc) is blocked again and again"]
    assert asked == [(NOON - 10 * MINUTE, 20)]
    sources.set_repeated_blocks(None)
    found(NOON + MINUTE)
    found(NOON + 11 * MINUTE)
    assert Alert.objects.get().resolved_at == NOON + 11 * MINUTE


# --- sign-ins --------------------------------------------------------------------------------------------------------
def test_failed_sign_ins_fire_for_an_address_and_for_an_account(alice: User) -> None:
    rule("sign_in", at_least=10, minutes=10)
    for number in range(9):
        sign_ins.count("alice", f"192.0.2.{number}", NOON)
        sign_ins.count(f"guess {number}", "198.51.100.1", NOON + MINUTE)
    assert found(NOON + 2 * MINUTE) == []
    sign_ins.count("alice", "198.51.100.1", NOON + MINUTE)
    assert sorted(found(NOON + 2 * MINUTE)) == [
        "Failed sign-ins from 198.51.100.1",
        "Failed sign-ins on the account alice",
    ]


def test_failed_sign_in_is_counted_with_its_address(client: Client, alice: User) -> None:
    for _ in range(2):
        client.post(reverse("admin:login"), {"username": "alice", "password": "wrong"}, REMOTE_ADDR="192.0.2.7")
    row = SignInFailures.objects.get()
    assert (row.account, row.client_ip, row.count) == ("alice", "192.0.2.7", 2)


@pytest.mark.parametrize("typed", ["hunter2, my password", "", "nul\0", "x" * 5000], ids=["text", "", "nul", "long"])
def test_what_is_nobodys_name_is_not_kept(typed: str) -> None:
    """It may be a password that went into the wrong field."""
    sign_ins.sign_in_failed({"username": typed})
    assert (SignInFailures.objects.get().account, SignInFailures.objects.get().client_ip) == ("", "")


def test_sign_in_fails_as_it_should_when_it_cannot_be_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.db import DatabaseError

    def broken(*_args: Any) -> None:
        raise DatabaseError("gone")

    monkeypatch.setattr(sign_ins, "count", broken)
    assert authenticate(RequestFactory().post("/"), username="alice", password="x") is None
    assert "a failed sign-in could not be counted" in caplog.text


# --- keys ------------------------------------------------------------------------------------------------------------
def expiring_key(team: Team, days: float, **changed: Any) -> ApiKey:
    key, _ = create_key(f"key {days:g}", team)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=NOON + timedelta(days=days), **changed)
    key.refresh_from_db()
    return key


def test_key_fires_once_before_it_expires(research: Team) -> None:
    rule("key_expiry", days=14)
    key = expiring_key(research, 13)
    expiring_key(research, 15)
    expiring_key(research, -1)
    expiring_key(research, 12, disabled=True)
    assert found() == [f"Key {key} expires soon"]
    assert found(NOON + timedelta(hours=1)) == [f"Key {key} expires soon"]
    assert Alert.objects.get().text == "It belongs to team research and is refused from 2026-12-03 12:00 UTC on."


def test_key_that_was_prolonged_fires_again_before_its_new_end(research: Team) -> None:
    rule("key_expiry", days=14)
    key = expiring_key(research, 13)
    found()
    ApiKey.objects.filter(pk=key.pk).update(expires_at=NOON + timedelta(days=100))
    found(NOON + timedelta(days=1))
    assert Alert.objects.get().resolved_at
    assert len(found(NOON + timedelta(days=90))) == 2


def test_keys_of_other_teams_are_left_out(research: Team) -> None:
    rule("key_expiry", team=research)
    expiring_key(Team.objects.create(name="sales"), 3)
    expiring_key(Team.objects.create(name="off", disabled=True), 3)
    assert found() == []
