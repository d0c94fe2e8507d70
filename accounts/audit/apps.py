from __future__ import annotations

from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "accounts.audit"
    label = "audit"
    verbose_name = "Audit trail"

    def ready(self) -> None:
        from django.contrib.auth.models import Group

        from accounts.audit import actors, sign_ins, watch
        from accounts.models import ApiKey, Membership, Team, User

        actors.wrap_commands()
        sign_ins.watch()
        watch(User, hidden={"password"}, ignored={"last_login"})
        watch(Team)
        watch(Membership)
        digests = {"digest", "pepper", "previous_digest", "previous_pepper", "imported_digest"}
        watch(ApiKey, hidden=digests, ignored={"last_used_at"})
        watch(Group)
