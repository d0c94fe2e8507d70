from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_delete, post_save


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "Keys and people"

    def ready(self) -> None:
        for model in ("User", "Team", "Membership", "ApiKey"):
            for signal in (post_save, post_delete):
                signal.connect(_bump, sender=self.get_model(model), dispatch_uid=f"identity {model}")


def _bump(update_fields: frozenset[str] | None = None, **_kwargs: Any) -> None:
    """Whatever saves or deletes a person, team, membership or key, the data plane hears of it."""
    from accounts import versions

    # Every sign-in writes this, and no call depends on it.
    if update_fields != frozenset({"last_login"}):
        versions.bump(versions.IDENTITY)
