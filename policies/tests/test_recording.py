"""What policies found, from a call's record into rows: once, complete, and without ever losing the call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from policies import recording
from policies.models import Finding, LoggedContent, PendingModeration

pytestmark = pytest.mark.django_db

AT = datetime(2026, 11, 20, 12, 0, 0, 250, UTC)
ID = "019ac1d8f6007000a000000000000007"
FOUND = {
    "policy": "default", "version": 3, "rule": "no names", "check": "wordlist", "stage": "reply", "action": "redact",
    "label": "custom", "count": 2, "dry_run": True, "failed": False,
}  # fmt: skip


def call(**changed: Any) -> dict[str, Any]:
    return {
        "id": ID, "at": int(AT.timestamp() * 1e6), "request_id": "req_1", "endpoint": "chat/completions", "key_id": 4,
        "key_label": "laptop (abc)", "user_id": 5, "team_id": 6, "model": "gpt", **changed,
    }  # fmt: skip


def test_finding_is_a_row_that_says_what_was_found_in_which_call() -> None:
    recording.record([call(findings=[FOUND])])
    row = Finding.objects.get()
    assert (row.policy, row.version, row.rule, row.check_name) == ("default", 3, "no names", "wordlist")
    assert (row.stage, row.action, row.label, row.count) == ("reply", "redact", "custom", 2)
    assert (row.dry_run, row.failed) == (True, False)
    assert (row.at, row.event_id, row.request_id, row.endpoint) == (AT, UUID(ID), "req_1", "chat/completions")
    assert (row.model, row.key_label, row.key_id, row.team_id, row.user_id) == ("gpt", "laptop (abc)", 4, 6, 5)


def test_findings_of_a_call_are_as_old_as_the_call_and_in_order() -> None:
    recording.record([call(findings=[FOUND | {"rule": name} for name in "abc"])])
    rows = list(Finding.objects.order_by("id"))
    assert [row.rule for row in rows] == ["a", "b", "c"]
    assert {row.id.int >> 80 for row in rows} == {UUID(ID).int >> 80}
    assert {row.id.version for row in rows} == {7}


def test_ids_of_rows_stay_within_their_millisecond_at_the_end_of_the_random_bits() -> None:
    last = "019ac1d8f6007000bfffffffffffffff"
    assert recording.row_id(last, 1) == UUID("019ac1d8f60070008000000000000000")


def test_same_record_twice_changes_nothing() -> None:
    record = call(
        findings=[FOUND, FOUND], content={"request": "token", "reply": "", "retention_days": 1},
        moderation=[{"texts": "token", "call": {}}],
    )  # fmt: skip
    recording.record([record])
    recording.record([record, record])
    assert (Finding.objects.count(), LoggedContent.objects.count(), PendingModeration.objects.count()) == (2, 1, 1)


def test_logged_texts_are_kept_as_they_came_until_their_policy_says() -> None:
    recording.record([call(content={"request": "token 1", "reply": "token 2", "retention_days": 7})])
    row = LoggedContent.objects.get()
    assert (row.event_id, row.request, row.reply) == (UUID(ID), "token 1", "token 2")
    assert (row.at, row.expires_at) == (AT, AT + timedelta(days=7))
    assert (row.request_id, row.model, row.key_label, row.key_id, row.team_id, row.user_id) == (
        "req_1", "gpt", "laptop (abc)", 4, 6, 5,
    )  # fmt: skip


@pytest.mark.parametrize("content", [None, {}, {"request": "", "reply": "", "retention_days": 7}])
def test_call_without_logged_texts_has_no_row(content: Any) -> None:
    recording.record([call(content=content)])
    assert not LoggedContent.objects.exists()


def test_texts_that_wait_for_moderation_are_a_row_each_due_at_once() -> None:
    recording.record([call(moderation=[{"texts": "one", "call": {"rule": "a"}}, {"texts": "two", "call": {}}])])
    first, second = PendingModeration.objects.all()
    assert (first.texts, first.call, first.tries, first.next_try_at) == ("one", {"rule": "a"}, 0, AT)
    assert (second.texts, second.event_id) == ("two", UUID(ID))


@pytest.mark.parametrize(
    "bad",
    [
        {"findings": [{"rule": "half a finding"}]},
        {"findings": ["no finding"]},
        {"findings": [FOUND | {"count": "many"}]},
        {"content": {"request": "token"}},
        {"content": {"request": "token", "retention_days": 10**9}},
        {"moderation": [{"texts": "token"}]},
        {"findings": [FOUND], "id": "no id"},
        {"findings": [FOUND], "model": None},
    ],
)
def test_record_that_cannot_be_rows_is_left_out_alone(bad: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    good = call(id=ID[:-1] + "8", findings=[FOUND])
    recording.record([call(**bad), good])
    assert Finding.objects.get().event_id == UUID(good["id"])
    assert "cannot be written" in caplog.text


def test_names_no_database_takes_are_mended() -> None:
    recording.record([call(model="m" * 300, findings=[FOUND | {"rule": "a\0b\ud800" + "c" * 200}])])
    row = Finding.objects.get()
    assert len(row.model) == 200
    assert row.rule == "ab?" + "c" * 97
