"""Who is acting, through what, from where. Whatever is written to the trail asks `current`."""

from __future__ import annotations

import getpass
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse

from accounts.addresses import client_ip

ADMIN, PORTAL, API, COMMAND, SCIM, SSO, SYSTEM = "admin", "portal", "api", "command", "scim", "sso", "system"
CHANNELS = (ADMIN, PORTAL, API, COMMAND, SCIM, SSO, SYSTEM)
CHANNEL_OF_PATH = {"/admin/": ADMIN, "/api/": API, "/scim/": SCIM}
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")


@dataclass(frozen=True, slots=True)
class Actor:
    """`name`: as it is shown; "" where the user's name says it. `user`: a User, or a function that finds one, so that
    who signs in during a request is known by its end."""

    channel: str = SYSTEM
    user: Any = None
    name: str = ""
    ip: str = ""
    request_id: str = ""

    def person(self) -> Any:
        """A saved User, or None."""
        user = self.user() if callable(self.user) else self.user
        return user if getattr(user, "pk", None) is not None else None

    def shown(self) -> str:
        person = self.person()
        return self.name or (person.get_username() if person is not None else "")


_current: ContextVar[Actor | None] = ContextVar("actor", default=None)


def current() -> Actor:
    return _current.get() or Actor()


@contextmanager
def acting(
    channel: str, user: Any = None, name: str = "", ip: str | None = None, request_id: str | None = None
) -> Iterator[Actor]:
    """What is not given is as outside: the address and the id of the request."""
    if channel not in CHANNELS:
        raise ValueError(f"no channel: {channel}")
    outer = current()
    actor = Actor(
        channel,
        user,
        name,
        outer.ip if ip is None else ip,
        outer.request_id if request_id is None else request_id,
    )
    token = _current.set(actor)
    try:
        yield actor
    finally:
        _current.reset(token)


def of_request(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """The middleware: behind that of authentication."""

    def middleware(request: HttpRequest) -> HttpResponse:
        channel = next((of for path, of in CHANNEL_OF_PATH.items() if request.path.startswith(path)), PORTAL)
        with acting(channel, lambda: getattr(request, "user", None), ip=client_ip(request), request_id=_id(request)):
            return get_response(request)

    return middleware


def _id(request: HttpRequest) -> str:
    given = request.headers.get("X-Request-Id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def wrap_commands() -> None:
    """Every management command acts in the name of the account of the machine that runs it."""
    from django.core.management.base import BaseCommand

    execute = BaseCommand.execute
    if getattr(execute, "acts", False):
        return

    def acting_execute(self: BaseCommand, *args: Any, **options: Any) -> Any:
        if _current.get() is not None:  # called by a page, or by another command
            return execute(self, *args, **options)
        command = type(self).__module__.rsplit(".", 1)[-1]
        with acting(COMMAND, name=f"{command} ({_account()})"):
            return execute(self, *args, **options)

    acting_execute.acts = True  # type: ignore[attr-defined]
    BaseCommand.execute = acting_execute  # type: ignore[method-assign]


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose account has no name
        return "unknown account"
