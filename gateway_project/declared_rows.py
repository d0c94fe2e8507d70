"""Rows of the database as a configuration file declares them: how any of its objects is found, compared and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from accounts.encryption import Undecryptable
from gateway_project.declarations import Declared, Document, Value

NAMES_SHOWN = 10


@dataclass(slots=True)
class Change:
    """One object made (`fields` empty) or changed. `secret`: of a key that was made here; to be shown once. `notes`:
    what else whoever applies the file should know of it."""

    what: str
    name: str
    made: bool
    fields: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        tail = self.secret or ", ".join(self.fields)
        return f"{'+' if self.made else '~'} {self.what} {self.name}" + (f": {tail}" if tail else "")


class Rows:
    """Collects what was changed, and in `document` what is wrong. Each section of a file has methods of its own."""

    def __init__(self, document: Document, changes: list[Change] | None = None) -> None:
        self.document = document
        self.changes: list[Change] = [] if changes is None else changes

    def _find(self, kind: type[models.Model], name_field: str, declared: Declared) -> tuple[Any, bool]:
        """The row of this name, or a new one with it; and whether it is new."""
        name = declared.get(name_field)
        row = kind._default_manager.filter(**{name_field: name}).first()
        if row is None:
            self._clean(kind, name_field, declared.fields[name_field])
        return row or kind(**{name_field: name}), row is None

    def _one(self, kind: type[models.Model], name_field: str, value: Value | None, section: str) -> Any:
        """The row that a field refers to, or None and a mistake (none where its own section could not be read)."""
        if value is None:
            return None
        row = kind._default_manager.filter(**{name_field: value.value}).first()
        if row is None and section not in self.document.doubtful:
            names = kind._default_manager.values_list(name_field, flat=True)
            self.document.wrong(value, unknown_name(str(kind._meta.verbose_name), value.value, names))
        return row

    def _assign(self, row: models.Model, declared: Declared, columns: dict[str, str]) -> list[str]:
        """Sets the columns whose fields are given, well-formed and different; returns those fields."""
        changed: list[str] = []
        for name, column in columns.items():
            if name in declared and self._clean(type(row), column, declared.fields[name]):
                changed += self._put(row, column, declared.fields[name])
        return changed

    def _put(self, row: models.Model, column: str, value: Value) -> list[str]:
        if getattr(row, column) == value.value:
            return []
        setattr(row, column, value.value)
        return [value.path.rpartition(".")[2]]

    def _clean(self, kind: type[models.Model], column: str, value: Value | None) -> bool:
        """True if the column can hold the value; else a mistake in the words of the admin's own checks."""
        if value is None:
            return True
        try:
            kind._meta.get_field(column).clean(value.value, None)  # type: ignore[union-attr]
        except ValidationError as error:
            self.document.wrong(value, " ".join(error.messages))
            return False
        return True

    def _clean_names(self, kind: type[models.Model], column: str, value: Value) -> list[str]:
        return list(dict.fromkeys(item.value for item in value.value if self._clean(kind, column, item)))

    def _save(self, row: models.Model, made: bool, changed: list[str], what: str, declared: Declared) -> bool:
        """Writes a new or changed row; True if it is in the database now.

        Also when something in it is wrong: the transaction ends with it, but what refers to the row can be judged."""
        name = next(iter(declared.fields[field] for field in ("name", "username") if field in declared))
        if made and not self._is_sound(name):
            self.document.doubtful.add(declared.path.partition("[")[0])
            return False
        if made or changed:
            row.save()
            self.changes.append(Change(what, name.value, made, [] if made else changed))
        return True

    def _is_sound(self, value: Value | Declared) -> bool:
        """Nothing wrong with it has been found, nor with what is in it."""
        inside = (f"{value.path}.", f"{value.path}[")
        return not any(one.field == value.path or one.field.startswith(inside) for one in self.document.mistakes)

    def _also(self, made: bool, what: str, name: str, changed: str) -> None:
        """Adds a field to the change of this object, which may be there already."""
        last = self.changes[-1] if self.changes else None
        if last is None or (last.what, last.name) != (what, name):
            self.changes.append(last := Change(what, name, made))
        if not made:
            last.fields.append(changed)


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = get_close_matches(name, names, 1)
    if close:
        return f"there is no {what} {name!r}; did you mean {close[0]}?"
    hint = f"; there are {', '.join(names)}" if 0 < len(names) <= NAMES_SHOWN else ""
    return f"there is no {what} {name!r}{hint}"


def unless_undecryptable(read: Callable[[], Any]) -> Any:
    """What is stored, or None: then it differs from whatever the file says, and is written anew."""
    try:
        return read()
    except Undecryptable:
        return None
