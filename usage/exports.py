"""Usage events as a file: CSV, JSON lines or Parquet, made part by part in flat memory, however many events there are.

Events are read in pages by their id, each with a short query of its own: a client that reads slowly holds no
transaction, no cursor and no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from django.db import close_old_connections, connection
from django.db.models import QuerySet, Sum
from django.utils import timezone

from accounts.models import Team
from accounts.time_ids import first_id
from usage.models import Adjustment, UsageEvent
from usage.spreadsheets import CSV_TYPE, csv_lines

ROWS_AT_ONCE = 2_000

Row = tuple[Any, ...]
Page = list[Row]

# Column -> the event's field. Those of None are worked out, in this order: see _completed.
COLUMNS: dict[str, str | None] = {
    "id": "id",
    "at": "at",
    "request_id": "request_id",
    "endpoint": "endpoint",
    "key_id": "key_id",
    "key": "key_label",
    "user_id": "user_id",
    "team_id": "team_id",
    "team": None,
    "model": "model",
    "provider": "provider",
    "upstream_model": "upstream_model",
    "status": "status",
    "error_code": "error_code",
    "streamed": "streamed",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "cached_tokens": "cached_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "estimated": "estimated",
    "cost_usd": "cost_nano_usd",
    "adjustments_usd": None,
    "latency_us": "latency_us",
    "first_byte_us": "first_byte_us",
    "attempts": "attempts",
    "end_user": "end_user",
    "client_ip": "client_ip",
    "user_agent": "user_agent",
    "organization": "organization",
    "trace_id": "trace_id",
    "above_hold": "above_hold",
    "failed_tries": "failed_tries",
    "spent_budget_id": "spent_budget_id",
    "refused_by": "refused_by",
    "units": "units",
    "tags": "tags",
}
_FIELDS = [field for field in COLUMNS.values() if field]
_AT = {name: index for index, name in enumerate(COLUMNS)}
_ID, _TEAM_ID, _TEAM, _ADJUSTMENTS = (_AT[name] for name in ("id", "team_id", "team", "adjustments_usd"))
_AMOUNTS = (_AT["cost_usd"], _ADJUSTMENTS)
_DOCUMENTS = (_AT["units"], _AT["tags"])


# --- reading --------------------------------------------------------------------------------------------------------
def pages(events: QuerySet[UsageEvent], size: int = ROWS_AT_ONCE) -> Iterator[Page]:
    """The events in the order of their time, as rows in the order of COLUMNS, money in nano-USD.

    Only those of before now: an export of a busy gateway has an end.
    """
    teams = _TeamNames()
    rows = events.filter(pk__lt=first_id(timezone.now())).order_by("pk").values_list(*_FIELDS)
    page: list[Any] = list(rows[:size])
    while page:
        adjustments = adjustments_of(row[_ID] for row in page)
        completed = [_completed(row, teams, adjustments) for row in page]
        last = page[-1][_ID]
        if not connection.in_atomic_block:  # else it is not ours to close
            close_old_connections()
        yield completed
        page = list(rows.filter(pk__gt=last)[:size]) if len(page) == size else []


def _completed(row: Row, teams: _TeamNames, adjustments: dict[Any, int]) -> Row:
    """With what the event itself does not have, each at its place."""
    completed = list(row)
    completed.insert(_TEAM, teams[row[_TEAM_ID]])
    completed.insert(_ADJUSTMENTS, adjustments.get(row[_ID], 0))
    return tuple(completed)


def adjustments_of(event_ids: Iterable[Any]) -> dict[Any, int]:
    """Event id -> the sum of its adjustments, of those that have any. One query."""
    found = Adjustment.objects.filter(event_id__in=list(event_ids)).order_by().values_list("event_id")
    return {event_id: int(total) for event_id, total in found.annotate(Sum("delta_nano_usd"))}


class _TeamNames(dict[int | None, str]):
    """Asked for all at once, when the first one is needed."""

    def __missing__(self, team_id: int | None) -> str:
        if team_id is not None and None not in self:
            self.update(Team.objects.values_list("pk", "name"))
            self[None] = ""
        return self.get(team_id, "")


# --- writing --------------------------------------------------------------------------------------------------------
def to_csv(found: Iterator[Page]) -> Generator[bytes, None, None]:
    yield csv_lines([tuple(COLUMNS)])
    for page in found:
        yield csv_lines(_with(row, amount=_usd, document=_text) for row in page)


def to_jsonl(found: Iterator[Page]) -> Generator[bytes, None, None]:
    """An object a line. Money is a text: a JSON number would become a float wherever it is read."""
    for page in found:
        objects = (dict(zip(COLUMNS, _with(row, amount=usd_text), strict=True)) for row in page)
        yield b"".join(orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE) for found in objects)


def to_parquet(found: Iterator[Page]) -> Generator[bytes, None, None]:
    from usage import parquet  # 25 MB of memory, for those who ask for it

    return parquet.written([_with(row, amount=usd_text, document=_text) for row in page] for page in found)


def _with(row: Row, amount: Callable[[int], Any], document: Callable[[Any], Any] | None = None) -> list[Any]:
    """The row with its amounts, and its JSON documents, in the words of a format."""
    values = list(row)
    for index in _AMOUNTS:
        if values[index] is not None:
            values[index] = amount(values[index])
    if document:
        for index in _DOCUMENTS:
            values[index] = document(values[index])
    return values


def _usd(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)


def usd_text(nano: int) -> str:
    """US dollars with all nine places: 0.000412345."""
    return f"{_usd(nano):f}"


def _text(document: Any) -> str:
    return orjson.dumps(document).decode() if document else ""


@dataclass(frozen=True, slots=True)
class Format:
    label: str
    content_type: str
    write: Callable[[Iterator[Page]], Generator[bytes, None, None]]


FORMATS = {
    "csv": Format("CSV", CSV_TYPE, to_csv),
    "jsonl": Format("JSON lines", "application/x-ndjson", to_jsonl),
    "parquet": Format("Parquet", "application/vnd.apache.parquet", to_parquet),
}
