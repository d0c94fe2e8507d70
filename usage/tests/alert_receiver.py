"""Where alerts arrive in tests: a real HTTP server that keeps what it gets and behaves as the test wants; and a mail
server that speaks just enough SMTP."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answer`: status, headers and body; `behave`: "", hang, close, drip, huge, nonsense."""

    port: int = 0
    status: int = 200
    answer: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    behave: str = ""
    requests: list[Request] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    sent_bytes: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/T0000000/B0000000/secretsecretsecret"


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append(Request(self.path, headers, body))
            self.close_connection = True
            if behaviour := getattr(self, receiver.behave or "answer"):
                behaviour()

        do_GET = do_POST

        def answer(self) -> None:
            self.send_response(receiver.status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)

        def hang(self) -> None:
            receiver.ended.wait(20)

        def close(self) -> None:
            self.connection.close()

        def nonsense(self) -> None:
            self.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")

        def drip(self) -> None:
            """A head that never ends, one byte at a time, each in good time."""
            self.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
            while not receiver.ended.wait(0.02):
                try:
                    self.wfile.write(b"a")
                except OSError:
                    return

        def huge(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while receiver.sent_bytes < 200_000_000 and not receiver.ended.is_set():
                    receiver.sent_bytes += self.wfile.write(b"a" * 65536)
            except OSError:
                return

        def log_message(self, *_args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield receiver
        receiver.ended.set()
        server.shutdown()
        thread.join()


@dataclass
class Mailbox:
    """`refuse`: what is said to each recipient instead of OK, such as "550 no such user"."""

    port: int = 0
    refuse: str = ""
    mails: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)


@contextmanager
def mail_server() -> Iterator[Mailbox]:
    mailbox = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 test")
            while line := self.rfile.readline().decode().strip():
                verb = line.upper()
                if verb.startswith("RCPT") and mailbox.refuse:
                    self.say(mailbox.refuse)
                elif verb == "DATA":
                    self.say("354 go on")
                    lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                    mailbox.mails.append("\n".join(lines))
                    self.say("250 taken")
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    if verb.startswith("RCPT"):
                        mailbox.recipients.append(line.partition("<")[2].partition(">")[0])
                    self.say("250 ok")

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        mailbox.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield mailbox
        server.shutdown()
        thread.join()
