"""The admin's forms, answered by a program: what is stored, and over it what was given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import Model
from django.utils import timezone
from django.utils.datastructures import MultiValueDict
from rest_framework import exceptions
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from accounts.forms import EVERY, SOME, AllowListField

NONE: Mapping[str, str] = {}


def answered(
    request: Request, model: type[Model], given: Mapping[str, Any], row: Model | None, names: Mapping[str, str] = NONE
) -> Any:
    """The admin's form of this model, as it is for who calls, answered and valid. `given`: by the form's own fields.
    `names`: those that the API calls otherwise, for errors. Raises ValidationError, and PermissionDenied for what the
    caller finds on no form."""
    django_request: Any = request._request
    form_class: Any = admin.site.get_model_admin(model).get_form(django_request, row, change=row is not None)
    blank = form_class(instance=row)
    for name in given:
        if name not in blank.fields:
            raise PermissionDenied(f"You may not set {names.get(name, name)}.")
    data: MultiValueDict[str, Any] = MultiValueDict()
    for name, field in blank.fields.items():
        value = given[name] if name in given else blank.get_initial_for_field(field, name)
        _fill(data, name, field, value)
    form = form_class(data=data, instance=row)
    if not form.is_valid():
        raise wrong(form, names)
    return form


def wrong(form: forms.BaseForm, names: Mapping[str, str]) -> exceptions.ValidationError:
    """What the form finds wrong, by the names of the API."""
    said = {}
    for name, errors in form.errors.items():
        shown = "non_field_errors" if name == NON_FIELD_ERRORS else names.get(name, name)
        said[shown] = [str(error) for error in errors]
    return exceptions.ValidationError(said)


def _fill(data: MultiValueDict[str, Any], name: str, field: forms.Field, value: Any) -> None:
    if isinstance(field, AllowListField):
        data[f"{name}_0"] = EVERY if value is None else SOME
        data.setlist(f"{name}_1", list(value or ()))
        return
    if isinstance(field, forms.SplitDateTimeField):
        if value is not None:
            local = timezone.localtime(value)
            data[f"{name}_0"], data[f"{name}_1"] = local.date().isoformat(), f"{local:%H:%M:%S.%f}"
        return
    if isinstance(value, datetime):
        value = value.isoformat()
    elif isinstance(value, Model):
        value = value.pk
    else:
        value = field.prepare_value(value)
    if isinstance(field, forms.BooleanField) and not isinstance(field, forms.NullBooleanField):
        if value:
            data[name] = "on"
    elif isinstance(value, list | tuple):
        data.setlist(name, [getattr(one, "pk", one) for one in value])
    elif value is not None:
        data[name] = str(value)


def django_errors(error: ValidationError, names: Mapping[str, str]) -> exceptions.ValidationError:
    """Of a service, by the names of the API."""
    if not hasattr(error, "error_dict"):
        return exceptions.ValidationError({"non_field_errors": error.messages})
    said = {names.get(name, name): messages for name, messages in error.message_dict.items()}
    return exceptions.ValidationError(said)
