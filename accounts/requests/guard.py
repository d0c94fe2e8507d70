"""What holds for the keys of a course, however they are made: in the portal, the admin, the management API or by a
command. A student has one key in the course, with the course's models and limits, and it ends with the course.

Listens to the saves of keys, because there are many ways to one."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q

from accounts.models import ApiKey, Membership
from accounts.portal.keys import PLAYGROUND
from accounts.requests import cohorts
from accounts.requests.models import CohortStudent

NO_PLAYGROUND = "Your budget in this course is on your key there. For the playground, choose another team."
LOST_KEY = "Your key in this course was deleted. Ask your teacher to let you go on."
ONE_KEY = "You have a key in this course already. Give it a new secret instead."


def before_save(sender: Any, instance: ApiKey, raw: bool = False, **kwargs: Any) -> None:
    """Raises ValidationError."""
    if raw or instance.user_id is None:
        return
    place = _place_of(instance) if instance.pk is not None else _place_for_new(instance)
    if place is None:
        return
    cohort = place.cohort
    if instance.pk is None:
        if instance.name == PLAYGROUND:
            raise ValidationError(NO_PLAYGROUND)
        _check_new(place)
        instance._course_place = place
    end = cohort.keys_end_at
    instance.expires_at = min(instance.expires_at or end, end)
    if cohort.models_allowed is not None:
        own = instance.models_allowed
        models = cohort.models_allowed if own is None else [name for name in own if name in cohort.models_allowed]
        instance.models_allowed = models


def after_save(sender: Any, instance: ApiKey, created: bool = False, **kwargs: Any) -> None:
    """A new key of a student takes their place in the course, with its limits."""
    place: CohortStudent | None = instance.__dict__.pop("_course_place", None)
    if place is not None and created:
        place.key, place.had_key = instance, True
        place.save(update_fields=["key", "had_key"])
        cohorts.give_limits(instance, place.cohort)


def _place_of(key: ApiKey) -> CohortStudent | None:
    return CohortStudent.objects.select_related("cohort").filter(key=key.pk).first()


def _place_for_new(key: ApiKey) -> CohortStudent | None:
    """The course in which the key would be. Whoever is in the team by a course that is over gets no key there either.
    A manager of the team is nobody's student."""
    places = CohortStudent.objects.select_related("cohort").filter(user=key.user_id, cohort__team=key.team_id)
    place = places.filter(Q(cohort__closed=False) | Q(joined_membership=True)).order_by("cohort__closed", "-pk").first()
    if place is None:
        return None
    mine = Membership.objects.filter(user=key.user_id, team=key.team_id, role=Membership.Role.MANAGER)
    return None if mine.exists() else place


def _check_new(place: CohortStudent) -> None:
    """Raises ValidationError."""
    if place.cohort.closed or place.cohort.is_over():
        raise ValidationError("This course is over.")
    if place.stopped:
        raise ValidationError("Your place in this course was stopped. Ask your teacher.")
    if place.lost_key:
        raise ValidationError(LOST_KEY)
    if place.key_id is not None:
        raise ValidationError(ONE_KEY)
