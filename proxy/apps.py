from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_delete, post_save


class ProxyConfig(AppConfig):
    name = "proxy"
    verbose_name = "Providers and models"

    def ready(self) -> None:
        from accounts import catalogue
        from proxy import selectors
        from proxy.endpoints import ENDPOINTS

        catalogue.set_names(
            models=selectors.model_names,
            callable=selectors.callable_models,
            endpoints=lambda: list(ENDPOINTS),
            providers=selectors.provider_names,
        )
        catalogue.set_prices(selectors.dearest_prices)
        for model in ("Provider", "Model", "Route"):
            for signal in (post_save, post_delete):
                signal.connect(_bump, sender=self.get_model(model), dispatch_uid=f"catalogue {model}")


def _bump(**_kwargs: Any) -> None:
    """Whatever saves a row of the catalogue, the data plane hears of it."""
    from accounts import versions

    versions.bump(versions.CATALOGUE)
