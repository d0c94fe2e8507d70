"""Where the database holds what is personal. Found by the foreign keys of all models; what cannot be found so is told
by those who know, when they are ready: accounts imports no other app.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models import Q, QuerySet

from accounts.audit.models import AuditCheckpoint, AuditDetail, AuditEvent, AuditHead, AuditKey
from accounts.models import ApiKey, ConfigVersion, Team, User

# A row that names a person so tells who did something, not whom it is about.
OF_ACTORS = frozenset({"by", "decided_by", "made_by", "published_by"})
OWN = {User, Team, ApiKey, AuditEvent, AuditDetail, AuditHead, AuditCheckpoint, AuditKey, ConfigVersion}


@dataclass(frozen=True, slots=True)
class Person:
    """Also of somebody who was erased already: then there is only what came in since."""

    user: User
    keys: list[ApiKey]
    team: Team | None

    @classmethod
    def of(cls, user: User) -> Person:
        return cls(user, list(ApiKey.objects.filter(user=user)), Team.objects.filter(personal_of=user).first())


@dataclass(frozen=True, slots=True)
class Rules:
    """`blanked`: of a model, the columns that are emptied in the person's rows, and with what; the rows stay.
    `deleted`: models whose rows go although no foreign key would take them along. `kept`: those whose rows stay
    although one would: what holds for the person, but tells nothing of them. `unsearched`: models in whose texts a name
    is no trace of a person: what is set up, not what happened. `unsearched_columns`: such columns. `sealed`: those with
    encrypted columns and few rows, kept for hours: those that name the person go."""

    blanked: Mapping[type[models.Model], Mapping[str, Any]] = field(default_factory=dict)
    deleted: frozenset[type[models.Model]] = frozenset()
    kept: frozenset[type[models.Model]] = frozenset()
    unsearched: frozenset[type[models.Model]] = frozenset()
    unsearched_columns: frozenset[tuple[type[models.Model], str]] = frozenset()
    sealed: frozenset[type[models.Model]] = frozenset()


_rules = [Rules()]


def set_rules(
    blanked: Mapping[type[models.Model], Mapping[str, Any]],
    *,
    deleted: Iterable[type[models.Model]] = (),
    kept: Iterable[type[models.Model]] = (),
    unsearched: Iterable[type[models.Model]] = (),
    unsearched_columns: Iterable[tuple[type[models.Model], str]] = (),
    sealed: Iterable[type[models.Model]] = (),
) -> None:
    _rules[:] = [
        Rules(
            blanked,
            deleted=frozenset(deleted),
            kept=frozenset(kept),
            unsearched=frozenset(unsearched),
            unsearched_columns=frozenset(unsearched_columns),
            sealed=frozenset(sealed),
        )
    ]


def rules() -> Rules:
    return _rules[0]


def owner_fields(model: type[models.Model]) -> list[models.Field[Any, Any]]:
    """The foreign keys by which a row is a person's: to them, a key of theirs or their own team."""
    return [
        one
        for one in model._meta.concrete_fields
        if isinstance(one, models.ForeignKey)
        and one.related_model in (User, ApiKey, Team)
        and one.name not in OF_ACTORS
    ]


def rows_of(model: type[models.Model], person: Person) -> QuerySet[Any] | None:
    """None: no row of that model can be anybody's."""
    wanted = Q(pk__in=[])
    for one in owner_fields(model):
        if one.related_model is User:
            wanted |= Q(**{one.name: person.user.pk})
        elif one.related_model is ApiKey and person.keys:
            wanted |= Q(**{f"{one.name}__in": [key.pk for key in person.keys]})
        elif one.related_model is Team and person.team is not None:
            wanted |= Q(**{one.name: person.team.pk})
    return model._base_manager.filter(wanted) if owner_fields(model) else None


def others() -> Iterator[type[models.Model]]:
    """All models but those that are looked after one by one."""
    for model in apps.get_models():
        if model not in OWN and not model._meta.proxy and model._meta.managed:
            yield model
