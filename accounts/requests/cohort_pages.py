"""The portal's pages of courses, for who teaches them. What is not theirs is not there: 404."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.portal.context import api_base
from accounts.requests import cohorts, enrolment, money
from accounts.requests.cohort_forms import InviteForm, LimitsForm, LinkForm, NewCohortForm
from accounts.requests.enrolment import CourseFull, Invited
from accounts.requests.fields import add_errors
from accounts.requests.models import Cohort, CohortLink, CohortStudent
from accounts.requests.pages import signed_in

LIMITS = ("amount", "per", "requests_per_minute", "models_allowed", "ends_at", "max_students", "group")
FULL = "That would be more students than the course may have. Nobody was invited."


@login_required
@require_safe
def course_list(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    mine = CohortStudent.objects.filter(user=user).select_related("cohort__team", "key").order_by("-pk")
    context = {
        "taught": list(cohorts.managed_by(user).select_related("team")),
        "attended": list(mine),
        "may_invite": cohorts.may_invite(user),
    }
    return render(request, "portal/cohorts/list.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    if not cohorts.may_invite(user):
        raise Http404
    form = NewCohortForm(user, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        cohort = form.fill(Cohort(name=form.cleaned_data["name"]))
        given = form.cleaned_data
        try:
            cohorts.make(cohort, user, form.chosen_team, cost_center=given["cost_center"], reason=given["reason"])
        except ValidationError as error:
            add_errors(form, error)
        else:
            messages.success(request, "The course is there. Invite its students now.")
            return redirect("access_cohort", cohort.pk)
    return render(request, "portal/cohorts/new.html", {"form": form}, status=422 if form.errors else 200)


@login_required
@require_safe
def course(request: HttpRequest, pk: int) -> HttpResponse:
    """With each student's use: three queries more, however many they are."""
    cohort = _course(request, pk)
    students = list(cohort.students.select_related("user", "key"))
    context = {
        "cohort": cohort,
        "limits": limits_in_words(cohort),
        "rows": _with_use(cohort, students),
        "joined": sum(student.user_id is not None for student in students),
        "links": list(cohort.links.all()[:20]),
        "invite_form": InviteForm(),
        "link_form": LinkForm(initial={"expires_at": cohort.ends_at, "max_uses": max(1, _room(cohort, students))}),
    }
    return render(request, "portal/cohorts/course.html", context)


def _room(cohort: Cohort, students: list[CohortStudent]) -> int:
    return cohort.max_students - len(students)


def _with_use(cohort: Cohort, students: list[CohortStudent]) -> list[dict[str, Any]]:
    used = {row.id: row for row in money.source().used(cohort.team_id, "key", cohort.created_at)}
    return [{"student": student, "used": used.get(student.key_id)} for student in students]


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def change(request: HttpRequest, pk: int) -> HttpResponse:
    cohort = _course(request, pk)
    initial = {name: getattr(cohort, name) for name in LIMITS}
    form = LimitsForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            cohorts.change(form.fill(cohort), signed_in(request))
        except ValidationError as error:
            add_errors(form, error)
        else:
            messages.success(request, "Changed for every student. It holds in about a second.")
            return redirect("access_cohort", pk)
    context = {"cohort": cohort, "form": form}
    return render(request, "portal/cohorts/change.html", context, status=422 if form.errors else 200)


# --- invitations -----------------------------------------------------------------------------------------------------
@login_required
@require_POST
def invite(request: HttpRequest, pk: int) -> HttpResponse:
    cohort = _course(request, pk)
    form = InviteForm(request.POST, request.FILES)
    if not form.is_valid():
        _tell_errors(request, form)
    else:
        try:
            _tell(request, enrolment.invite(cohort, form.names()))
        except CourseFull:
            messages.error(request, FULL)
    return redirect("access_cohort", pk)


def _tell(request: HttpRequest, invited: Invited) -> None:
    parts = [
        (len(invited.joined), "are in at once"),
        (len(invited.waiting), "are invited"),
        (len(invited.there), "were there already"),
    ]
    said = ", ".join(f"{count} {words}" for count, words in parts if count) or "nobody new"
    messages.success(request, f"Done: {said}.")
    if invited.not_understood:
        some = ", ".join(name[:80] for name in invited.not_understood[:5])
        messages.warning(request, f"{len(invited.not_understood)} not understood: {some}")


@login_required
@never_cache
@require_POST
def new_link(request: HttpRequest, pk: int) -> HttpResponse:
    """Shows the link, once."""
    cohort = _course(request, pk)
    form = LinkForm(request.POST)
    if form.is_valid():
        try:
            link, token = enrolment.make_link(cohort, form.cleaned_data["expires_at"], form.cleaned_data["max_uses"])
        except ValidationError as error:
            add_errors(form, error)
        else:
            address = api_base(request).removesuffix("/v1") + reverse("access_join", args=[token])
            context = {"cohort": cohort, "link": link, "address": address}
            response = render(request, "portal/cohorts/link.html", context)
            response["Cache-Control"] = "no-store"
            return response
    _tell_errors(request, form)
    return redirect("access_cohort", pk)


def _tell_errors(request: HttpRequest, form: Form) -> None:
    for wrong in form.errors.values():
        messages.error(request, " ".join(map(str, wrong)))


@login_required
@require_POST
def revoke_link(request: HttpRequest, pk: int, link_id: int) -> HttpResponse:
    enrolment.revoke_link(get_object_or_404(CohortLink, pk=link_id, cohort=_course(request, pk)))
    messages.success(request, "The link leads nowhere any more.")
    return redirect("access_cohort", pk)


# --- its end ---------------------------------------------------------------------------------------------------------
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    cohort = _course(request, pk)
    if request.method != "POST":
        return render(request, "portal/cohorts/stop.html", {"cohort": cohort, "count": cohorts.keys_of(cohort).count()})
    cohorts.stop(cohort)
    messages.success(request, "Stopped: all keys of the students are refused from now on.")
    return redirect("access_cohort", pk)


@login_required
@require_POST
def go_on(request: HttpRequest, pk: int) -> HttpResponse:
    try:
        cohorts.go_on(_course(request, pk))
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
    else:
        messages.success(request, "The course goes on: the students' keys work again.")
    return redirect("access_cohort", pk)


ACTIONS = {
    "stop": (cohorts.stop_student, "Their key is refused from now on."),
    "go-on": (cohorts.let_go_on, "Their key works again."),
    "remove": (cohorts.remove_student, "They are no longer in the course."),
}


@login_required
@require_POST
def student(request: HttpRequest, pk: int, student_id: int, action: str) -> HttpResponse:
    places = CohortStudent.objects.select_related("cohort", "key")
    place = get_object_or_404(places, pk=student_id, cohort=_course(request, pk))
    if action not in ACTIONS:
        raise Http404
    act, said = ACTIONS[action]
    act(place)
    messages.success(request, f"{place.invited}: {said}")
    return redirect("access_cohort", pk)


def _course(request: HttpRequest, pk: int) -> Cohort:
    return get_object_or_404(cohorts.managed_by(signed_in(request)).select_related("team"), pk=pk)


def limits_in_words(cohort: Cohort) -> list[tuple[str, str]]:
    budget = money.amount_text(cohort.amount, cohort.per) or "none of their own"
    rate = f"{cohort.requests_per_minute:,}" if cohort.requests_per_minute else "no limit"
    models = "all of the team" if cohort.models_allowed is None else ", ".join(cohort.models_allowed)
    return [("Budget of each student", budget), ("Requests a minute", rate), ("Models", models)]
