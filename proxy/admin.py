"""The admin's pages for providers, models and routes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display
from unfold.views import ChangeList

from accounts.admin_pages import LiveSoon, change_url
from proxy import selectors, services
from proxy.forms import SET_SECRETS, ModelForm, PricedModelForm, ProviderForm, effective_url, header_names
from proxy.models import Model, Provider, Route
from proxy.providers import presets
from usage.display import price
from usage.prices import set_price
from usage.pricing import Price

PROBES_AT_ONCE = 8
PRICE_COLORS = {"own": "success", "list": "info", "partly": "warning", "unpriced": "warning"}


class EnabledFilter(DropdownFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("on", "Enabled"), ("off", "Disabled")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(enabled=self.value() == "on") if self.value() in ("on", "off") else queryset


class KindFilter(DropdownFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        in_use = set(Provider.objects.values_list("kind", flat=True))
        return [(kind, label) for kind, label in presets.kinds() if kind in in_use]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(kind=self.value()) if self.value() else queryset


class ProviderChangeList(ChangeList):
    """Adds to each row what its columns show of other tables, in one query for all."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        models = selectors.routes_by_provider(self.result_list)
        for row in self.result_list:
            row.model_names = models[row.pk]


@admin.register(Provider)
class ProviderAdmin(LiveSoon, ModelAdmin):
    empty_hint = "A provider answers the calls. The kind Echo needs no account and is good for trying out."
    form = ProviderForm
    list_display = ("name", "kind_label", "address", "models_text", "credential_state", "state", "origin_text")
    list_filter = (KindFilter, EnabledFilter)
    list_filter_submit = True
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("name", "base_url")
    search_help_text = "Name or base URL"
    actions = ("test_selected",)
    actions_detail = ("test_connection",)
    change_form_before_template = "admin/proxy/provider/origin.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ProviderChangeList

    def get_form(self, request: HttpRequest, obj: Provider | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        who = {"user": request.user, "may_set_secrets": request.user.has_perm(SET_SECRETS)}
        return type(form.__name__, (form,), who)

    def get_fieldsets(self, request: HttpRequest, obj: Provider | None = None) -> Any:
        may_set = request.user.has_perm(SET_SECRETS)
        if not may_set or (obj is not None and not self.has_change_permission(request, obj)):
            secrets: tuple[Any, ...] = ("credential_state", "headers_text")
        else:
            secrets = ("new_credential", "new_extra_headers")
            if obj is not None and obj.credential:
                secrets = (secrets[0], "remove_credential", *secrets[1:])
            if obj is not None and obj.extra_headers:
                secrets = (*secrets, "remove_extra_headers")
        timeouts = ("connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s")
        return (
            (None, {"fields": ("name", "kind", "base_url", "enabled")}),
            ("Its keys", {"fields": (*secrets, "caller_key")}),
            ("Timeouts, in seconds", {"fields": timeouts}),
            ("Network and TLS", {"fields": ("private_network", "tls_verify", "tls_ca", "api_version")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Provider | None = None) -> tuple[str, ...]:
        computed = ("credential_state", "headers_text")
        return computed if request.user.is_superuser else ("private_network", *computed)

    def has_change_permission(self, request: HttpRequest, obj: Provider | None = None) -> bool:
        """What the environment sets up is changed there: a change made here would not outlive the next start."""
        allowed = super().has_change_permission(request, obj)
        return allowed and getattr(obj, "origin", None) != Provider.Origin.ENVIRONMENT

    def has_delete_permission(self, request: HttpRequest, obj: Provider | None = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and getattr(obj, "origin", None) != Provider.Origin.ENVIRONMENT

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """A provider that rules ask is protected like one that rows refer to."""
        to_delete, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        asked = [f"{users} asks {one.name}" for one in objs if (users := services.policies_asking(one.name))]
        return to_delete, counts, perms_needed, [*protected, *asked]

    def save_model(self, request: HttpRequest, obj: Provider, form: ProviderForm, change: bool) -> None:
        services.save_provider(obj, **form.new_secrets())
        if form.unresolved:
            self.message_user(request, f"{form.unresolved} Calls will fail until it can be.", messages.WARNING)

    # --- what the pages show ---
    @display(description="kind", ordering="kind")
    def kind_label(self, provider: Provider) -> str:
        return dict(presets.kinds()).get(provider.kind, f"{provider.kind} (unknown)")

    @display(description="base URL", ordering="base_url", empty_value="inside the gateway")
    def address(self, provider: Provider) -> str | None:
        return effective_url(provider.base_url, provider.kind) or None

    @display(description="models", empty_value="none yet")
    def models_text(self, provider: Any) -> str | None:
        names = provider.model_names
        if not names:
            return None
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    @display(description="API key", label={"set": "success", "none": "warning"})
    def credential_state(self, provider: Provider) -> str:
        return "set" if provider.credential else "none"

    @display(description="extra headers", empty_value="none")
    def headers_text(self, provider: Provider) -> str | None:
        return ", ".join(header_names(provider)) or None

    @display(description="state", ordering="enabled", label={"enabled": "success"})
    def state(self, provider: Provider) -> str:
        return "enabled" if provider.enabled else "disabled"

    @display(description="set up", ordering="origin", label={"environment": "info"})
    def origin_text(self, provider: Provider) -> str:
        return "environment" if provider.origin == Provider.Origin.ENVIRONMENT else "here"

    # --- test connection ---
    @action(description="Test connection", icon="network_check", url_path="test", permissions=["test"])
    def test_connection(self, request: HttpRequest, object_id: str) -> HttpResponse:
        provider = self.get_object(request, unquote(object_id))
        if provider is None:
            raise Http404("There is no such provider.")
        self._report(request, [provider])
        return HttpResponseRedirect(change_url(provider))

    @admin.action(description="Test connection", permissions=["test"])
    def test_selected(self, request: HttpRequest, queryset: QuerySet[Provider]) -> None:
        self._report(request, list(queryset))

    def has_test_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may change providers may test them, also those from the environment."""
        return bool(super().has_change_permission(request))

    def _report(self, request: HttpRequest, providers: list[Provider]) -> None:
        from proxy.probe import probe  # here: its client takes a tenth of the start of every process

        with ThreadPoolExecutor(PROBES_AT_ONCE) as threads:
            verdicts = list(threads.map(probe, providers))
        for provider, verdict in zip(providers, verdicts, strict=True):
            figures = [] if verdict.status is None else [f"status {verdict.status}", f"{verdict.latency_ms} ms"]
            text = f"{provider.name}: {verdict.message}" + (f" ({', '.join(figures)})" if figures else "")
            # Not a success of saving something, so without what LiveSoon adds to those.
            messages.add_message(request, messages.SUCCESS if verdict.ok else messages.ERROR, text)


# --- models and routes ----------------------------------------------------------------------------------------------
class RoutesInline(TabularInline):
    model = Route
    fields = ("provider", "upstream_model", "order", "weight", "enabled")
    extra = 0
    hide_title = True
    verbose_name_plural = "routes: tried in order; those of the same order share the calls by weight"

    def get_min_num(self, request: HttpRequest, obj: Model | None = None, **kwargs: Any) -> int:
        """A new model begins with an empty route, because without one nobody can call it."""
        return 1 if obj is None else 0


class ModelChangeList(ChangeList):
    """Adds to each row the price that counts now."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        prices = selectors.prices_now(self.result_list)
        for row in self.result_list:
            row.price_now = prices[row.pk]


@admin.register(Model)
class CatalogueAdmin(LiveSoon, ModelAdmin):
    """Models, as callers ask for them."""

    empty_hint = "A model is the name callers ask for, with at least one route to a provider that answers for it."
    form = ModelForm
    inlines = (RoutesInline,)
    list_display = ("name", "aliases_text", "routes_text", "price", "context_window", "state")
    list_filter = (EnabledFilter,)
    list_filter_submit = True
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("name", "aliases", "routes__upstream_model", "routes__provider__name")
    search_help_text = "Name, alias, provider or its model"
    readonly_fields = ("aliases_text", "price_text")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ModelChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        queryset: QuerySet[Model] = super().get_queryset(request)
        return queryset.prefetch_related("routes__provider")

    def get_form(self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any) -> Any:
        if self._may_price(request, obj):
            kwargs["form"] = PricedModelForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        may_edit = self._may_edit(request, obj)
        aliases = "aliases" if may_edit else "aliases_text"
        prices: tuple[Any, ...] = () if obj is None else ("price_text",)
        if self._may_price(request, obj):
            prices = (*prices, ("input_usd", "output_usd"), ("cached_usd", "cache_write_usd"))
        priced = {
            "fields": prices,
            "description": "Left empty, the list price that ships with the gateway counts, where it has one. "
            "A change counts for calls from now on; earlier calls keep the price of their time.",
        }
        return (
            (None, {"fields": ("name", aliases, "description", "enabled")}),
            ("Price, US dollars per million tokens", priced),
            ("Limits", {"fields": ("context_window", "max_output_tokens", "time_budget_s")}),
        )

    def _may_edit(self, request: HttpRequest, model: Model | None) -> bool:
        return bool(self.has_add_permission(request) if model is None else self.has_change_permission(request, model))

    def _may_price(self, request: HttpRequest, model: Model | None) -> bool:
        return self._may_edit(request, model) and request.user.has_perm("usage.add_modelprice")

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change and "name" in form.changed_data:
            self._rename(request, form.initial["name"], obj.name)
        if isinstance(form, PricedModelForm) and form.has_new_price():
            price = form.cleaned_data
            set_price(
                obj.name,
                input_usd_per_mtok=price["input_usd"],
                output_usd_per_mtok=price["output_usd"],
                cached_usd_per_mtok=price["cached_usd"],
                cache_write_usd_per_mtok=price["cache_write_usd"],
            )

    def _rename(self, request: HttpRequest, name: str, renamed: str) -> None:
        carried = services.rename_model(name, renamed)
        if carried:
            counts = ", ".join(f"{kind}: {count}" for kind, count in carried.items())
            self.message_user(request, f"What named {name} now names {renamed} ({counts}).")
        if "budgets" in carried:
            self.message_user(
                request,
                f"Budgets on {renamed} do not count what was spent under the name {name}.",
                messages.WARNING,
            )
        if allowing := services.policies_allowing(name, renamed):
            links = format_html_join(", ", '<a href="{}">{}</a>', ((change_url(one), one.name) for one in allowing))
            text = "Rules in force allow {} by name, and refuse {} until you change and publish them: {}."
            self.message_user(request, format_html(text, name, renamed, links), messages.WARNING)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        model = form.instance
        if model.enabled and not model.routes.filter(enabled=True, provider__enabled=True).exists():
            self.message_user(
                request,
                f"Nobody can call {model.name} yet: add a route to a provider that is enabled.",
                messages.WARNING,
            )

    # --- what the pages show ---
    @display(description="aliases", empty_value="none")
    def aliases_text(self, model: Model) -> str | None:
        return ", ".join(model.aliases) or None

    @display(description="routes")
    def routes_text(self, model: Model) -> SafeString | str:
        routes = [route for route in model.routes.all() if route.enabled]
        if not routes:
            return "none: nobody can call it"
        lines = ((route.provider.name, route.upstream_model or model.name) for route in routes[:3])
        more = f" and {len(routes) - 3} more" if len(routes) > 3 else ""
        return format_html("{}{}", format_html_join(", then ", "{} ({})", lines), more)

    @display(description="price", label=PRICE_COLORS)
    def price(self, model: Any) -> tuple[str, str]:
        return price_label(model.price_now)

    @display(description="price now")
    def price_text(self, model: Model) -> str:
        found = selectors.prices_now([model])[model.pk]
        if found.price is None:
            return "Unpriced: nobody knows what its calls cost. Their usage is recorded without a cost."
        source = "set here" if found.own else "from the list that ships with the gateway"
        missing = f" Unpriced through {', '.join(found.unpriced)}." if found.unpriced else ""
        return f"{price_words(found.price)}, {source}.{missing}"

    @display(description="state", ordering="enabled", label={"enabled": "success"})
    def state(self, model: Model) -> str:
        return "enabled" if model.enabled else "disabled"


def price_label(found: selectors.PriceNow) -> tuple[str, str]:
    """For a coloured label: (where the price is from, what to show)."""
    if found.price is None:
        return "unpriced", "unpriced"
    figures = f"{price(found.price.input)} / {price(found.price.output)}"
    if found.unpriced:
        return "partly", f"{figures} partly unpriced"
    return ("own", figures) if found.own else ("list", f"{figures} list")


def price_words(found: Price) -> str:
    words = [f"{price(found.input)} in", f"{price(found.output)} out"]
    if found.cached is not None:
        words.append(f"{price(found.cached)} cached")
    if found.cache_write is not None:
        words.append(f"{price(found.cache_write)} cache write")
    if found.tiers:
        words.append(f"more from {found.tiers[-1][0]:,} prompt tokens on")
    return ", ".join(words)
