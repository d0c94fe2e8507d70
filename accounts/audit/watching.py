"""Every save and delete of a watched model writes one event, with the changed fields before and after.

What goes past `save()` and `delete()` (`.update()`, bulk writes, SQL) is not seen: whoever does that to a watched model
records it themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.db import models, transaction
from django.db.models.signals import m2m_changed, post_delete, pre_delete

from accounts.encryption import EncryptedField

HIDDEN = "***"
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Watched:
    """`hidden`: fields of which only is told that they changed. `ignored`: no event when nothing else changed."""

    hidden: frozenset[str]
    ignored: frozenset[str]


_watched: dict[type[models.Model], Watched] = {}
_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silenced() -> Iterator[None]:
    """For what is told by one event of its own, such as the erasure of a person, which must not be told in full."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def watch(model: type[models.Model], hidden: Iterable[str] = (), ignored: Iterable[str] = ()) -> None:
    """In the `ready` of an app. Encrypted fields are hidden without being named. Many-to-many fields whose table is
    nobody's model are seen too."""
    known = model in _watched
    encrypted = {field.name for field in model._meta.concrete_fields if isinstance(field, EncryptedField)}
    _watched[model] = Watched(frozenset(hidden) | encrypted, frozenset(ignored))
    if known:
        return
    _wrap_save(model)
    pre_delete.connect(_will_delete, sender=model, dispatch_uid=f"audit {model._meta.label}")
    post_delete.connect(_deleted, sender=model, dispatch_uid=f"audit {model._meta.label}")
    for field in model._meta.local_many_to_many:
        through = field.remote_field.through
        if through is not None and through._meta.auto_created:
            m2m_changed.connect(_related, sender=through, dispatch_uid=f"audit {through._meta.label}")


def watched() -> Mapping[type[models.Model], Watched]:
    return _watched


def _wrap_save(model: type[models.Model]) -> None:
    """Not a signal: the change, what it was before and the event have to be in one transaction, also where nobody
    opened one."""
    save_base = model.save_base

    def recorded_save(self: models.Model, *args: Any, **options: Any) -> None:
        what = _watched[model]
        updated = options.get("update_fields")
        if type(self) is not model or _silent.get() or (updated is not None and set(updated) <= what.ignored):
            save_base(self, *args, **options)
            return
        from accounts.audit import trail

        with transaction.atomic(using=options.get("using")):
            trail.lock()
            before = _stored(model, self.pk)
            save_base(self, *args, **options)
            _record_save(self, what, before, _stored(model, self.pk) or {})

    model.save_base = recorded_save  # type: ignore[method-assign]


def _record_save(row: models.Model, what: Watched, before: Fields | None, after: Fields) -> None:
    from accounts.audit import trail

    verb = "created" if before is None else "changed"
    names = [name for name, value in after.items() if before is None or before.get(name) != value]
    if before is not None and set(names) <= what.ignored:
        return
    trail.record(
        action(type(row), verb),
        row,
        before={} if before is None else masked({name: before[name] for name in names}, what),
        after=masked({name: after[name] for name in names}, what),
    )


def _will_delete(instance: models.Model, **_kwargs: Any) -> None:
    """What it belongs to may be deleted before it is, so its name is read now."""
    if _silent.get():
        return
    from accounts.audit import trail

    trail.lock()
    instance._audit_deleted = (_stored(type(instance), instance.pk), trail.shown(instance))  # type: ignore[attr-defined]


def _deleted(instance: models.Model, **_kwargs: Any) -> None:
    if _silent.get():
        return
    from accounts.audit import trail

    model = type(instance)
    before, name = instance.__dict__.pop("_audit_deleted", (None, ""))
    trail.record(
        action(model, "deleted"),
        (model._meta.label_lower, instance.pk, name),
        before=masked(before or {}, _watched[model]),
    )


def _related(
    instance: models.Model, action: str, reverse: bool, model: type[models.Model], pk_set: set[Any] | None, **kw: Any
) -> None:
    """Groups and permissions of a user, say. From the other side (`group.user_set`) each user is changed."""
    if _silent.get():
        return
    from accounts.audit import related

    related.changed(instance, action, reverse, model, pk_set, kw["sender"])


def action(model: type[models.Model], verb: str) -> str:
    return f"{model._meta.model_name}.{verb}"


def _stored(model: type[models.Model], pk: object) -> dict[str, Any] | None:
    """The row as the database has it, by field; None when there is none."""
    if pk is None:
        return None
    names = [field.name for field in model._meta.concrete_fields if not field.primary_key]
    row = model._base_manager.filter(pk=pk).values(*names).first()
    return None if row is None else dict(row)


def masked(fields: Fields, what: Watched) -> dict[str, Any]:
    return {name: (HIDDEN if value and name in what.hidden else value) for name, value in fields.items()}
