"""Whatever is done to the rows of the trail by somebody who does not know its key is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db.models import F
from django.utils import timezone
from pytest_django import Settings

from accounts.audit import acting, anchors, record, retention
from accounts.audit.chain import commitment
from accounts.audit.models import AuditCheckpoint, AuditDetail, AuditEvent, AuditHead
from accounts.audit.verify import verify
from accounts.models import Team

pytestmark = pytest.mark.django_db
EVENTS = 8


@pytest.fixture(autouse=True)
def anchor_file(settings: Settings, tmp_path: Path) -> Path:
    settings.AUDIT_ANCHOR_FILE = str(tmp_path / "anchors.jsonl")
    settings.AUDIT_ANCHOR_URL = ""
    return tmp_path / "anchors.jsonl"


@pytest.fixture(autouse=True)
def trail(db: None) -> Iterator[None]:
    """Of EVENTS events."""
    with acting("admin", name="root", ip="192.0.2.1"):
        team = Team.objects.create(name="research")
        for number in range(EVENTS - 1):
            team.cost_center = str(number)
            team.save()
    yield


def event(number: int) -> Any:
    return AuditEvent.objects.filter(number=number)


def detail(number: int) -> Any:
    return AuditDetail.objects.filter(event__number=number)


def delete(*numbers: int) -> None:
    AuditDetail.objects.filter(event__number__in=numbers).delete()
    AuditEvent.objects.filter(number__in=numbers).delete()


def swap(one: int, other: int) -> None:
    event(one).update(number=-1)
    event(other).update(number=one)
    event(-1).update(number=other)


def change_detail_and_its_salted_digest() -> None:
    """As far as somebody comes who knows how it is done, but not the key."""
    row, of = detail(3).get(), event(3).get()
    salts, commitments = json.loads(row.salts), json.loads(of.commitments)
    commitments["who"] = commitment(salts["who"], "who", "mallory")
    detail(3).update(user_name="mallory")
    event(3).update(commitments=json.dumps(commitments))


def cut_and_move_the_end() -> None:
    delete(7, 8)
    last = event(6).get()
    AuditHead.objects.update(number=6, digest=last.digest, last_id=last.id)


def insert_a_copy() -> None:
    of, row = event(EVENTS).get(), detail(EVENTS).get()
    of.id, of.number = type(of.id)(int=of.id.int + 1), EVENTS + 1
    of.save(force_insert=True)
    row.event = of
    row.save(force_insert=True)


def pretend_an_erasure() -> None:
    detail(3).update(user_name="", erased=json.dumps({"who": "0" * 64}))


def pretend_a_prune() -> None:
    last = event(3).get()
    delete(1, 2, 3)
    AuditCheckpoint.objects.create(number=3, digest=last.digest, events=3, key=last.key, signature="0" * 64)


TAMPERED: dict[str, tuple[Callable[[], object], str]] = {
    "action": (lambda: event(3).update(action="team.created"), "Event 3 (team.created) was altered"),
    "channel": (lambda: event(3).update(channel="system"), "Event 3 (team.changed) was altered"),
    "target": (lambda: event(3).update(target_id="77"), "Event 3 (team.changed) was altered"),
    "digest": (lambda: event(3).update(digest="0" * 64), "Event 3 (team.changed) was altered"),
    "key": (lambda: event(3).update(key="f" * 16), "Event 3 is signed under the key ffffffffffffffff, which nobody"),
    "who": (lambda: detail(3).update(user_name="mallory"), "The detail of event 3 (team.changed) was altered: who."),
    "user": (lambda: detail(3).update(user_id=77), "The detail of event 3 (team.changed) was altered: user."),
    "ip": (lambda: detail(3).update(ip="198.51.100.9"), "The detail of event 3 (team.changed) was altered: ip."),
    "before": (
        lambda: detail(3).update(before='{"cost_center": "9"}'),
        "The detail of event 3 (team.changed) was altered: before.cost_center.",
    ),
    "added": (lambda: detail(3).update(details='{"note": "x"}'), "was altered: details.note."),
    "not JSON": (lambda: detail(3).update(after="["), "it cannot be read"),
    "no detail": (lambda: detail(3).delete(), "The detail of event 3 (team.changed) was deleted."),
    "digest too": (change_detail_and_its_salted_digest, "Event 3 (team.changed) was altered"),
    "one deleted": (lambda: delete(3), "Event 3 is missing."),
    "some deleted": (lambda: delete(3, 4, 5), "Events 3 to 5 are missing."),
    "first deleted": (lambda: delete(1), "Event 1 is missing."),
    "last deleted": (lambda: delete(EVENTS), f"Event {EVENTS} is missing. They were the newest"),
    "cut": (cut_and_move_the_end, "The end of the trail was altered"),
    "all deleted": (lambda: delete(*range(1, EVENTS + 1)), f"Events 1 to {EVENTS} are missing."),
    "end deleted": (lambda: AuditHead.objects.all().delete(), "The end of the trail was deleted"),
    "reordered": (lambda: swap(3, 4), "Event 3 (team.changed) was altered, or is not where it was written."),
    "renumbered": (
        lambda: event(EVENTS).update(number=F("number") + 1),
        f"Event {EVENTS} is missing.",
    ),
    "added at the end": (insert_a_copy, f"Event {EVENTS + 1} (team.changed) was altered"),
    "false erasure": (pretend_an_erasure, "The detail of event 3 (team.changed) was altered: who."),
    "false prune": (pretend_a_prune, "The checkpoint after event 3 was altered, or is not ours."),
}


def test_trail_as_it_was_written_has_no_findings() -> None:
    report = verify()
    assert (report.findings, report.first, report.last) == ([], 1, EVENTS)


@pytest.mark.parametrize("how", TAMPERED)
def test_tampering_is_found(how: str) -> None:
    tamper, finding = TAMPERED[how]
    tamper()
    assert any(finding in found for found in verify().findings), verify().findings


def test_command_ends_with_1_and_a_sentence_for_each_finding(capsys: pytest.CaptureFixture[str]) -> None:
    delete(3)
    with pytest.raises(SystemExit) as ended:
        call_command("verify_audit")
    assert ended.value.code == 1
    assert "Event 3 is missing.\n" in capsys.readouterr().err


def test_command_tells_what_it_read(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("verify_audit")
    assert capsys.readouterr().out == (
        f"The audit trail is as it was written: events 1 to {EVENTS}. No anchors to hold it against.\n"
    )


# --- what goes on after it was tampered with ------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["cut", "end deleted"])
def test_end_that_was_altered_stays_a_finding_when_more_is_written(how: str) -> None:
    TAMPERED[how][0]()
    Team.objects.create(name="sales")
    assert any("its end had been" in found for found in verify().findings)


def test_gap_stays_a_finding_when_more_is_written() -> None:
    delete(EVENTS)
    Team.objects.create(name="sales")
    assert f"Event {EVENTS} is missing." in verify().findings


# --- anchors --------------------------------------------------------------------------------------------------------
def put_back_to_here() -> Callable[[], None]:
    """What restores the database, head and all, as it is now."""
    head = AuditHead.objects.values().get()

    def put_back() -> None:
        delete(*AuditEvent.objects.filter(number__gt=head["number"]).values_list("number", flat=True))
        AuditHead.objects.update(**head)

    return put_back


def test_anchor_shows_that_the_whole_trail_was_put_back() -> None:
    put_back = put_back_to_here()
    Team.objects.create(name="sales")
    anchors.write()
    put_back()
    (finding,) = verify().findings
    assert f"names event {EVENTS + 1}, but the newest one is {EVENTS}" in finding


def test_anchor_shows_that_another_story_was_written_since() -> None:
    put_back = put_back_to_here()
    Team.objects.create(name="sales")
    anchors.write()
    put_back()
    Team.objects.create(name="marketing")
    (finding,) = verify().findings
    assert finding.startswith(f"Event {EVENTS + 1} is not the one that the anchor of")


def test_anchor_that_was_altered_is_found(anchor_file: Path) -> None:
    anchors.write()
    anchor_file.write_text(anchor_file.read_text().replace(f'"number": {EVENTS}', '"number": 3'))
    assert any("(event 3) was altered, or is not ours" in found for found in verify().findings)


def test_file_gets_no_second_anchor_of_the_same_event(anchor_file: Path) -> None:
    anchors.write()
    anchors.write()
    assert len(anchor_file.read_text().splitlines()) == 1
    record("session.signed_in")
    anchors.write()
    assert len(anchor_file.read_text().splitlines()) == 2
    assert verify().findings == []


def test_anchors_are_sent_to_the_webhook(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.AUDIT_ANCHOR_URL = "https://anchors.example.org/"
    sent: list[tuple[str, bytes]] = []
    monkeypatch.setattr(anchors, "_post", [lambda url, body: sent.append((url, body))])
    anchors.write()
    ((url, body),) = sent
    assert (url, json.loads(body)["number"]) == ("https://anchors.example.org/", EVENTS)


# --- keys -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("writes_before", [True, False])
def test_events_of_a_key_that_is_no_longer_in_use_are_still_verified(writes_before: bool, settings: Settings) -> None:
    old = settings.ENCRYPTION_KEYS[0]
    settings.ENCRYPTION_KEYS = ["another key " * 4, old]
    if writes_before:
        Team.objects.create(name="sales")
    call_command("rotate_encryption")
    settings.ENCRYPTION_KEYS = ["another key " * 4]
    Team.objects.create(name="marketing")
    assert verify().findings == []
    assert len(set(AuditEvent.objects.values_list("key", flat=True))) == 2


def test_without_the_key_nothing_is_verified(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = ["another key " * 4]
    assert "which nobody knows" in verify().findings[0]


# --- retention ------------------------------------------------------------------------------------------------------
def test_old_events_are_deleted_and_the_chain_holds(settings: Settings) -> None:
    settings.AUDIT_RETENTION_DAYS = 30
    anchors.write()
    assert retention.prune(timezone.now() + timedelta(days=31)) == EVENTS - 1
    report = verify()
    assert (report.findings, report.first) == ([], EVENTS)
    pruned = AuditEvent.objects.select_related("detail").get(action="audit.pruned")
    assert pruned.details == {"events": EVENTS - 1, "up_to": EVENTS - 1}


def test_deleting_in_several_batches_is_the_same(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.AUDIT_RETENTION_DAYS = 30
    monkeypatch.setattr(retention, "EVENTS_AT_ONCE", 3)
    later = timezone.now() + timedelta(days=31)
    assert retention.prune(later, stop_after_s=0) == 3
    assert verify().findings == []


def test_event_that_went_missing_after_a_prune_is_found(settings: Settings) -> None:
    settings.AUDIT_RETENTION_DAYS = 30
    retention.prune(timezone.now() + timedelta(days=31))
    for name in ("a", "b", "c"):
        Team.objects.create(name=name)
    delete(EVENTS)
    assert f"Event {EVENTS} is missing." in verify().findings


def test_everything_is_kept_for_ever_where_nothing_else_is_said(settings: Settings) -> None:
    settings.AUDIT_RETENTION_DAYS = 0
    assert retention.prune(timezone.now() + timedelta(days=100_000)) == 0


def test_young_events_stay(settings: Settings) -> None:
    settings.AUDIT_RETENTION_DAYS = 30
    assert retention.prune() == 0
