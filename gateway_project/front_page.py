"""The admin's front page: what is amiss, what goes on, who spends, and on a new installation what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from accounts.models import ApiKey, User
from accounts.requests.models import AccessRequest
from accounts.requests.policy import decidable_by
from policies import findings
from proxy import selectors
from usage import dashboard
from usage.dashboard import Card

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Step:
    title: str
    explanation: str
    done: bool
    url: str = ""
    button: str = ""


def fill(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """unfold's DASHBOARD_CALLBACK. Figures only for those who may look at usage."""
    from usage.alert_overview import overview  # here: an admin module, which is loaded with the admin

    context["title"] = "Overview"
    waiting = decidable_by(cast(User, request.user)).filter(state=AccessRequest.State.OPEN)
    alerts = context["alerts"] = overview(request, waiting)
    context["requests_waiting"] = alerts["beside"] if alerts else waiting.count()
    context["may_see_usage"] = request.user.has_perm("usage.view_usageevent")
    figures: dict[str, Any] = dashboard.figures() if context["may_see_usage"] else {"quiet": True}
    if not figures["quiet"] and request.user.has_perm("policies.view_finding"):
        figures["cards"].append(policies_card())
    context.update(figures)
    if figures["quiet"]:
        models = selectors.callable_models()
        context["steps"] = steps(request, models)
        context["base_url"] = request.build_absolute_uri("/v1")
        context["model"] = next(iter(models), "MODEL")
    return context


def policies_card() -> Card:
    """What rules stopped, and what they changed: calls, not findings, for one call may have several."""
    now = timezone.now()
    hour, day = findings.acted_since_each(now - HOUR, now - DAY)
    return Card(
        "Stopped by policies",
        "policy",
        f"{hour.blocked:,}",
        f"{hour.changed:,} changed",
        f"{day.blocked:,}",
        f"{day.changed:,} changed",
        url=reverse("admin:policies_finding_overview"),
    )


def steps(request: HttpRequest, models: list[str]) -> list[Step]:
    """From nothing to the first call. A button only where this person may press it."""
    may_add_provider = request.user.has_perm("proxy.add_provider")
    may_add_model = request.user.has_perm("proxy.add_model")
    may_add_key = request.user.has_perm("accounts.add_apikey")
    has_provider = bool(models) or selectors.has_enabled_provider()
    return [
        Step(
            "Set up a provider",
            "Who answers the calls: OpenAI, Anthropic, Azure, your own server. The kind “Echo” needs no account and "
            "is good for trying out.",
            has_provider,
            reverse("admin:proxy_provider_add") if may_add_provider else "",
            "Add a provider",
        ),
        Step(
            "Offer a model",
            "The name that callers ask for, and a route to the provider that answers for it.",
            bool(models),
            reverse("admin:proxy_model_add") if may_add_model else "",
            "Add a model",
        ),
        Step(
            "Make an API key",
            "For a person, or for a team's service. It is shown once.",
            ApiKey.objects.exists(),
            reverse("admin:accounts_apikey_add") if may_add_key else "",
            "Add an API key",
        ),
    ]
