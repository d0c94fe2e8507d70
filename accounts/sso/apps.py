from __future__ import annotations

from django.apps import AppConfig


class SsoConfig(AppConfig):
    name = "accounts.sso"
    label = "sso"
    verbose_name = "Single sign-on"

    def ready(self) -> None:
        from accounts.audit import watch
        from accounts.scim import on_groups_changed
        from accounts.sso import services, signals

        watch(self.get_model("IdentityProvider"), hidden={"client_secret", "sp_key"})
        watch(self.get_model("GroupRule"))
        signals.connect()
        on_groups_changed(services.groups_changed)
