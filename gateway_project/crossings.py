"""What apps that do not know each other lend each other: links between the pages of one call, and what alerts watch."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse

from accounts import owner_sections
from accounts.requests import money
from policies import calls, findings
from proxy import selectors
from usage import allowances, call_sections, rerating
from usage.alerts import sources
from usage.alerts.sources import BlockedKey
from usage.models import UsageEvent

MAX_EVENTS = 100


def build() -> None:
    """Once, when all apps have their models."""
    calls.set_calls(find=event_ids, url=event_url)
    call_sections.set_sections(findings_of_call, content_of_call)
    rerating.set_prices_ids(selectors.prices_ids)
    owner_sections.set_sections(limits_of_owner, events_of_owner)
    money.set_source(allowances)
    sources.set_repeated_blocks(repeated_blocks)


def event_ids(request_id: str) -> list[UUID]:
    """A caller may use a request id again."""
    found = UsageEvent.objects.filter(request_id=request_id).order_by("-pk").values_list("pk", flat=True)
    return list(found[:MAX_EVENTS])


def event_url(request: HttpRequest, event_id: UUID) -> str:
    if not request.user.has_perm("usage.view_usageevent"):
        return ""
    return reverse("admin:usage_usageevent_change", args=[event_id])


def findings_of_call(request: HttpRequest, event_id: UUID) -> str:
    from policies import findings_admin  # an admin module: it is loaded with the admin, not at every start

    return findings_admin.of_call(request, event_id)


def content_of_call(request: HttpRequest, event_id: UUID) -> str:
    from policies import content_admin

    return content_admin.of_call(request, event_id)


def repeated_blocks(since: datetime, at_least: int) -> list[BlockedKey]:
    found = findings.blocked_keys(since, at_least)
    return [BlockedKey(one.key_id, one.key_label, one.team_id, one.calls) for one in found]


def events_of_owner(request: HttpRequest, owner: Model) -> str:
    from accounts.audit import admin as audit_admin  # as those above

    return audit_admin.of_owner(request, owner)


def limits_of_owner(request: HttpRequest, owner: Model) -> str:
    from usage import owner_limits  # an admin module, as those above

    return owner_limits.of_owner(request, owner)
