"""From the journal into the database: every call once, whatever dies in between."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.db import OperationalError

from accounts.versions import bump, current
from usage import flusher as flusher_module
from usage import metrics
from usage.flusher import Flusher
from usage.journal import Journal, segments_of
from usage.models import UsageEvent
from usage.services import new_event_id

pytestmark = pytest.mark.django_db(transaction=True)
clock = itertools.count(1_790_000_000_000_000)


def record(**changed: Any) -> dict[str, Any]:
    at = next(clock)
    return {
        "id": new_event_id(at), "at": at, "request_id": "req_1", "endpoint": "chat/completions", "key_id": None,
        "key_label": "laptop (abc)", "user_id": None, "team_id": None, "model": "gpt", "provider": "openai",
        "upstream_model": "gpt", "streamed": False, "end_user": "", "client_ip": "127.0.0.1", "user_agent": "",
        "organization": "", "trace_id": "", "tags": {"project": "apollo"}, "status": 0, "error_code": "gateway_died",
        "prompt_tokens": 7, "completion_tokens": 0, "cached_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0,
        "estimated": True, "cost_nano_usd": 700, "latency_us": 0, "first_byte_us": None, "attempts": 1, **changed,
    }  # fmt: skip


def ending(opened: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {"id": opened["id"], "status": 200, "error_code": "", "estimated": False, "completion_tokens": 5, **changed}


@pytest.fixture
def logged() -> list[bytes]:
    return []


@pytest.fixture
def flusher(tmp_path: Path, logged: list[bytes]) -> Iterator[Flusher]:
    journal = Journal(tmp_path, segment_bytes=2000)
    yield Flusher(journal, logged.append)
    journal.close()


def flush(flusher: Flusher) -> None:
    for _ in range(3):
        flusher.flush()


def test_settled_call_is_one_event_with_what_its_end_said(flusher: Flusher) -> None:
    opened = record()
    flusher.journal.open(opened)
    flusher.journal.settle(ending(opened))
    flush(flusher)
    event = UsageEvent.objects.get()
    assert (event.status, event.completion_tokens, event.prompt_tokens, event.estimated) == (200, 5, 7, False)
    assert event.tags == {"project": "apollo"}


def test_open_call_waits_for_its_end(flusher: Flusher) -> None:
    flusher.journal.open(record())
    flush(flusher)
    assert not UsageEvent.objects.exists()


def test_refused_call_is_an_event_too(flusher: Flusher) -> None:
    flusher.journal.whole(record(status=403, error_code="endpoint_not_allowed", attempts=0))
    flush(flusher)
    assert UsageEvent.objects.get().error_code == "endpoint_not_allowed"


def test_one_log_line_a_call_without_text(flusher: Flusher, logged: list[bytes]) -> None:
    flusher.journal.whole(record(status=200, end_user="carol@example.org"))
    flush(flusher)
    (line,) = b"".join(logged).splitlines()
    assert orjson.loads(line)["request_id"] == "req_1"
    assert orjson.loads(line)["flags"] == ["estimated"]
    assert b"carol" not in line


def test_database_that_is_away_loses_nothing(flusher: Flusher, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(rows: list[Any]) -> None:
        raise OperationalError("gone")

    real = flusher_module.insert_events
    monkeypatch.setattr(flusher_module, "insert_events", away)
    for _ in range(30):
        flusher.journal.whole(record())
    flush(flusher)
    assert flusher.waiting == 30
    monkeypatch.setattr(flusher_module, "insert_events", real)
    monkeypatch.setattr(flusher, "_next_try", 0.0)
    flush(flusher)
    assert UsageEvent.objects.count() == 30


def test_lines_stay_in_the_journal_when_too_many_rows_wait(flusher: Flusher, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(rows: list[Any]) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(flusher_module, "insert_events", away)
    monkeypatch.setattr(flusher_module, "MAX_WAITING_ROWS", 10)
    monkeypatch.setattr(flusher_module, "READ_BYTES", 3000)
    for _ in range(100):
        flusher.journal.whole(record())
        flusher.flush()
    assert flusher.waiting < 40


def test_flusher_that_lags_behind_reads_no_end_before_its_beginning(
    flusher: Flusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is unread in the old segment than one round reads, and the new one has the ends of those calls."""
    monkeypatch.setattr(flusher_module, "READ_BYTES", 3000)
    opened = [record() for _ in range(20)]
    for one in opened:
        flusher.journal.open(one)
    flusher.journal.rotate_if_full()
    for one in opened:
        flusher.journal.settle(ending(one))
    while not flusher.flush():
        pass
    assert UsageEvent.objects.filter(status=200, completion_tokens=5).count() == 20
    assert not flusher._open


def test_beginning_that_is_written_late_into_the_old_segment_meets_its_end(flusher: Flusher) -> None:
    """The event loop was inside its write on the old segment while the flusher began the next one."""
    flusher.journal.segment_bytes = 0
    late, early = record(), record()
    flusher.journal.open(early)
    old = flusher.journal._fd
    flusher.journal.rotate_if_full()
    flusher.journal.segment_bytes = 2000
    flusher.journal.settle(ending(late))
    flusher.flush()
    assert not UsageEvent.objects.exists()
    os.write(old, orjson.dumps({**late, "kind": "open"}, option=orjson.OPT_APPEND_NEWLINE))
    flusher.flush()
    assert UsageEvent.objects.get().id.hex == late["id"]


def test_drained_segments_are_deleted_and_open_ones_kept(flusher: Flusher) -> None:
    opened = record()
    flusher.journal.open(opened)
    for _ in range(20):
        flusher.journal.whole(record())
        flush(flusher)
    first, *_ = segments_of(flusher.journal.folder, flusher.journal.owner)
    assert first.name.endswith("-000001.jsonl"), "its call is still open"
    flusher.journal.settle(ending(opened))
    flush(flusher)
    assert len(segments_of(flusher.journal.folder, flusher.journal.owner)) <= 2
    assert UsageEvent.objects.count() == 21


def test_calls_of_a_dead_process_are_adopted_once(flusher: Flusher, tmp_path: Path) -> None:
    dead = Journal(tmp_path)
    settled, cut_off = record(), record(request_id="req_cut")
    dead.open(settled)
    dead.open(cut_off)
    dead.settle(ending(settled))
    dead.close()
    flusher.adopt()
    flusher.adopt()
    assert UsageEvent.objects.count() == 2
    orphan = UsageEvent.objects.get(request_id="req_cut")
    assert (orphan.status, orphan.error_code, orphan.estimated) == (0, "gateway_died", True)
    assert not segments_of(tmp_path, dead.owner)


def test_what_failed_before_the_gateway_died_is_known(flusher: Flusher, tmp_path: Path) -> None:
    dead = Journal(tmp_path)
    cut_off = record()
    dead.open(cut_off)
    dead.note({"id": cut_off["id"], "failed_tries": "azure:503"})
    dead.close()
    flusher.adopt()
    event = UsageEvent.objects.get()
    assert (event.failed_tries, event.error_code, event.estimated) == ("azure:503", "gateway_died", True)


def test_note_makes_no_event_and_ends_no_call(flusher: Flusher) -> None:
    opened = record()
    flusher.journal.open(opened)
    flusher.journal.note({"id": opened["id"], "failed_tries": "azure:503"})
    flusher.journal.note({"id": "of a call that nobody knows", "failed_tries": "azure:503"})
    flush(flusher)
    assert not UsageEvent.objects.exists()
    flusher.journal.settle(ending(opened, failed_tries="azure:503,openai:429"))
    flush(flusher)
    assert UsageEvent.objects.get().failed_tries == "azure:503,openai:429"


def test_journal_of_a_dead_process_does_not_fill_the_memory_while_the_database_is_away(
    flusher: Flusher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Journal(tmp_path)
    for _ in range(20):
        dead.whole(record())
    dead.close()

    def away(rows: list[Any]) -> None:
        raise OperationalError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(flusher_module, "insert_events", away)
        for _ in range(5):
            flusher._next_try = 0.0
            flusher.adopt()
        assert flusher.waiting == 0
    flusher._next_try = 0.0
    flusher.adopt()
    assert UsageEvent.objects.count() == 20
    assert not list(segments_of(tmp_path, dead.owner))


def test_living_process_is_not_adopted(flusher: Flusher, tmp_path: Path) -> None:
    living = Journal(tmp_path)
    living.open(record())
    flusher.adopt()
    assert not UsageEvent.objects.exists()
    living.close()


def test_event_that_was_already_inserted_is_not_doubled(flusher: Flusher, tmp_path: Path) -> None:
    again = record(status=200)
    flusher.journal.whole(dict(again))
    flush(flusher)
    dead = Journal(tmp_path)
    dead.whole(dict(again))
    dead.close()
    flusher.adopt()
    assert UsageEvent.objects.count() == 1


def test_record_that_is_no_event_is_skipped_and_the_others_kept(flusher: Flusher, caplog: Any) -> None:
    flusher.journal.whole({"id": "x"})
    flusher.journal.whole(record())
    flush(flusher)
    assert UsageEvent.objects.count() == 1
    assert "not a usage event" in caplog.text


# --- what a record carries beside its event ---------------------------------------------------------------------------
class Also:
    """Takes what records carry; `error`: what it raises, after it has written something."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def __call__(self, records: list[dict[str, Any]]) -> None:
        bump("carried")
        if self.error is not None:
            raise self.error
        self.taken += records


@pytest.fixture
def also() -> Also:
    return Also()


@pytest.fixture
def carrier(tmp_path: Path, also: Also) -> Iterator[Flusher]:
    journal = Journal(tmp_path)
    yield Flusher(journal, lambda _: None, also)
    journal.close()


FOUND = {"findings": [{"check": "wordlist", "action": "block", "dry_run": False, "failed": False}]}


@pytest.mark.parametrize("name", ["findings", "content", "moderation"])
def test_what_a_call_carries_reaches_whoever_asked_for_it(carrier: Flusher, also: Also, name: str) -> None:
    opened = record(request_id="req_carried")
    carrier.journal.open(opened)
    carrier.journal.settle(ending(opened, **{name: [{"check": "wordlist"}]}))
    flush(carrier)
    (taken,) = also.taken
    assert (taken["request_id"], taken["status"], taken[name]) == ("req_carried", 200, [{"check": "wordlist"}])
    assert UsageEvent.objects.count() == 1


@pytest.mark.parametrize("carried", [{}, {"findings": []}, {"content": None}])
def test_call_that_carries_nothing_is_passed_on_to_nobody(carrier: Flusher, also: Also, carried: Any) -> None:
    carrier.journal.whole(record(**carried))
    flush(carrier)
    assert also.taken == []
    assert UsageEvent.objects.count() == 1


def test_what_the_calls_of_a_dead_process_carry_is_adopted_with_them(
    carrier: Flusher, also: Also, tmp_path: Path
) -> None:
    dead = Journal(tmp_path)
    dead.whole(record(**FOUND))
    dead.close()
    carrier.adopt()
    assert len(also.taken) == UsageEvent.objects.count() == 1


def test_event_and_what_it_carries_are_written_both_or_neither(
    carrier: Flusher, also: Also, monkeypatch: pytest.MonkeyPatch
) -> None:
    also.error = OperationalError("gone")
    carrier.journal.whole(record(**FOUND))
    flush(carrier)
    assert not UsageEvent.objects.exists()
    assert carrier.waiting == 1
    also.error = None
    monkeypatch.setattr(carrier, "_next_try", 0.0)
    flush(carrier)
    assert len(also.taken) == UsageEvent.objects.count() == 1


def test_event_is_written_although_what_it_carries_cannot_be(carrier: Flusher, also: Also, caplog: Any) -> None:
    also.error = ValueError("no such thing")
    carrier.journal.whole(record(**FOUND))
    carrier.journal.whole(record())
    flush(carrier)
    assert UsageEvent.objects.count() == 2
    assert "carried" not in current()
    assert "in 1 calls cannot be written" in caplog.text


def test_lines_stay_in_the_journal_when_what_waits_is_too_large(
    carrier: Flusher, also: Also, monkeypatch: pytest.MonkeyPatch
) -> None:
    also.error = OperationalError("gone")
    monkeypatch.setattr(flusher_module, "MAX_WAITING_EXTRA_BYTES", 100_000)
    monkeypatch.setattr(flusher_module, "READ_BYTES", 3000)
    for _ in range(20):
        carrier.journal.whole(record(content={"request": "x" * 20_000}))
        carrier.flush()
    assert carrier.waiting == 5
    also.error = None
    monkeypatch.setattr(carrier, "_next_try", 0.0)
    for _ in range(20):
        carrier.flush()
    assert len(also.taken) == 20


@pytest.mark.parametrize(
    ("found", "counted_as"),
    [
        ({"check": "tested", "action": "redact", "dry_run": False, "failed": False}, "redact"),
        ({"check": "tested", "action": "block", "dry_run": True, "failed": False}, "dry_run"),
        ({"check": "tested", "action": "block", "dry_run": False, "failed": True}, "failed"),
    ],
)
def test_findings_are_counted_by_check_and_what_was_done(carrier: Flusher, found: Any, counted_as: str) -> None:
    before = metrics.FINDINGS.labels("tested", counted_as)._value.get()
    carrier.journal.whole(record(findings=[found, found]))
    flush(carrier)
    assert metrics.FINDINGS.labels("tested", counted_as)._value.get() == before + 2
