"""Idempotency-Key: a POST that is sent again, because its reply was lost, is answered again and not done again.

The first request leaves a mark before it does anything; its reply is stored in the transaction of its changes, so the
two are there together or not at all. Only what succeeded is stored: after a mistake the key is free again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import encryption
from accounts.tokens.models import ManagementToken, StoredReply
from accounts.tokens.services import REPLIES_KEPT
from gateway_project.api.errors import BadRequest, KeyReused, UnderWay

HEADER = "Idempotency-Key"
LONGEST = 255
# A process that takes longer has died; should it live all the same, it finds its mark gone, and undoes what it did.
DEAD_AFTER = timedelta(minutes=2)
KEPT_HEADERS = ("ETag", "Location", "Cache-Control")


class Repeat:
    """The mark of this request. `reply`: that of the first request with its key, if there was one."""

    def __init__(self, mark: StoredReply, reply: Response | None = None) -> None:
        self._mark, self.reply = mark, reply

    def keep(self, response: Response) -> None:
        """In the transaction of the changes."""
        text = JSONRenderer().render(response.data).decode()
        headers = {name: response[name] for name in KEPT_HEADERS if response.has_header(name)}
        kept = StoredReply.objects.filter(pk=self._mark.pk, attempt=self._mark.attempt, status=None).update(
            status=response.status_code, headers=headers, body=encryption.encrypt(text)
        )
        if not kept:
            raise UnderWay("Another request with this Idempotency-Key has overtaken this one.")

    def forget(self) -> None:
        StoredReply.objects.filter(pk=self._mark.pk, attempt=self._mark.attempt, status=None).delete()


def begin(request: Request) -> Repeat | None:
    """None: there is no key. Raises BadRequest, UnderWay and KeyReused."""
    given = request.headers.get(HEADER)
    if given is None or request.method != "POST":
        return None
    if not 0 < len(given) <= LONGEST or not given.isascii() or not given.isprintable():
        raise BadRequest(f"An Idempotency-Key is 1 to {LONGEST} printable ASCII characters.", HEADER)
    mark = StoredReply(
        caller=_caller(request),
        key_digest=hashlib.sha256(given.encode()).hexdigest(),
        request_digest=_digest(request),
        attempt=secrets.token_hex(16),
    )
    return Repeat(mark) if _leave(mark) else _found(mark)


def _found(mark: StoredReply) -> Repeat:
    """Somebody was here before."""
    there = StoredReply.objects.filter(caller=mark.caller, key_digest=mark.key_digest).first()
    if there is None:
        raise UnderWay("A request with this Idempotency-Key has just ended without a reply. Send it again.")
    age = timezone.now() - there.at
    if age > REPLIES_KEPT or (there.status is None and age > DEAD_AFTER):
        StoredReply.objects.filter(pk=there.pk, attempt=there.attempt, status=there.status).delete()
        if _leave(mark):
            return Repeat(mark)
        raise UnderWay("A request with this Idempotency-Key is under way.")
    if there.request_digest != mark.request_digest:
        raise KeyReused("This Idempotency-Key was used for another request. Take a new one for each.")
    if there.status is None:
        raise UnderWay("A request with this Idempotency-Key is under way. Send it again in a moment.")
    return Repeat(there, _reply(there))


def _leave(mark: StoredReply) -> bool:
    """Committed at once, so that everybody sees it."""
    try:
        with transaction.atomic():
            mark.save(force_insert=True)
    except IntegrityError:
        mark.pk = None
        return False
    return True


def _reply(there: StoredReply) -> Response:
    response = Response(json.loads(encryption.decrypt(there.body)), status=there.status)
    for name, value in there.headers.items():
        response[name] = value
    response["Idempotency-Replayed"] = "true"
    return response


def _caller(request: Request) -> str:
    if isinstance(request.auth, ManagementToken):
        return f"token {request.auth.pk}"
    return f"user {request.user.pk}"


def _digest(request: Request) -> str:
    """Of the body as it was sent: read already, or read now."""
    django_request: Any = request._request
    digest = hashlib.sha256(f"{request.method} {django_request.get_full_path()}\n".encode())
    digest.update(django_request.body)
    return digest.hexdigest()
