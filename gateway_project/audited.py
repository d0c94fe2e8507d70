"""What of other apps is in the audit trail (accounts.audit): whatever is set up, not what is measured or computed."""

from __future__ import annotations

from accounts.audit import watch
from policies.models import Assignment, Policy, PolicyVersion, Rule, Wordlist, WordlistEntry
from proxy.models import Model, Provider, Route
from usage.alert_models import AlertDestination, AlertRule
from usage.models import Budget, Limit, ModelPrice, MoneySettings, Rerating, TopUp


def build() -> None:
    """Once, when all apps have their models."""
    for model in (Provider, Model, Route):
        watch(model)
    for model in (Policy, Rule, PolicyVersion, Assignment):
        watch(model)
    # Entries that are written many at once are told by policies.services, these figures with them.
    watch(Wordlist, ignored={"entry_count", "content_hash", "updated_at"})
    watch(WordlistEntry)
    for model in (Budget, TopUp, Limit, ModelPrice, MoneySettings):
        watch(model)
    watch(Rerating, ignored={"events", "changed", "delta_nano_usd", "ended_at"})
    watch(AlertDestination)
    watch(AlertRule)
