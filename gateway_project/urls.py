"""What Django serves. /v1 is not here (proxy.asgi), nor are /healthz, /readyz and /metrics (gateway_project.health)."""

from django.contrib import admin
from django.urls import include, path

from accounts.sso.local import admin_login
from usage.me import MyUsageView

admin.site.login = admin_login  # type: ignore[method-assign]

urlpatterns = [
    path("", include("gateway_project.portal")),
    path("accounts/", include("accounts.sso.urls")),
    path("", include("accounts.requests.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/me/usage", MyUsageView.as_view(), name="api_my_usage"),
    path("api/v1/", include("gateway_project.api.urls")),
    path("scim/v2/", include("accounts.scim.urls")),
]
