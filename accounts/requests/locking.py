"""One row for one transaction. The end of the audit trail first, as every change of a watched row takes it before it
writes: so nobody waits for each other in a circle."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import models

from accounts.audit import trail

Row = TypeVar("Row", bound=models.Model)


def lock(model: type[Row], pk: Any) -> Row:
    """As it is in the database now. Raises the model's DoesNotExist."""
    trail.lock()
    row: Row = model._default_manager.select_for_update().get(pk=pk)
    return row
