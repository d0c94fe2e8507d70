"""Test connection: asks a provider a harmless question and says in plain words what came of it.

Runs in the control plane, synchronously. It goes where the data plane would go: same credential, same TLS settings, no
proxy from the environment, no redirects; and it connects to the very address that was judged, so that a name which
resolves to something else a moment later gains nothing.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import orjson

from accounts.encryption import Undecryptable
from proxy.models import Provider
from proxy.providers import presets
from proxy.providers.base import Adapter, Target, UpstreamRequest
from proxy.snapshot import ssl_context
from proxy.ssrf import Address, UnknownHost, is_public_address, resolve

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 15.0
MAX_BODY_BYTES = 64 * 1024
MAX_ADDRESSES = 4
MAX_QUOTED_CHARS = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found. `status`: HTTP status, None: no answer; `latency_ms`: until it began."""

    ok: bool
    message: str
    status: int | None = None
    latency_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes
    latency_ms: int


class Unreachable(Exception):
    """No answer. The message says why."""


def probe(provider: Provider) -> Verdict:
    """Never raises for anything that the provider or its settings do."""
    try:
        adapter = presets.adapter_for(provider.kind)
        if adapter.answer is not None:
            return Verdict(True, "It answers inside the gateway itself, so there is nothing to connect to.")
        target = _target(provider, adapter)
        answer = _ask(adapter.probe(target), target)
    except LookupError:
        return Verdict(False, f"This version of Gatehouse does not know the kind {provider.kind}.")
    except Undecryptable:
        return Verdict(False, "Its API key cannot be decrypted: ENCRYPTION_KEYS has changed. Enter the API key again.")
    except ssl.SSLError:
        return Verdict(False, "The certificates of its TLS authority cannot be read. Paste them as PEM.")
    except Unreachable as error:
        return Verdict(False, str(error))
    return _judge(answer, target)


def _target(provider: Provider, adapter: Adapter) -> Target:
    """Raises Undecryptable, ssl.SSLError."""
    return Target(
        provider=provider.name,
        kind=provider.kind,
        adapter=adapter,
        base_url=(provider.base_url or presets.default_base_url(provider.kind)).rstrip("/"),
        upstream_model="",
        credential=provider.read_credential(),
        extra_headers=provider.read_extra_headers(),
        api_version=provider.api_version or adapter.default_api_version,
        connect_timeout_s=min(provider.connect_timeout_s, CONNECT_TIMEOUT_S),
        first_byte_timeout_s=min(provider.first_byte_timeout_s, ANSWER_TIMEOUT_S),
        ssl=ssl_context(provider.tls_verify, provider.tls_ca),
        private_network=provider.private_network,
    )


def _ask(request: UpstreamRequest, target: Target) -> Answer:
    """Raises Unreachable."""
    try:
        url = httpx.URL(request.url)
    except httpx.InvalidURL as error:
        raise Unreachable("Its base URL is not a URL.") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise Unreachable("It has no base URL. Enter one that begins with https://.")
    problem = Unreachable(f"Nothing answers at {url.host}.")
    for address in _addresses(url, target):
        try:
            return _send(request, url, address, target)
        except httpx.ConnectError as error:
            problem = _why_no_connection(error, url)
        except httpx.ConnectTimeout:
            problem = Unreachable(
                f"No connection to {url.host} within {target.connect_timeout_s:g} s: "
                "a wrong address, or a firewall on the way."
            )
        except httpx.TimeoutException as error:
            raise Unreachable(
                f"Connected to {url.host}, but it did not answer within {target.first_byte_timeout_s:g} s."
            ) from error
        except (httpx.HTTPError, ValueError) as error:
            raise Unreachable(f"What answers at {url.host} does not speak HTTP as it should.") from error
    raise problem


def _addresses(url: httpx.URL, target: Target) -> Iterator[Address]:
    """The addresses that may be connected to, best first. Raises Unreachable when there are none."""
    try:
        found = resolve(url.host, url.port or (443 if url.scheme == "https" else 80))
    except UnknownHost as error:
        raise Unreachable(f"The name {url.host} cannot be resolved: a typing mistake, or no DNS here.") from error
    allowed = [address for address in found if target.private_network or is_public_address(address)]
    if not allowed:
        raise Unreachable(
            f"{url.host} is {found[0]}, in this machine or a private network, where this provider may not be. "
            "A superuser can allow it."
        )
    return iter(allowed[:MAX_ADDRESSES])


def _send(request: UpstreamRequest, url: httpx.URL, address: Address, target: Target) -> Answer:
    """One attempt at one address; the certificate is still checked against the host's name. Raises httpx.HTTPError."""
    timeout = httpx.Timeout(target.first_byte_timeout_s, connect=target.connect_timeout_s)
    verify = ssl.create_default_context() if target.ssl is True else target.ssl
    headers = {
        **request.headers,
        "host": url.netloc.decode("ascii"),
        "accept-encoding": "identity",  # what is read is no larger than what was sent
    }
    started = time.monotonic()
    with (
        httpx.Client(verify=verify, timeout=timeout, trust_env=False, follow_redirects=False) as client,
        client.stream(
            request.method,
            url.copy_with(host=str(address)),
            headers=headers,
            content=request.body or None,
            extensions={"sni_hostname": url.host},
        ) as response,
    ):
        latency_ms = round((time.monotonic() - started) * 1000)
        return Answer(response.status_code, response.headers, _read(response, target), latency_ms)


def _read(response: httpx.Response, target: Target) -> bytes:
    """The beginning of the body: as much as is worth reading, and as comes in time."""
    deadline = time.monotonic() + target.first_byte_timeout_s
    body = b""
    for chunk in response.iter_raw(16 * 1024):
        body += chunk
        if len(body) >= MAX_BODY_BYTES or time.monotonic() > deadline:
            break
    return body[:MAX_BODY_BYTES]


def _why_no_connection(error: httpx.ConnectError, url: httpx.URL) -> Unreachable:
    """Raises Unreachable itself when somebody is there, so that the next address would tell no more."""
    tls = _cause(error, ssl.SSLError)
    if isinstance(tls, ssl.SSLCertVerificationError):
        raise Unreachable(
            f"The certificate of {url.host} is not trusted: {tls.verify_message}. "
            "Paste the authority's certificate under TLS if it is your own."
        ) from error
    if tls is not None:
        raise Unreachable(
            f"{url.host} answers, but not with TLS. Is it http:// instead of https://, or another port?"
        ) from error
    if _cause(error, ConnectionRefusedError):
        return Unreachable(f"{url.host} refuses the connection: nothing listens on that port.")
    return Unreachable(f"{url.host} cannot be reached from here.")


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """httpx wraps what happened; it is somewhere down the chain."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kind):
        found = found.__cause__ or found.__context__
    return found


def _judge(answer: Answer, target: Target) -> Verdict:
    """What an answer says about address and key."""
    status = answer.status
    if 200 <= status < 300:
        ok, message = _judge_success(answer)
    elif 300 <= status < 400:
        location = answer.headers.get("location", "").split("?")[0]
        ok, message = False, f"It redirects to {location or 'another place'}. Enter the final address as base URL."
    elif status in (401, 403):
        ok, message = False, "Reachable, but it refuses the API key" + ("." if target.credential else ": none is set.")
    elif status in (404, 405):
        ok, message = False, "Reachable, but there is no API at this base URL. It usually ends with the version: /v1."
    elif status == 429:
        ok, message = True, "Reachable, and it knows the key; right now it limits the rate of calls."
    elif status >= 500:
        ok, message = False, "Reachable, but it is in trouble itself. Try again later."
    else:
        ok, message = False, f"Reachable, but it refuses the question: {_its_words(answer, target)}"
    return Verdict(ok, message, status, answer.latency_ms)


def _judge_success(answer: Answer) -> tuple[bool, str]:
    try:
        orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        if len(answer.body) < MAX_BODY_BYTES:
            return False, "Something answers, but it is not an API. Look at the base URL."
    return True, "Reachable, and it accepts the API key."


def _its_words(answer: Answer, target: Target) -> str:
    """The provider's own message, short and without our secrets, should it quote them."""
    words = str(target.adapter.error(answer.status, answer.body).get("message", ""))
    for secret in (target.credential, *target.extra_headers.values()):
        if secret:
            words = words.replace(secret, "***")
    return words[:MAX_QUOTED_CHARS] or f"status {answer.status}."
