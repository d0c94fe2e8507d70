"""Puts load on a server and counts what it answers: wrk where it is installed, else our own driver."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine

# The 160-byte chat request of the published figures, give or take the model's name. Whom to greet is another one each
# time: nobody asks the same thing again and again, and what has been read before may cost less.
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu")
SOMEBODY = SYLLABLES[0] * 7
MESSAGES = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": f"Say hello to {SOMEBODY}, please."},
]
_LUA = """
wrk.method = "POST"
wrk.path = {path}
{headers}
local before, after, count = {before}, {after}, {first}
local syllables = {{{syllables}}}
request = function()
    count = (count + 1) % 10000000
    local body = before .. string.format("%07d", count):gsub("%d", syllables) .. after
    return wrk.format(nil, nil, nil, body)
end
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('\\nRESULT {{"requests": %d, "seconds": %.6f, "p50_us": %.1f, "errors": %d}}\\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50),
        e.connect + e.read + e.write + e.timeout + e.status))
end
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A POST of `body` to `path` on a port of this machine."""

    port: int
    path: str
    headers: Mapping[str, str]
    body: bytes

    def raw(self) -> str:
        lines = {"host": "127.0.0.1", **self.headers, "content-length": str(len(self.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}\r\n{self.body.decode()}"


@dataclass(frozen=True, slots=True)
class Answered:
    """`count`: requests, or events of streams. `errors`: connections that broke and answers that are not 200."""

    count: int
    seconds: float
    errors: int
    p50_us: float = 0


def chat_body(model: str, stream: bool = False, user: str = "") -> bytes:
    body = {"model": model, "messages": MESSAGES, **({"stream": True} if stream else {})}
    return json.dumps({**body, **({"user": user} if user else {})}, separators=(",", ":")).encode()


def program() -> str | None:
    return shutil.which("wrk")


def ask(folder: Path, request: Request, connections: int, seconds: int) -> Answered:
    """Whole answers: `connections` that ask again at once, for so long."""
    if program():
        result = _wrk(folder, request, connections, seconds)
    else:
        result = _drive(folder, request, connections=connections, seconds=seconds)
    return Answered(int(result["requests"]), result["seconds"], int(result["errors"]), result["p50_us"])


def stream(folder: Path, request: Request, streams: int) -> Answered:
    """So many streams side by side, each read to its end."""
    result = _drive(folder, request, connections=streams, streams=True)
    return Answered(int(result["chunks"]), result["seconds"], int(result["errors"]))


def _wrk(folder: Path, request: Request, connections: int, seconds: int) -> dict[str, float]:
    script = folder / "load.lua"
    headers = "\n".join(f"wrk.headers[{_lua(name)}] = {_lua(value)}" for name, value in request.headers.items())
    before, _, after = request.body.decode().partition(SOMEBODY)
    syllables = ", ".join(f'["{digit}"] = "{syllable}"' for digit, syllable in enumerate(SYLLABLES))
    script.write_text(
        _LUA.format(
            path=_lua(request.path),
            headers=headers,
            before=_lua(before),
            after=_lua(after),
            first=secrets.randbelow(10**7),
            syllables=syllables,
        )
    )
    command = [program() or "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    output = machine.run([*command, f"http://127.0.0.1:{request.port}"], machine.LOAD_CORE)
    result: dict[str, float] = json.loads(output.rpartition("RESULT ")[2])
    return result


def _drive(folder: Path, request: Request, **plan: float) -> dict[str, float]:
    path = folder / "plan.json"
    path.write_text(json.dumps({"port": request.port, "request": request.raw(), **plan}))
    output = machine.run([sys.executable, "-m", "benchmarks.driver", str(path)], machine.LOAD_CORE)
    result: dict[str, float] = json.loads(output)
    return result


def _lua(text: str) -> str:
    """A Lua string literal: JSON's escapes are Lua's too, for the ASCII that json.dumps makes of our texts."""
    return json.dumps(text)
