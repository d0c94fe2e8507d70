"""The trail for other programs: JSON lines and syslog."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from threading import Thread

import pytest
from django.core.management import CommandError, call_command

from accounts.audit import acting
from accounts.audit.models import AuditEvent
from accounts.models import Team

pytestmark = pytest.mark.django_db
HEADER = rb"<109>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ gatehouse - team\.created - \xef\xbb\xbf"


@pytest.fixture(autouse=True)
def three_events(db: None) -> None:
    with acting("admin", name="root", ip="192.0.2.1"):
        for name in ("a", "b", "Überfuhr"):
            Team.objects.create(name=name)


def test_json_lines_tell_all_of_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("export_audit")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["number"] for event in told] == [1, 2, 3]
    last = told[-1]
    assert (last["action"], last["user"], last["ip"]) == ("team.created", {"id": None, "name": "root"}, "192.0.2.1")
    assert last["target"]["name"] == last["after"]["name"] == "Überfuhr"


def test_export_goes_on_after_a_number_and_tells_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("export_audit", after=2)
    told = capsys.readouterr()
    assert [json.loads(line)["number"] for line in told.out.splitlines()] == [3]
    assert told.err == "3\n"


def test_export_is_an_event_itself() -> None:
    call_command("export_audit")
    assert AuditEvent.objects.latest("number").action == "audit.exported"


@pytest.mark.parametrize(("options", "numbers"), [({"since": "2020-01-01"}, 3), ({"until": "2020-01-01"}, 0)])
def test_window_of_time_is_exported(options: dict[str, str], numbers: int, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("export_audit", *(f"--{name}={value}" for name, value in options.items()))
    assert len(capsys.readouterr().out.splitlines()) == numbers


def test_syslog_line_is_as_rfc_5424_has_it(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    call_command("export_audit", format="syslog", after=2)
    line = capsysbinary.readouterr().out
    assert re.match(HEADER, line)
    assert json.loads(line.split(b"\xef\xbb\xbf")[1])["target"]["name"] == "Überfuhr"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen(1)
        opened.settimeout(10)
        yield opened


def test_messages_over_tcp_say_how_long_they_are(listener: socket.socket) -> None:
    received = bytearray()

    def receive() -> None:
        connection, _ = listener.accept()
        with connection:
            while part := connection.recv(65536):
                received.extend(part)

    thread = Thread(target=receive)
    thread.start()
    call_command("export_audit", to=f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    thread.join(10)
    messages = []
    while received:
        length, _, rest = bytes(received).partition(b" ")
        messages.append(rest[: int(length)])
        received = bytearray(rest[int(length) :])
    assert len(messages) == 3
    assert all(re.match(HEADER, message) for message in messages)


def test_messages_over_udp_are_a_datagram_each() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        call_command("export_audit", to=f"udp://127.0.0.1:{server.getsockname()[1]}")
        assert all(re.match(HEADER, server.recv(65536)) for _ in range(3))


def test_server_that_is_not_there_is_said(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(CommandError, match="cannot be reached: Connection refused"):
        call_command("export_audit", to=f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["https://example.org", "tcp://", "localhost:514", "tcp://host:port"])
def test_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(CommandError, match="Give an address such as"):
        call_command("export_audit", to=address)
