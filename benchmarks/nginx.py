"""nginx, where it is installed: as the fastest mock upstream, and as the plainest relay there is."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.mock_upstream import WHOLE

_COMMON = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    keepalive_timeout 3600;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{servers}
}}
"""
_MOCK = """
    server {{
        listen 127.0.0.1:{port};
        location / {{
            default_type application/json;
            return 200 '{answer}';
        }}
    }}
"""
# Two ports, because nginx does not choose by the body: whole answers and streams have upstreams of their own.
_RELAY = """
    upstream {name} {{ server 127.0.0.1:{upstream_port}; keepalive 512; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://{name};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering {buffering};
        }}
    }}
"""


def program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def mock(folder: Path, port: int) -> list[str]:
    """The command of a mock that gives every request the whole answer."""
    return _command(folder, _MOCK.format(port=port, answer=WHOLE))


def relay(folder: Path, port: int, upstream_port: int, stream_port: int, stream_upstream_port: int) -> list[str]:
    whole = _RELAY.format(name="whole", port=port, upstream_port=upstream_port, buffering="on")
    stream = _RELAY.format(name="streams", port=stream_port, upstream_port=stream_upstream_port, buffering="off")
    return _command(folder, whole + stream)


def _command(folder: Path, servers: str) -> list[str]:
    folder.mkdir()
    settings = folder / "nginx.conf"
    settings.write_text(_COMMON.format(folder=folder, servers=servers))
    return [program() or "nginx", "-p", str(folder), "-c", str(settings)]
