"""What a new installation begins with: an admin, a demo key and the echo provider; the first call works offline."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from decimal import Decimal

from django.db import transaction

from accounts.models import User
from accounts.services import create_key, personal_team
from proxy.models import Model, Provider, Route
from usage.services import set_price

ADMIN = "admin"
ECHO = "echo"


@dataclass(frozen=True, slots=True)
class FirstStart:
    """Both are in the clear and exist only here: print them, once."""

    password: str = field(repr=False)
    key: str = field(repr=False)


@transaction.atomic
def prepare() -> FirstStart | None:
    """Fills an installation that has no user yet. None: it is in use already, and nothing is touched."""
    if User.objects.exists():
        return None
    password = secrets.token_urlsafe(12)
    admin = User.objects.create_superuser(ADMIN, password=password)
    _add_echo()
    _, key = create_key("demo", personal_team(admin), admin)
    return FirstStart(password, key)


def _add_echo() -> None:
    """Unless there is something of that name: a file may have been applied before the first start."""
    if Provider.objects.filter(name=ECHO).exists() or Model.objects.filter(name=ECHO).exists():
        return
    provider = Provider.objects.create(name=ECHO, kind=ECHO)
    model = Model.objects.create(name=ECHO, description="Answers by repeating the last message. For trying out.")
    Route.objects.create(model=model, provider=provider)
    # Without a price its calls would be marked as unpriced; but it is free.
    set_price(ECHO, input_usd_per_mtok=Decimal(0), output_usd_per_mtok=Decimal(0))
