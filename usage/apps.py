from django.apps import AppConfig
from django.db.models.signals import post_delete, post_save


class UsageConfig(AppConfig):
    name = "usage"
    verbose_name = "Usage and prices"

    def ready(self) -> None:
        from usage import services
        from usage.models import ModelPrice

        for signal in (post_save, post_delete):
            signal.connect(services.price_changed, sender=ModelPrice, dispatch_uid="usage.price_changed")
