"""Events as lines: JSON, or syslog (RFC 5424) to a file, or over UDP (RFC 5426), TCP (RFC 6587) and TLS (RFC 5425)."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from accounts.audit.models import AuditEvent

PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
FACILITY_LOG_AUDIT, NOTICE = 13, 5
PRIORITY = FACILITY_LOG_AUDIT * 8 + NOTICE
TIMEOUT_S = 10.0
# Every receiver takes 2048 octets, and those that matter more; a datagram holds no more than this.
MAX_DATAGRAM_BYTES = 60_000
Send = Callable[[bytes], None]


class BadAddress(ValueError):
    """The message says what an address is like."""


class NotSent(Exception):
    """The message says why."""


def as_json(event: AuditEvent) -> dict[str, Any]:
    """An event for programs. `id` and `number` rise with time; `digest` is what the next event builds on."""
    return {
        "number": event.number,
        "id": str(event.id),
        "at": event.at.isoformat(),
        "channel": event.channel,
        "action": event.action,
        "user": {"id": event.user_id, "name": event.user_name},
        "ip": event.ip,
        "target": {"type": event.target_type, "id": event.target_id, "name": event.target_name},
        "before": event.before,
        "after": event.after,
        "details": event.details,
        "request_id": event.request_id,
        "digest": event.digest,
    }


def as_line(event: AuditEvent) -> str:
    return json.dumps(as_json(event), ensure_ascii=False, separators=(",", ":"))


def as_syslog(event: AuditEvent, host: str = "") -> bytes:
    """The action is the message's id; the event itself is its text, as JSON in UTF-8 (with the mark that says so)."""
    at = event.at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    name = _printable(host or socket.gethostname(), 255)
    head = f"<{PRIORITY}>1 {at} {name} gatehouse - {_printable(event.action, 32)} - "
    return head.encode("ascii") + b"\xef\xbb\xbf" + as_line(event).encode()


def _printable(text: str, limit: int) -> str:
    """As the fields of a header have to be."""
    return "".join(one if "!" <= one <= "~" else "_" for one in text)[:limit] or "-"


@contextmanager
def sender(address: str) -> Iterator[Send]:
    """`address`: udp://host:port, tcp://host:port or tls://host:port. Raises BadAddress and NotSent."""
    kind, host, port = _parse(address)
    try:
        with _open(kind, host, port) as opened:
            yield lambda message: _send(opened, kind, message)
    except ssl.SSLCertVerificationError as error:
        raise NotSent(f"The certificate of {host} is not trusted: {error.verify_message}.") from None
    except OSError as error:
        raise NotSent(f"{host}:{port} cannot be reached: {error.strerror or type(error).__name__}.") from None


def _parse(address: str) -> tuple[str, str, int]:
    parts = urlsplit(address)
    try:
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if parts.scheme not in PORTS or not parts.hostname or not port or parts.path.strip("/"):
        raise BadAddress("Give an address such as tls://syslog.example.org:6514, or one of udp:// or tcp://.")
    return parts.scheme, parts.hostname, port


def _open(kind: str, host: str, port: int) -> socket.socket:
    if kind == "udp":
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        datagrams.connect(where)
        return datagrams
    plain = socket.create_connection((host, port), TIMEOUT_S)
    if kind == "tcp":
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _send(opened: socket.socket, kind: str, message: bytes) -> None:
    if kind == "udp":
        opened.send(message[:MAX_DATAGRAM_BYTES])
    else:
        opened.sendall(b"%d %s" % (len(message), message))


def lines(events: Iterable[AuditEvent], style: str) -> Iterator[bytes]:
    """`style`: jsonl or syslog. Each with its newline."""
    host = socket.gethostname()
    for event in events:
        yield (as_line(event).encode() if style == "jsonl" else as_syslog(event, host)) + b"\n"
