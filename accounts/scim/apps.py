from __future__ import annotations

from django.apps import AppConfig


class ScimConfig(AppConfig):
    name = "accounts.scim"
    label = "scim"
    verbose_name = "SCIM"

    def ready(self) -> None:
        from accounts.audit import watch

        watch(self.get_model("ScimToken"), hidden={"digest", "pepper"}, ignored={"last_used_at"})
        watch(self.get_model("ScimGroup"), ignored={"changed_at"})
        watch(self.get_model("ScimMember"))
        watch(self.get_model("ScimPerson"), ignored={"changed_at"})
