"""A course as its students see it: the link in, the limits, the key."""

from __future__ import annotations

from datetime import timedelta

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import services
from accounts.portal.views import show_once
from accounts.requests import enrolment, money
from accounts.requests.cohort_pages import limits_in_words
from accounts.requests.enrolment import CourseFull, NoSuchInvitation
from accounts.requests.models import CohortStudent
from accounts.requests.pages import signed_in
from accounts.requests.terms import agreed


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def join(request: HttpRequest, token: str) -> HttpResponse:
    """Asks first: a link in a chat is opened by programs, too."""
    try:
        cohort = enrolment.course_of(token) if request.method != "POST" else enrolment.join(token, signed_in(request))
    except NoSuchInvitation:
        return render(request, "portal/cohorts/no_invitation.html", status=404)
    except CourseFull:
        return render(request, "portal/cohorts/no_invitation.html", {"is_full": True}, status=409)
    if request.method != "POST":
        return render(request, "portal/cohorts/join.html", {"cohort": cohort})
    messages.success(request, f"You are in the course {cohort.name}. Make your key now.")
    return redirect("access_my_course", cohort.pk)


@login_required
@require_safe
def my_course(request: HttpRequest, pk: int) -> HttpResponse:
    place = _place(request, pk)
    budgets = money.source().budgets([("key", place.key_id)]) if place.key_id else []
    context = {
        "place": place,
        "cohort": place.cohort,
        "limits": limits_in_words(place.cohort),
        "budgets": budgets,
        "works": place.key is not None and not place.key.disabled and not place.cohort.is_over(),
    }
    return render(request, "portal/cohorts/my_course.html", context)


@login_required
@never_cache
@require_POST
@agreed
def key(request: HttpRequest, pk: int) -> HttpResponse:
    """The key, or when there is one a new secret for it: what was spent stays spent."""
    place = _place(request, pk)
    try:
        if place.key is None:
            made, secret = services.create_key(place.cohort.name, place.cohort.team, place.user)
            return show_once(request, made, secret, "Your key for the course")
        if place.key.disabled or place.stopped or place.cohort.is_over():
            messages.error(request, "Your key is stopped. Ask your teacher.")
            return redirect("access_my_course", pk)
        place.key.expires_at = place.cohort.keys_end_at
        place.key.save(update_fields=["expires_at"])
        secret = services.rotate_key(place.key, timedelta(0))
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
        return redirect("access_my_course", pk)
    return show_once(request, place.key, secret, "The new secret of your key")


def _place(request: HttpRequest, pk: int) -> CohortStudent:
    places = CohortStudent.objects.select_related("cohort__team", "key__team", "user")
    return get_object_or_404(places, cohort=pk, user=signed_in(request))
