"""What Django serves. /v1 is not here (proxy.asgi), nor are /healthz, /readyz and /metrics (gateway_project.health)."""

from django.contrib import admin
from django.urls import include, path

from usage.api import ChargebackView
from usage.me import MyUsageView

urlpatterns = [
    path("", include("gateway_project.portal")),
    path("admin/", admin.site.urls),
    path("api/v1/me/usage", MyUsageView.as_view(), name="api_my_usage"),
    path("api/v1/usage/chargeback", ChargebackView.as_view(), name="api_chargeback"),
]
