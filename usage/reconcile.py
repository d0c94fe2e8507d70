"""Holds a provider's own figures against ours, day by day and model by model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Count, F, OuterRef, Q, Subquery, Sum
from django.db.models.functions import Coalesce

from accounts.time_ids import id_range
from usage.models import Adjustment, Rollup, UsageEvent
from usage.provider_exports import Export, Figures
from usage.rollups import floor_day

DAY = timedelta(days=1)
FIGURES = ("requests", "input", "output", "cached", "cost")
ALL_MODELS = "(all models)"

Rows = Iterable[Mapping[str, Any]]


class CannotReconcile(Exception):
    """There is nothing that could be compared. The message says why."""


@dataclass(slots=True)
class Ours(Figures):
    """Figures of ours, and what may explain a difference."""

    estimated: int | None = None
    unpriced: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one day and model. `cost` in nano-USD."""

    day: date
    model: str
    figure: str
    theirs: int
    ours: int
    differs: bool

    @property
    def difference(self) -> int:
        return self.ours - self.theirs


@dataclass(frozen=True, slots=True)
class Comparison:
    """`estimated` and `unpriced`: calls of ours on the compared days. `not_compared`: days whose events are deleted."""

    lines: list[Line]
    not_compared: list[date]
    estimated: int
    unpriced: int


def provider_of(exports: Iterable[Export], days: tuple[date, date]) -> str:
    """Name of the provider whose calls these must be, when the operator names none: the one whose name is that of the
    format, else the only one that was called on these days. Raises CannotReconcile."""
    called = sorted(providers_called(days))
    formats = {export.provider for export in exports} - {""}
    if len(formats) > 1:
        raise CannotReconcile(f"These files are of different providers: {', '.join(sorted(formats))}.")
    if formats & set(called):
        return formats.pop()
    if len(called) == 1:
        return called[0]
    seen = f"which of {', '.join(called)}" if called else "whose they are; no provider was called on these days"
    raise CannotReconcile(f"Say with --provider {seen}.")


def providers_called(days: tuple[date, date]) -> set[str]:
    """Between these two days, both included."""
    start, end = _moments(days)
    rollups = Rollup.objects.filter(grain=Rollup.Grain.DAY, start__gte=start, start__lt=end)
    return set(rollups.exclude(provider="").values_list("provider", flat=True).distinct())


def _check_known(provider: str) -> None:
    """Raises CannotReconcile for a provider that has never been called: its name is mistyped."""
    if any(model.objects.filter(provider=provider).exists() for model in (UsageEvent, Rollup)):
        return
    called = set(Rollup.objects.exclude(provider="").values_list("provider", flat=True).distinct())
    known = f"; there are calls to {', '.join(sorted(called))}" if called else ""
    raise CannotReconcile(f"There is no call to a provider named {provider!r}{known}.")


def compare(exports: Iterable[Export], provider: str, days: tuple[date, date], tolerance: Decimal) -> Comparison:
    """What `exports` say of `days` (both included) against the events of `provider`, figure by figure as far as the
    exports tell them. `tolerance`: by how many per cent of the larger figure they may differ.

    Raises CannotReconcile when nothing of it can be compared.
    """
    theirs = _theirs(exports, days)
    if not theirs:
        raise CannotReconcile(f"The files say nothing of {days[0]} to {days[1]}.")
    _check_known(provider)
    pruned = _pruned_days(days)
    ours: dict[tuple[date, str], Ours] = {}
    for day in _days_of_events(days):
        if day not in pruned:
            ours |= {(day, model): figures for model, figures in _ours(provider, day).items()}
    theirs = {key: figures for key, figures in theirs.items() if key[0] not in pruned}
    if not theirs and pruned:
        raise CannotReconcile(
            "The usage events of all these days are deleted already: there is nothing to compare with."
        )
    return Comparison(
        list(_lines(theirs, ours, tolerance)),
        sorted(pruned),
        sum(figures.estimated or 0 for figures in ours.values()),
        sum(figures.unpriced or 0 for figures in ours.values()),
    )


# --- theirs and ours --------------------------------------------------------------------------------------------------
def _theirs(exports: Iterable[Export], days: tuple[date, date]) -> dict[tuple[date, str], Figures]:
    found: dict[tuple[date, str], Figures] = {}
    for export in exports:
        for key, figures in export.by.items():
            if days[0] <= key[0] <= days[1]:
                found.setdefault(key, Figures()).add(figures)
    return found


def _days_of_events(days: tuple[date, date]) -> Iterator[date]:
    """Those of `days` that lie between our first event and our last: a mistyped year in a file is no reason to look at
    every day since."""
    low, high = id_range(*_moments(days))
    rows = UsageEvent.objects.filter(pk__gte=low, pk__lt=high).order_by("pk").values_list("at", flat=True)
    first, last = rows.first(), rows.last()
    if first is None or last is None:
        return
    for number in range((floor_day(last) - floor_day(first)) // DAY + 1):
        yield floor_day(first).date() + number * DAY


def _pruned_days(days: tuple[date, date]) -> set[date]:
    start, end = _moments(days)
    pruned = Rollup.objects.filter(grain=Rollup.Grain.PRUNED, start__gte=start, start__lt=end)
    return {moment.astimezone(UTC).date() for moment in pruned.values_list("start", flat=True).distinct()}


def _ours(provider: str, day: date) -> dict[str, Ours]:
    """By upstream model. Only calls that the provider did something for: it bills no refusal and counts no failure."""
    low, high = id_range(*_moments((day, day)))
    billed = Q(status__lt=400, status__gt=0) | Q(prompt_tokens__gt=0) | Q(completion_tokens__gt=0)
    events = UsageEvent.objects.filter(billed, pk__gte=low, pk__lt=high, provider=provider, attempts__gt=0)
    rows: Rows = (
        events.order_by()
        .values(name=F("upstream_model"))
        .annotate(
            requests=Count("pk"),
            input=Sum("prompt_tokens"),
            output=Sum("completion_tokens"),
            cached=Sum("cached_tokens"),
            cost=Sum("cost_nano_usd", default=0),
            estimated=Count("pk", filter=Q(estimated=True)),
            unpriced=Count("pk", filter=Q(cost_nano_usd=None)),
        )
    )
    by_model: dict[str, Ours] = {}
    for row in rows:
        by_model[row["name"]] = Ours(**{name: int(value) for name, value in row.items() if name != "name"})
    for row in _adjustments(provider, low, high):
        figures = by_model.setdefault(row["name"], Ours(0, 0, 0, 0, 0))
        figures.add(Ours(cost=int(row["cost"]), unpriced=-int(row["priced"])))
    return by_model


def _adjustments(provider: str, low: UUID, high: UUID) -> Rows:
    upstream_model = UsageEvent.objects.filter(pk=OuterRef("event_id")).values("upstream_model")
    rows: Rows = (
        Adjustment.objects.filter(pk__gte=low, pk__lt=high, provider=provider)
        .order_by()
        .values(name=Coalesce(Subquery(upstream_model), F("model")))
        .annotate(cost=Sum("delta_nano_usd"), priced=Sum("priced_calls"))
    )
    return rows


def _moments(days: tuple[date, date]) -> tuple[datetime, datetime]:
    first, last = (datetime.combine(day, time(), UTC) for day in days)
    return first, last + DAY


# --- whose model is whose ---------------------------------------------------------------------------------------------
_VERSION = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|latest)$")


def family(model: str) -> str:
    """The model without its date: 'gpt-4o-2024-08-06', 'Claude Haiku 4.5' and 'claude-haiku-4-5-20251001' are what
    routes call gpt-4o and claude-haiku-4-5."""
    name = re.sub(r"[ .]+", "-", model.strip().lower()).removeprefix("models/")
    return _VERSION.sub("", name)


def _names(theirs: Iterable[str], ours: Iterable[str]) -> dict[str, str]:
    """Under which name each model is compared: its own where both sides have the same models of its family, else that
    of the family, because one side then names a model without the date that the other one writes."""
    sides: tuple[dict[str, set[str]], dict[str, set[str]]] = (defaultdict(set), defaultdict(set))
    for side, models in zip(sides, (theirs, ours), strict=True):
        for model in models:
            side[family(model)].add(model)
    names = {}
    for name in sides[0].keys() | sides[1].keys():
        of_theirs, of_ours = sides[0].get(name, set()), sides[1].get(name, set())
        for model in of_theirs | of_ours:
            names[model] = model if of_theirs == of_ours or not (of_theirs and of_ours) else name
    return names


# --- the comparison ---------------------------------------------------------------------------------------------------
def _lines(
    theirs: dict[tuple[date, str], Figures], ours: dict[tuple[date, str], Ours], tolerance: Decimal
) -> Iterator[Line]:
    """Of each figure that the exports tell of any day."""
    if not any(model for _, model in theirs):
        names = dict.fromkeys({model for _, model in (*theirs, *ours)}, ALL_MODELS)
    else:
        names = _names({model for _, model in theirs}, {model for _, model in ours})
    left, right = _under(names, theirs), _under(names, ours)
    told = [name for name in FIGURES if any(getattr(figures, name) is not None for figures in left.values())]
    for key in sorted(left.keys() | right.keys()):
        a, b = left.get(key, Figures()), right.get(key, Figures())
        for name in told:
            one, other = getattr(a, name), getattr(b, name) or 0
            if one is None and key in left:
                continue  # of these days or models this figure is not told
            one = one or 0
            slack = max(abs(one), abs(other)) * tolerance / 100 + (a.rounded_by if name == "cost" else 0)
            yield Line(key[0], key[1] or "(no model)", name, one, other, abs(other - one) > slack)


def _under(names: dict[str, str], by: Mapping[tuple[date, str], Figures]) -> dict[tuple[date, str], Figures]:
    found: dict[tuple[date, str], Figures] = {}
    for (day, model), figures in by.items():
        total = found.setdefault((day, names[model]), Figures())
        total.add(figures)
    return found
