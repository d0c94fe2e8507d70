"""Reads a configuration file for `manage.py apply`: YAML text in, declared objects out. No database.

Every mistake is collected with its line and field, so that a file is mended in one go. What is refused on purpose:
aliases (a small file could grow to gigabytes), a key given twice (YAML silently takes the last), unknown fields (a
typing mistake must not look applied), and fields that this version cannot enforce. `${NAME}` in a text is the
environment variable, `$${` is a plain `${`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any

import yaml
from django.core.exceptions import ImproperlyConfigured

from gateway_project import environment

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 20
ONE_MILLION = Decimal(1_000_000)
NANO_DOLLAR = Decimal("1e-9")
EXPONENT = re.compile(r"[+-]?(\d{1,20}\.?\d{0,20}|\.\d{1,20})[eE][+-]?\d{1,2}", re.ASCII)

# `${NAME}` is no plain YAML text inside { }, so it goes through the parser as characters of the private use area.
VARIABLE, VARIABLE_END, DOLLAR = "\ue000", "\ue001", "\ue002"
MARKS = re.compile(r"\$\$\{(?P<escaped>[A-Za-z_]\w*)\}|(?P<dollar>\$\$\{)|\$\{(?P<name>[A-Za-z_]\w*)\}", re.ASCII)
MARKED = re.compile(f"{VARIABLE}([^{VARIABLE_END}]*){VARIABLE_END}|{DOLLAR}")
TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """`line` counts from 1; `field` is the way to it, such as `models[0].routes[1].provider`."""

    line: int
    field: str
    message: str


class BadValue(Exception):
    """What a value should be. The reader's caller knows where it stands."""


@dataclass(frozen=True, slots=True)
class Value:
    value: Any
    line: int
    path: str


@dataclass(frozen=True, slots=True)
class Declared:
    """One object of the file, with exactly the fields that were given and are well-formed."""

    line: int
    path: str
    fields: dict[str, Value]

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields[name].value if name in self.fields else default


@dataclass(slots=True)
class Document:
    """The file as read: the objects of each section, and what is wrong.

    `doubtful`: sections with an object whose name could not be read; a missing reference to one of them proves nothing.
    """

    sections: dict[str, list[Declared]] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)

    def __getitem__(self, section: str) -> list[Declared]:
        return self.sections.get(section, [])

    def wrong(self, value: Value | Declared, message: str, under: str = "") -> None:
        path = f"{value.path}.{under}" if under else value.path
        self.mistakes.append(Mistake(value.line, path, message))


Reader = Callable[[Document, yaml.Node, str], Any]


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields an object may have. The first required one names it.

    `not_enforced`: fields of the file format that this version does not have yet. `misplaced`: fields that the same
    object has elsewhere, and what to do instead.
    """

    fields: dict[str, Reader]
    required: tuple[str, ...]
    not_enforced: tuple[str, ...] = ()
    misplaced: dict[str, str] = field(default_factory=dict)


# --- values ---------------------------------------------------------------------------------------------------------
def text(document: Document, node: yaml.Node, path: str) -> str:
    """A text, its variables filled in. A bare number or date counts as it is written (`api_version: 2024-10-21`)."""
    if _kind(node) not in ("str", "int", "float", "timestamp"):
        raise BadValue(
            'must be a text; put it in quotes: "..."' if isinstance(node, yaml.ScalarNode) else "must be a text"
        )
    value = _fill_in(node.value)
    if "\0" in value or not _is_unicode(value):
        raise BadValue("holds a character that cannot be stored")
    return value


def boolean(document: Document, node: yaml.Node, path: str) -> bool:
    if _kind(node) != "bool":
        raise BadValue("must be true or false")
    return bool(yaml.SafeLoader.bool_values[node.value.lower()])


def whole(upto: int, least: int = 0) -> Reader:
    """A whole number that every database can hold: SQLite would take any, PostgreSQL fails."""

    def read(document: Document, node: yaml.Node, path: str) -> int:
        wanted = f"must be a whole number between {least} and {upto}"
        value = _number(node, wanted)
        if _kind(node) != "int" or not least <= value <= upto:
            raise BadValue(wanted)
        return int(value)

    return read


def seconds(document: Document, node: yaml.Node, path: str) -> float:
    return float(_number(node, "must be a number of seconds"))


def decimal(upto: Decimal, what: str, smallest: Decimal = Decimal(0)) -> Reader:
    """`smallest`: what is not 0 but less would be stored as 0, and mean something else."""

    def read(document: Document, node: yaml.Node, path: str) -> Decimal:
        wanted = f"must be {what} between 0 and {upto:,}"
        value = _number(node, wanted)
        if not 0 <= value <= upto:
            raise BadValue(wanted)
        if 0 < value < smallest:
            raise BadValue(f"must be 0, or at least {smallest:f}")
        return value

    return read


usd = decimal(ONE_MILLION, "an amount of US dollars", NANO_DOLLAR)


def moment(document: Document, node: yaml.Node, path: str) -> datetime:
    """A date (the end of that day, UTC) or a date with a time (UTC, unless it says otherwise)."""
    return _moment(node, timedelta(days=1))


def beginning(document: Document, node: yaml.Node, path: str) -> datetime:
    """The same, but of a date the first moment."""
    return _moment(node, timedelta(0))


def _moment(node: yaml.Node, of_a_day: timedelta) -> datetime:
    if _kind(node) not in ("str", "timestamp"):
        raise BadValue("must be a date such as 2027-01-31, or a time such as 2027-01-31T18:00:00Z")
    value = _fill_in(node.value).strip()
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            return datetime.combine(date.fromisoformat(value), time(), UTC) + of_a_day
        given = datetime.fromisoformat(value)
        return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadValue("must be a date such as 2027-01-31, or a time such as 2027-01-31T18:00:00Z") from None


def or_null(reader: Reader) -> Reader:
    """`null` puts the field back to "not set"."""

    def read(document: Document, node: yaml.Node, path: str) -> Any:
        return None if _kind(node) == "null" else reader(document, node, path)

    return read


def list_of(reader: Reader, what: str) -> Reader:
    """Values of one kind, as Value, so that what is said about one names its line."""

    def read(document: Document, node: yaml.Node, path: str) -> list[Value]:
        if not isinstance(node, yaml.SequenceNode):
            raise BadValue(f"must be a list of {what}: [...]")
        values = [_read(document, reader, item, f"{path}[{index}]") for index, item in enumerate(node.value)]
        return [value for value in values if value is not None]

    return read


def by_name(reader: Reader) -> Reader:
    """A mapping of values of one kind."""

    def read(document: Document, node: yaml.Node, path: str) -> dict[str, Any]:
        entries = _entries(document, node, path)
        found = ((name, _read(document, reader, item, f"{path}.{name}")) for name, item in entries)
        return {name: value.value for name, value in found if value is not None}

    return read


texts_by_name = by_name(text)  # such as headers


def plain(document: Document, node: yaml.Node, path: str) -> Any:
    """Anything that JSON can say, its texts' variables filled in."""
    if isinstance(node, yaml.SequenceNode):
        items = [_read(document, plain, item, f"{path}[{index}]") for index, item in enumerate(node.value)]
        return [item.value for item in items if item is not None]
    if isinstance(node, yaml.MappingNode):
        return {name: value.value for name, value in plain_by_name(document, node, path).items()}
    kind = _kind(node)
    if kind == "null":
        return None
    if kind == "bool":
        return boolean(document, node, path)
    if kind in ("int", "float"):
        number = _number(node, "must be a number")
        return int(number) if kind == "int" else float(number)
    return text(document, node, path)


def plain_by_name(document: Document, node: yaml.Node, path: str) -> dict[str, Value]:
    """Values of which only somebody else knows what they should be, such as the settings of a rule."""
    found = {name: _read(document, plain, item, f"{path}.{name}") for name, item in _entries(document, node, path)}
    return {name: value for name, value in found.items() if value is not None}


def one_or_list_of(reader: Reader, what: str) -> Reader:
    def read(document: Document, node: yaml.Node, path: str) -> list[Value]:
        if isinstance(node, yaml.SequenceNode):
            return list(list_of(reader, what)(document, node, path))
        return [Value(reader(document, node, path), _line(node), path)]

    return read


def object_of(schema: Schema) -> Reader:
    def read(document: Document, node: yaml.Node, path: str) -> Declared:
        return _object(document, node, path, schema)

    return read


def text_or(schema: Schema, text_field: str) -> Reader:
    """An object, or for short only the text of its main field."""

    def read(document: Document, node: yaml.Node, path: str) -> Declared:
        if isinstance(node, yaml.ScalarNode):
            value = Value(text(document, node, path), _line(node), path)
            return Declared(_line(node), path, {text_field: value})
        return _object(document, node, path, schema)

    return read


# --- what a file may hold -------------------------------------------------------------------------------------------
NAMES = list_of(text, "names")
NETWORKS = list_of(text, "networks")
SMALL = whole(2**15 - 1)
POSITIVE = whole(2**31 - 1, 1)
RATES: dict[str, Reader] = {
    name: or_null(POSITIVE) for name in ("requests_per_minute", "tokens_per_minute", "max_parallel")
}
BUDGET = Schema(
    {
        "usd": decimal(1000 * ONE_MILLION, "an amount of US dollars", NANO_DOLLAR),
        "tokens": whole(10**15),
        "per": text,
        "soft": decimal(Decimal(10**15), "an amount, in the budget's unit,"),
        "timezone": text,
        "when_spent": text,
        "fallback_model": text,
        "enabled": boolean,
        "model": text,
    },
    required=("per",),
)
# Of the calls of one model, or of all: its budgets stand with it.
BUDGET_OF_ALL = Schema(
    {name: reader for name, reader in BUDGET.fields.items() if name != "model"},
    BUDGET.required,
    misplaced={
        "model": "is for budgets of teams, users and keys: a budget of one model stands with it, under `models`"
    },
)
LIMITS: dict[str, Reader] = {"budgets": list_of(object_of(BUDGET), "budgets"), **RATES}
LIMITS_OF_ALL: dict[str, Reader] = {"budgets": list_of(object_of(BUDGET_OF_ALL), "budgets"), **RATES}

ROUTE = Schema(
    {"provider": text, "upstream_model": text, "order": SMALL, "weight": SMALL, "enabled": boolean},
    required=("provider",),
)
MEMBERSHIP = Schema({"team": text, "role": text}, required=("team",))
RULE = Schema(
    {
        "check": text,
        "name": text,
        "action": text,
        "stage": text,
        "settings": plain_by_name,
        "message": text,
        "block_with": text,
        "answer": text,
        "timeout_ms": whole(2**31 - 1),
        "fail_open": boolean,
        "dry_run": boolean,
        "enabled": boolean,
    },
    required=("check",),
)
HOLDER = Schema({"team": text, "key": text}, required=())
TOKEN_PRICES: dict[str, Reader] = {
    "input_usd_per_mtok": usd,
    "output_usd_per_mtok": usd,
    **{
        f"{name}_usd_per_mtok": or_null(usd)
        for name in (
            *("cached_input", "cache_write", "cache_write_1h", "reasoning"),
            *("audio_input", "audio_output", "image_input", "image_output"),
        )
    },
}
TIER = Schema(
    {"from_prompt_tokens": POSITIVE, **TOKEN_PRICES},
    required=("from_prompt_tokens", "input_usd_per_mtok", "output_usd_per_mtok"),
)
PRICE: dict[str, Reader] = {
    **TOKEN_PRICES,
    "request_usd": usd,
    "image_usd": or_null(usd),
    "tools_usd": by_name(usd),
    "batch_percent": whole(100),
    "tiers": list_of(object_of(TIER), "tiers"),
    "prices_from": beginning,
}

ALERT_DESTINATION = Schema(
    {
        "name": text,
        "kind": text,
        "url": text,
        "emails": list_of(text, "e-mail addresses"),
        "secret": text,
        "private_network": boolean,
        "enabled": boolean,
    },
    required=("name",),
)
ALERT_RULE = Schema(
    {
        "name": text,
        "kind": text,
        "thresholds": list_of(whole(1000, 1), "per cents"),
        "soft": boolean,
        "percent": whole(100, 1),
        "latency_ms": POSITIVE,
        "at_least": POSITIVE,
        "minutes": whole(120, 1),
        "days": whole(365, 1),
        "team": or_null(text),
        "model": or_null(text),
        "provider": or_null(text),
        "destinations": NAMES,
        "tell_when_over": boolean,
        "enabled": boolean,
    },
    required=("name",),
)

SECTIONS: dict[str, Schema] = {
    "providers": Schema(
        {
            "name": text,
            "kind": text,
            "base_url": text,
            "api_key": text,
            "api_version": text,
            "extra_headers": texts_by_name,
            "connect_timeout_s": seconds,
            "first_byte_timeout_s": seconds,
            "idle_timeout_s": seconds,
            "tls_verify": boolean,
            "tls_ca": text,
            "private_network": boolean,
            "caller_key": boolean,
            "enabled": boolean,
        },
        required=("name",),
    ),
    "models": Schema(
        {
            "name": text,
            "aliases": NAMES,
            "routes": list_of(object_of(ROUTE), "routes"),
            "description": text,
            "context_window": or_null(whole(2**31 - 1)),
            "max_output_tokens": or_null(whole(2**31 - 1)),
            "time_budget_s": seconds,
            "enabled": boolean,
            **PRICE,
            **LIMITS_OF_ALL,
        },
        required=("name",),
    ),
    "teams": Schema(
        {
            "name": text,
            "cost_center": text,
            "models": or_null(NAMES),
            "networks": or_null(NETWORKS),
            "disabled": boolean,
            "prices": list_of(object_of(Schema({"model": text, **PRICE}, required=("model",))), "prices"),
            **LIMITS,
        },
        required=("name",),
        not_enforced=("sharing",),
    ),
    "users": Schema(
        {
            "username": text,
            "email": text,
            "teams": list_of(text_or(MEMBERSHIP, "team"), "teams"),
            "models": or_null(NAMES),
            **LIMITS,
        },
        required=("username",),
    ),
    "keys": Schema(
        {
            "name": text,
            "user": text,
            "team": text,
            "secret": text,
            "expires": or_null(moment),
            "endpoints": or_null(NAMES),
            "models": or_null(NAMES),
            "networks": or_null(NETWORKS),
            "disabled": boolean,
            **LIMITS,
        },
        required=("name",),
    ),
    "wordlists": Schema(
        {"name": text, "words": NAMES, "allow": NAMES, "description": text, "catch_disguises": boolean},
        required=("name",),
    ),
    "policies": Schema(
        {
            "name": text,
            "description": text,
            "scope": one_or_list_of(text_or(HOLDER, "everyone"), "holders"),
            "rules": list_of(object_of(RULE), "rules"),
            "show_flags": boolean,
            "header_overrides": text,
            "log_request": boolean,
            "log_reply": boolean,
            "retention_days": SMALL,
            "enabled": boolean,
        },
        required=("name",),
    ),
}
# Sections that are one object, and not a list of them.
SINGLE: dict[str, Schema] = {
    "alerts": Schema(
        {
            "destinations": list_of(object_of(ALERT_DESTINATION), "destinations"),
            "rules": list_of(object_of(ALERT_RULE), "rules"),
        },
        required=(),
    ),
    "installation": Schema(
        {
            **LIMITS_OF_ALL,
            "client_ip": object_of(Schema(RATES, required=())),
            "timezone": text,
            "when_redis_is_away": text,
            "default_max_tokens": POSITIVE,
            "blocks_to_throttle": or_null(POSITIVE),
            "throttle_s": POSITIVE,
            "currency": text,
            "units_per_usd": decimal(ONE_MILLION, "an amount of that currency"),
            "events_kept_days": or_null(POSITIVE),
            "rollups_kept_days": or_null(POSITIVE),
        },
        required=(),
    ),
}


# --- the file -------------------------------------------------------------------------------------------------------
def read(raw: bytes) -> Document:
    """The declared objects of a file and every mistake in it. Raises nothing: what cannot be read is a mistake too."""
    document = Document()
    try:
        root = _compose(raw)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        document.mistakes.append(Mistake(mark.line + 1 if mark else 1, "", f"is not YAML: {said}"))
    except Unreadable as error:
        document.mistakes.append(Mistake(error.line, "", str(error)))
    else:
        if root is not None and _kind(root) != "null":
            _read_sections(document, root)
    return document


class Unreadable(Exception):
    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


# Written in C and ten times as fast, where PyYAML was built with it.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _compose(raw: bytes) -> yaml.Node | None:
    if len(raw) > MAX_BYTES:
        raise Unreadable(f"is larger than {MAX_BYTES // 1024 // 1024} MiB: split it, apply takes one file at a time")
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("is not UTF-8", raw.count(b"\n", 0, error.start) + 1) from None
    for mark in (VARIABLE, VARIABLE_END, DOLLAR):
        if mark in content:
            line = content.count("\n", 0, content.index(mark)) + 1
            raise Unreadable(f"holds the character U+{ord(mark):04X}, which is reserved", line)
    marked = MARKS.sub(_mark, content)
    try:
        _check_events(marked)
        node: yaml.Node | None = yaml.compose(marked, Loader)
    except yaml.reader.ReaderError as error:
        line = content.count("\n", 0, error.position) + 1
        raise Unreadable("holds a control character, which YAML does not allow", line) from None
    return node


def _check_events(content: str) -> None:
    """Refuses, before anything is built, what would make a small file large or the stack deep. Raises Unreadable."""
    depth = 0
    for event in yaml.parse(content, Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise Unreadable("aliases (*name) are not supported: write it out", line)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise Unreadable("is nested too deeply", line)


def _mark(match: re.Match[str]) -> str:
    if match["name"]:
        return f"{VARIABLE}{match['name']}{VARIABLE_END}"
    return f"{DOLLAR}{match['escaped']}{VARIABLE_END}" if match["escaped"] else DOLLAR


def _fill_in(marked: str) -> str:
    """The text with its environment variables. Raises BadValue; never quotes a value."""
    if re.search(r"\$\{", marked):
        raise BadValue("holds ${...} that is no variable: write ${NAME}, or $${ for a plain ${")
    filled = MARKED.sub(_variable, marked).replace(VARIABLE_END, "}")
    if not filled and marked:
        raise BadValue("is empty: the environment variable it names is set to nothing")
    return filled


def _variable(match: re.Match[str]) -> str:
    name = match[1]
    if name is None:
        return "${"
    if name not in os.environ and f"{name}_FILE" not in os.environ:
        raise BadValue(f"the environment variable {name} is not set")
    try:
        return environment.text(name)
    except ImproperlyConfigured as error:
        raise BadValue(str(error)) from None


def _read_sections(document: Document, root: yaml.Node) -> None:
    known = [*SECTIONS, *SINGLE]
    if not isinstance(root, yaml.MappingNode):
        document.mistakes.append(Mistake(_line(root), "", f"must be sections: {', '.join(known)}"))
        return
    for name, node in _entries(document, root, ""):
        if name in SINGLE:
            one = _read(document, or_null(object_of(SINGLE[name])), node, name)
            document.sections[name] = [one.value] if one and one.value else []
            continue
        schema = SECTIONS.get(name)
        if schema is None:
            document.mistakes.append(Mistake(_line(node), name, _unknown(name, known, ())))
            continue
        value = _read(document, or_null(list_of(object_of(schema), name)), node, name)
        items = (value.value if value else None) or []
        objects = [item.value for item in items]
        document.sections[name] = _without_doubles(document, objects, schema)
        whole = value is not None and len(items) == len(getattr(node, "value", ()))
        if not whole or any(schema.required[0] not in declared for declared in objects):
            document.doubtful.add(name)


def _without_doubles(document: Document, objects: list[Declared], schema: Schema) -> list[Declared]:
    """Objects with a name, each once. (A key's name is only unique for its owner: apply looks at those.)"""
    name_field = schema.required[0]
    named = [declared for declared in objects if name_field in declared]
    if "secret" in schema.fields:
        return named
    first: dict[str, Declared] = {}
    for declared in named:
        earlier = first.setdefault(declared.get(name_field), declared)
        if earlier is not declared:
            document.wrong(declared.fields[name_field], f"is already in this file, in line {earlier.line}")
    return list(first.values())


def _object(document: Document, node: yaml.Node, path: str, schema: Schema) -> Declared:
    declared = Declared(_line(node), path, {})
    given: set[str] = set()
    for name, item in _entries(document, node, path):
        given.add(name)
        reader = schema.fields.get(name)
        if reader is None:
            message = schema.misplaced.get(name) or _unknown(name, list(schema.fields), schema.not_enforced)
            document.mistakes.append(Mistake(_line(item), f"{path}.{name}", message))
        elif (value := _read(document, reader, item, f"{path}.{name}")) is not None:
            declared.fields[name] = value
    for name in schema.required:
        if name not in given:
            document.wrong(declared, "is missing", under=name)
    return declared


def _entries(document: Document, node: yaml.Node, path: str) -> list[tuple[str, yaml.Node]]:
    """The entries of a mapping; a key given twice, or that is no text, is a mistake."""
    if not isinstance(node, yaml.MappingNode):
        raise BadValue("must be a mapping: {field: value, ...}")
    entries: dict[str, yaml.Node] = {}
    for key, item in node.value:
        if not isinstance(key, yaml.ScalarNode) or MARKED.search(key.value):
            document.mistakes.append(Mistake(_line(key), path, "a field's name must be a plain text"))
        elif key.value in entries:
            where = f"{path}.{key.value}" if path else key.value
            document.mistakes.append(Mistake(_line(key), where, "is given twice"))
        else:
            entries[key.value] = item
    return list(entries.items())


def _read(document: Document, reader: Reader, node: yaml.Node, path: str) -> Value | None:
    """The value, or None and a mistake."""
    try:
        return Value(reader(document, node, path), _line(node), path)
    except BadValue as error:
        document.mistakes.append(Mistake(_line(node), path, str(error)))
        return None


def _unknown(name: str, known: list[str], not_enforced: tuple[str, ...]) -> str:
    if name in not_enforced:
        return "this version of Gatehouse does not enforce it, so it is refused rather than ignored: take it out"
    close = get_close_matches(name, known, 1)
    return f"is unknown; did you mean {close[0]}?" if close else f"is unknown; known are {', '.join(known)}"


def _is_unicode(value: str) -> bool:
    """False for half of a surrogate pair: so Python shows bytes of a variable that are not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(node: yaml.Node, wanted: str) -> Decimal:
    if _kind(node) not in ("int", "float"):
        # YAML takes 1e3 for text, and whoever wrote it for the number that it is everywhere else.
        if EXPONENT.fullmatch(str(node.value)):
            raise BadValue(f"{wanted}: write {Decimal(node.value):f}, not {node.value}")
        raise BadValue(wanted)
    try:
        value = Decimal(node.value)
    except InvalidOperation:  # YAML also knows 0x1F and 1:30
        raise BadValue(f"{wanted}, in plain digits") from None
    if not value.is_finite():
        raise BadValue(wanted)
    return value


def _kind(node: yaml.Node) -> str:
    """str, int, float, bool, null, timestamp, seq, map; a tag of somebody else's as it is."""
    return str(node.tag).removeprefix(TAG)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
