"""Changes of many-to-many fields, such as the groups of a user: an event of the row that has the field."""

from __future__ import annotations

from typing import Any

from django.db import models

from accounts.audit import trail


def changed(
    instance: models.Model,
    action: str,
    reverse: bool,
    model: type[models.Model],
    pk_set: set[Any] | None,
    through: type[models.Model],
) -> None:
    """What django.db.models.signals.m2m_changed says."""
    verb = action.removeprefix("post_")
    if action == "pre_clear":
        instance._audit_cleared = _pks(instance, through)  # type: ignore[attr-defined]
        return
    if action not in ("post_add", "post_remove", "post_clear"):
        return
    pks = instance.__dict__.pop("_audit_cleared", []) if verb == "clear" else sorted(pk_set or ())
    if not pks:
        return
    rows = model._base_manager.filter(pk__in=pks)
    if reverse:
        for row in rows:
            _record(row, through, [instance], verb)
    else:
        _record(instance, through, list(rows), verb)


def _pks(instance: models.Model, through: type[models.Model]) -> list[Any]:
    near, far = _columns(type(instance), through)
    return list(through._base_manager.filter(**{near: instance.pk}).values_list(far, flat=True))


def _columns(owner: type[models.Model], through: type[models.Model]) -> tuple[str, str]:
    keys = [field for field in through._meta.concrete_fields if isinstance(field, models.ForeignKey)]
    near = next(field for field in keys if field.related_model is owner)
    far = next(field for field in keys if field is not near)
    return near.attname, far.attname


def _record(owner: models.Model, through: type[models.Model], others: list[models.Model], verb: str) -> None:
    field = next(field for field in owner._meta.many_to_many if field.remote_field.through is through)
    names = sorted(trail.shown(other) for other in others)
    trail.record(
        f"{owner._meta.model_name}.changed",
        owner,
        before={} if verb == "add" else {field.name: names},
        after={field.name: names} if verb == "add" else {},
    )
