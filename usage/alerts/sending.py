"""Takes deliveries to their destinations: at least once, with the same id each time, until it is taken or given up.

    due -> claimed: the next try is put off, the try is counted -> sent
                                                                -> failed: tried again after a pause -> given up

No transaction is open while somebody is spoken to. What a dying worker had claimed comes up again by itself.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import NamedTuple
from uuid import uuid4

from django.conf import settings
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone

from accounts.encryption import Undecryptable
from usage.alert_models import Alert, AlertDestination, Delivery
from usage.alerts import messages
from usage.alerts.kinds import Kind
from usage.alerts.messages import Message
from usage.alerts.transport import Answer, NotSent, post, send_mail

logger = logging.getLogger(__name__)

AT_ONCE = 8
SWEEP_S = 10.0
CLAIMED_FOR = timedelta(minutes=3)  # longer than a batch takes, but for a mail server that dawdles at each word
# Between the tries: five in about an hour.
PAUSES = (timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=12), timedelta(minutes=45))
TRIES = len(PAUSES) + 1
DESTROYED = "Its address cannot be decrypted: ENCRYPTION_KEYS has changed. Enter the address again."
CHATS = {
    AlertDestination.Kind.SLACK: messages.slack,
    AlertDestination.Kind.TEAMS: messages.teams,
    AlertDestination.Kind.DISCORD: messages.discord,
}


# --- the sweep ------------------------------------------------------------------------------------------------------
def sweep() -> int:
    """Send what is due, for about SWEEP_S; how many tries. Raises what the database raises."""
    tries = 0
    until = time.monotonic() + SWEEP_S
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="alerts") as threads:
        while time.monotonic() < until and (claimed := _claim()):
            outcomes = threads.map(_attempt, claimed)  # no database in these threads
            for delivery, failed in zip(claimed, outcomes, strict=True):
                _settle(delivery, failed)
            tries += len(claimed)
    return tries


def _claim() -> list[Delivery]:
    """Deliveries that nobody else looks at for a while, those that have waited longest first."""
    now = timezone.now()
    due = Delivery.objects.filter(state=Delivery.State.WAITING, next_try_at__lte=now).order_by("next_try_at", "id")
    if not due.exists():
        return []
    with transaction.atomic():
        if connection.features.has_select_for_update_skip_locked:
            due = due.select_for_update(skip_locked=True, of=("self",))
        claimed = list(due.select_related("alert", "destination")[:AT_ONCE])
        for delivery in claimed:
            delivery.attempts += 1
            delivery.next_try_at = now + CLAIMED_FOR
        Delivery.objects.bulk_update(claimed, ["attempts", "next_try_at"])
    return claimed


def _attempt(delivery: Delivery) -> NotSent | None:
    try:
        if not delivery.destination.enabled:
            raise NotSent("The destination is switched off.", is_final=True)
        send(delivery.destination, message_of(delivery))
    except NotSent as failed:
        return failed
    except Exception as error:  # a fault of ours must not stop the others; it counts as a try
        logger.exception("the alert %s could not be sent to %s", delivery.alert_id, delivery.destination.name)
        return NotSent(f"The gateway has a fault of its own here: {type(error).__name__}. The log says more.")
    return None


def _settle(delivery: Delivery, failed: NotSent | None) -> None:
    """Only if it is still ours: a worker that slept through its claim has nothing to say any more."""
    now = timezone.now()
    ours = Delivery.objects.filter(pk=delivery.pk, state=Delivery.State.WAITING, attempts=delivery.attempts)
    if failed is None:
        ours.update(state=Delivery.State.SENT, sent_at=now, last_error="")
        return
    words = str(failed)[:400]
    where = delivery.destination.name
    if failed.is_final or delivery.attempts >= TRIES:
        ours.update(state=Delivery.State.GIVEN_UP, last_error=words)
        logger.error("the alert %s is not sent to %s: %s", delivery.alert_id, where, words)
        return
    pause = max(PAUSES[delivery.attempts - 1], timedelta(seconds=failed.pause_s))
    ours.update(next_try_at=now + pause, last_error=words)
    logger.warning("the alert %s could not be sent to %s yet: %s", delivery.alert_id, where, words)


# --- one message ----------------------------------------------------------------------------------------------------
def message_of(delivery: Delivery) -> Message:
    alert, is_over = delivery.alert, delivery.about == Delivery.About.OVER
    return Message(
        id=str(delivery.pk),
        event="alert.over" if is_over else "alert.fired",
        alert_id=str(alert.pk),
        kind=alert.kind,
        rule=alert.rule_name,
        subject=alert.subject,
        severity=alert.severity,
        title=over_title(alert) if is_over else alert.title,
        text=over_text(alert) if is_over else alert.text,
        fired_at=alert.fired_at,
        resolved_at=alert.resolved_at if is_over else None,
        facts=alert.facts,
        url=_url(alert),
    )


def over_title(alert: Alert) -> str:
    if alert.kind == Kind.PROVIDER:
        return f"Provider {alert.facts.get('provider')} is back"
    return f"Over: {alert.title}"


def over_text(alert: Alert) -> str:
    lasted = (alert.well_since or alert.resolved_at or alert.fired_at) - alert.fired_at
    return f"It lasted {_duration(lasted)}."


def _duration(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    if minutes < 1:
        return "less than a minute"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _url(alert: Alert) -> str:
    """Nothing when nobody has said where the admin is."""
    if not settings.PUBLIC_URL:
        return ""
    return settings.PUBLIC_URL.rstrip("/") + reverse("admin:usage_alert_change", args=[alert.pk])


def send(destination: AlertDestination, message: Message) -> str:
    """Returns what the other side said to it. Raises NotSent. Asks no database, so it may run in any thread."""
    try:
        address = destination.read_address()
        secret = destination.read_secret()
    except Undecryptable:
        raise NotSent(DESTROYED, is_final=True) from None
    if destination.kind == AlertDestination.Kind.EMAIL:
        subject, text = messages.mail(message)
        send_mail([one.strip() for one in address.split(",")], subject, text, message.id)
        return "The mail server has taken it."
    if destination.kind == AlertDestination.Kind.WEBHOOK:
        answer = _post_signed(destination, address, secret, message)
    else:
        if destination.kind == AlertDestination.Kind.DISCORD:  # else it says yes before it has looked
            address += f"{'&' if '?' in address else '?'}wait=true"
        body = messages.as_json(CHATS[AlertDestination.Kind(destination.kind)](message))
        answer = post(address, body, {}, private_network=destination.private_network)
    words = "" if destination.kind == AlertDestination.Kind.DISCORD else answer.words
    return f"It was taken with status {answer.status}" + (f": {words}" if words else ".")


def _post_signed(destination: AlertDestination, url: str, secret: str, message: Message) -> Answer:
    body = messages.as_json(messages.webhook(message))
    headers = {
        messages.SIGNATURE_HEADER: messages.signature(secret, body, int(time.time())),
        "x-gatehouse-event": message.event,
        "x-gatehouse-delivery": message.id,
    }
    # The receiver is somebody's own program: what it refuses now it may take after its next release.
    return post(
        url,
        body,
        headers,
        private_network=destination.private_network,
        secrets=[secret],
        refusal_is_final=False,
    )


# --- a test ---------------------------------------------------------------------------------------------------------
class Verdict(NamedTuple):
    """What came of a test, in words for the operator."""

    is_taken: bool
    words: str


def send_test(destination: AlertDestination, by: str) -> Verdict:
    """Send a message that says it is a test, at once and once. Switched off destinations too."""
    now = timezone.now()
    message = Message(
        id=str(uuid4()),
        event="alert.test",
        alert_id=str(uuid4()),
        kind="test",
        rule="Test",
        subject="test",
        severity=Alert.Severity.INFO,
        title="This is a test",
        text=f"{by} asked the gateway to send it. Alerts reach “{destination.name}”.",
        fired_at=now,
        resolved_at=None,
        facts={},
        url="",
    )
    try:
        return Verdict(True, send(destination, message))
    except NotSent as failed:
        return Verdict(False, str(failed))
