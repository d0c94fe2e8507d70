"""Fields that several resources have."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.models import ApiKey, Team, User
from usage.pricing import to_usd


class Names(serializers.ListField):
    """An allow-list, as the models store it: null is everything, [] is nothing."""

    child = serializers.CharField(max_length=200)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_null": True, "required": False, "max_length": 1000, **kwargs})


class Flag(serializers.BooleanField):
    """true and false, and no words for them."""

    TRUE_VALUES = {True}
    FALSE_VALUES = {False}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Whole(serializers.IntegerField):
    """A number, not its text."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return int(super().to_internal_value(data))


class Text(serializers.CharField):
    """A text, not a number that can be written as one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class Number(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return float(super().to_internal_value(data))


class RowId(serializers.PrimaryKeyRelatedField):
    """The id of a row of another resource."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("incorrect_type", data_type=type(data).__name__)
        return super().to_internal_value(data)


def user_id(**kwargs: Any) -> RowId:
    return RowId(queryset=User.objects.all(), **kwargs)


def team_id(**kwargs: Any) -> RowId:
    return RowId(queryset=Team.objects.all(), **kwargs)


def key_id(**kwargs: Any) -> RowId:
    return RowId(queryset=ApiKey.objects.all(), **kwargs)


class RowSerializer(serializers.ModelSerializer):
    """Types only, as strictly as the schema says: rules are judged by the admin's forms and the services."""

    def build_standard_field(self, field_name: str, model_field: Any) -> Any:
        field_class, options = super().build_standard_field(field_name, model_field)
        strict = {
            serializers.BooleanField: Flag, serializers.IntegerField: Whole, serializers.CharField: Text,
            serializers.FloatField: Number,
        }  # fmt: skip
        if field_class in strict:
            field_class = strict[field_class]
        # Uniqueness is the forms' to say, in words that fit.
        kept = [one for one in options.get("validators", ()) if not hasattr(one, "queryset")]
        if "validators" in options:
            options["validators"] = kept
        return field_class, options

    def get_validators(self) -> list[Any]:
        return []


def amount(nano_or_tokens: int | None, unit: str) -> str | None:
    """Text, exact: a JSON number would become a float wherever it is read."""
    if nano_or_tokens is None:
        return None
    return usd(nano_or_tokens) if unit == "usd" else str(nano_or_tokens)


def usd(nano: int) -> str:
    return f"{to_usd(nano).normalize():f}"


@extend_schema_field({"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?$"})
class Amount(serializers.Field):
    """A decimal number as text."""

    default_error_messages = {"invalid": 'Write a decimal number as text, such as "12.50".'}

    def to_internal_value(self, data: Any) -> Decimal:
        if not isinstance(data, str) or not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,9})?", data, re.ASCII):
            self.fail("invalid")
        return Decimal(data)

    def to_representation(self, value: Any) -> str:
        return str(value)


@extend_schema_field(OpenApiTypes.OBJECT)
class AnyObject(serializers.DictField):
    """An object of anything; what its keys mean is judged elsewhere."""
