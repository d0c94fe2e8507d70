"""The terms: read, agreed to."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts.requests import terms
from accounts.requests.pages import signed_in


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def show(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    back = _safe(request, request.POST.get("next") or request.GET.get("next", ""))
    if request.method == "POST":
        number = request.POST.get("version", "")
        try:
            terms.agree(user, int(number) if number.isdecimal() and len(number) < 19 else 0)
        except ValidationError as error:
            messages.warning(request, " ".join(error.messages))
        else:
            messages.success(request, "Thank you. You agreed to the terms.")
            return redirect(back or "portal_home")
    version = terms.in_force()
    context = {
        "version": version,
        "paragraphs": paragraphs(version.text) if version else [],
        "waits": terms.to_agree(user) is not None,
        "bars": terms.barring(user) is not None,
        "agreements": terms.agreements_of(user),
        "back": back,
    }
    return render(request, "portal/terms/terms.html", context)


def paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]


def _safe(request: HttpRequest, address: str) -> str:
    """Only back to our own pages."""
    own = url_has_allowed_host_and_scheme(address, allowed_hosts=None, require_https=request.is_secure())
    return address if own and address.startswith("/") else ""
