from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_delete, post_migrate, post_save


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = "Keys and people"

    def ready(self) -> None:
        for model in ("User", "Team", "Membership", "ApiKey"):
            for signal in (post_save, post_delete):
                signal.connect(_bump, sender=self.get_model(model), dispatch_uid=f"identity {model}")
        from accounts import roles

        post_migrate.connect(roles.keep_roles, dispatch_uid="keep roles")


def _bump(update_fields: frozenset[str] | None = None, **_kwargs: Any) -> None:
    """Whatever saves or deletes a person, team, membership or key, the data plane hears of it."""
    from accounts import versions

    # Every sign-in writes this, and no call depends on it.
    if update_fields != frozenset({"last_login"}):
        versions.bump(versions.IDENTITY)
