from django.apps import AppConfig


class GatewayProjectConfig(AppConfig):
    name = "gateway_project"
    verbose_name = "Gatehouse"

    def ready(self) -> None:
        """What apps show of each other without importing each other."""
        from gateway_project import audited, crossings, portal

        audited.build()
        crossings.build()
        portal.build()
