from __future__ import annotations

from django.apps import AppConfig


class TokensConfig(AppConfig):
    name = "accounts.tokens"
    label = "tokens"
    verbose_name = "Management tokens"

    def ready(self) -> None:
        from accounts.audit import watch
        from accounts.tokens.models import ManagementToken

        watch(ManagementToken, hidden={"digest", "pepper"}, ignored={"last_used_at"})
