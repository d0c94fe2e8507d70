"""Many who write at once, in threads and transactions of their own: one chain, and an event exactly for each change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from accounts.audit.models import AuditEvent
from accounts.audit.verify import verify
from accounts.models import Team

WRITERS, CHANGES = 6, 8


@pytest.mark.django_db(transaction=True)
def test_parallel_writers_make_one_chain(settings: Any) -> None:
    settings.AUDIT_ANCHOR_FILE = ""

    def write(writer: int) -> None:
        try:
            for number in range(CHANGES):
                try:
                    with transaction.atomic():
                        Team.objects.create(name=f"team {writer}.{number}")
                        if number % 4 == 3:
                            raise LookupError
                except LookupError:
                    continue
        finally:
            connection.close()

    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(write, range(WRITERS)))
    teams = set(Team.objects.values_list("name", flat=True))
    assert len(teams) == WRITERS * CHANGES * 3 // 4
    events = AuditEvent.objects.select_related("detail").order_by("id")
    assert {event.target_name for event in events} == teams
    assert [event.number for event in events] == list(range(1, len(teams) + 1))
    assert verify().findings == []


@pytest.mark.django_db(transaction=True)
def test_plain_save_whose_event_cannot_be_written_does_not_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    from accounts.audit import trail

    def fail(*_args: Any, **_options: Any) -> None:
        raise OSError("the trail takes no events")

    monkeypatch.setattr(trail, "record", fail)
    with pytest.raises(OSError, match="takes no events"):
        Team.objects.create(name="research")
    assert not Team.objects.exists()
