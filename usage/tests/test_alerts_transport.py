"""The way out for alerts: to public addresses only, never for long, never elsewhere, and errors in words."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from typing import Any

import pytest

from accounts.public_addresses import UnknownHost
from usage.alerts import transport
from usage.alerts.transport import NotSent, post, send_mail
from usage.tests.alert_receiver import Mailbox, Receiver, mail_server, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def mailbox(settings: Any) -> Iterator[Mailbox]:
    with mail_server() as mailbox:
        settings.EMAIL_IS_SET_UP = True
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", mailbox.port, 5
        yield mailbox


def send(receiver: Receiver, **options: Any) -> transport.Answer:
    return post(receiver.url, b'{"a":1}', {"x-test": "1"}, **({"private_network": True} | options))


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Returns the names that were looked up."""
    asked: list[str] = []

    def resolve(host: str, *_args: Any) -> list[Any]:
        asked.append(host)
        if not addresses:
            raise UnknownHost(f"The name {host} cannot be resolved.")
        return [ipaddress.ip_address(address) for address in addresses]

    monkeypatch.setattr(transport, "resolve", resolve)
    return asked


def test_json_arrives_as_it_was_given(receiver: Receiver) -> None:
    assert send(receiver) == transport.Answer(200, "ok")
    (request,) = receiver.requests
    assert request.body == b'{"a":1}'
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-test"] == "1"


# --- where to --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0", "[::1]", "[::ffff:127.0.0.1]", "2130706433"])
def test_this_machine_is_not_connected_to(receiver: Receiver, host: str) -> None:
    with pytest.raises(NotSent, match="in this machine or a private network") as refused:
        post(f"http://{host}:{receiver.port}/", b"", {}, private_network=False)
    assert refused.value.is_final
    assert receiver.requests == []


def test_name_is_looked_up_once_and_the_address_that_was_judged_is_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve_to(monkeypatch, "127.0.0.1")
    post(f"http://hooks.example:{receiver.port}/x", b"", {}, private_network=True)
    assert asked == ["hooks.example"]
    assert receiver.requests[0].headers["host"] == f"hooks.example:{receiver.port}"


def test_private_ones_among_the_addresses_of_a_name_are_passed_over(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []

    def connect(_backend: Any, host: str, *_args: Any, **_options: Any) -> Any:
        connected.append(host)
        raise transport.httpcore.ConnectError

    monkeypatch.setattr(transport.httpcore.SyncBackend, "connect_tcp", connect)
    resolve_to(monkeypatch, "10.0.0.1", "8.8.8.8", "127.0.0.1", "1.1.1.1")
    with pytest.raises(NotSent, match="cannot be reached"):
        post("https://hooks.example/x", b"", {}, private_network=False)
    assert connected == ["8.8.8.8", "1.1.1.1"]


def test_name_that_nobody_knows_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch)
    with pytest.raises(NotSent, match="cannot be resolved") as failed:
        post("https://hooks.example/x", b"", {}, private_network=False)
    assert not failed.value.is_final


def test_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 302, {"location": f"http://127.0.0.1:{receiver.port}/latest/meta-data"}
    with pytest.raises(NotSent, match="redirects to another place") as refused:
        send(receiver)
    assert refused.value.is_final
    assert len(receiver.requests) == 1
    assert "meta-data" not in str(refused.value)


def test_proxy_of_the_environment_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert send(receiver).status == 200


# --- who misbehaves --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("behave", ["hang", "drip"])
def test_who_never_ends_is_left_at_the_deadline(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, behave: str
) -> None:
    monkeypatch.setattr(transport, "DEADLINE_S", 0.3)
    receiver.behave = behave
    started = time.monotonic()
    with pytest.raises(NotSent, match="did not answer within") as failed:
        send(receiver)
    assert time.monotonic() - started < 5
    assert not failed.value.is_final


def test_huge_answer_is_not_read_on(receiver: Receiver) -> None:
    receiver.behave = "huge"
    assert len(send(receiver).words) <= transport.MAX_QUOTED_CHARS + 1
    assert receiver.sent_bytes < 100_000_000


@pytest.mark.parametrize(("behave", "words"), [("close", "speak HTTP|hung up"), ("nonsense", "does not speak HTTP")])
def test_who_hangs_up_or_says_nonsense_is_tried_again(receiver: Receiver, behave: str, words: str) -> None:
    receiver.behave = behave
    with pytest.raises(NotSent, match=words) as failed:
        send(receiver)
    assert not failed.value.is_final


def test_port_where_nobody_listens(receiver: Receiver) -> None:
    with pytest.raises(NotSent, match="nothing listens on that port"):
        post("http://127.0.0.1:9/x", b"", {}, private_network=True)


def test_server_without_tls(receiver: Receiver) -> None:
    with pytest.raises(NotSent, match="not with TLS"):
        post(f"https://127.0.0.1:{receiver.port}/x", b"", {}, private_network=True)


@pytest.mark.parametrize(
    ("status", "is_final"),
    [(400, True), (403, True), (404, True), (408, False), (429, False), (500, False), (410, True)],
)
def test_refusal_is_final_and_trouble_is_not(receiver: Receiver, status: int, is_final: bool) -> None:
    receiver.status, receiver.answer = status, b"no_service"
    with pytest.raises(NotSent, match=f"answered {status}: no_service") as failed:
        send(receiver)
    assert failed.value.is_final is is_final


@pytest.mark.parametrize(("status", "is_final"), [(404, False), (410, True)])
def test_webhook_may_refuse_today_and_take_it_tomorrow(receiver: Receiver, status: int, is_final: bool) -> None:
    receiver.status = status
    with pytest.raises(NotSent) as failed:
        send(receiver, refusal_is_final=False)
    assert failed.value.is_final is is_final


@pytest.mark.parametrize(("header", "pause_s"), [("120", 120), ("999999", 3600), ("-5", 0), ("soon", 0), ("nan", 0)])
def test_other_side_may_ask_for_patience(receiver: Receiver, header: str, pause_s: float) -> None:
    receiver.status, receiver.headers = 429, {"retry-after": header}
    with pytest.raises(NotSent) as failed:
        send(receiver)
    assert failed.value.pause_s == pause_s


def test_secrets_are_never_quoted(receiver: Receiver) -> None:
    said = f"unknown {receiver.url} of secretsecretsecret signed with hush-hush\x00\x1b[31m"
    receiver.status, receiver.answer = 404, said.encode()
    with pytest.raises(NotSent) as failed:
        send(receiver, secrets=["hush-hush"])
    words = str(failed.value)
    assert "secretsecret" not in words and "hush" not in words and "\x1b" not in words
    assert "unknown ***" in words


# --- mail ------------------------------------------------------------------------------------------------------------
def test_mail_arrives(mailbox: Mailbox) -> None:
    send_mail(["ops@example.org", "anna@example.org"], "Subject ✅", "The text.\n", "d1")
    (mail,) = mailbox.mails
    assert mailbox.recipients == ["ops@example.org", "anna@example.org"]
    assert "Message-ID: <d1@gatehouse>" in mail and "Auto-Submitted: auto-generated" in mail
    assert mail.endswith("The text.\n") or "The text." in mail


@pytest.mark.parametrize(("refuse", "is_final"), [("550 no such user", True), ("451 try later", False)])
def test_mail_server_refuses(mailbox: Mailbox, refuse: str, is_final: bool) -> None:
    mailbox.refuse = refuse
    with pytest.raises(NotSent, match=f"refuses the address: {refuse}") as failed:
        send_mail(["ops@example.org"], "Subject", "Text", "d1")
    assert failed.value.is_final is is_final


def test_mail_server_that_is_not_there_is_tried_again(mailbox: Mailbox, settings: Any) -> None:
    settings.EMAIL_PORT = 9
    with pytest.raises(NotSent, match="cannot be reached") as failed:
        send_mail(["ops@example.org"], "Subject", "Text", "d1")
    assert not failed.value.is_final


def test_without_a_mail_server_nothing_pretends_to_be_sent(settings: Any) -> None:
    settings.EMAIL_IS_SET_UP = False
    with pytest.raises(NotSent, match="set EMAIL_URL") as failed:
        send_mail(["ops@example.org"], "Subject", "Text", "d1")
    assert failed.value.is_final
