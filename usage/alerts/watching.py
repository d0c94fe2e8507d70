"""From conditions to alerts: each fires once, stays open while it goes on, and is over when all has been well for a
while. A rule's changes and the deliveries that they make are one transaction, so nothing is told twice or forgotten,
whoever dies in the middle and however many look at the same time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max, Q
from django.utils import timezone

from accounts.time_ids import first_id, to_unix_us
from usage.alert_models import Alert, AlertDestination, AlertRule, Delivery
from usage.alerts import conditions, sign_ins, traffic
from usage.alerts.conditions import Condition
from usage.alerts.kinds import KINDS, Kind, calm_of
from usage.services import new_event_id

logger = logging.getLogger(__name__)

WATCHES: Mapping[str, Callable[[AlertRule, datetime], Iterable[Condition]]] = {
    Kind.BUDGET: conditions.budgets,
    Kind.ERRORS: traffic.error_rate,
    Kind.LATENCY: traffic.latency,
    Kind.PROVIDER: traffic.providers,
    Kind.BLOCKS: conditions.repeated_blocks,
    Kind.SIGN_IN: conditions.failed_sign_ins,
    Kind.KEY_EXPIRY: conditions.expiring_keys,
}
# More at once are told in one message: nobody reads ten thousand.
TOLD_ONE_BY_ONE = 20
FORGOTTEN_AFTER = timedelta(hours=24)
ROWS_AT_ONCE = 500


def check(now: datetime | None = None) -> None:
    """Look at every rule. One that breaks is in the log and keeps the others from nothing."""
    now = now or timezone.now()
    for rule in AlertRule.objects.filter(enabled=True).select_related("team"):
        try:
            check_rule(rule, now)
        except Exception:
            logger.exception("the alert rule %s could not be checked", rule.name)
    nobodys = Alert.objects.filter(Q(rule=None) | Q(rule__enabled=False), resolved_at=None)
    nobodys.update(resolved_at=now)


def check_rule(rule: AlertRule, now: datetime) -> None:
    found = {one.subject: one for one in WATCHES[rule.kind](rule, now)}
    if not _is_news(rule, found):
        return  # on SQLite a transaction keeps the others from writing, so none for nothing
    with transaction.atomic():
        if _lock(rule):
            _fire(rule, [one for one in found.values() if one.is_bad], now)
            _resolve(rule, found, now)


def _is_news(rule: AlertRule, found: Mapping[str, Condition]) -> bool:
    bad = {one.subject for one in found.values() if one.is_bad}
    still_open = {alert.subject: alert for alert in _open(rule)}
    if any(alert.well_since or subject not in bad for subject, alert in still_open.items()):
        return True
    return bool(bad - still_open.keys() - _known(rule, bad - still_open.keys()))


def _open(rule: AlertRule) -> Iterable[Alert]:
    return Alert.objects.filter(rule=rule, resolved_at=None).only("pk", "subject", "fired_at", "well_since", "kind")


def _known(rule: AlertRule, subjects: Collection[str]) -> set[str]:
    """Which of the subjects never fire again."""
    return set(_numbers(rule, subjects)) if KINDS[rule.kind].once else set()


def _numbers(rule: AlertRule, subjects: Collection[str]) -> dict[str, int]:
    """How often each of them has fired; those that have not are left out."""
    numbers: dict[str, int] = {}
    wanted = sorted(subjects)
    for first in range(0, len(wanted), ROWS_AT_ONCE):
        rows = Alert.objects.filter(rule=rule, subject__in=wanted[first : first + ROWS_AT_ONCE])
        numbers |= dict(rows.order_by().values_list("subject").annotate(Max("number")))
    return numbers


def _lock(rule: AlertRule) -> bool:
    """False: somebody else is at this very rule, and what we have found will be found again. SQLite needs no lock:
    its transactions are one at a time."""
    rows = AlertRule.objects.filter(pk=rule.pk, enabled=True)
    if connection.features.has_select_for_update_skip_locked:
        rows = rows.select_for_update(skip_locked=True)
    return rows.values_list("pk", flat=True).first() is not None


# --- fire -----------------------------------------------------------------------------------------------------------
def _fire(rule: AlertRule, bad: Sequence[Condition], now: datetime) -> None:
    still_open = {alert.subject for alert in _open(rule)}
    numbers = _numbers(rule, {one.subject for one in bad} - still_open)
    known = numbers if KINDS[rule.kind].once else {}
    alerts = [
        _alert(rule, one, numbers.get(one.subject, 0) + 1, now, place)
        for place, one in enumerate(bad)
        if one.subject not in still_open and one.subject not in known
    ]
    told = alerts
    if len(alerts) > TOLD_ONE_BY_ONE:
        told = [_summary(rule, alerts, now)]
        alerts = [*alerts, *told]
    Alert.objects.bulk_create(alerts, batch_size=ROWS_AT_ONCE)
    _tell(told, destinations_of(rule), Delivery.About.FIRED, now)


def destinations_of(rule: AlertRule) -> list[AlertDestination]:
    """Those that are chosen, or all when none is; of these, those that are switched on."""
    chosen = rule.destinations.all()
    of = chosen if chosen.exists() else AlertDestination.objects.all()
    return list(of.filter(enabled=True))


def _alert(rule: AlertRule, one: Condition, number: int, now: datetime, place: int) -> Alert:
    return Alert(
        id=_new_id(now, place),
        fired_at=now,
        rule=rule,
        rule_name=rule.name,
        kind=rule.kind,
        subject=one.subject[:400],
        number=number,
        severity=one.severity,
        title=one.title[:300],
        text=one.text,
        facts=one.facts,
    )


def _summary(rule: AlertRule, alerts: Sequence[Alert], now: datetime) -> Alert:
    """Stands for many that came at once; over as soon as it is told."""
    ranks = Alert.Severity.values
    lines = [alert.title for alert in alerts[:TOLD_ONE_BY_ONE]]
    one = Condition(
        f"{len(alerts)} at once, first {alerts[0].pk}",
        True,
        max((alert.severity for alert in alerts), key=ranks.index),
        f"{len(alerts):,} alerts at once: {rule.name}",
        "\n".join([*lines, f"and {len(alerts) - len(lines):,} more, in the list of alerts."]),
        {"alerts": len(alerts)},
    )
    summary = _alert(rule, one, 1, now, len(alerts))
    summary.resolved_at = now
    return summary


def _new_id(now: datetime, place: int = 0) -> UUID:
    """Those of one moment are in the order of their `place`."""
    return UUID(new_event_id(to_unix_us(now) + place))


def _tell(alerts: Iterable[Alert], whom: Sequence[AlertDestination], about: str, now: datetime) -> None:
    deliveries = [
        Delivery(id=_new_id(now, place), alert=alert, destination=destination, about=about, next_try_at=now)
        for place, alert in enumerate(alerts)
        for destination in whom
    ]
    Delivery.objects.bulk_create(deliveries, batch_size=ROWS_AT_ONCE)


# --- resolve --------------------------------------------------------------------------------------------------------
def _resolve(rule: AlertRule, found: Mapping[str, Condition], now: datetime) -> None:
    calm = calm_of(rule)
    for alert in list(_open(rule)):
        verdict = _is_well(alert, found.get(alert.subject), now)
        if verdict is None:
            continue
        if not verdict:
            if alert.well_since:
                Alert.objects.filter(pk=alert.pk).update(well_since=None)
            continue
        since = alert.well_since or now
        if now - since >= calm:
            Alert.objects.filter(pk=alert.pk).update(well_since=since, resolved_at=now)
            _say_over(rule, alert, found.get(alert.subject), now)
        elif not alert.well_since:
            Alert.objects.filter(pk=alert.pk).update(well_since=now)


def _is_well(alert: Alert, condition: Condition | None, now: datetime) -> bool | None:
    """None: nobody knows."""
    if condition is not None:
        return not condition.is_bad
    if alert.kind != Kind.PROVIDER:
        return True
    # Perhaps nobody calls it any more. After a day there is nothing left to wait for.
    return True if now - alert.fired_at > FORGOTTEN_AFTER else None


def _say_over(rule: AlertRule, alert: Alert, condition: Condition | None, now: datetime) -> None:
    """To whom the beginning was told. Not when it is over because nobody knows."""
    if condition is None or not (KINDS[rule.kind].says_over and rule.tell_when_over):
        return
    told = alert.deliveries.filter(about=Delivery.About.FIRED).exclude(state=Delivery.State.GIVEN_UP)
    whom = AlertDestination.objects.filter(enabled=True, pk__in=told.values("destination"))
    _tell([alert], list(whom), Delivery.About.OVER, now)


# --- what is kept ---------------------------------------------------------------------------------------------------
def purge(now: datetime | None = None) -> int:
    """Forget alerts that have been over for long, and failed sign-ins. Returns how many alerts."""
    now = now or timezone.now()
    sign_ins.prune(now)
    old = first_id(now - timedelta(days=settings.ALERTS_RETENTION_DAYS))
    rows = Alert.objects.filter(pk__lt=old).exclude(resolved_at=None).order_by("pk")
    deleted = 0
    while chunk := list(rows.values_list("pk", flat=True)[:ROWS_AT_ONCE]):
        deleted += len(chunk)
        Alert.objects.filter(pk__in=chunk).delete()
    return deleted
