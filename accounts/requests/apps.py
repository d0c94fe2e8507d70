from __future__ import annotations

from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "accounts.requests"
    label = "access"
    verbose_name = "Requests, courses and terms"

    def ready(self) -> None:
        from accounts.requests import wiring

        wiring.build(self)
