"""Real identity providers for the tests of sign-in, from npm: an OpenID provider and a SAML IdP on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from accounts.sso.saml_messages import new_pair
from gateway_project.tests.services import free_port, missing, wait_until

HERE = Path(__file__).parent / "idp"
START_TIMEOUT_S = 30
SLUG = "corp"
CLIENT = {"client_id": "gateway", "client_secret": "only-for-tests-0123456789-abcdefghijk"}


def modules() -> Path:
    """Folder of the npm packages, installed once and kept."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        missing("Node.js", "install node and npm")
    wanted = (HERE / "package.json").read_bytes()
    folder = Path(tempfile.gettempdir()) / f"gatehouse-idp-npm-{hashlib.sha256(wanted).hexdigest()[:12]}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            (folder / "package.json").write_bytes(wanted)
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=250, check=False)
            if done.returncode:
                missing("the identity providers of npm", f"npm could not install them: {done.stderr.strip()[-500:]}")
            (folder / "installed").touch()
    return folder / "node_modules"


class OidcServer:
    """`people`: by the name they log in with, their claims; a test may change them between two sign-ins."""

    def __init__(self, folder: Path, gateway_url: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._people = folder / "people.json"
        self._clients = folder / "clients.json"
        self._log = folder / "oidc.log"
        back = f"{gateway_url}/accounts/oidc/{SLUG}"
        client = {
            **CLIENT,
            "redirect_uris": [f"{back}/login/callback/"],
            "response_types": ["code"],
            "grant_types": ["authorization_code"],
            "backchannel_logout_uri": f"{back}/backchannel-logout/",
            "backchannel_logout_session_required": True,
        }
        self._clients.write_text(json.dumps({"clients": [client]}))

    @property
    def log(self) -> str:
        return self._log.read_text()

    def set_people(self, people: Mapping[str, Mapping[str, Any]]) -> None:
        self._people.write_text(json.dumps(people))

    @contextmanager
    def running(self) -> Iterator[OidcServer]:
        packages = modules()
        command = ["node", str(HERE / "oidc.mjs"), str(self.port), str(self._clients), str(self._people)]
        with self._log.open("w") as log:
            environment = {"PATH": os.environ["PATH"], "IDP_MODULES": str(packages), "NODE_NO_WARNINGS": "1"}
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(
                lambda: _answers(f"{self.url}/.well-known/openid-configuration"), START_TIMEOUT_S, self.log or "OIDC"
            )
            yield self
        finally:
            process.kill()
            process.wait(10)


class SamlServer:
    """saml-idp: one click signs in, as whom its form says."""

    def __init__(self, folder: Path, gateway_url: str, slug: str = "saml") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._back = f"{gateway_url}/accounts/saml/{slug}"
        self._log = folder / "saml.log"

    @property
    def log(self) -> str:
        return self._log.read_text()

    @contextmanager
    def running(self) -> Iterator[SamlServer]:
        packages = modules()
        key, certificate = self._folder / "idp.key", self._folder / "idp.crt"
        for path, text in zip((key, certificate), new_pair("idp"), strict=True):
            path.write_text(text)
        command = ["node", str(packages / "saml-idp/bin/run.js"), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--issuer", "urn:test:idp", "--acsUrl", f"{self._back}/acs/", "--sloUrl", f"{self._back}/sls/"]
        command += ["--audience", f"{self._back}/metadata/", "--cert", str(certificate), "--key", str(key)]
        command += ["--configFile", str(HERE / "saml.cjs")]
        environment = {"PATH": os.environ["PATH"], "IDP_MODULES": str(packages), "NODE_NO_WARNINGS": "1"}
        with self._log.open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: _answers(f"{self.url}/metadata"), START_TIMEOUT_S, "the SAML IdP runs")
            yield self
        finally:
            process.kill()
            process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
