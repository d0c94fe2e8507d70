"""Providers from the environment: `OPENAI_API_KEY` and its like, and `GATEHOUSE_PROVIDER_<NAME>_{URL,KEY,KIND,MODELS}`.

They become rows like any other (marked as from the environment), so that every process sees the same and the admin
shows them. Rows that an administrator or an apply file has set up are left alone, and so are models whose routes were
laid by hand. A provider whose variables are gone is disabled and its credential removed.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import transaction

from accounts import versions
from accounts.encryption import Undecryptable
from gateway_project import environment
from proxy.models import MODEL_NAME, PROVIDER_NAME, Model, Provider, Route
from proxy.providers import presets
from proxy.ssrf import RefusedUrl, split_url
from usage import price_list

VARIABLE = re.compile(r"GATEHOUSE_PROVIDER_(?P<name>.+?)_(?P<part>URL|KEY|KIND|MODELS)(_FILE)?")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A provider as the environment describes it. `models`: public names, which are the upstream's too."""

    name: str
    kind: str
    base_url: str
    credential: str = field(repr=False)
    models: tuple[str, ...]


@dataclass(slots=True)
class Plan:
    """Rows to write so that the database is as the environment says. `changed` are saved, the others are new."""

    changed: list[Provider] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changed or self.models or self.routes)


def sync() -> bool:
    """Brings the rows in line; True if it wrote anything. Raises ImproperlyConfigured, and what the database raises."""
    wanted = read()
    if not _plan(wanted):
        return False
    with transaction.atomic():
        # First of all, because it locks: of several processes that start together one writes, the others find it done.
        versions.bump(versions.CATALOGUE)
        plan = _plan(wanted)
        for provider in plan.changed:
            provider.save()
        for row in (*plan.models, *plan.routes):
            row.save()
    return bool(plan)


def read() -> list[Wanted]:
    """The providers that the environment names, by name. Raises ImproperlyConfigured that names the variable."""
    found: dict[str, Wanted] = {}
    for kind in presets.PRESETS:
        if wanted := _usual(kind):
            found[wanted.name] = wanted
    for name, parts in _own_variables().items():
        found[name] = _own(name, parts, found.get(name))
    return [found[name] for name in sorted(found)]


def _usual(kind: str) -> Wanted | None:
    """From the variables that the provider's own tools read."""
    credential = next(filter(None, map(_value, presets.environment_key(kind))), "")
    if not credential:
        return None
    variable = presets.environment_url(kind)
    base_url = _url(variable, _value(variable)) if variable else ""
    if not base_url and not presets.default_base_url(kind):
        logger.warning(
            "%s is set, but not %s: there is no provider %s", presets.environment_key(kind)[0], variable, kind
        )
        return None
    return Wanted(kind, kind, base_url, credential, listed_models(kind))


def _own_variables() -> dict[str, dict[str, str]]:
    """{provider name: {URL | KEY | KIND | MODELS: the variable's name}}"""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for variable in os.environ:
        if match := VARIABLE.fullmatch(variable):
            found[match["name"].lower()][match["part"]] = variable.removesuffix("_FILE")
    return found


def _own(name: str, variables: dict[str, str], usual: Wanted | None) -> Wanted:
    """From GATEHOUSE_PROVIDER_<NAME>_*, on top of the usual variables where the name is that of a kind."""
    given = {part: _value(variable) for part, variable in variables.items()}
    first = sorted(variables.values())[0]
    _check(PROVIDER_NAME, name, f"{first}: {name!r} is not a provider's name.")
    kind = given.get("KIND") or (name if name in presets.PRESETS else "openai")
    if kind not in presets.PRESETS:
        raise ImproperlyConfigured(f"{variables['KIND']} is {kind!r}; known kinds are {', '.join(presets.PRESETS)}.")
    base_url = _url(variables.get("URL", ""), given.get("URL", "")) or (usual.base_url if usual else "")
    is_called_by_kind = bool(given.get("KIND")) or name in presets.PRESETS
    needs_url = presets.adapter_for(kind).answer is None
    if needs_url and not base_url and not (is_called_by_kind and presets.default_base_url(kind)):
        raise ImproperlyConfigured(f"{first} is set, but not GATEHOUSE_PROVIDER_{name.upper()}_URL.")
    models = tuple(environment.words(variables["MODELS"])) if given.get("MODELS") else ()
    for model in models:
        _check(MODEL_NAME, model, f"{variables.get('MODELS')} holds {model!r}, which is not a model's name.")
    if not models and is_called_by_kind:
        models = listed_models(kind)
    credential = given.get("KEY") or (usual.credential if usual else "")
    return Wanted(name, kind, base_url, credential, tuple(dict.fromkeys(models)))


def _value(variable: str) -> str:
    return environment.text(variable).strip()


def _url(variable: str, value: str) -> str:
    if value:
        try:
            split_url(value)
        except RefusedUrl as error:
            raise ImproperlyConfigured(f"{variable}: {error}") from None
    return value.rstrip("/")


def _check(validator: object, value: str, message: str) -> None:
    try:
        validator(value)  # type: ignore[operator]
    except ValidationError:
        raise ImproperlyConfigured(message) from None


def listed_models(kind: str) -> tuple[str, ...]:
    """The models that are known of the provider. None where each customer names their own (Azure's deployments)."""
    if not presets.default_base_url(kind):
        return ()
    names = price_list.models_of(presets.prices_id(kind))
    return tuple(name for name in names if re.fullmatch(MODEL_NAME.regex, name))


# --- the rows -------------------------------------------------------------------------------------------------------
def _plan(wanted: list[Wanted]) -> Plan:
    plan = Plan()
    rows = {row.name: row for row in Provider.objects.all()}
    models = {row.name: row for row in Model.objects.all()}
    taken = {alias for row in models.values() for alias in row.aliases}
    routes: dict[str, list[Route]] = defaultdict(list)
    for route in Route.objects.select_related("model", "provider"):
        routes[route.model.name].append(route)
    for one in wanted:
        row = rows.get(one.name) or Provider(name=one.name, origin=Provider.Origin.ENVIRONMENT, private_network=True)
        if row.origin != Provider.Origin.ENVIRONMENT:
            continue
        if _fill(row, one):
            plan.changed.append(row)
        for name in one.models:
            if name in taken or not _may_route(routes[name], row):
                continue
            if name not in models:
                models[name] = Model(name=name)
                plan.models.append(models[name])
            order = max((route.order + 1 for route in routes[name]), default=0)
            route = Route(model=models[name], provider=row, order=order)
            routes[name].append(route)
            plan.routes.append(route)
    names = {one.name for one in wanted}
    for row in rows.values():
        if row.origin == Provider.Origin.ENVIRONMENT and row.name not in names and _empty(row):
            plan.changed.append(row)
    return plan


def _may_route(routes: list[Route], provider: Provider) -> bool:
    """A model that somebody has routed by hand keeps its routes: calls must not go where nobody sent them."""
    return all(
        route.provider.origin == Provider.Origin.ENVIRONMENT and route.provider.name != provider.name
        for route in routes
    )


def _fill(row: Provider, wanted: Wanted) -> bool:
    """Sets what differs; True if anything did. A row that was emptied when its variables went is enabled again."""
    changed = row.pk is None
    if row.pk is not None and not row.enabled and not row.credential and not row.base_url:
        row.enabled = changed = True
    if (row.kind, row.base_url) != (wanted.kind, wanted.base_url):
        row.kind, row.base_url = wanted.kind, wanted.base_url
        changed = True
    if _credential(row) != wanted.credential:
        row.set_credential(wanted.credential)
        changed = True
    return changed


def _empty(row: Provider) -> bool:
    """What came from the environment goes with it. True if there was anything."""
    if not row.enabled and not row.credential and not row.base_url:
        return False
    row.enabled, row.credential, row.base_url = False, "", ""
    return True


def _credential(row: Provider) -> str | None:
    try:
        return row.read_credential()
    except Undecryptable:
        return None
