"""What a rule told the caller of a call that it blocked, found again by the call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from policies.blocked import messages_of
from policies.checks.base import CHECKS
from policies.models import Policy, PolicyVersion
from policies.tests import findings

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def version(number: int, *rules: dict[str, Any]) -> None:
    policy, _ = Policy.objects.get_or_create(name="default")
    PolicyVersion.objects.create(policy=policy, number=number, document={"rules": list(rules)})


def test_message_is_that_of_the_version_that_blocked_the_call() -> None:
    version(2, {"name": "no frogs", "check": "wordlist", "message": "Frogs were welcome then."})
    version(3, {"name": "no frogs", "check": "wordlist", "message": "No frogs, please."})
    event = findings.add(NOW).event_id
    assert messages_of([event]) == {event: "No frogs, please."}


def test_each_rule_that_blocked_it_says_its_own_once() -> None:
    version(3, {"check": "wordlist", "message": "No frogs."}, {"name": "b", "check": "links", "message": "No links."})
    first = findings.add(NOW, rule="wordlist")
    findings.add(NOW, 1, rule="b", event_id=first.event_id)
    findings.add(NOW, 2, rule="b", event_id=first.event_id, stage="reply")
    assert messages_of([first.event_id]) == {first.event_id: "No frogs. No links."}


def test_rule_without_a_message_says_what_its_check_does() -> None:
    version(3, {"name": "no frogs", "check": "wordlist"})
    event = findings.add(NOW).event_id
    assert messages_of([event]) == {event: CHECKS["wordlist"].message}


@pytest.mark.parametrize("changed", [{"action": "redact"}, {"dry_run": True}, {"failed": True}, {"policy": "gone"}])
def test_nothing_is_said_of_what_did_not_block_or_is_gone(changed: dict[str, Any]) -> None:
    version(3, {"name": "no frogs", "check": "wordlist", "message": "No frogs."})
    assert messages_of([findings.add(NOW, **changed).event_id]) == {}


def test_many_calls_take_two_queries(django_assert_num_queries: Any) -> None:
    version(3, {"name": "no frogs", "check": "wordlist", "message": "No frogs."})
    events = [findings.add(NOW, number).event_id for number in range(10)]
    with django_assert_num_queries(2):
        assert len(messages_of(events)) == 10
