"""Traces of a person in what is not theirs: texts that name them, and the audit trail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Cast

from accounts.audit import chain, personal
from accounts.audit.models import AuditDetail, AuditEvent
from accounts.audit.personal import Person
from accounts.encryption import EncryptedField, Undecryptable, decrypt
from accounts.models import ApiKey, Team, User

ERASED = "erased"
SHORTEST = 3  # characters: what is shorter is in half of all words
# A field of these names in before or after tells whose a row was.
OWNER_NAMES = frozenset({"user", "requester", "recipient", "personal_of"})


@dataclass(frozen=True, slots=True)
class Markers:
    """Texts that name the person wherever they stand: also those that they had before."""

    texts: tuple[str, ...]
    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, person: Person) -> Markers:
        user = person.user
        found = {user.username, user.email, user.get_full_name() if user.first_name and user.last_name else ""}
        found |= {str(key) for key in person.keys}
        if person.team is not None:
            found.add(person.team.name)
        for event in AuditEvent.objects.filter(target_type="accounts.user", target_id=str(user.pk)):
            for fields in (event.before, event.after):
                found |= {str(fields.get(name) or "") for name in ("username", "email")}
        texts = sorted((text for text in found if len(text) >= SHORTEST and not text.startswith(f"{ERASED}-")), key=len)
        texts.reverse()
        return cls(tuple(texts), _pattern(texts))

    def are_in(self, value: object) -> bool:
        """In a text, or any text of a JSON value."""
        if self.pattern is None:
            return False
        return any(self.pattern.search(text) for text in _texts(value))

    def scrub(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.pattern.sub(ERASED, value) if self.pattern else value
        if isinstance(value, list):
            return [self.scrub(item) for item in value]
        if isinstance(value, dict):
            return {self.scrub(name): self.scrub(item) for name, item in value.items()}
        return value


def _pattern(texts: list[str]) -> re.Pattern[str] | None:
    """Not within a longer word, name or address."""
    any_of = "|".join(map(re.escape, texts))
    return re.compile(rf"(?<![\w@])(?<!\w[.-])(?:{any_of})(?![\w@]|[.-]\w)", re.IGNORECASE) if texts else None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


# --- texts ----------------------------------------------------------------------------------------------------------
def scrub_texts(markers: Markers) -> dict[str, int]:
    """In every table that tells what happened: how many rows named the person, by table."""
    counts = {}
    for model in personal.others():
        if markers.texts and model not in personal.rules().unsearched:
            counts[model._meta.label_lower] = _scrub_model(model, markers)
    return counts


def delete_sealed(person: Person, markers: Markers) -> dict[str, int]:
    """How many rows with encrypted texts named the person, or were of their calls, by table."""
    counts = {}
    for model in personal.rules().sealed:
        gone = [row.pk for row in model._base_manager.all() if _names(row, person, markers)]
        counts[model._meta.label_lower] = model._base_manager.filter(pk__in=gone).delete()[0]
    return counts


def _names(row: models.Model, person: Person, markers: Markers) -> bool:
    for field in row._meta.concrete_fields:
        value = getattr(row, field.attname)
        if isinstance(field, EncryptedField):
            try:
                value = decrypt(value)
            except Undecryptable:
                return True  # nobody can read it any more; better gone than kept
        if markers.are_in(value) or (isinstance(value, dict) and value.get("user_id") == person.user.pk):
            return True
    return False


def _scrub_model(model: type[models.Model], markers: Markers) -> int:
    columns = [
        field
        for field in model._meta.concrete_fields
        if isinstance(field, models.CharField | models.TextField | models.JSONField)
        and not (field.primary_key or field.unique or field.choices or isinstance(field, EncryptedField))
        and (model, field.name) not in personal.rules().unsearched_columns
    ]
    count = 0
    for column in columns:
        # A JSON column is compared as the text that it is stored as: there a quote or an umlaut is escaped.
        wanted = Q()
        for text in markers.texts:
            spelled = {text, json.dumps(text)[1:-1]} if isinstance(column, models.JSONField) else {text}
            for spelling in spelled:
                wanted |= Q(_told__icontains=spelling)
        told = Cast(column.name, models.TextField())
        rows = model._base_manager.annotate(_told=told).filter(wanted)
        for pk, value in list(rows.values_list("pk", column.name)):
            scrubbed = markers.scrub(value)
            if scrubbed != value:
                count += model._base_manager.filter(pk=pk).update(**{column.name: scrubbed})
    return count


# --- the audit trail ------------------------------------------------------------------------------------------------
def is_about(event: AuditEvent, person: Person) -> bool:
    """Whether what was done was done to the person, or to what is theirs."""
    keys = {str(key.pk) for key in person.keys}
    targets = {
        User._meta.label_lower: {str(person.user.pk)},
        ApiKey._meta.label_lower: keys,
        Team._meta.label_lower: {str(person.team.pk)} if person.team else set(),
    }
    if event.target_id in targets.get(event.target_type, ()):
        return True
    for fields in (event.before, event.after):
        if any(fields.get(name) == person.user.pk for name in OWNER_NAMES):
            return True
        if event.target_type != ApiKey._meta.label_lower and str(fields.get("key", "")) in keys:
            return True
    return False


def erase_from_trail(person: Person, markers: Markers) -> int:
    """How many events lost a part. The trail is read as a whole: a name may be in any of its texts."""
    count = 0
    for event in AuditEvent.objects.select_related("detail").order_by("number").iterator(chunk_size=2000):
        there = chain.parts(event.detail)
        names = {name for name, value in there.items() if value and markers.are_in([name.partition(".")[2], value])}
        if event.user_id == person.user.pk:
            names |= {"who", "ip"}
        if is_about(event, person):
            names |= {name for name in there if name not in ("who", "user", "ip")}
        if names := {name for name in names if there[name]}:
            _erase_parts(event, names)
            count += 1
    return count


def _erase_parts(event: AuditEvent, names: set[str]) -> None:
    """Raises KeyError when the key that the event was signed under is not known: then nothing can prove the erasure."""
    key = chain.find_key(event.key)
    if key is None:
        raise KeyError(f"event {event.number} is signed under the key {event.key}, which is not known")
    detail = event.detail
    salts, erased = json.loads(detail.salts), json.loads(detail.erased)
    columns = {"before": event.before, "after": event.after, "details": event.details}
    for name in names:
        column, _, part = name.partition(".")
        if part:
            columns[column].pop(part, None)
        salts.pop(name, None)
        erased[name] = chain.erasure_proof(key, event, name)
    AuditDetail.objects.filter(pk=detail.pk).update(
        user_name="" if "who" in names else detail.user_name,
        ip="" if "ip" in names else detail.ip,
        target_name="" if "target" in names else detail.target_name,
        salts=json.dumps(salts),
        erased=json.dumps(erased),
        **{column: json.dumps(value) for column, value in columns.items()},
    )
