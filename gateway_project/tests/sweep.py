"""For the specs that sweep over every address there is (test_sweep_*.py): the addresses, and a world with one row of
every model, each text of which is a number that can be found again and a piece of HTML that must never be one.

Alice manages the team that everything belongs to, as far as rows belong to anybody; charlie manages another team and
may see nothing of it. Their rows have numbers of their own, far from those of other rows, so that an address with such
a number in it is an address of that row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count, product
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import DatabaseError, IntegrityError, models, transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from accounts.models import ApiKey, Membership, Team, User
from accounts.services import create_key, personal_team
from accounts.time_ids import first_id

APPS = ("accounts", "access", "tokens", "sso", "scim", "usage", "policies", "proxy")
# Not rows that anybody looks at: counters, and the trail, which fills itself.
NOT_MADE = ("accounts.configversion", "usage.dirtyhour", "usage.dirtyday", "usage.moneysettings")
HTML = "<img src=x onerror=sweep"
NUMBER = re.compile(r"sweep(\d+)")
PLAIN = ("slug", "timezone", "tiers")  # fields in which only what is well-formed was ever kept
LEAST_CHARS = 40  # shorter fields cannot hold it
FIRST_ID = 700_001
FEW = 3  # rows, where nothing says of what kind
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>(?:[^()\[\]]|\[[^\]]*\])*\)")


# --- addresses ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Route:
    template: str  # with {name} for each parameter
    name: str
    callback: Any
    parameters: tuple[str, ...]
    takes: tuple[re.Pattern[str], ...]

    def path(self, *values: str) -> str:
        return "/" + self.template.format(**dict(zip(self.parameters, values, strict=True)))

    def __str__(self) -> str:
        return "/" + self.template


def routes() -> list[Route]:
    return list(_routes(get_resolver(), "", ()))


def _routes(resolver: URLResolver, before: str, taken: tuple[re.Pattern[str], ...]) -> Iterator[Route]:
    for pattern in resolver.url_patterns:
        text = before + str(pattern.pattern)
        takes = (*taken, *_takes(pattern))
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern, text, takes)
        else:
            names = tuple(first or second for first, second in PARAMETER.findall(text))
            template = PARAMETER.sub(lambda found: "{" + (found[1] or found[2]) + "}", text)
            template = re.sub(r"\\([.Z/-])", r"\1", template.replace("^", "").replace("$", "").replace("\\Z", ""))
            yield Route(template, pattern.name or "", pattern.callback, names, takes)


def _takes(pattern: URLPattern | URLResolver) -> Iterator[re.Pattern[str]]:
    converters = pattern.pattern.converters
    if converters:
        yield from (re.compile(converter.regex) for converter in converters.values())
    else:
        for found in PARAMETER.finditer(str(pattern.pattern)):
            inner = found[0].split(">", 1)[1][:-1] if found[0].startswith("(") else "[^/]+"
            yield re.compile(inner)


# --- the world ------------------------------------------------------------------------------------------------------
@dataclass
class World:
    root: User
    alice: User
    charlie: User
    rows: list[models.Model] = field(default_factory=list)
    mine: set[int] = field(default_factory=set)  # numbers of texts that are of alice's side alone
    failed: dict[str, str] = field(default_factory=dict)

    def client(self, user: User | None) -> Client:
        client = Client(raise_request_exception=False)
        if user is not None:
            client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client

    def paths(self, route: Route) -> Iterator[str]:
        """The addresses of this route of rows of this world: of those whose kind the words before the number name."""
        rows = [self._rows_for(route, name) for name in route.parameters]
        for values in product(*([value for row in some for value in _names(row)] for some in rows)):
            if all(take.fullmatch(value) for take, value in zip(route.takes, values, strict=True)):
                yield route.path(*values)

    def _rows_for(self, route: Route, name: str) -> list[models.Model]:
        before = route.template.partition("{" + name + "}")[0].lower().split("/")
        own = {row._meta.app_label for row in self.rows} & set(before)
        rows = [row for row in self.rows if not own or row._meta.app_label in own]
        name = name.removesuffix("_id")
        for word in [word for word in reversed(before) if len(word) > 3 and "{" not in word] + [name]:
            stem = word.removesuffix("s").removesuffix("ie")
            found = [row for row in rows if stem == row._meta.model_name]
            found = found or [row for row in rows if len(stem) > 2 and stem in str(row._meta.model_name)]
            if found:
                return [*found, *(row for row in rows if name == row._meta.model_name and row not in found)]
        return rows[:FEW]

    def leaks(self, body: str) -> set[str]:
        """Texts of alice's side in a page."""
        return {found[0] for found in NUMBER.finditer(body) if int(found[1]) in self.mine}

    def state(self) -> dict[str, Any]:
        """Every row of this world as the database has it."""
        found = {}
        for row in self.rows:
            model = type(row)
            values = model._base_manager.filter(pk=row.pk).values().first()
            for noise in ("last_used_at", "last_login"):
                (values or {}).pop(noise, None)
            found[f"{model._meta.label} {row.pk}"] = values
        return found


def _names(row: models.Model) -> list[str]:
    names = [str(row.pk)]
    for name in ("public_id", "slug", "token", "number"):
        if (value := getattr(row, name, None)) is not None:
            names.append(str(value))
    return names


class Maker:
    """Fills a database. Validators are passed by: what they keep out may have come in before they were written."""

    def __init__(self) -> None:
        self.numbers = count(1)
        self.being_made: set[type[models.Model]] = set()
        self.ids = count(FIRST_ID)
        self.world = World(
            root=User.objects.create_superuser("root", "root@example.org", "x"),
            alice=self._person("alice"),
            charlie=User.objects.create_user("charlie", "charlie@example.org"),
        )
        sales = Team.objects.create(name="sales")
        Membership.objects.create(user=self.world.charlie, team=sales, role=Membership.Role.MANAGER)
        create_key("charlies", sales, self.world.charlie)
        personal_team(self.world.charlie)
        self.team = Team.objects.create(pk=next(self.ids), name=self.text(mine=True), cost_center=self.text(mine=True))
        manager = Membership(pk=next(self.ids), user=self.world.alice, team=self.team, role=Membership.Role.MANAGER)
        manager.save(force_insert=True)
        key, _ = create_key("laptop", self.team, self.world.alice)
        key.delete()
        key.pk, key.name = next(self.ids), self.text(mine=True)
        key.save(force_insert=True)
        self.made: dict[type[models.Model], models.Model] = {
            type(row): row for row in (self.world.alice, self.team, manager, key)
        }
        self.world.rows += self.made.values()

    def _person(self, name: str) -> User:
        number = next(self.numbers)
        user = User(pk=next(self.ids), username=f"{name} {HTML}{number}>", email=f"{name}@example.org")
        user.first_name = f"{HTML}{number}>"
        user.set_unusable_password()
        user.save()
        self._mine = {number}
        return user

    def text(self, *, mine: bool) -> str:
        number = next(self.numbers)
        if mine:
            self.world.mine.add(number)
        return f"{HTML}{number}>"

    def world_with_everything(self) -> World:
        self.world.mine |= self._mine
        # Twice: of two that refer to each other, one can be made only when the other is there.
        for model in [*apps.get_models(), *apps.get_models()]:
            self.being_made.clear()
            if model not in self.made:
                self.world.failed.pop(model._meta.label, None)
            if model._meta.app_label in APPS and model._meta.label_lower not in NOT_MADE and model._meta.managed:
                self.make(model)
        return self.world

    def make(self, model: type[models.Model]) -> models.Model | None:
        """The one row of a model, or None where there can be none."""
        if model in self.made:
            return self.made[model]
        if model._meta.label in self.world.failed:
            return None
        self.world.failed[model._meta.label] = "refers to itself"
        self.being_made.add(model)
        mine = _belongs(model)
        for optional in (True, False):
            before = set(self.world.mine)
            try:
                with transaction.atomic():
                    row = model(**self._values(model, mine, optional))
                    row.save(force_insert=True)
            except (IntegrityError, DatabaseError, ValueError, TypeError) as error:
                self.world.mine = before
                self.world.failed[model._meta.label] = f"{type(error).__name__}: {error}"
                continue
            del self.world.failed[model._meta.label]
            self.made[model] = row
            self.world.rows.append(row)
            return row
        return None

    def _values(self, model: type[models.Model], mine: bool, optional: bool) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for each in model._meta.concrete_fields:
            if isinstance(each, models.ForeignKey):
                target: Any = each.related_model
                wanted = target is not model and (not each.null or (optional and target not in self.being_made))
                if wanted and (found := self.make(target)) is not None:
                    values[each.name] = found
            else:
                value = self._value(each, mine)
                if value is not None:
                    values[each.name] = value
        return values

    def _value(self, each: Any, mine: bool) -> Any:
        """None: what the model gives it by itself."""
        if isinstance(each, models.AutoField | models.BigAutoField):
            return next(self.ids)
        if (each.name in PLAIN and each.has_default()) or (each.blank and each.name in PLAIN):
            return None
        if each.choices:
            return None if each.has_default() else each.choices[0][0]
        if isinstance(each, models.UUIDField):
            return UUID(int=first_id(timezone.now()).int + next(self.ids))
        if isinstance(each, models.DateTimeField):
            later = any(word in each.name for word in ("expires", "until", "ends"))
            return timezone.now() + timedelta(days=30 if later else 0) if later or not each.null else None
        if isinstance(each, models.DateField):
            return timezone.now().date() + timedelta(days=30 if "end" in each.name else 0)
        if isinstance(each, models.JSONField):
            if not each.has_default():
                return None if each.null else {}
            return [self.text(mine=mine)] if each.get_default() == [] else None
        if isinstance(each, models.CharField | models.TextField):
            if type(each).__name__.startswith("Encrypted"):
                return None
            if (each.max_length is not None and each.max_length < LEAST_CHARS) or each.name in PLAIN:
                return None if each.has_default() else f"s{next(self.numbers)}"[: each.max_length]
            return self.text(mine=mine)
        return None if each.has_default() or each.null else _least(each)


def _least(each: Any) -> Any:
    if isinstance(each, models.BooleanField):
        return False
    return 1 if isinstance(each, models.IntegerField | models.FloatField | models.DecimalField) else None


def _belongs(model: type[models.Model], seen: tuple[type[models.Model], ...] = ()) -> bool:
    """Whether its rows are somebody's."""
    if model in (User, Team, ApiKey):
        return True
    related = [each.related_model for each in model._meta.concrete_fields if isinstance(each, models.ForeignKey)]
    return any(_belongs(each, (*seen, model)) for each in related if each not in (*seen, model))
