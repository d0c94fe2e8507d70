"""Moderation after the call: texts wait encrypted, are judged once, and leave nothing but a finding."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connection
from django.db.models import QuerySet

from accounts.encryption import decrypt, encrypt
from policies import pending, recording, tasks
from policies.checks.base import Check, clean_settings
from policies.checks.moderation import ModerationCheck
from policies.engine import Pending
from policies.errors import ModerationFailed
from policies.models import Finding, PendingModeration
from policies.moderation import MAX_REQUESTS, REQUEST_CHARS, Question, TextsTooLong, Verdict
from policies.rules import CompiledRule
from policies.types import Action, Stage

pytestmark = pytest.mark.django_db

SECRET = "words that nobody else may read"
TOO_LONG = "x" * (MAX_REQUESTS * REQUEST_CHARS + 1)
VIOLENT = Verdict({"hate": 0.5, "violence": 0.9}, frozenset({"violence"}))
CLEAN = Verdict({"hate": 0.0, "violence": 0.0}, frozenset())
EVENT = "019ac1d8f6007000a000000000000007"


class Endpoint:
    """Stands for proxy.moderation.ask_now. `says`: to a text, when not VIOLENT; `before`: run before it answers."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.questions: list[Question] = []
        self.says: dict[str, Verdict | ModerationFailed] = {}
        self.before: Callable[[], None] = lambda: None

    def __call__(self, questions: Sequence[Question]) -> list[Verdict | ModerationFailed]:
        self.questions += questions
        self.before()
        return [self.says.get(question.texts[0], VIOLENT) for question in questions]

    @property
    def texts(self) -> list[str]:
        return [text for question in self.questions for text in question.texts]


endpoint = Endpoint()


@pytest.fixture(autouse=True)
def asked(settings: Any) -> Iterator[Endpoint]:
    endpoint.begin()
    settings.MODERATION_CLIENT = f"{__name__}.endpoint"
    yield endpoint


def rule(check: Check | None = None, action: Action = Action.AUDIT, **fields: Any) -> CompiledRule:
    usual = {"policy": "default", "version": 3, "name": "watch", "check_name": "moderation"}
    return CompiledRule(check=check or moderation(), action=action, **{**usual, **fields})


def moderation(**settings: Any) -> ModerationCheck:
    return ModerationCheck(clean_settings(ModerationCheck, {"provider": "judge", "model": "mod", **settings}))


def facts(**changed: Any) -> dict[str, Any]:
    """The columns of a call's usage event; it came in just now."""
    return {
        "id": EVENT, "at": int(time.time() * 1e6), "request_id": "req_1", "endpoint": "chat/completions", "key_id": 4,
        "key_label": "laptop (abc)", "user_id": 5, "team_id": 6, "model": "gpt", "client_ip": "", **changed,
    }  # fmt: skip


def waiting(
    *texts: str, by: CompiledRule | None = None, ago: timedelta = timedelta(0), event: str = ""
) -> PendingModeration:
    """A row as the journal makes it, of a call that came in `ago`."""
    at = datetime.now(UTC) - ago
    of = facts(id=event or uuid4().hex, at=int(at.timestamp() * 1e6))
    records = pending.records_of([Pending(by or rule(), Stage.REQUEST, list(texts) or [SECRET])], of)
    recording.record([{**of, "moderation": records}])
    return PendingModeration.objects.get(event_id=UUID(of["id"]))


def make_due() -> None:
    PendingModeration.objects.update(next_try_at=datetime.now(UTC) - timedelta(seconds=1))


# --- the end of a call ----------------------------------------------------------------------------------------------


def test_texts_leave_the_call_encrypted() -> None:
    (record,) = pending.records_of([Pending(rule(), Stage.REQUEST, [SECRET, "東京"])], facts())
    assert orjson.loads(decrypt(record["texts"])) == [SECRET, "東京"]
    assert SECRET not in orjson.dumps(record).decode()


def test_record_says_what_a_finding_needs_to_know() -> None:
    of = facts()
    watching = rule(moderation(thresholds={"hate": 0.5}), Action.BLOCK, dry_run=True)
    (record,) = pending.records_of([Pending(watching, Stage.REPLY, [SECRET])], of)
    assert record["call"] == {
        "policy": "default",
        "version": 3,
        "rule": "watch",
        "check": "moderation",
        "stage": "reply",
        "action": "block",
        "dry_run": True,
        "settings": clean_settings(ModerationCheck, {"provider": "judge", "model": "mod", "thresholds": {"hate": 0.5}}),
        "at": of["at"],
        "request_id": "req_1",
        "model": "gpt",
        "endpoint": "chat/completions",
        "key_id": 4,
        "key_label": "laptop (abc)",
        "team_id": 6,
        "user_id": 5,
    }


def test_texts_that_say_nothing_are_not_kept() -> None:
    assert pending.records_of([Pending(rule(), Stage.REQUEST, ["", " \n"])], facts()) == []


def test_texts_too_long_to_be_moderated_are_not_kept_but_that_they_were_is() -> None:
    (record,) = pending.records_of(
        [Pending(rule(), Stage.REQUEST, ["x" * (MAX_REQUESTS * REQUEST_CHARS + 1)])], facts()
    )
    assert record["texts"] == ""
    assert record["call"]["rule"] == "watch"


def test_half_an_emoji_does_not_keep_a_text_from_waiting() -> None:
    (record,) = pending.records_of([Pending(rule(), Stage.REQUEST, ["cut \ud83d here"])], facts())
    assert orjson.loads(decrypt(record["texts"])) == ["cut ? here"]


# --- the verdict ----------------------------------------------------------------------------------------------------


def test_verdict_becomes_a_finding_of_the_call_and_the_texts_are_gone() -> None:
    of = facts()
    recording.record([{**of, "moderation": pending.records_of([Pending(rule(), Stage.REPLY, [SECRET])], of)}])
    tasks.moderate_pending()
    assert not PendingModeration.objects.exists()
    found = Finding.objects.get()
    assert (found.policy, found.version, found.rule, found.check_name) == ("default", 3, "watch", "moderation")
    assert (found.stage, found.action, found.label, found.count) == ("reply", "audit", "violence", 1)
    assert (found.dry_run, found.failed) == (False, False)
    assert (found.event_id, found.request_id, found.endpoint) == (UUID(EVENT), "req_1", "chat/completions")
    assert (found.model, found.key_label, found.key_id, found.team_id, found.user_id) == (
        "gpt",
        "laptop (abc)",
        4,
        6,
        5,
    )
    assert found.at == datetime.fromtimestamp(of["at"] / 1e6, UTC)


def test_provider_is_asked_what_the_rule_says_about_what_was_said(asked: Endpoint) -> None:
    waiting("Be kind.", "Who are you?", by=rule(moderation(provider="other", model="strict")))
    pending.sweep()
    assert asked.questions == [Question("other", "strict", ["Be kind.", "Who are you?"])]


@pytest.mark.parametrize(
    ("own", "labels"),
    [
        ({}, ["violence"]),
        ({"categories": ["hate"]}, []),
        ({"thresholds": {"hate": 0.4}}, ["hate", "violence"]),
        ({"categories": ["violence"], "thresholds": {"violence": 0.95}}, []),
    ],
)
def test_rules_own_thresholds_and_categories_count_afterwards_too(own: dict[str, Any], labels: list[str]) -> None:
    waiting(by=rule(moderation(**own)))
    pending.sweep()
    assert sorted(Finding.objects.values_list("label", flat=True)) == labels
    assert not PendingModeration.objects.exists()


def test_clean_text_leaves_nothing_at_all(asked: Endpoint) -> None:
    waiting("fine")
    asked.says["fine"] = CLEAN
    assert pending.sweep() == 1
    assert not Finding.objects.exists()
    assert not PendingModeration.objects.exists()


def test_dry_run_of_a_blocking_rule_is_told_from_an_audit() -> None:
    waiting(by=rule(action=Action.BLOCK, dry_run=True))
    pending.sweep()
    found = Finding.objects.get()
    assert (found.action, found.dry_run) == ("block", True)


def test_finding_is_as_old_as_its_call() -> None:
    waiting(event=EVENT)
    pending.sweep()
    found = Finding.objects.get()
    assert found.id.version == 7
    assert found.id.int >> 62 == UUID(EVENT).int >> 62


def test_call_that_is_recorded_and_judged_twice_counts_once() -> None:
    """A gateway that dies between writing and forgetting a record writes it again."""
    of = facts()
    record = {**of, "moderation": pending.records_of([Pending(rule(moderation()), Stage.REQUEST, [SECRET])], of)}
    for _ in range(2):
        recording.record([record])
        assert pending.sweep() == 1
    assert Finding.objects.count() == 1


def test_two_rules_that_find_the_same_in_one_call_are_two_findings() -> None:
    of = facts()
    both = [Pending(rule(name=name), Stage.REQUEST, [SECRET]) for name in ("one", "two")]
    recording.record([{**of, "moderation": pending.records_of(both, of)}])
    pending.sweep()
    assert sorted(Finding.objects.values_list("rule", "label")) == [("one", "violence"), ("two", "violence")]


def test_sweep_goes_on_until_nothing_is_due(asked: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "BATCH_ROWS", 2)
    for number in range(5):
        waiting(f"text {number}")
    assert pending.sweep() == 5
    assert asked.texts == [f"text {number}" for number in range(5)]


def test_long_queue_does_not_hold_a_worker_for_ever(asked: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "BATCH_ROWS", 1)
    monkeypatch.setattr(pending, "SWEEP_S", 0.05)
    asked.before = lambda: time.sleep(0.06)
    for _ in range(3):
        waiting()
    assert pending.sweep() == 1
    assert PendingModeration.objects.count() == 2


def test_empty_table_costs_one_query(django_assert_num_queries: Any, asked: Endpoint) -> None:
    with django_assert_num_queries(1):
        pending.sweep()
    assert asked.questions == []


# --- failures -------------------------------------------------------------------------------------------------------


def test_failure_is_tried_again_later_and_later(asked: Endpoint) -> None:
    waiting()
    asked.says[SECRET] = ModerationFailed("it answered with status 500")
    pauses = []
    for _ in range(8):
        make_due()
        before = datetime.now(UTC)
        pending.sweep()
        row = PendingModeration.objects.get()
        pauses.append(round((row.next_try_at - before).total_seconds()))
    assert pauses == [15, 30, 60, 120, 240, 480, 600, 600]
    assert PendingModeration.objects.get().tries == 8
    assert not Finding.objects.exists()


def test_failure_that_passes_leaves_a_verdict_in_the_end(asked: Endpoint) -> None:
    waiting()
    asked.says[SECRET] = ModerationFailed("it answered with status 429")
    pending.sweep()
    assert pending.sweep() == 0  # not due yet
    asked.says.clear()
    make_due()
    pending.sweep()
    assert Finding.objects.get().label == "violence"


@pytest.mark.parametrize(("hours", "given_up"), [(23.9, False), (24.1, True)])
def test_after_a_day_it_is_given_up_and_that_is_a_finding(asked: Endpoint, hours: float, given_up: bool) -> None:
    waiting(ago=timedelta(hours=hours))
    asked.says[SECRET] = ModerationFailed("it answered with status 500")
    pending.sweep()
    assert PendingModeration.objects.exists() is not given_up
    assert list(Finding.objects.values_list("label", "failed")) == [("ModerationFailed", True)] * given_up


def test_last_try_after_a_day_still_counts(asked: Endpoint) -> None:
    """A worker that was stopped over the weekend judges what is left; it does not throw it away unread."""
    waiting(ago=timedelta(hours=60))
    pending.sweep()
    assert list(Finding.objects.values_list("label", "failed")) == [("violence", False)]


def test_texts_that_were_too_long_are_a_failed_finding_at_once(asked: Endpoint) -> None:
    waiting(TOO_LONG)
    waiting("long")
    asked.says["long"] = TextsTooLong("the texts are longer than what is moderated for one call")
    pending.sweep()
    assert list(Finding.objects.values_list("label", "failed")) == [("TextsTooLong", True)] * 2
    assert not PendingModeration.objects.exists()
    assert asked.texts == ["long"]


def test_category_that_the_provider_does_not_judge_is_a_failure() -> None:
    waiting(by=rule(moderation(categories=["vilence"])))
    pending.sweep()
    assert PendingModeration.objects.get().tries == 1


def test_lost_encryption_key_is_a_failure_that_the_right_key_mends(settings: Any, asked: Endpoint) -> None:
    waiting()
    waiting("another", ago=timedelta(seconds=1))
    right = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = ["another-key-of-some-length-0123456789"]
    pending.sweep()
    assert asked.questions == []
    settings.ENCRYPTION_KEYS = right
    make_due()
    pending.sweep()
    assert sorted(asked.texts) == ["another", SECRET]


def test_one_row_that_cannot_be_read_does_not_keep_the_others_from_being_judged() -> None:
    broken, good = waiting(), waiting()
    PendingModeration.objects.filter(pk=broken.pk).update(texts=encrypt("{not json"))
    pending.sweep()
    assert Finding.objects.get().event_id == good.event_id
    assert PendingModeration.objects.get().tries == 1


@pytest.mark.parametrize("gives_up", [False, True])
def test_no_text_is_in_the_log_of_a_failure(asked: Endpoint, gives_up: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    waiting(ago=timedelta(hours=25 if gives_up else 0))
    asked.says[SECRET] = ModerationFailed("it answered with status 500")
    pending.sweep()
    assert "watch" in caplog.text
    assert "it answered with status 500" in caplog.text
    assert SECRET not in caplog.text


def test_worker_that_dies_while_it_asks_leaves_the_row_for_later(asked: Endpoint) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    waiting()
    asked.before = die
    with pytest.raises(KeyboardInterrupt):
        pending.sweep()
    row = PendingModeration.objects.get()
    assert timedelta(minutes=4) < row.next_try_at - datetime.now(UTC) <= pending.CLAIMED_FOR
    asked.before = lambda: None
    make_due()
    pending.sweep()
    assert Finding.objects.count() == 1


@pytest.mark.parametrize("step", ["bulk_create", "delete"])
def test_finding_takes_the_place_of_the_texts_or_nothing_changes(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OperationalError("disk full")

    waiting()
    with monkeypatch.context() as patch, pytest.raises(OperationalError):
        patch.setattr(QuerySet, step, refuse)
        pending.sweep()
    assert PendingModeration.objects.count() == 1
    assert not Finding.objects.exists()


# --- several workers -------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_workers_side_by_side_ask_about_each_call_once(asked: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "BATCH_ROWS", 3)
    for number in range(12):
        waiting(f"text {number}")
    together = threading.Barrier(3, timeout=5)
    asked.before = lambda: time.sleep(0.01)

    def work() -> None:
        together.wait()
        try:
            pending.sweep()
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(10)
    assert sorted(asked.texts) == sorted(f"text {number}" for number in range(12))
    assert Finding.objects.count() == 12


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_the_database_while_a_provider_thinks(asked: Endpoint) -> None:
    """On SQLite an open transaction would keep every usage event from being written."""
    states = []
    asked.before = lambda: states.append(connection.in_atomic_block)
    waiting()
    pending.sweep()
    assert states == [False]


def test_it_is_swept_every_few_seconds_and_carries_nothing() -> None:
    (entry,) = [
        entry for entry in django_settings.CELERY_BEAT_SCHEDULE.values() if entry["task"] == tasks.moderate_pending.name
    ]
    assert entry == {"task": "policies.tasks.moderate_pending", "schedule": 5.0, "options": {"expires": 5}}
