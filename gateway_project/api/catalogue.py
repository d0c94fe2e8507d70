"""Providers, models with their routes, and prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from django.core.exceptions import ValidationError
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from gateway_project.api.answers import answered
from gateway_project.api.base import Created, Deleted, Everything, Listed, Retrieved
from gateway_project.api.fields import Amount, RowId, RowSerializer, Text, Whole, team_id, usd
from gateway_project.api.pages import Filter
from proxy import selectors, services
from proxy.forms import header_names
from proxy.models import Model, Provider, Route
from usage.models import ModelPrice
from usage.price_list import TIER_RATES
from usage.prices import TIER, usd_of

SECRETS = {"new_credential": "credential", "new_extra_headers": "extra_headers"}


# --- providers ------------------------------------------------------------------------------------------------------
@extend_schema_serializer(
    examples=[
        OpenApiExample("OpenAI", value={"name": "openai", "kind": "openai", "credential": "sk-..."}, request_only=True)
    ]
)
class ProviderSerializer(RowSerializer):
    credential = Text(
        write_only=True,
        required=False,
        allow_blank=True,
        max_length=10_000,
        help_text="The provider's API key. Kept encrypted and never shown. Empty: it is removed.",
    )
    extra_headers = serializers.DictField(
        child=Text(allow_blank=True, max_length=4000),
        write_only=True,
        required=False,
        help_text="Headers sent with every call. Kept encrypted and never shown. Empty: they are removed.",
    )
    has_credential = serializers.SerializerMethodField(help_text="Whether an API key is stored.")
    extra_header_names = serializers.SerializerMethodField(help_text="The names of the stored headers.")

    class Meta:
        model = Provider
        fields = (
            *("id", "name", "kind", "base_url", "enabled", "caller_key", "api_version", "connect_timeout_s"),
            *("first_byte_timeout_s", "idle_timeout_s", "tls_verify", "tls_ca", "private_network", "origin"),
            *("credential", "extra_headers", "has_credential", "extra_header_names"),
        )
        read_only_fields = ("id", "origin")

    def get_has_credential(self, provider: Provider) -> bool:
        return bool(provider.credential)

    def get_extra_header_names(self, provider: Provider) -> list[str]:
        return sorted(header_names(provider))


class Providers(Everything):
    """Who answers calls. Those that the environment sets up are changed there."""

    resource, model, serializer_class = "providers", Provider, ProviderSerializer
    queryset = Provider.objects.all()
    filters = {
        "name": Filter("name", "Only the provider of this name."),
        "kind": Filter("kind", "Only providers of this kind."),
        "enabled": Filter("enabled", "Only providers that are switched on, or only others.", "flag"),
    }

    def save(self, given: dict[str, Any], row: Any) -> Any:
        for name, column in SECRETS.items():
            if column in given:
                secret = given.pop(column)
                if secret:
                    given[name] = _lines(secret) if isinstance(secret, dict) else secret
                elif row is not None and getattr(row, column):
                    given[f"remove_{column}"] = True
        names = {**SECRETS, **{f"remove_{column}": column for column in SECRETS.values()}}
        form = answered(self.request, Provider, given, row, names)
        services.save_provider(form.instance, **form.new_secrets())
        return form.instance


def _lines(headers: dict[str, str]) -> str:
    """As the form takes them. A line break in one would make two of it."""
    if any(letter in text for pair in headers.items() for text in pair for letter in "\r\n"):
        raise serializers.ValidationError({"extra_headers": "A header has no line breaks."})
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


# --- models ---------------------------------------------------------------------------------------------------------
class RouteSerializer(RowSerializer):
    provider = RowId(queryset=Provider.objects.all(), help_text="Id of the provider that answers.")

    class Meta:
        model = Route
        fields = ("provider", "upstream_model", "order", "weight", "enabled")


class PriceNowSerializer(serializers.Serializer):
    input_usd_per_mtok = serializers.CharField()
    output_usd_per_mtok = serializers.CharField()
    set_here = serializers.BooleanField(help_text="False: it is of the list that ships with the gateway.")


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A model with two routes",
            value={
                "name": "gpt-4o-mini",
                "routes": [{"provider": 1}, {"provider": 2, "upstream_model": "gpt-4o-mini-eu", "order": 1}],
            },
            request_only=True,
        )
    ]
)
class ModelSerializer(RowSerializer):
    aliases = serializers.ListField(
        child=Text(max_length=200), required=False, max_length=100, help_text="Other names for the same model."
    )
    routes = RouteSerializer(many=True, required=False, help_text="All of them; given, they replace what is there.")
    price = serializers.SerializerMethodField(help_text="What it costs everyone now; null: nobody knows.")

    class Meta:
        model = Model
        fields = (
            *("id", "name", "aliases", "description", "context_window", "max_output_tokens", "time_budget_s"),
            *("enabled", "routes", "price", "created_at"),
        )
        read_only_fields = ("id", "created_at")

    @extend_schema_field(PriceNowSerializer(allow_null=True))
    def get_price(self, model: Model) -> Any:
        prices = self.context.get("prices")
        found = (selectors.prices_now([model]) if prices is None else prices)[model.pk]
        if found.price is None:
            return None
        return {
            "input_usd_per_mtok": usd(found.price.input),
            "output_usd_per_mtok": usd(found.price.output),
            "set_here": found.own,
        }


class Models(Everything):
    """What callers ask for by name, and who answers for it. A new name is carried to all that knows the old one."""

    resource, model, serializer_class = "models", Model, ModelSerializer
    queryset = Model.objects.all()
    volatile = ("price",)
    filters = {
        "name": Filter("name", "Only the model of this name."),
        "enabled": Filter("enabled", "Only models that are switched on, or only others.", "flag"),
        "provider": Filter("routes__provider", "Only models with a route to the provider with this id.", "id", True),
    }

    def get_queryset(self) -> Any:
        return Model.objects.prefetch_related("routes__provider")

    def many(self, rows: Sequence[Any]) -> Any:
        context = {**self.get_serializer_context(), "prices": selectors.prices_now(rows)}
        return self.get_serializer_class()(rows, many=True, context=context).data

    def save(self, given: dict[str, Any], row: Any) -> Any:
        routes = given.pop("routes", None)
        form = answered(self.request, Model, given, row)
        form.instance.save()
        if row is not None and "name" in form.changed_data:
            services.rename_model(form.initial["name"], form.instance.name)
        if routes is not None:
            self._set_routes(form.instance, routes)
        return form.instance

    def _set_routes(self, model: Model, wanted: list[dict[str, Any]]) -> None:
        """Rows that lead to the same target keep their id."""
        there = {(route.provider_id, route.upstream_model): route for route in model.routes.all()}
        kept = set()
        for position, given in enumerate(wanted):
            target = (given["provider"].pk, given.get("upstream_model", ""))
            if target in kept:
                raise serializers.ValidationError(
                    {"routes": {str(position): {"provider": "This route is there twice."}}}
                )
            kept.add(target)
            route = there.get(target)
            self.need("add" if route is None else "change", model=Route)
            route = route or Route(model=model)
            for field in RouteSerializer.Meta.fields:
                default = cast(Any, Route._meta.get_field(field)).get_default() if field != "provider" else None
                setattr(route, field, given.get(field, default))
            try:
                route.full_clean()
            except ValidationError as error:
                raise serializers.ValidationError({"routes": {str(position): error.message_dict}}) from None
            route.save()
        for target, route in there.items():
            if target not in kept:
                self.need("delete", model=Route)
                route.delete()


# --- prices ---------------------------------------------------------------------------------------------------------
class TierSerializer(serializers.Serializer):
    from_prompt_tokens = Whole(min_value=1, max_value=999_999_999)

    def get_fields(self) -> Any:
        fields = super().get_fields()
        for name in TIER_RATES:
            fields[f"{name}_usd_per_mtok"] = Amount(required=name in TIER_RATES[:2], allow_null=True)
        return fields


RATES = tuple(f"{name}_usd_per_mtok" for name in TIER_RATES)


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A price for everyone",
            value={"model": "gpt-4o-mini", "input_usd_per_mtok": "0.15", "output_usd_per_mtok": "0.60"},
            request_only=True,
        )
    ]
)
class PriceSerializer(serializers.Serializer):
    id = serializers.IntegerField(read_only=True)
    model = Text(max_length=200, help_text="The model's public name.")
    team = team_id(required=False, allow_null=True, help_text="For this team only. Null: for everyone.")
    valid_from = serializers.DateTimeField(required=False, help_text="Since when it counts. Left out: now.")
    request_usd = Amount(required=False, help_text="US dollars a call, on top of its tokens.")
    image_usd = Amount(required=False, allow_null=True, help_text="US dollars a picture made.")
    tools_usd = serializers.DictField(
        child=Amount(), required=False, help_text="US dollars a call of a provider's own tool, by its name."
    )
    batch_percent = Whole(required=False, min_value=0, max_value=100, help_text="What a call in a batch costs of it.")
    tiers = TierSerializer(many=True, required=False, help_text="Dearer prices of long prompts.")

    def get_fields(self) -> Any:
        fields = super().get_fields()
        for name in RATES:
            fields[name] = Amount(required=name in RATES[:2], allow_null=name not in RATES[:2])
        return fields

    def to_representation(self, row: ModelPrice) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": row.pk, "model": row.model, "team": row.team_id}
        shown["valid_from"] = serializers.DateTimeField().to_representation(row.valid_from)
        for name, value in usd_of(row).items():
            shown[name] = _as_text(value)
        return shown


def _as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: inner if name == TIER else _as_text(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_text(inner) for inner in value]
    return value if value is None or isinstance(value, int) else f"{value.normalize():f}"


class Prices(Listed, Retrieved, Created, Deleted):
    """What models cost: history, so a price is not changed; another one follows it."""

    resource, model, serializer_class = "prices", ModelPrice, PriceSerializer
    queryset = ModelPrice.objects.all()
    newest_first = True
    filters = {
        "model": Filter("model", "Only prices of the model of this name."),
        "team": Filter("team", "Only prices for the team with this id.", "id"),
        "since": Filter("valid_from__gte", "Only prices that count from then on or later.", "moment"),
    }

    def save(self, given: dict[str, Any], row: Any) -> Any:
        if "tiers" in given:
            given["tiers_usd"] = [dict(tier) for tier in given.pop("tiers")]
        form = answered(self.request, ModelPrice, given, None, {"tiers_usd": "tiers"})
        form.instance.save()
        return form.instance
