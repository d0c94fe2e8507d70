"""`manage.py seed_demo`: a month of invented traffic."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Sum
from django.utils import timezone

from accounts.models import ApiKey, Team, User
from accounts.networks import allowed_networks
from gateway_project import demo
from gateway_project.tests.database_state import DatabaseState
from policies.book import build
from policies.models import Assignment, Finding, Policy, PolicyVersion
from proxy.models import Model, Provider
from usage.models import Budget, DirtyHour, Limit, ModelPrice, Rollup, TopUp, UsageEvent
from usage.selectors import last_day, top

NOW = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)


def seed(*arguments: str, days: int = 9, calls: int = 900) -> str:
    out = StringIO()
    call_command("seed_demo", f"--days={days}", f"--calls={calls}", *arguments, stdout=out)
    return out.getvalue()


_seeded: dict[int, tuple[str, DatabaseState]] = {}


def seeded(calls: int = 900) -> str:
    """As `seed`, for tests that only look: it runs for the first of them, the others get what it said and made."""
    if calls not in _seeded:
        _seeded[calls] = seed(calls=calls), DatabaseState()
    said, made = _seeded[calls]
    made.restore()
    return said


def traffic() -> list[tuple[Any, ...]]:
    return list(
        UsageEvent.objects.order_by("at", "model").values_list(
            "at", "team__name", "user__username", "model", "status", "prompt_tokens", "cost_nano_usd", "latency_us"
        )
    )


def test_it_says_what_it_made() -> None:
    said = seeded()
    spent = UsageEvent.objects.aggregate(spent=Sum("cost_nano_usd"))["spent"] / 10**9
    assert said == (
        "Made 5 teams, 8 people, 11 keys, 3 providers and 6 models (switched off), 2 policies, and 900 calls of the "
        f"last 9 days for ${spent:.2f}.\n"
    )


def test_calls_lie_within_the_days_asked_for() -> None:
    seeded()
    assert UsageEvent.objects.count() == 900
    assert not UsageEvent.objects.filter(at__lt=NOW - timedelta(days=9)).exists()
    assert not UsageEvent.objects.filter(at__gt=NOW).exists()


def test_same_seed_makes_the_same_traffic() -> None:
    seed("--seed=7")
    first = traffic()
    for model in (UsageEvent, DirtyHour, Rollup):
        model.objects.all().delete()
    seed("--seed=7")
    assert traffic() == first


def test_another_seed_makes_other_traffic() -> None:
    seed("--seed=1", calls=50)
    first = traffic()
    UsageEvent.objects.all().delete()
    seed("--seed=2", calls=50)
    assert traffic() != first


def test_traffic_has_the_rhythm_of_days_and_weeks_and_every_kind_of_ending() -> None:
    seed(days=14, calls=4000)
    events = UsageEvent.objects.values_list("at", "status", "streamed", "cost_nano_usd", "attempts")
    hours = Counter(at.hour for at, *_ in events)
    weekdays = Counter(at.weekday() for at, *_ in events)
    assert hours[10] > 3 * hours[3] > 0
    assert weekdays[1] > 1.5 * weekdays[6] > 0
    statuses = Counter(status for _, status, *_ in events)
    assert {200, 400, 401, 404, 429, 499, 502, 504} <= set(statuses)
    assert 0.9 < statuses[200] / 4000 < 0.99
    assert {streamed for _, _, streamed, *_ in events} == {True, False}
    assert any(cost is None for *_, cost, _ in events)
    assert all(attempts == 0 for _, status, _, _, attempts in events if status in (400, 401, 404))


def test_dashboards_are_filled_at_once() -> None:
    seeded()
    assert not [hour for hour in DirtyHour.objects.all() if hour.marks > hour.rolled_up]
    assert last_day().total.calls
    assert sum(share.calls for share in top("team", NOW - timedelta(days=9))) == 900


def test_teams_have_cost_centres_and_older_prices_are_there_for_the_older_calls() -> None:
    seeded()
    assert not Team.objects.filter(personal_of=None, cost_center="").exists()
    assert set(ModelPrice.objects.values_list("valid_from", flat=True)) == {NOW - timedelta(days=9)}


def test_nothing_that_it_makes_can_be_used() -> None:
    seed(calls=1)
    assert not Provider.objects.filter(enabled=True).exists()
    assert not Provider.objects.exclude(credential="").exists()
    assert not Model.objects.filter(enabled=True).exists()
    assert not any(user.has_usable_password() for user in User.objects.all())


def test_keys_are_as_old_as_the_traffic_and_were_used() -> None:
    seeded()
    assert not ApiKey.objects.exclude(created_at=NOW - timedelta(days=9)).exists()
    key = ApiKey.objects.get(name="helpdesk-bot")
    newest = UsageEvent.objects.filter(key_id=key.pk).order_by("-id").values_list("at", flat=True)[0]
    assert key.last_used_at == newest


def test_it_refuses_where_there_is_traffic_unless_forced() -> None:
    seed(calls=10)
    with pytest.raises(CommandError, match="--force"):
        seed(calls=10)
    assert "Made 0 teams, 0 people, 0 keys, 0 providers and 0 models" in seed("--force", calls=10)
    assert UsageEvent.objects.count() == 20


def test_what_has_its_names_already_is_left_as_it_is() -> None:
    Model.objects.create(name="gpt-5.5", description="Ours.")
    Team.objects.create(name="Legal", cost_center="9999")
    seed(calls=10)
    assert Model.objects.get(name="gpt-5.5").description == "Ours."
    assert Team.objects.get(name="Legal").cost_center == "9999"
    assert not ModelPrice.objects.filter(model="gpt-5.5").exists()


@pytest.mark.parametrize("argument", ["--days=0", "--calls=-1", "--calls=many"])
def test_numbers_must_be_positive(argument: str) -> None:
    with pytest.raises(CommandError):
        seed(argument)


# --- policies -------------------------------------------------------------------------------------------------------
def test_policies_hold_for_the_invented_teams_alone_and_were_published_when_the_traffic_began() -> None:
    seed(calls=1)
    assert sorted(Policy.objects.values_list("name", flat=True)) == ["agents", "house rules"]
    assert not Assignment.objects.exclude(team__name__in=demo.TEAMS).exists()
    assert set(PolicyVersion.objects.values_list("published_at", flat=True)) == {NOW - timedelta(days=9)}
    assert build(None, lambda rules, policies: rules).problems == ()


def test_findings_are_of_calls_that_were_made_and_of_every_kind() -> None:
    seeded(calls=2000)
    findings = list(Finding.objects.all())
    assert {found.event_id for found in findings} <= set(UsageEvent.objects.values_list("id", flat=True))
    assert {(found.rule, found.action) for found in findings} == {
        ("profanity", "redact"), ("jailbreak phrases", "block"), ("long answers", "redact"),
        ("going in circles", "block"),
    }  # fmt: skip
    assert {found.dry_run for found in findings} == {True, False}
    assert 0.01 < len(findings) / 2000 < 0.1


def test_every_blocked_call_has_the_finding_that_blocked_it() -> None:
    seeded(calls=2000)
    blocked = set(UsageEvent.objects.filter(error_code="policy_violation").values_list("id", flat=True))
    assert blocked
    assert blocked == set(Finding.objects.filter(rule="jailbreak phrases").values_list("event_id", flat=True))


def test_policy_of_ones_own_with_the_name_of_the_demos_is_left_as_it_is() -> None:
    Policy.objects.create(name="agents", description="Ours.")
    seed(calls=1)
    policy = Policy.objects.get(name="agents")
    assert (policy.description, policy.rules.count(), policy.assignments.count()) == ("Ours.", 0, 0)
    assert policy.current is None


def test_budgets_and_limits_are_the_demos_own_and_made_once() -> None:
    seeded()
    made = Budget.objects.count(), Limit.objects.count(), TopUp.objects.count()
    assert min(made) > 0
    assert not Budget.objects.filter(scope="installation").exists()
    assert not Limit.objects.filter(scope__in=["installation", "client_ip"]).exists()
    seed("--force")
    assert (Budget.objects.count(), Limit.objects.count(), TopUp.objects.count()) == made


def test_its_people_call_from_where_they_may() -> None:
    seeded()
    team = Team.objects.get(name="Legal")
    networks = allowed_networks(team.networks_allowed)
    assert networks is not None
    callers = UsageEvent.objects.filter(team=team).values_list("client_ip", flat=True)
    assert all(networks.admit(address) for address in callers)
