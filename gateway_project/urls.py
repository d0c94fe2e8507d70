"""What Django serves. /v1 is not here (proxy.asgi), nor are /healthz, /readyz and /metrics (gateway_project.health)."""

from django.contrib import admin
from django.urls import path, reverse_lazy
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(url=reverse_lazy("admin:index"))),
    path("admin/", admin.site.urls),
]
