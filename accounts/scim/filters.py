"""SCIM filters as conditions of the database."""

from __future__ import annotations

import re
from typing import Any

from django.db.models import Q
from scim2_models import InvalidFilterException, ScimFilter
from scim2_models.path import AttrPath, Comparison, LogicalExpr, LogicalOperator, Not, Present, ValuePath

MAX_CHARS = 4096
TEXT, EXACT, ID, FLAG = "text", "exact", "id", "flag"
USER_FIELDS = {
    "id": ("pk", ID),
    "externalid": ("scim__external_id", EXACT),
    "username": ("username", TEXT),
    "emails": ("email", TEXT),
    "emails.value": ("email", TEXT),
    "name.givenname": ("first_name", TEXT),
    "name.familyname": ("last_name", TEXT),
    "groups": ("scim_members__group", ID),
    "groups.value": ("scim_members__group", ID),
    "active": ("is_active", FLAG),
}
GROUP_FIELDS = {
    "id": ("pk", ID),
    "externalid": ("external_id", EXACT),
    "displayname": ("name", TEXT),
    "members": ("members__user", ID),
    "members.value": ("members__user", ID),
}
# `emails[type eq "work"].value eq "a@b"`: no filter of the standard, but Entra ID writes it.
ENTRA = re.compile(r'([\w.:-]+)\[([^\[\]]*)\]\.(\w+) +(\w{2}(?: +"(?:[^"\\]|\\.)*")?)')
LOOKUPS = {"eq": "exact", "co": "contains", "sw": "startswith", "ew": "endswith"}
Fields = dict[str, tuple[str, str]]


def condition(text: str, fields: Fields) -> Q:
    """Raises InvalidFilterException."""
    if len(text) > MAX_CHARS:
        raise InvalidFilterException(detail="The filter is too long.")
    try:
        return _node(ScimFilter(ENTRA.sub(r"\1[(\2) and \3 \4]", text)).ast, fields, "")
    except RecursionError:
        raise InvalidFilterException(detail="The filter is nested too deeply.") from None


def _node(node: Any, fields: Fields, within: str) -> Q:
    """`within`: the attribute whose values the node chooses from, with a dot behind it."""
    if isinstance(node, LogicalExpr):
        parts = [_node(term, fields, within) for term in node.terms]
        found = parts[0]
        for part in parts[1:]:
            found = found & part if node.op == LogicalOperator.and_ else found | part
        return found
    if isinstance(node, Not):
        return ~_node(node.expr, fields, within)
    if isinstance(node, ValuePath):
        return _node(node.val_filter, fields, f"{_name(node.attr_path)}.")
    if isinstance(node, Present):
        return _present(*_field(node.attr_path, fields, within))
    if within and isinstance(node, Comparison) and _name(node.attr_path) in ("type", "primary"):
        return Q()  # only one value of the kind is kept apart
    assert isinstance(node, Comparison)
    return _compared(node, *_field(node.attr_path, fields, within))


def _name(path: AttrPath) -> str:
    return f"{path.attr}.{path.sub_attr}".lower() if path.sub_attr else path.attr.lower()


def _field(path: AttrPath, fields: Fields, within: str) -> tuple[str, str]:
    name = within + _name(path)
    if name not in fields:
        raise InvalidFilterException(detail=f"There is no filter by {name[:100]} here, but by {', '.join(fields)}.")
    return fields[name]


def _present(column: str, kind: str) -> Q:
    return Q() if kind == FLAG else Q(**{f"{column}__isnull": False}) & (Q() if kind == ID else ~Q(**{column: ""}))


def _compared(node: Comparison, column: str, kind: str) -> Q:
    operator, value = node.op.value, node.value
    if operator == "ne":
        return ~_equal(column, kind, value)
    if operator == "eq":
        return _equal(column, kind, value)
    if operator not in LOOKUPS or kind not in (TEXT, EXACT) or not isinstance(value, str):
        raise InvalidFilterException(detail=f"{node.attr_path} cannot be compared with {operator}.")
    return Q(**{f"{column}__{'i' if kind == TEXT else ''}{LOOKUPS[operator]}": value})


def _equal(column: str, kind: str, value: Any) -> Q:
    if kind == FLAG:
        flag = {"true": True, "false": False}.get(str(value).lower())
        if flag is None:
            raise InvalidFilterException(detail="active is true or false.")
        return Q(scim__active=flag) | Q(scim__isnull=True, is_active=flag)
    if not isinstance(value, str):
        raise InvalidFilterException(detail="What it is compared with must be in quotes.")
    if kind == ID:
        return Q(**{column: int(value)}) if value.isascii() and value.isdigit() and len(value) < 19 else Q(pk__in=[])
    return Q(**{f"{column}__iexact" if kind == TEXT else column: value})
