"""The identity providers that the environment sets up (OIDC_..., SAML_...), as rows like those of the admin."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from accounts.encryption import Undecryptable, encrypt
from accounts.sso.models import IdentityProvider

ENVIRONMENT = IdentityProvider.Origin.ENVIRONMENT
logger = logging.getLogger(__name__)


def sync() -> None:
    """At every start. What the environment no longer names is switched off, not deleted: identities hang on it."""
    for kind, given in ((IdentityProvider.Kind.OIDC, settings.OIDC), (IdentityProvider.Kind.SAML, settings.SAML)):
        wanted = bool(given.get("discovery_url") and given.get("client_id")) or bool(
            given.get("metadata_url") or given.get("metadata_xml")
        )
        row = IdentityProvider.objects.filter(slug=kind.value).first()
        if row is not None and row.origin != ENVIRONMENT:
            if wanted:
                logger.error("the identity provider %s of the environment is left out: the admin has one", kind.value)
            continue
        if not wanted:
            _switch_off(row)
        else:
            _put(row or IdentityProvider(kind=kind, slug=kind.value, origin=ENVIRONMENT), given)


def _switch_off(row: IdentityProvider | None) -> None:
    if row is not None and row.enabled:
        row.enabled = False
        row.save()


def _put(row: IdentityProvider, given: dict[str, Any]) -> None:
    """Saved only when something is new: several processes start, and each start would be in the audit trail."""
    changed = row.pk is None or not row.enabled
    row.enabled = True
    for name, value in given.items():
        if name == "client_secret":
            if _secret_of(row) != value:
                row.client_secret, changed = encrypt(value), True
        elif getattr(row, name) != value:
            setattr(row, name, value)
            changed = True
    if not changed:
        return
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError:
        logger.info("another process has just set up the identity provider %s", row.slug)


def _secret_of(row: IdentityProvider) -> str | None:
    try:
        return row.secret
    except Undecryptable:
        return None
