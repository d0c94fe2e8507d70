"""Reads what providers say was used: the files that their consoles export, and the answers of their usage APIs. Pure.

Every format becomes `Figures` by day (UTC) and model. What a format does not tell is None, not 0.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from accounts.time_ids import EPOCH, LAST

CENT_OF_NANO_USD = 10_000_000
TOO_MANY = "\0"
# Digits before the point: far beyond what anybody uses, and quick to reckon with.
MOST_DIGITS = 30
# Commas only between groups of three digits: "12,34" and "0,123" are how half of Europe writes 12.34 and 0.123.
NUMBER = re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(,\d{3})+)?(\.\d*)?(e[+-]?\d{1,4})?", re.ASCII | re.IGNORECASE)
VALUE_SHOWN = 40
# Days that calls can be of.
FIRST_DAY, LAST_DAY = EPOCH.date(), LAST.date()


class BadExport(ValueError):
    """The file is not one that we can read. The message says where and why."""


@dataclass(slots=True)
class Figures:
    """What was used on one day with one model. `input` includes `cached` and what was written to the cache. `cost` in
    nano-USD, and `rounded_by`: how far it may be off because the provider rounded it."""

    requests: int | None = None
    input: int | None = None
    output: int | None = None
    cached: int | None = None
    cost: int | None = None
    rounded_by: int = 0

    def add(self, other: Figures) -> None:
        for each in fields(self):
            mine, more = getattr(self, each.name), getattr(other, each.name)
            if more is not None:
                setattr(self, each.name, (mine or 0) + more)


@dataclass(slots=True)
class Export:
    """`provider`: whose format it is, empty when anybody's. `by`: (day, model as the provider writes it; empty: not
    split by model) -> Figures. `warnings`: what the reader should know."""

    format: str
    provider: str
    by: dict[tuple[date, str], Figures] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, day: date, model: str, figures: Figures) -> None:
        self.by.setdefault((day, model), Figures()).add(figures)


def read(path: Path) -> Export:
    """Raises BadExport."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadExport(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadExport(f"{path}: not a text file in UTF-8, see byte {error.start}") from error
    try:
        export = _read_json(text) if text.lstrip()[:1] in ("{", "[") else _read_csv(text)
    except BadExport as error:
        raise BadExport(f"{path}: {error}") from error
    if not export.by:
        raise BadExport(f"{path}: looks like {export.format}, but there is no usage in it")
    return export


# --- values -----------------------------------------------------------------------------------------------------------
def _count(value: Any) -> int | None:
    """Tokens or calls. None: nothing was said. Raises ValueError."""
    if value is None or value == "":
        return None
    number = _decimal(value)
    if number < 0 or number != number.to_integral_value():
        raise ValueError(f"{_shown(value)} is not a whole number from 0 on")
    return int(number)


def _nano_usd(value: Any) -> int | None:
    if value is None or value == "":
        return None
    return int((_decimal(value) * 10**9).to_integral_value(rounding="ROUND_HALF_UP"))


def _decimal(value: Any) -> Decimal:
    """Raises ValueError."""
    text = re.sub(r"^([+-]?)\$", r"\1", str(value).strip())
    try:
        if isinstance(value, bool) or not NUMBER.fullmatch(text):
            raise InvalidOperation
        number = Decimal(text.replace(",", ""))
    except InvalidOperation:
        hint = ": write decimals after a point" if re.search(r"\d,\d", text) else ""
        raise ValueError(f"{_shown(value)} is not a number{hint}") from None
    if number.adjusted() >= MOST_DIGITS:
        raise ValueError(f"{_shown(value)} is too large")
    return number


def _shown(value: Any) -> str:
    text = str(value)
    text = text if len(text) <= VALUE_SHOWN else f"{text[:VALUE_SHOWN]}…"
    return repr(text) if isinstance(value, str) else text


def _day(value: Any) -> date:
    """Of an ISO date or time, or of unix seconds. Raises ValueError."""
    text = str(value).strip()
    try:
        if re.fullmatch(r"\d{9,11}(\.0+)?", text, re.ASCII):
            moment = datetime.fromtimestamp(int(float(text)), UTC)
        else:
            moment = datetime.fromisoformat(text)
        day = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()
    except (ValueError, OverflowError):
        raise ValueError(f"{_shown(value)} is not a date such as 2026-11-01") from None
    if not FIRST_DAY <= day <= LAST_DAY:
        raise ValueError(f"{_shown(value)} is not between {FIRST_DAY} and {LAST_DAY}")
    return day


def _sum(values: Iterable[int | None]) -> int | None:
    """None when nothing was said of any."""
    said = [value for value in values if value is not None]
    return sum(said) if said else None


def _in_usd(currency: Any) -> None:
    if currency and str(currency).lower() != "usd":
        raise ValueError(f"amounts in {currency} cannot be compared: the books are in US dollars")


# --- CSV --------------------------------------------------------------------------------------------------------------
Row = Mapping[str, str]


class _Cells:
    """One line of a CSV file, by the names of its header."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def text(self, *names: str) -> str:
        return next((self.row[name].strip() for name in names if self.row.get(name)), "")

    def count(self, *names: str) -> int | None:
        """The sum of these columns, as far as they are there."""
        return _sum(self._read(name, _count) for name in names)

    def nano_usd(self, name: str) -> int | None:
        return self._read(name, _nano_usd)

    def day(self, name: str) -> date:
        try:
            return _day(self.row[name])
        except ValueError as error:
            raise ValueError(f"column {name}: {error}") from None

    def _read(self, name: str, read: Callable[[str], int | None]) -> int | None:
        try:
            return read((self.row.get(name) or "").strip())
        except ValueError as error:
            raise ValueError(f"column {name}: {error}") from None


@dataclass(frozen=True, slots=True)
class _CsvFormat:
    """Known by the columns that it `needs`. `read` gives day, model and figures of a line, or None for one that says
    nothing."""

    name: str
    provider: str
    needs: frozenset[str]
    read: Callable[[_Cells], tuple[date, str, Figures] | None]


def _openai_usage(cells: _Cells) -> tuple[date, str, Figures] | None:
    requests = cells.count("num_model_requests", "num_requests")
    figures = Figures(
        requests, cells.count("input_tokens"), cells.count("output_tokens"), cells.count("input_cached_tokens")
    )
    if requests is None and figures.input is None:
        return None  # a day without calls is a line of its own
    return cells.day("start_time"), cells.text("model"), figures


def _openai_costs(cells: _Cells) -> tuple[date, str, Figures] | None:
    cost = cells.nano_usd("amount_value")
    if cost is None:
        return None
    _in_usd(cells.text("amount_currency"))
    return cells.day("start_time"), _model_of_line_item(cells.text("line_item")), Figures(cost=cost)


def _model_of_line_item(line_item: str) -> str:
    """'gpt-4o-2024-08-06, input' is of the model before the comma."""
    return line_item.partition(",")[0].strip()


_ANTHROPIC_CACHE_WRITES = (
    "usage_input_tokens_cache_write",
    "usage_input_tokens_cache_write_5m",
    "usage_input_tokens_cache_write_1h",
)


def _anthropic_usage(cells: _Cells) -> tuple[date, str, Figures]:
    cached = "usage_input_tokens_cache_read"
    figures = Figures(
        input=cells.count("usage_input_tokens_no_cache", cached, *_ANTHROPIC_CACHE_WRITES),
        output=cells.count("usage_output_tokens"),
        cached=cells.count(cached),
    )
    return cells.day("usage_date_utc"), cells.text("model_version", "model"), figures


def _anthropic_costs(cells: _Cells) -> tuple[date, str, Figures] | None:
    cost = cells.nano_usd("cost_usd")
    if cost is None:
        return None
    # Each line is rounded to a cent by itself.
    figures = Figures(cost=cost, rounded_by=CENT_OF_NANO_USD // 2)
    return cells.day("usage_date_utc"), cells.text("model", "model_version"), figures


def _generic(cells: _Cells) -> tuple[date, str, Figures]:
    figures = Figures(
        cells.count("requests"),
        cells.count("input_tokens"),
        cells.count("output_tokens"),
        cells.count("cached_tokens"),
        cells.nano_usd("cost_usd"),
    )
    return cells.day("date"), cells.text("model"), figures


_CSV_FORMATS = (
    _CsvFormat("an OpenAI usage export", "openai", frozenset({"start_time", "input_tokens"}), _openai_usage),
    _CsvFormat("an OpenAI cost export", "openai", frozenset({"start_time", "amount_value"}), _openai_costs),
    _CsvFormat(
        "an Anthropic usage export", "anthropic", frozenset({"usage_date_utc", "usage_output_tokens"}), _anthropic_usage
    ),
    _CsvFormat("an Anthropic cost export", "anthropic", frozenset({"usage_date_utc", "cost_usd"}), _anthropic_costs),
    *(
        _CsvFormat("a CSV file of our own format", "", frozenset({"date", "model", column}), _generic)
        for column in ("requests", "input_tokens", "output_tokens", "cached_tokens", "cost_usd")
    ),
)


def _read_csv(text: str) -> Export:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey=TOO_MANY, restval=None)
    try:
        columns = [name.strip() for name in lines.fieldnames or []]
    except csv.Error as error:
        raise BadExport(f"line 1: {error}") from error
    lines.fieldnames = columns
    for known in _CSV_FORMATS:
        if known.needs <= set(columns):
            return _read_lines(known, lines)
    raise BadExport(f"line 1: no known header: {', '.join(columns)[:200] or 'the file is empty'}")


def _read_lines(known: _CsvFormat, lines: csv.DictReader[str]) -> Export:
    export = Export(known.name, known.provider)
    try:
        for row in lines:
            if TOO_MANY in row or None in row.values():
                raise ValueError("not as many columns as the header has")
            if found := known.read(_Cells(row)):
                export.add(*found)
    except (ValueError, csv.Error) as error:
        raise BadExport(f"line {lines.line_num}: {error}") from error
    return export


# --- JSON -------------------------------------------------------------------------------------------------------------
def _read_json(text: str) -> Export:
    try:
        # Numbers as they are written: never as floats, and however long they are.
        document = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except json.JSONDecodeError as error:
        raise BadExport(f"line {error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise BadExport("not an answer of a usage API: lists in lists without end") from error
    pages = document if isinstance(document, list) else [document]
    if not all(isinstance(page, dict) and isinstance(page.get("data"), list) for page in pages):
        raise BadExport("not an answer of a usage API: no list `data`")
    export = Export("the answer of a usage API", "")
    for page in pages:
        for place, bucket, result in _results(page["data"]):
            try:
                export.provider, export.format, day, model, figures = _read_result(bucket, result)
            except (ValueError, KeyError) as error:
                what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
                raise BadExport(f"{place}: {what}") from error
            export.add(day, model, figures)
    if pages and pages[-1].get("has_more"):
        export.warnings.append("This is one page of several (has_more): later days are missing in it.")
    return export


def _results(buckets: Sequence[Any]) -> Iterator[tuple[str, Any, Any]]:
    for number, bucket in enumerate(buckets):
        place = f"data[{number}]"
        if not isinstance(bucket, dict) or not isinstance(bucket.get("results"), list):
            raise BadExport(f"{place}: no list `results`")
        for index, result in enumerate(bucket["results"]):
            if not isinstance(result, dict):
                raise BadExport(f"{place}.results[{index}]: not an object")
            yield f"{place}.results[{index}]", bucket, result


def _read_result(bucket: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[str, str, date, str, Figures]:
    """Provider, format, day, model, figures."""
    model = str(result.get("model") or "")
    if "start_time" in bucket:
        day = _day(bucket["start_time"])
        if "amount" in result:
            amount = _object(result, "amount")
            _in_usd(amount.get("currency"))
            cost = Figures(cost=_nano_usd(amount["value"]))
            model = _model_of_line_item(str(result.get("line_item") or ""))
            return "openai", "OpenAI's cost API", day, model, cost
        return "openai", "OpenAI's usage API", day, model, _openai_tokens(result)
    day = _day(bucket["starting_at"])
    if "amount" in result:
        _in_usd(result.get("currency"))
        cents = _nano_usd(result["amount"])
        return "anthropic", "Anthropic's cost API", day, model, Figures(cost=cents and cents // 100)
    return "anthropic", "Anthropic's usage API", day, model, _anthropic_tokens(result)


def _openai_tokens(result: Mapping[str, Any]) -> Figures:
    return Figures(
        requests=_count(result.get("num_model_requests")),
        input=_count(result.get("input_tokens")),
        output=_count(result.get("output_tokens")),
        cached=_count(result.get("input_cached_tokens")),
    )


def _anthropic_tokens(result: Mapping[str, Any]) -> Figures:
    cached = _count(result["cache_read_input_tokens"])
    written = [_count(value) for value in _object(result, "cache_creation").values()]
    return Figures(
        input=_sum([_count(result["uncached_input_tokens"]), cached, *written]),
        output=_count(result["output_tokens"]),
        cached=cached,
    )


def _object(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Empty where there is none. Raises ValueError."""
    value = result.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value
