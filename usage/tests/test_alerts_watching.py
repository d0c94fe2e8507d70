"""An alert fires once, stays open while it goes on, and is over when all has been well for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection

from usage.alert_models import Alert, AlertDestination, AlertRule, Delivery, SignInFailures
from usage.alerts import conditions, sending, sign_ins, watching
from usage.alerts.conditions import Condition
from usage.tests.alerts import MINUTE, destination, found, rule, told
from usage.tests.events import NOON

pytestmark = pytest.mark.django_db


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """say(kind, *conditions): what the rules of this kind see from now on."""
    watches = dict(watching.WATCHES)
    monkeypatch.setattr(watching, "WATCHES", watches)

    def set_conditions(kind: str, *seen: Condition) -> None:
        watches[kind] = lambda _rule, _now: list(seen)

    yield set_conditions


def bad(subject: str = "x", **more: Any) -> Condition:
    return Condition(subject, True, title=f"{subject} is bad", **more)


def well(subject: str = "x") -> Condition:
    return Condition(subject, False)


def test_new_installation_watches_everything_and_tells_nobody() -> None:
    # What the migration makes, made again: a spec with transactions of its own may have emptied the tables before.
    AlertRule.objects.all().delete()
    import_module("usage.migrations.0004_alerts").make_rules(apps, connection.schema_editor())

    assert set(AlertRule.objects.values_list("kind", flat=True)) == set(AlertRule.Kind.values)
    assert all(rule.enabled for rule in AlertRule.objects.all())
    assert not AlertDestination.objects.exists()
    assert found() == []


def test_what_goes_on_fires_once(say: Any) -> None:
    rule("errors")
    destination()
    say("errors", bad())
    for minute in range(3):
        assert found(NOON + minute * MINUTE) == ["x is bad"]
    assert told() == [("the webhook", "x is bad")]


def test_it_is_over_when_all_has_been_well_for_ten_minutes_and_that_is_told_once(say: Any) -> None:
    rule("errors")
    destination()
    say("errors", bad())
    found()
    say("errors", well())
    found(NOON + MINUTE)
    found(NOON + 10 * MINUTE)
    assert Alert.objects.get().resolved_at is None
    found(NOON + 11 * MINUTE)
    found(NOON + 12 * MINUTE)
    alert = Alert.objects.get()
    assert (alert.well_since, alert.resolved_at) == (NOON + MINUTE, NOON + 11 * MINUTE)
    assert told("over") == [("the webhook", "x is bad")]


def test_what_comes_back_before_it_was_over_does_not_fire_again(say: Any) -> None:
    rule("errors")
    for minute in range(0, 40, 5):  # five bad, five good minutes, and again
        say("errors", bad() if minute % 10 == 0 else well())
        found(NOON + minute * MINUTE)
    assert Alert.objects.count() == 1
    assert Alert.objects.get().resolved_at is None


def test_what_comes_back_later_is_a_new_alert(say: Any) -> None:
    rule("errors")
    for minute, seen in ((0, bad()), (1, well()), (12, well()), (20, bad())):
        say("errors", seen)
        found(NOON + minute * MINUTE)
    assert list(Alert.objects.order_by("pk").values_list("number", "resolved_at")) == [
        (1, NOON + 12 * MINUTE),
        (2, None),
    ]


def test_a_share_of_a_budget_never_fires_twice_in_its_window(say: Any) -> None:
    """Not even when a top-up has brought it back under the share."""
    rule("budget")
    for seen in ([bad()], [], [bad()]):
        say("budget", *seen)
        found()
    assert Alert.objects.count() == 1


def test_provider_that_nobody_calls_is_still_down_until_a_day_has_gone(say: Any) -> None:
    rule("provider")
    destination()
    say("provider", bad())
    found()
    say("provider")
    found(NOON + timedelta(hours=23))
    assert Alert.objects.get().resolved_at is None
    found(NOON + timedelta(hours=25))
    assert Alert.objects.get().resolved_at
    assert told("over") == []


def test_provider_is_back_with_its_first_good_calls(say: Any) -> None:
    rule("provider")
    destination()
    say("provider", bad(facts={"provider": "openai"}))
    found()
    say("provider", well())
    found(NOON + MINUTE)
    assert told("over") == [("the webhook", "x is bad")]
    message = sending.message_of(Delivery.objects.get(about="over"))
    assert (message.event, message.title) == ("alert.over", "Provider openai is back")


def test_end_is_not_told_where_the_rule_says_so(say: Any) -> None:
    rule("provider", tell_when_over=False)
    destination()
    for seen in (bad(), well()):
        say("provider", seen)
        found()
    assert Alert.objects.get().resolved_at
    assert told("over") == []


# --- who is told -----------------------------------------------------------------------------------------------------
def test_every_destination_is_told_when_none_is_chosen_but_those_that_are_off(say: Any) -> None:
    rule("errors")
    destination(name="a")
    destination(name="b")
    destination(name="off", enabled=False)
    say("errors", bad())
    found()
    assert sorted(told()) == [("a", "x is bad"), ("b", "x is bad")]


def test_only_chosen_destinations_are_told(say: Any) -> None:
    chosen = rule("errors")
    chosen.destinations.add(destination(name="a"))
    destination(name="b")
    say("errors", bad())
    found()
    assert told() == [("a", "x is bad")]


def test_alert_without_a_destination_is_there_to_be_seen_and_not_sent_later(say: Any) -> None:
    rule("errors")
    say("errors", bad())
    found()
    destination()
    assert found() == ["x is bad"]
    assert told() == []


def test_flood_is_told_in_one_message_and_written_down_in_full(say: Any) -> None:
    rule("key_expiry")
    destination()
    say("key_expiry", *[bad(f"key {n}") for n in range(30)])
    found()
    assert Alert.objects.count() == 31
    assert told() == [("the webhook", "30 alerts at once: the key_expiry rule")]
    text = Delivery.objects.get().alert.text
    assert "key 0 is bad\n" in text and text.endswith("and 10 more, in the list of alerts.")
    found(NOON + MINUTE)
    assert Alert.objects.count() == 31


# --- what goes wrong -------------------------------------------------------------------------------------------------
def test_rule_that_breaks_is_logged_and_the_others_are_looked_at(
    say: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rule("errors")
    AlertRule.objects.create(name="another", kind="latency")

    def breaks(_rule: AlertRule, _now: Any) -> list[Condition]:
        raise ValueError("broken")

    say("latency", bad())
    watching.WATCHES["errors"] = breaks  # type: ignore[index]
    with caplog.at_level(logging.ERROR):
        assert found() == ["x is bad"]
    assert "the alert rule the errors rule could not be checked" in caplog.text


def test_alert_and_its_deliveries_are_made_together_or_not_at_all(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies between the two leaves nothing, so the next one does both."""
    rule("errors")
    destination()
    say("errors", bad())

    def dies(*_args: Any) -> None:
        raise DatabaseError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(watching, "_tell", dies)
        assert found() == []
    assert found() == ["x is bad"]
    assert len(told()) == 1


@pytest.mark.parametrize("how", ["off", "deleted"])
def test_alerts_of_a_rule_that_is_gone_are_over(say: Any, how: str) -> None:
    of = rule("errors")
    say("errors", bad())
    found()
    if how == "off":
        AlertRule.objects.update(enabled=False)
    else:
        of.delete()
    found(NOON + MINUTE)
    assert Alert.objects.get().resolved_at == NOON + MINUTE
    assert Alert.objects.get().rule_name == "the errors rule"


def test_long_titles_and_texts_fit(say: Any) -> None:
    rule("errors")
    say("errors", Condition("s" * 400, True, title="t" * 5000, text="x" * 50_000))
    found()
    found()
    assert Alert.objects.count() == 1


# --- what is kept ----------------------------------------------------------------------------------------------------
def test_alerts_are_forgotten_a_year_after_they_were_over(say: Any, settings: Any) -> None:
    settings.ALERTS_RETENTION_DAYS = 365
    rule("errors")
    destination()
    for name, at in (("old", NOON), ("recent", NOON + timedelta(days=300)), ("goes on", NOON)):
        say("errors", bad(name))
        watching._fire(AlertRule.objects.get(), [bad(name)], at)
    Alert.objects.exclude(subject="goes on").update(resolved_at=NOON)
    assert watching.purge(NOON + timedelta(days=366)) == 1
    assert set(Alert.objects.values_list("subject", flat=True)) == {"recent", "goes on"}
    assert Delivery.objects.count() == 2


def test_failed_sign_ins_are_forgotten_after_two_days() -> None:
    sign_ins.count("alice", "192.0.2.1", NOON)
    sign_ins.count("alice", "192.0.2.1", NOON + timedelta(days=2))
    watching.purge(NOON + timedelta(days=3))
    assert SignInFailures.objects.count() == 1


def test_every_kind_of_rule_is_watched() -> None:
    assert set(watching.WATCHES) == set(AlertRule.Kind.values) == set(watching.KINDS)
    assert conditions.Severity.values == ["info", "warning", "critical"]  # in this order, see _summary
