"""Test connection: what a provider's answer, or its silence, means in plain words."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway_project.tests.services import free_port
from proxy import probe
from proxy.models import Provider
from proxy.probe import Verdict
from proxy.ssrf import UnknownHost

KEY = "6f1d0c9ab2e84d7f93a5"  # of a provider whose keys look like nothing


class Handler(BaseHTTPRequestHandler):
    """Answers as the base URL's path says: /status-401/v1, /html/v1, ..."""

    def do_GET(self) -> None:
        wish = self.path.split("/")[1]
        self.server.seen.append(
            (self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        )  # type: ignore[attr-defined]
        if wish == "silent":
            self.server.released.wait(5)  # type: ignore[attr-defined]
            return
        if wish == "nonsense":
            self.wfile.write(b"220 smtp ready\r\n")
            return
        status = int(wish.removeprefix("status-")) if wish.startswith("status-") else 200
        body = (
            b"<html>hello</html>" if wish == "html" else b'{"data": [], "error": {"message": "no: %s"}}' % KEY.encode()
        )
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "https://elsewhere.example/v1/models?token=secret")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.released = threading.Event()

    def handle_error(self, *_args: Any) -> None:
        """A probe that hangs up on a bad certificate is no failure of the test."""


@pytest.fixture
def server() -> Iterator[Server]:
    yield from _running(Server())


def _running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def provider(server: Server | None = None, path: str = "ok", **fields: Any) -> Provider:
    url = f"http://127.0.0.1:{server.server_port}/{path}/v1" if server else ""
    row = Provider(**{"name": "p", "kind": "openai", "base_url": url, "private_network": True, **fields})
    row.set_credential(KEY)
    return row


def test_provider_that_answers_is_reachable_and_accepts_the_key(server: Server) -> None:
    verdict = probe.probe(provider(server))
    assert verdict == Verdict(True, "Reachable, and it accepts the API key.", 200, verdict.latency_ms)
    assert verdict.latency_ms is not None
    assert verdict.latency_ms < 5000


def test_question_carries_the_key_and_the_host_as_configured(server: Server) -> None:
    probe.probe(provider(server))
    _, path, headers = server.seen[0]
    assert path == "/ok/v1/models"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["host"] == f"127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("path", "ok", "words"),
    [
        ("status-401", False, "refuses the API key"),
        ("status-403", False, "refuses the API key"),
        ("status-404", False, "no API at this base URL"),
        ("status-405", False, "no API at this base URL"),
        ("status-429", True, "limits the rate"),
        ("status-500", False, "in trouble itself"),
        ("status-503", False, "in trouble itself"),
        ("status-302", False, "redirects to https://elsewhere.example/v1/models."),
        ("status-400", False, "refuses the question"),
        ("html", False, "it is not an API"),
        ("nonsense", False, "does not speak HTTP"),
    ],
)
def test_answer_is_explained(server: Server, path: str, ok: bool, words: str) -> None:
    verdict = probe.probe(provider(server, path))
    assert verdict.ok is ok
    assert words in verdict.message


def test_missing_key_is_named_as_the_reason(server: Server) -> None:
    row = provider(server, "status-401")
    row.set_credential("")
    assert probe.probe(row).message == "Reachable, but it refuses the API key: none is set."


def test_providers_words_are_shown_without_the_key_they_quote(server: Server) -> None:
    verdict = probe.probe(provider(server, "status-400"))
    assert KEY not in verdict.message
    assert "no: ***" in verdict.message


def test_redirect_is_not_followed(server: Server) -> None:
    probe.probe(provider(server, "status-302"))
    assert len(server.seen) == 1


def test_silence_ends_at_the_timeout(server: Server) -> None:
    verdict = probe.probe(provider(server, "silent", first_byte_timeout_s=0.2))
    assert verdict == Verdict(False, "Connected to 127.0.0.1, but it did not answer within 0.2 s.")


def test_port_where_nobody_listens() -> None:
    verdict = probe.probe(provider(base_url=f"http://127.0.0.1:{free_port()}/v1"))
    assert "refuses the connection: nothing listens" in verdict.message


def test_name_that_cannot_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any) -> Any:
        raise UnknownHost("no")

    monkeypatch.setattr(probe, "resolve", unknown)
    assert "cannot be resolved" in probe.probe(provider(base_url="https://llm.example/v1")).message


def test_private_address_is_not_connected_to_unless_allowed(server: Server) -> None:
    verdict = probe.probe(provider(server, private_network=False))
    assert "in this machine or a private network" in verdict.message
    assert server.seen == []


def test_address_that_was_judged_is_the_one_connected_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up once: what it resolves to afterwards does not matter."""
    monkeypatch.setattr(probe, "resolve", lambda *_args: [ipaddress.ip_address("127.0.0.1")])
    monkeypatch.setattr(probe, "is_public_address", lambda _address: True)
    url = f"http://rebinding.example:{server.server_port}/ok/v1"
    assert probe.probe(provider(base_url=url, private_network=False)).ok
    assert server.seen[0][2]["host"] == f"rebinding.example:{server.server_port}"


def test_next_address_is_tried_when_the_first_one_refuses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [ipaddress.ip_address("127.0.0.2"), ipaddress.ip_address("127.0.0.1")]
    monkeypatch.setattr(probe, "resolve", lambda *_args: addresses)
    assert probe.probe(provider(base_url=f"http://two.example:{server.server_port}/ok/v1")).ok


def test_echo_has_nothing_to_connect_to() -> None:
    verdict = probe.probe(provider(kind="echo"))
    assert verdict == Verdict(True, "It answers inside the gateway itself, so there is nothing to connect to.")


def test_kind_that_is_gone_is_named() -> None:
    assert "does not know the kind gone" in probe.probe(provider(kind="gone")).message


def test_kind_without_a_usual_address_needs_one() -> None:
    assert not probe.probe(provider(kind="azure_openai")).ok


def test_key_under_a_lost_encryption_key(settings: Any) -> None:
    row = provider(base_url="https://llm.example/v1")
    settings.ENCRYPTION_KEYS = ["another"]
    assert "ENCRYPTION_KEYS has changed" in probe.probe(row).message


def test_certificates_that_are_none_are_named() -> None:
    verdict = probe.probe(provider(base_url="https://llm.example/v1", tls_ca="nonsense"))
    assert "cannot be read" in verdict.message


# --- TLS ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed, for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[Server]:
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    yield from _running(server)


def tls_provider(server: Server, **fields: Any) -> Provider:
    return provider(base_url=f"https://localhost:{server.server_port}/ok/v1", **fields)


def _certificates(path: Path) -> str:
    pem = path.read_text()
    return pem[pem.index("-----BEGIN CERTIFICATE") :]


def test_unknown_authority_is_not_trusted(tls_server: Server) -> None:
    assert "certificate of localhost is not trusted" in probe.probe(tls_provider(tls_server)).message


def test_own_authority_is_trusted_and_the_name_checked(tls_server: Server, certificate: Path) -> None:
    assert probe.probe(tls_provider(tls_server, tls_ca=_certificates(certificate))).ok
    by_address = f"https://127.0.0.1:{tls_server.server_port}/ok/v1"
    verdict = probe.probe(provider(base_url=by_address, tls_ca=_certificates(certificate)))
    assert "is not trusted" in verdict.message


def test_switched_off_verification_is_respected(tls_server: Server) -> None:
    assert probe.probe(tls_provider(tls_server, tls_verify=False)).ok


def test_https_to_a_server_without_tls(server: Server) -> None:
    verdict = probe.probe(provider(base_url=f"https://127.0.0.1:{server.server_port}/ok/v1"))
    assert "but not with TLS" in verdict.message
