"""Deliveries reach their destinations at least once, with the same id at every try, or are given up visibly."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection, connections
from django.utils import timezone

from usage.alert_models import Alert, AlertDestination, Delivery
from usage.alerts import sending, transport, watching
from usage.alerts.conditions import Condition
from usage.alerts.messages import signature
from usage.alerts.sending import CLAIMED_FOR, TRIES, send_test, sweep
from usage.tests.alert_receiver import Receiver, receiving
from usage.tests.alerts import SECRET, destination, rule

pytestmark = pytest.mark.django_db


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def fire(*names: str) -> None:
    """Alerts of these names, with a delivery to each destination."""
    made = rule("errors")
    now = timezone.now()
    watching._fire(made, [Condition(name, True, title=name, text="Text.") for name in names or ("x is bad",)], now)


def delivery() -> Delivery:
    return Delivery.objects.get()


def make_due() -> None:
    """As if its pause were over."""
    Delivery.objects.update(next_try_at=timezone.now())


# --- it arrives ------------------------------------------------------------------------------------------------------
def test_webhook_is_signed_and_sent_once(receiver: Receiver) -> None:
    destination("webhook", receiver.url)
    fire()
    assert sweep() == 1
    assert sweep() == 0
    (request,) = receiver.requests
    body = json.loads(request.body)
    assert body["event"] == "alert.fired" and body["alert"]["title"] == "x is bad"
    assert body["id"] == str(delivery().pk) == request.headers["x-gatehouse-delivery"]
    given = request.headers["x-gatehouse-signature"]
    assert given == signature(SECRET, request.body, int(given.split(",")[0].removeprefix("t=")))
    assert (delivery().state, delivery().attempts) == ("sent", 1)
    assert delivery().sent_at


@pytest.mark.parametrize(
    ("kind", "key", "path"),
    [
        ("slack", "blocks", "/services/T0000000/B0000000/secretsecretsecret"),
        ("teams", "attachments", "/services/T0000000/B0000000/secretsecretsecret"),
        ("discord", "embeds", "/services/T0000000/B0000000/secretsecretsecret?wait=true"),
    ],
)
def test_chats_get_what_they_understand(receiver: Receiver, kind: str, key: str, path: str) -> None:
    destination(kind, receiver.url)
    fire()
    sweep()
    (request,) = receiver.requests
    assert key in json.loads(request.body)
    assert request.path == path
    assert "x-gatehouse-signature" not in request.headers
    assert delivery().state == "sent"


def test_channel_of_discord_keeps_its_thread(receiver: Receiver) -> None:
    destination("discord", f"{receiver.url}?thread_id=7")
    fire()
    sweep()
    assert receiver.requests[0].path.endswith("?thread_id=7&wait=true")


def test_mail_goes_to_every_address(settings: Any) -> None:
    settings.EMAIL_IS_SET_UP = True
    settings.DEFAULT_FROM_EMAIL = "gatehouse@example.org"
    destination("email", "ops@example.org, anna@example.org")
    fire()
    sweep()
    (sent,) = mail.outbox
    assert sent.to == ["ops@example.org", "anna@example.org"]
    assert sent.from_email == "gatehouse@example.org"
    assert sent.subject == "[Gatehouse] ⚠️ x is bad"
    assert sent.extra_headers["Message-ID"] == f"<{delivery().pk}@gatehouse>"


def test_message_links_to_the_alert_where_the_gateways_address_is_known(receiver: Receiver, settings: Any) -> None:
    settings.PUBLIC_URL = "https://gateway.example.org/"
    destination("webhook", receiver.url)
    fire()
    sweep()
    url = json.loads(receiver.requests[0].body)["alert"]["url"]
    assert url == f"https://gateway.example.org/admin/usage/alert/{Alert.objects.get().pk}/change/"


def test_one_destination_that_hangs_holds_up_no_other(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "DEADLINE_S", 1.0)
    with receiving() as stuck:
        stuck.behave = "hang"
        destination("webhook", stuck.url, name="stuck")
        destination("slack", receiver.url, name="well")
        fire()
        sweep()
    states = dict(Delivery.objects.values_list("destination__name", "state"))
    assert states == {"stuck": "waiting", "well": "sent"}


# --- it does not -----------------------------------------------------------------------------------------------------
def test_failed_message_is_tried_five_times_within_about_an_hour_and_then_given_up(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    destination("webhook", receiver.url)
    fire()
    receiver.status, receiver.answer = 503, b"deploying"
    pauses = []
    for _ in range(TRIES + 2):
        began = timezone.now()
        sweep()
        if delivery().state == "waiting":
            pauses.append(delivery().next_try_at - began)
            assert sweep() == 0  # not before its time
        make_due()
    assert len(receiver.requests) == TRIES == 5
    assert timedelta(minutes=50) < sum(pauses, timedelta()) < timedelta(minutes=70)
    assert len({json.loads(request.body)["id"] for request in receiver.requests}) == 1
    assert len({request.body for request in receiver.requests}) == 1
    assert (delivery().state, delivery().last_error) == ("given_up", "127.0.0.1 answered 503: deploying")
    assert "is not sent to the webhook" in caplog.text
    assert "secretsecretsecret" not in caplog.text


def test_message_that_fails_at_first_arrives_later(receiver: Receiver) -> None:
    destination("webhook", receiver.url)
    fire()
    receiver.status = 500
    sweep()
    receiver.status = 204
    make_due()
    sweep()
    assert (delivery().state, delivery().attempts, delivery().last_error) == ("sent", 2, "")


def test_channel_that_is_gone_is_given_up_at_once(receiver: Receiver) -> None:
    destination("slack", receiver.url)
    fire()
    receiver.status, receiver.answer = 404, b"no_service"
    sweep()
    assert (delivery().state, delivery().attempts) == ("given_up", 1)


def test_pause_that_is_asked_for_is_kept(receiver: Receiver) -> None:
    destination("slack", receiver.url)
    fire()
    receiver.status, receiver.headers = 429, {"retry-after": "600"}
    sweep()
    assert delivery().next_try_at > timezone.now() + timedelta(seconds=590)


def test_destination_in_the_private_network_is_refused_unless_it_may_be(receiver: Receiver) -> None:
    destination("webhook", receiver.url, private_network=False)
    fire()
    sweep()
    assert delivery().state == "given_up"
    assert "A superuser can allow it." in delivery().last_error
    assert receiver.requests == []


def test_destination_that_was_switched_off_gets_nothing_more(receiver: Receiver) -> None:
    destination("webhook", receiver.url)
    fire()
    AlertDestination.objects.update(enabled=False)
    sweep()
    assert (delivery().state, receiver.requests) == ("given_up", [])


def test_address_that_cannot_be_decrypted_says_so(receiver: Receiver, settings: Any) -> None:
    destination("webhook", receiver.url)
    fire()
    settings.ENCRYPTION_KEYS = ["another key altogether, of some length"]
    sweep()
    assert delivery().state == "given_up"
    assert "Enter the address again" in delivery().last_error


def test_fault_of_our_own_counts_as_a_try_and_stops_nobody(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    destination("webhook", receiver.url, name="a")
    destination("slack", receiver.url, name="b")
    fire()

    def breaks(_message: Any) -> Any:
        raise KeyError("oops")

    monkeypatch.setitem(sending.CHATS, AlertDestination.Kind.SLACK, breaks)
    with caplog.at_level(logging.ERROR):
        sweep()
    states = dict(Delivery.objects.values_list("destination__name", "state"))
    assert states == {"a": "sent", "b": "waiting"}
    assert "KeyError" in Delivery.objects.get(destination__name="b").last_error


# --- restarts and company --------------------------------------------------------------------------------------------
def test_message_of_a_worker_that_died_comes_up_again_with_the_same_id(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died after the message had arrived and before that was written down: at least once, not at most once."""
    destination("webhook", receiver.url)
    fire()

    def dies(*_args: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(sending, "_settle", dies)
        with pytest.raises(SystemExit):
            sweep()
    assert sweep() == 0  # claimed by the dead one for a while
    assert timezone.now() < delivery().next_try_at <= timezone.now() + CLAIMED_FOR
    make_due()
    assert sweep() == 1
    assert len({json.loads(request.body)["id"] for request in receiver.requests}) == 1
    assert (Alert.objects.count(), delivery().state, delivery().attempts) == (1, "sent", 2)


def test_worker_that_slept_through_its_claim_changes_nothing(receiver: Receiver) -> None:
    destination("webhook", receiver.url)
    fire()
    (claimed,) = sending._claim()
    make_due()
    sweep()
    sending._settle(claimed, transport.NotSent("late news", is_final=True))
    assert (delivery().state, delivery().last_error) == ("sent", "")


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_fire_once_and_send_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        destination("webhook", receiver.url, name=name)
    rule("errors")
    bad = [Condition(f"subject {n}", True, title=f"{n}") for n in range(5)]
    monkeypatch.setattr(watching, "WATCHES", dict.fromkeys(watching.WATCHES, lambda _rule, _now: bad))
    together = threading.Barrier(2, timeout=20)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(4):
                together.wait()
                watching.check()
                together.wait()
                sweep()
        except BaseException as error:
            errors.append(error)
            together.abort()
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    assert Alert.objects.count() == 5
    assert len(receiver.requests) == 15
    assert set(Delivery.objects.values_list("state", "attempts")) == {("sent", 1)}
    assert connection.vendor in ("sqlite", "postgresql")


# --- a test ----------------------------------------------------------------------------------------------------------
def test_test_message_arrives_at_once_and_says_what_it_is(receiver: Receiver) -> None:
    to = destination("webhook", receiver.url)
    verdict = send_test(to, "alice")
    assert (verdict.is_taken, verdict.words) == (True, "It was taken with status 200: ok")
    body = json.loads(receiver.requests[0].body)
    assert body["event"] == "alert.test"
    assert body["alert"]["text"] == "alice asked the gateway to send it. Alerts reach “the webhook”."
    assert not Alert.objects.exists() and not Delivery.objects.exists()


def test_test_message_says_what_went_wrong_and_is_not_tried_again(receiver: Receiver) -> None:
    receiver.status, receiver.answer = 404, b"no_service"
    verdict = send_test(destination("slack", receiver.url), "alice")
    assert (verdict.is_taken, verdict.words) == (False, "127.0.0.1 answered 404: no_service")
    assert len(receiver.requests) == 1
