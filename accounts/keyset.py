"""Pages through a large table by its primary key: the newest page first, and every page as cheap as the first.

No COUNT and no OFFSET: a page is "the rows before this key". For tables whose primary key rises with time, as that of
usage events. A ModelAdmin opts in by giving KeysetChangeList as its change list, and RecordList with a WindowFilter
where the keys are those of accounts.time_ids.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.admin.views.main import SEARCH_VAR
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import DropdownFilter
from unfold.views import ChangeList

from accounts.time_ids import first_id

BEFORE, AFTER = "before", "after"


class KeysetPage:
    """One page of `queryset`, newest first. `before` and `after` are primary keys, not included; at most one is given.

    rows                   at most `size`
    has_newer, has_older   whether there is a page on that side
    """

    def __init__(self, queryset: QuerySet[Any], size: int, before: object = None, after: object = None) -> None:
        if after is not None:
            ascending = list(queryset.filter(pk__gt=after).order_by("pk")[: size + 1])
            if len(ascending) > size:
                self.rows = ascending[size - 1 :: -1]
                self.has_newer = self.has_older = True
                return
            # The newest page, then: filled up with older rows.
        newest_first = queryset.order_by("-pk")
        rows = list((newest_first if before is None else newest_first.filter(pk__lt=before))[: size + 1])
        self.rows = rows[:size]
        self.has_older = len(rows) > size
        self.has_newer = before is not None


class KeysetPaginator:
    """Stands where the admin's templates look for a paginator."""

    template_name = "admin/keyset_pagination.html"


class KeysetChangeList(ChangeList):
    """Always newest first; columns cannot be sorted by, because no index would serve it."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str] | None = None) -> QuerySet[Any]:
        self._before, self._after = self._key(request, BEFORE), self._key(request, AFTER)
        # Not filters, and not to be kept in the filters' links: another selection begins at its own first page.
        for name in (BEFORE, AFTER):
            self.params.pop(name, None)
            self.filter_params.pop(name, None)
        queryset: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        return queryset

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        page = KeysetPage(self.queryset, self.list_per_page, self._before, self._after)
        self.result_list = page.rows
        self.result_count = self.full_result_count = len(page.rows)
        self.show_full_result_count = self.show_admin_actions = False
        self.can_show_all = self.multi_page = False
        self.paginator = KeysetPaginator()
        self.newest_url = self.get_query_string() if page.has_newer else None
        self.newer_url = self._url(AFTER, page.rows[0]) if page.has_newer and page.rows else None
        self.older_url = self._url(BEFORE, page.rows[-1]) if page.has_older else None

    def _key(self, request: HttpRequest, parameter: str) -> object:
        """The primary key given; None when none is, or one that cannot be."""
        given = request.GET.get(parameter)
        try:
            return self.model._meta.pk.to_python(given) if given else None
        except ValidationError:
            return None

    def _url(self, parameter: str, row: Model) -> str:
        return str(self.get_query_string({parameter: row.pk}))


class WindowFilter(DropdownFilter):
    """A window of time is a range of ids. Who searches for one call means it whenever it was."""

    title = "time"
    parameter_name = "window"
    all_option = None
    windows: dict[str, tuple[str, timedelta | None]] = {
        "hour": ("Last hour", timedelta(hours=1)),
        "day": ("Last 24 hours", timedelta(days=1)),
        "week": ("Last 7 days", timedelta(days=7)),
        "month": ("Last 30 days", timedelta(days=30)),
        "all": ("All time", None),
    }
    usual = "day"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, words) for name, (words, _) in self.windows.items()]

    def value(self) -> str:
        chosen = super().value()
        if chosen in self.windows:
            return str(chosen)
        return "all" if self.request.GET.get(SEARCH_VAR) else self.usual

    @property
    def unread(self) -> str:
        """What was asked for and is no window; "" where all is well."""
        chosen = str(super().value() or "")
        return "" if chosen in self.windows else chosen

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        _, window = self.windows[self.value()]
        return queryset if window is None else queryset.filter(pk__gte=first_id(timezone.now() - window))


class NameFilter(DropdownFilter):
    """The names that occur in an indexed column (`parameter_name`): also those of what is gone."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in distinct_values(model_admin.model, str(self.parameter_name))]

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = self.value()
        if not name:
            return queryset
        # PostgreSQL knows no NUL, and no name has one.
        return queryset.none() if "\0" in name else queryset.filter(**{str(self.parameter_name): name})


class RecordList(KeysetChangeList):
    """`windows`: (name, URL, whether it is the one shown), for the links above the list (admin/windows.html).
    `unread`: the window that was asked for and is none, and what is shown in its place; None where all is well."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        shown = next(spec for spec in self.filter_specs if isinstance(spec, WindowFilter))
        self.windows = [
            (words, self.get_query_string({WindowFilter.parameter_name: name}), name == shown.value())
            for name, (words, _) in shown.windows.items()
        ]
        self.unread = (shown.unread, shown.windows[shown.value()][0]) if shown.unread else None


def distinct_values(model: type[Model], column: str, limit: int = 200) -> list[str]:
    """The texts, but "", that occur in an indexed column, sorted. Reads no table: one seek in the index for each."""
    table = connection.ops.quote_name(model._meta.db_table)
    name = connection.ops.quote_name(column)
    # In these words, so that an index of the non-empty ones alone serves too.
    smallest = f"SELECT MIN({name}) FROM {table} WHERE NOT ({name} = '')"  # noqa: S608 - our own names
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH RECURSIVE found(value) AS (
                {smallest}
                UNION ALL
                SELECT ({smallest} AND {name} > found.value) FROM found WHERE found.value IS NOT NULL
            )
            SELECT value FROM found WHERE value IS NOT NULL LIMIT %s
            """,  # noqa: S608
            [limit],
        )
        return [value for (value,) in cursor.fetchall()]
