"""Where this app joins the others, once all models are there."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_save, pre_save
from django.http import HttpRequest

from accounts.audit import watch
from accounts.models import ApiKey, User
from accounts.portal import choices, key_budgets, navigation
from accounts.portal.navigation import Entry
from accounts.requests import cohorts, enrolment, guard, models, policy, terms
from accounts.requests.pages import home_section


def build(app: AppConfig) -> None:
    for model in (models.AccessRequest, models.RequestRule, models.AccessSettings, models.Cohort):
        watch(model)
    watch(models.CohortStudent, hidden={"digest"}, ignored={"digest"})
    watch(models.CohortLink, hidden={"digest"})
    watch(models.TermsVersion)
    watch(models.TermsAgreement)
    pre_save.connect(guard.before_save, sender=ApiKey, dispatch_uid="access key")
    post_save.connect(guard.after_save, sender=ApiKey, dispatch_uid="access key made")
    user_logged_in.connect(_signed_in, dispatch_uid="access sign-in")
    key_budgets.set_needs_request(policy.needs_request)
    policy.set_groups(_groups)
    navigation.add(Entry("Requests", "access_requests", 50, badge=_waiting))
    navigation.add(Entry("My teams", "access_teams", 60, shown=_manages))
    navigation.add(Entry("Courses", "access_cohorts", 70, shown=_has_courses))
    navigation.add(Entry("Terms", "access_terms", 80, shown=_has_terms))
    navigation.add_home_section(50, home_section)


def _signed_in(sender: Any, request: HttpRequest, user: Any, **kwargs: Any) -> None:
    enrolment.at_sign_in(user)


def _groups(user: User) -> list[str]:
    """As of their last sign-in through an identity provider."""
    if not apps.is_installed("accounts.sso"):
        return []
    from accounts.sso.models import SignOn  # only there where the app is

    found = SignOn.objects.filter(user=user).values_list("affiliations", "groups").first()
    return [*found[0], *found[1]] if found else []


def _person(request: HttpRequest) -> Any:
    return request.user


def _waiting(request: HttpRequest) -> int:
    return policy.waiting_for(_person(request))


def _manages(request: HttpRequest) -> bool:
    return bool(choices.managed_teams_of(_person(request)))


def _has_courses(request: HttpRequest) -> bool:
    user = _person(request)
    invites = user.has_perm(cohorts.MAKE) or bool(choices.managed_teams_of(user))  # as the entry of the teams asks
    return invites or models.CohortStudent.objects.filter(user=user).exists()


def _has_terms(request: HttpRequest) -> bool:
    return terms.in_force() is not None
