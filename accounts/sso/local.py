"""Local accounts: the sign-in page, the admin's door, and the second factor of those who may do much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from allauth.account.views import LoginView
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode

from accounts.sso.models import IdentityProvider
from accounts.sso.signals import SESSION_MARK

# The shape of every error of the management API.
SET_UP_FIRST = {
    "message": "Set up your second factor first, at /accounts/2fa/totp/activate/.",
    "type": "invalid_request_error",
    "param": None,
    "code": "second_factor_required",
}
TOTP_REQUIRED = "required"
FREE_PATHS = ("/accounts/2fa/", "/accounts/logout/", "/accounts/reauthenticate/", "/static/")


class SignIn(LoginView):
    """Buttons of the IdPs first; the form for local accounts is folded away where there are any."""

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        target = self.request.GET.get(REDIRECT_FIELD_NAME) or self.request.POST.get(REDIRECT_FIELD_NAME) or ""
        safe = url_has_allowed_host_and_scheme(target, {self.request.get_host()}, self.request.is_secure())
        query = f"?{urlencode({REDIRECT_FIELD_NAME: target})}" if target and safe else ""
        idps = IdentityProvider.objects.filter(enabled=True, hidden=False)
        context["idps"] = [{"name": idp.name, "url": idp.login_path + query} for idp in idps]
        context["next"] = target if safe else ""
        form = context["form"]
        form.fields["login"].label = "Username"
        form.fields["password"].help_text = ""
        for field in form.fields.values():
            field.widget.attrs.pop("placeholder", None)
        return context


sign_in = SignIn.as_view()


def admin_login(request: HttpRequest, extra_context: Any = None) -> HttpResponse:
    """Instead of the admin's own form, which knows neither IdPs nor limits nor a second factor."""
    if request.user.is_authenticated:
        if not request.user.is_staff:
            raise PermissionDenied
        return redirect("admin:index")
    if request.method == "POST":
        posted = request.POST.copy()
        posted.setdefault("login", posted.get("username", ""))
        request.POST = posted  # type: ignore[assignment]
        response: HttpResponse = sign_in(request)
        return response
    wanted = request.GET.get(REDIRECT_FIELD_NAME) or reverse("admin:index")
    return HttpResponseRedirect(f"{reverse('account_login')}?{urlencode({REDIRECT_FIELD_NAME: wanted})}")


def require_second_factor(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: staff with a local account see nothing but the page that sets up their second factor, until they have
    one (LOCAL_ADMIN_TOTP). Who came through an IdP has the IdP's."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if settings.LOCAL_ADMIN_TOTP == TOTP_REQUIRED and _lacks_second_factor(request):
            if request.path.startswith("/api/"):
                return JsonResponse({"error": SET_UP_FIRST}, status=403)
            return redirect("mfa_activate_totp")
        return get_response(request)

    return middleware


def _lacks_second_factor(request: HttpRequest) -> bool:
    user = request.user
    if request.path.startswith(FREE_PATHS) or not user.is_authenticated or not user.is_staff:
        return False
    if SESSION_MARK in request.session:
        return False
    return not Authenticator.objects.filter(user_id=user.pk, type=Authenticator.Type.TOTP).exists()
