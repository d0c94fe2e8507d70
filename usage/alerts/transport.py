"""The way out for alerts: HTTP that reaches no private network unless it may, and mail.

A request is sent to the very address that was judged, so a name that resolves to something else a moment later gains
nothing; redirects are not followed, and all of it together takes no longer than DEADLINE_S, however slowly the other
side answers. Errors say what happened in words, and never an address that is a secret.
"""

from __future__ import annotations

import smtplib
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore
from django.conf import settings
from django.core.mail import EmailMessage, get_connection

from accounts.public_addresses import Address, UnknownHost, is_public_address, resolve

CONNECT_TIMEOUT_S = 4.0
DEADLINE_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024
MAX_ADDRESSES = 4
MAX_QUOTED_CHARS = 200
MAX_PAUSE_S = 3600
TRY_LATER = frozenset({408, 425, 429})
GONE = 410


class NotSent(Exception):
    """The message says why, for the operator. `is_final`: trying again would end the same way; `pause_s`: the other
    side asks for so much patience."""

    def __init__(self, why: str, *, is_final: bool = False, pause_s: float = 0.0) -> None:
        super().__init__(why)
        self.is_final = is_final
        self.pause_s = pause_s


@dataclass(frozen=True, slots=True)
class Answer:
    """`words`: the beginning of what was answered, without our secrets and control characters."""

    status: int
    words: str


# --- HTTP -----------------------------------------------------------------------------------------------------------
def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    private_network: bool,
    secrets: Iterable[str] = (),
    refusal_is_final: bool = True,
) -> Answer:
    """POST JSON. Returns the answer when it was taken (2xx). Raises NotSent.

    `secrets`: what must not be quoted, besides the URL; `refusal_is_final`: a status of 4xx will not change."""
    host = urlsplit(url).hostname or ""
    usual = {"content-type": "application/json", "user-agent": "Gatehouse", "accept-encoding": "identity"}
    sent: list[tuple[bytes | str, bytes | str]] = list({**usual, **headers}.items())
    try:
        with (
            httpcore.ConnectionPool(
                ssl_context=_tls(), network_backend=_Guard(private_network, _Deadline(DEADLINE_S))
            ) as pool,
            pool.stream("POST", url, headers=sent, content=body) as response,
        ):
            words = _quote(_read(response), [url, *_parts(url), *secrets])
            return _judge(response, words, host, refusal_is_final)
    except httpcore.ConnectTimeout:
        raise NotSent(f"No connection to {host} within {CONNECT_TIMEOUT_S:g} s.") from None
    except httpcore.TimeoutException:
        raise NotSent(f"{host} did not answer within {DEADLINE_S:g} s.") from None
    except httpcore.ConnectError as error:
        raise NotSent(_why_no_connection(error, host)) from None
    except httpcore.NetworkError:
        raise NotSent(f"{host} hung up in the middle.") from None
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol, UnicodeError, ValueError):
        raise NotSent(f"What answers at {host} does not speak HTTP as it should.") from None


@cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates takes longer than sending a message."""
    return ssl.create_default_context()


def _read(response: httpcore.Response) -> bytes:
    """As much as is worth reading."""
    body = b""
    for chunk in response.iter_stream():
        body += chunk
        if len(body) >= MAX_ANSWER_BYTES:
            break
    return body[:MAX_ANSWER_BYTES]


def _judge(response: httpcore.Response, words: str, host: str, refusal_is_final: bool) -> Answer:
    """Raises NotSent."""
    status = response.status
    if 200 <= status < 300:
        return Answer(status, words)
    if 300 <= status < 400:
        raise NotSent(f"{host} redirects to another place ({status}). Enter the final address.", is_final=True)
    is_refusal = 400 <= status < 500 and status not in TRY_LATER
    raise NotSent(
        f"{host} answered {status}" + (f": {words}" if words else "."),
        is_final=status == GONE or (is_refusal and refusal_is_final),
        pause_s=_pause(dict(response.headers).get(b"retry-after", b"")),
    )


def _pause(retry_after: bytes) -> float:
    """Seconds; the header may be a date too, and then we know better."""
    return min(int(retry_after), MAX_PAUSE_S) if retry_after.isdigit() and len(retry_after) < 10 else 0


def _quote(body: bytes, secrets: Iterable[str]) -> str:
    words = body.decode("utf-8", "replace")
    for secret in sorted(secrets, key=len, reverse=True):
        words = words.replace(secret, "***")
    words = " ".join("".join(one if one.isprintable() else " " for one in words).split())
    return words if len(words) <= MAX_QUOTED_CHARS else f"{words[:MAX_QUOTED_CHARS]}…"


def _parts(url: str) -> list[str]:
    """What of a URL is secret, in case the other side quotes it."""
    parts = urlsplit(url)
    found = [
        *parts.path.split("/"),
        parts.path,
        parts.query,
        *(pair.partition("=")[2] for pair in parts.query.split("&")),
    ]
    return [one for part in found for one in {part, unquote(part)} if len(one) >= 8]


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, error: type[Exception], most: float = DEADLINE_S) -> float:
        """Raises `error` when nothing is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise error
        return min(left, most)


class _Guard(httpcore.NetworkBackend):
    """Connects to addresses that may be connected to, and gives out streams that keep the deadline."""

    def __init__(self, private_network: bool, deadline: _Deadline) -> None:
        self._private_network = private_network
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, *_args: Any, **_options: Any) -> httpcore.NetworkStream:
        problem: Exception = httpcore.ConnectError()
        for address in self._addresses(host, port):
            timeout = self._deadline.left(httpcore.ConnectTimeout, CONNECT_TIMEOUT_S)
            try:
                return _Timed(self._sockets.connect_tcp(str(address), port, timeout), self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem

    def _addresses(self, host: str, port: int) -> list[Address]:
        """Raises NotSent."""
        try:
            found = resolve(host, port, CONNECT_TIMEOUT_S)
        except UnknownHost as error:
            raise NotSent(str(error)) from None
        allowed = [address for address in found if self._private_network or is_public_address(address)]
        if not allowed:
            raise NotSent(
                f"{host} is {found[0]}, in this machine or a private network, where this destination may not be. "
                "A superuser can allow it.",
                is_final=True,
            )
        return allowed[:MAX_ADDRESSES]


class _Timed(httpcore.NetworkStream):
    """A stream whose every wait ends with the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(httpcore.ConnectTimeout)
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _why_no_connection(error: BaseException, host: str) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The certificate of {host} is not trusted: {cause.verify_message}."
        if isinstance(cause, ssl.SSLError):
            return f"{host} answers, but not with TLS as it should."
        if isinstance(cause, ConnectionRefusedError):
            return f"{host} refuses the connection: nothing listens on that port."
        cause = cause.__cause__ or cause.__context__
    return f"{host} cannot be reached from here."


# --- mail -----------------------------------------------------------------------------------------------------------
def send_mail(addresses: list[str], subject: str, text: str, message_id: str) -> None:
    """`message_id`: the same at every try, so that mail servers know a double. Raises NotSent."""
    if not settings.EMAIL_IS_SET_UP:
        raise NotSent("No mail server is set up: set EMAIL_URL and restart.", is_final=True)
    headers = {"Message-ID": f"<{message_id}@gatehouse>", "Auto-Submitted": "auto-generated"}
    mail = EmailMessage(subject, text, to=addresses, headers=headers, connection=get_connection())
    try:
        mail.send()
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise NotSent(f"The mail server refuses the address: {_smtp_words(code, said)}", is_final=code >= 500) from None
    except smtplib.SMTPResponseException as error:
        words = _smtp_words(error.smtp_code, error.smtp_error)
        raise NotSent(f"The mail server refuses: {words}") from None
    except smtplib.SMTPException as error:
        raise NotSent(f"The mail server and we do not understand each other ({type(error).__name__}).") from None
    except TimeoutError:
        raise NotSent(f"The mail server did not answer within {settings.EMAIL_TIMEOUT} s.") from None
    except ssl.SSLCertVerificationError as error:
        raise NotSent(f"The certificate of the mail server is not trusted: {error.verify_message}.") from None
    except OSError as error:
        raise NotSent(f"The mail server cannot be reached: {error.strerror or type(error).__name__}.") from None


def _smtp_words(code: int, said: bytes | str) -> str:
    return f"{code} {_quote(said if isinstance(said, bytes) else said.encode(), [])}"
