"""Rules, destinations and alerts for tests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from usage.alert_models import Alert, AlertDestination, AlertRule, Delivery
from usage.alerts import watching
from usage.alerts.kinds import KINDS
from usage.tests.events import NOON

MINUTE = timedelta(minutes=1)
SECRET = "correct horse battery staple"


def rule(kind: str, **changed: Any) -> AlertRule:
    """With what is usual for its kind, but for what the test says. The rules that ship are gone."""
    AlertRule.objects.all().delete()
    return AlertRule.objects.create(**({"name": f"the {kind} rule", "kind": kind, **KINDS[kind].numbers} | changed))


def destination(kind: str = "webhook", address: str = "https://hooks.example.org/abc", **changed: Any) -> Any:
    made = AlertDestination(**({"name": f"the {kind}", "kind": kind, "private_network": True} | changed))
    made.set_address(address)
    if kind == "webhook":
        made.set_secret(SECRET)
    made.save()
    return made


def found(at: datetime = NOON) -> list[str]:
    """Look at the rules; the titles of all alerts there are then, oldest first."""
    watching.check(at)
    return list(Alert.objects.order_by("pk").values_list("title", flat=True))


def told(about: str = "fired") -> list[tuple[str, str]]:
    """(destination, title) of the messages about it."""
    rows = Delivery.objects.filter(about=about).order_by("pk")
    return list(rows.values_list("destination__name", "alert__title"))
