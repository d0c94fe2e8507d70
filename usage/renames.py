"""What goes along when a model gets another name: its prices, budgets, rate limits and alert rules.

Past calls keep the name of their time, and so does what was spent: a budget on the model counts from the new name's
first call.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction

from accounts import versions
from usage.alert_models import AlertRule
from usage.models import Budget, Limit
from usage.prices import carry_prices


@transaction.atomic
def carry(model: str, renamed: str) -> dict[str, int]:
    """Gives how many rows of each kind now name `renamed`, those of which there are any; prices, which stay under the
    old name too, are not counted. Raises IntegrityError where one is `in_the_way`."""
    carry_prices(model, renamed)
    counts = {
        "budgets": _rename(Budget.objects, "model", model, renamed),
        "cheaper models of budgets": _rename(Budget.objects, "fallback_model", model, renamed),
        "rate limits": _rename(Limit.objects, "model", model, renamed),
        "alert rules": _rename(AlertRule.objects, "model", model, renamed),
    }
    versions.bump(versions.LIMITS)
    return {kind: count for kind, count in counts.items() if count}


def _rename(rows: Any, column: str, model: str, renamed: str) -> int:
    """One by one, so that each is in the audit trail."""
    found = list(rows.select_for_update().filter(**{column: model}))
    for row in found:
        setattr(row, column, renamed)
        row.save(update_fields=[column])
    return len(found)


def in_the_way(model: str, renamed: str) -> list[str]:
    """Rate limits under the new name of somebody who has one under the old name: only one of the two can stay."""
    old = set(Limit.objects.filter(model=model).values_list("scope", "team", "user", "key"))
    new = Limit.objects.filter(model=renamed).select_related("team", "user", "key")
    return [str(limit) for limit in new if (limit.scope, limit.team_id, limit.user_id, limit.key_id) in old]
