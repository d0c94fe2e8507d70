from django.apps import AppConfig
from django.db.models.signals import post_delete, post_save


class UsageConfig(AppConfig):
    name = "usage"
    verbose_name = "Usage and prices"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_login_failed

        from usage import budgets, services
        from usage.alerts import sign_ins
        from usage.models import ModelPrice

        for signal in (post_save, post_delete):
            signal.connect(services.price_changed, sender=ModelPrice, dispatch_uid="usage.price_changed")
            for name in ("Budget", "TopUp", "Limit", "MoneySettings"):
                model = self.get_model(name)
                signal.connect(budgets.limits_changed, sender=model, dispatch_uid=f"limits {name}")
        user_login_failed.connect(sign_ins.sign_in_failed, dispatch_uid="usage.sign_in_failed")
