"""What rules told the callers of calls that they blocked. Looked up when it is asked for: findings keep no messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from policies import documents
from policies.checks.base import CHECKS
from policies.documents import RuleSpec
from policies.models import Finding, PolicyVersion
from policies.record import joined


def messages_of(event_ids: Sequence[UUID]) -> Mapping[UUID, str]:
    """By the event of the call; two queries. Nothing of calls whose policy is gone."""
    blocking = Finding.objects.filter(event_id__in=event_ids, action="block", dry_run=False, failed=False)
    found = list(blocking.order_by("pk").values_list("event_id", "policy", "version", "rule"))
    rules = _rules({(policy, version) for _, policy, version, _ in found})
    said: dict[UUID, list[str]] = {}
    for event_id, policy, version, rule in found:
        spec = rules.get((policy, version, rule))
        if spec is not None:
            said.setdefault(event_id, []).append(_message(spec))
    return {event_id: joined(messages) for event_id, messages in said.items()}


def _rules(versions: set[tuple[str, int]]) -> dict[tuple[str, int, str], RuleSpec]:
    """Each by its policy, the version and its title."""
    names, numbers = {name for name, _ in versions}, {number for _, number in versions}
    rows = PolicyVersion.objects.filter(policy__name__in=names, number__in=numbers)
    return {
        (name, number, spec.title): spec
        for name, number, document in rows.values_list("policy__name", "number", "document")
        if (name, number) in versions
        for spec in documents.read(document).rules
    }


def _message(rule: RuleSpec) -> str:
    kind = CHECKS.get(rule.check)
    return rule.message or (kind.message if kind else "")
