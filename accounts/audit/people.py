"""What is kept on a person, as JSON; and its erasure.

The person's row stays, without anything that tells who it was, and so do their keys: what was spent stays explained.
Everything else that is about them is deleted or emptied. Of the audit trail those parts are erased that name them; the
chain holds (accounts.audit.chain). Backups, logs and the mail that was sent are outside of the database.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.hashers import make_password
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction

from accounts import versions
from accounts.audit import personal, trail, watching
from accounts.audit.models import AuditEvent
from accounts.audit.personal import Person
from accounts.audit.traces import Markers, delete_sealed, erase_from_trail, is_about, scrub_texts
from accounts.encryption import EncryptedField, EncryptedRecordField, Undecryptable, decrypt
from accounts.models import ApiKey, Membership, Team, User

SECRETS = frozenset({"password", "digest", "pepper", "previous_digest", "previous_pepper", "imported_digest", "token"})
SECRETS |= {"token_secret", "session_key", "data", "salts", "erased", "commitments"}
ERASED = "erased"


# --- export ---------------------------------------------------------------------------------------------------------
def export_person(user: User) -> dict[str, list[dict[str, Any]]]:
    """By table, the rows that are about the person; secrets masked, logged texts decrypted. It is in the audit trail
    that this was done. Logs and backups are not in it."""
    person = Person.of(user)
    trail.record("person.exported", user)
    found: dict[str, list[dict[str, Any]]] = {"accounts.user": [_row(user)]}
    found["accounts.apikey"] = [_row(key) for key in person.keys]
    found["accounts.team"] = [_row(person.team)] if person.team else []
    for model in personal.others():
        rows = personal.rows_of(model, person)
        if rows is not None and (told := [_row(row) for row in rows.iterator(chunk_size=2000)]):
            found[model._meta.label_lower] = told
    found["groups"] = [{"name": name} for name in user.groups.values_list("name", flat=True)]
    found["sessions"] = [{"expires": session.expire_date.isoformat()} for session in _sessions(user)]
    found["audit"] = [_event(event) for event in _events(person)]
    return found


def _row(row: models.Model) -> dict[str, Any]:
    told = {field.name: _value(row, field) for field in row._meta.concrete_fields}
    return dict(json.loads(json.dumps(told, cls=DjangoJSONEncoder, default=None)))


def _value(row: models.Model, field: models.Field[Any, Any]) -> Any:
    value = getattr(row, field.attname)
    if isinstance(field, EncryptedRecordField):
        try:
            return decrypt(value)
        except Undecryptable:
            return trail.HIDDEN
    if isinstance(field, EncryptedField) or field.name in SECRETS:
        return trail.HIDDEN if value else ""
    return value


def _events(person: Person) -> Iterator[AuditEvent]:
    for event in AuditEvent.objects.select_related("detail").order_by("number").iterator(chunk_size=2000):
        if event.user_id == person.user.pk or is_about(event, person):
            yield event


def _event(event: AuditEvent) -> dict[str, Any]:
    return {
        "at": event.at.isoformat(),
        "action": event.action,
        "channel": event.channel,
        "user": event.user_name,
        "ip": event.ip,
        "target": event.target_name,
        "before": event.before,
        "after": event.after,
        "details": event.details,
    }


# --- erasure --------------------------------------------------------------------------------------------------------
@transaction.atomic
def erase_person(user: User) -> dict[str, int]:
    """How many rows were deleted or emptied, by table. May be done again: for what came in since."""
    trail.lock()
    user = User.objects.select_for_update().get(pk=user.pk)
    person = Person.of(user)
    markers = Markers.of(person)
    counts: dict[str, int] = {}
    with watching.silenced():
        _delete_sessions(user, counts)
        for model in personal.others():
            rows = personal.rows_of(model, person)
            if rows is not None:
                _erase_rows(model, rows, counts)
        LogEntry.objects.filter(_log_of(person)).update(object_repr=ERASED, change_message="")
        _erase_owned(person)
        _erase_user(user)
        for name, count in [*delete_sealed(person, markers).items(), *scrub_texts(markers).items()]:
            counts[name] = counts.get(name, 0) + count
    counts["audit.auditdetail"] = erase_from_trail(person, markers)
    counts = {name: count for name, count in counts.items() if count}
    trail.record("person.erased", ("accounts.user", user.pk, _pseudonym(user)), details=counts)
    versions.bump(versions.IDENTITY)
    return counts


def _pseudonym(user: User) -> str:
    return f"{ERASED}-{user.pk}"


def _sessions(user: User) -> list[Session]:
    wanted = str(user.pk)
    rows = Session.objects.iterator(chunk_size=2000)
    return [session for session in rows if session.get_decoded().get("_auth_user_id") == wanted]


def _delete_sessions(user: User, counts: dict[str, int]) -> None:
    for session in _sessions(user):
        session.delete()
        counts["sessions.session"] = counts.get("sessions.session", 0) + 1


def _erase_rows(model: type[models.Model], rows: models.QuerySet[Any], counts: dict[str, int]) -> None:
    """Emptied where a rule says how, left where they tell what the person did, else deleted."""
    label, rules = model._meta.label_lower, personal.rules()
    if model in rules.blanked:
        counts[label] = rows.update(**rules.blanked[model])
    elif model in rules.deleted or (model is not LogEntry and model not in rules.kept and _goes_along(model)):
        counts[label] = rows.delete()[1].get(model._meta.label, 0)


def _goes_along(model: type[models.Model]) -> bool:
    """Whether such rows would be deleted with the person."""
    return any(
        field.remote_field is not None and getattr(field.remote_field, "on_delete", None) is models.CASCADE
        for field in personal.owner_fields(model)
    )


def _log_of(person: Person) -> models.Q:
    """What the admin's own log says of the person and what is theirs."""
    wanted = models.Q(pk__in=[])
    for model, pks in (
        (User, [person.user.pk]),
        (ApiKey, [key.pk for key in person.keys]),
        (Team, [person.team.pk] if person.team else []),
    ):
        kind = ContentType.objects.get_for_model(model)
        wanted |= models.Q(content_type=kind, object_id__in=[str(pk) for pk in pks])
    return wanted


def _erase_owned(person: Person) -> None:
    """Keys and the personal team stay, as numbers that usage was booked on. No key works any more."""
    for key in person.keys:
        empty = {"digest": "", "pepper": "", "previous_digest": "", "previous_pepper": "", "previous_until": None}
        ApiKey.objects.filter(pk=key.pk).update(
            name=f"{ERASED}-{key.pk}", disabled=True, imported_digest=None, networks_allowed=None, **empty
        )
    if person.team is not None:
        Team.objects.filter(pk=person.team.pk).update(
            name=f"{ERASED}-{person.user.pk}-{person.team.pk}", cost_center="", networks_allowed=None, disabled=True
        )
    Membership.objects.filter(user=person.user).delete()


def _erase_user(user: User) -> None:
    user.groups.clear()
    user.user_permissions.clear()
    User.objects.filter(pk=user.pk).update(
        username=_pseudonym(user),
        first_name="",
        last_name="",
        email="",
        password=make_password(None),
        is_active=False,
        is_staff=False,
        is_superuser=False,
        last_login=None,
        models_allowed=[],
    )
