"""Opening logged texts: who looks is written down first, and only then is anything decrypted."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction

from accounts.audit import record
from accounts.encryption import Undecryptable, decrypt
from accounts.models import User
from policies.models import ContentView, LoggedContent


@dataclass(frozen=True, slots=True)
class Opened:
    """JSON texts; "" what was not kept, None what cannot be decrypted any more."""

    request: str | None
    reply: str | None


def open_content(content: LoggedContent, by: User, client_ip: str) -> Opened:
    """Raises what the database raises when the look cannot be recorded; then nothing was decrypted."""
    # Durable: in force before the next line, not with some transaction that may still fail.
    with transaction.atomic(durable=True):
        record("loggedcontent.viewed", ("policies.loggedcontent", content.event_id, f"call {content.request_id}"))
        ContentView.objects.create(
            user=by,
            username=by.get_username(),
            client_ip=client_ip,
            event_id=content.event_id,
            request_id=content.request_id,
        )
    return Opened(_decrypted(content.request), _decrypted(content.reply))


def _decrypted(token: str) -> str | None:
    try:
        return decrypt(token)
    except Undecryptable:
        return None
