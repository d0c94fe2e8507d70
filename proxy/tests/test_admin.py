"""The admin's pages for providers and models, as those who use them meet them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from accounts import versions
from accounts.models import Team, User
from policies.documents import RuleSpec
from policies.models import Policy
from policies.services import publish, replace_rules
from proxy import probe
from proxy.models import Model, Provider, Route
from usage.alert_models import AlertRule
from usage.models import Budget, Limit, ModelPrice
from usage.price_list import price_of
from usage.prices import set_price
from usage.pricing import Price

pytestmark = pytest.mark.django_db

SECRET = "sk-very-secret-1"
PROVIDERS = reverse("admin:proxy_provider_changelist")
ADD_PROVIDER = reverse("admin:proxy_provider_add")
MODELS = reverse("admin:proxy_model_changelist")
ADD_MODEL = reverse("admin:proxy_model_add")
PROVIDER = {
    "name": "echo",
    "kind": "echo",
    "connect_timeout_s": 5,
    "first_byte_timeout_s": 300,
    "idle_timeout_s": 60,
    "tls_verify": "on",
    "enabled": "on",
}
NO_ROUTES = {"routes-TOTAL_FORMS": 0, "routes-INITIAL_FORMS": 0}


def staff(client: Client, *permissions: str) -> Client:
    """Signed in as somebody with these rights and no others."""
    user = User.objects.create_user("staff", password="x", is_staff=True)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client.force_login(user)
    return client


def change_url(row: Provider | Model) -> str:
    return reverse(f"admin:proxy_{row._meta.model_name}_change", args=[row.pk])


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def stored(**fields: Any) -> Provider:
    provider = Provider(**{"name": "openai", "kind": "openai", **fields})
    provider.set_credential(SECRET)
    provider.set_extra_headers({"X-Team": "very-secret-2"})
    provider.save()
    return provider


# --- providers ------------------------------------------------------------------------------------------------------
def test_new_provider_is_saved_with_its_key_encrypted(admin_client: Client) -> None:
    data = {**PROVIDER, "new_credential": SECRET, "new_extra_headers": "X-Team: a"}
    response = admin_client.post(ADD_PROVIDER, data)
    assert response.status_code == 302, response.context["errors"]
    provider = Provider.objects.get(name="echo")
    assert provider.read_credential() == SECRET
    assert provider.read_extra_headers() == {"X-Team": "a"}
    assert SECRET not in provider.credential


def test_saving_says_that_it_is_live_soon(admin_client: Client) -> None:
    response = admin_client.post(ADD_PROVIDER, PROVIDER)
    assert messages_of(response)[0].endswith("was added successfully. It is live in about a second.")


def test_saving_tells_the_data_plane(admin_client: Client) -> None:
    before = versions.current().get(versions.CATALOGUE, 0)
    admin_client.post(ADD_PROVIDER, PROVIDER)
    assert versions.current()[versions.CATALOGUE] > before


def test_key_is_kept_when_the_field_is_left_empty(admin_client: Client) -> None:
    provider = stored()
    admin_client.post(change_url(provider), {**PROVIDER, "name": "renamed", "kind": "openai"})
    provider.refresh_from_db()
    assert (provider.name, provider.read_credential()) == ("renamed", SECRET)


def test_key_is_on_no_page(admin_client: Client) -> None:
    provider = stored()
    for url in (PROVIDERS, change_url(provider), f"{change_url(provider)}../history/", f"{PROVIDERS}?q=secret"):
        page = admin_client.get(url, follow=True).content.decode()
        for secret in (SECRET, "very-secret-2", provider.credential, provider.extra_headers):
            assert secret not in page


def test_those_who_may_only_look_see_that_a_key_is_set(client: Client) -> None:
    provider = stored()
    page = staff(client, "proxy.view_provider").get(change_url(provider)).content.decode()
    assert "X-Team" in page
    assert "new_credential" not in page
    assert SECRET not in page


def test_only_superusers_can_tick_private_network(client: Client, admin_client: Client) -> None:
    assert 'name="private_network"' in admin_client.get(ADD_PROVIDER).content.decode()
    somebody = staff(client, "proxy.add_provider", "proxy.change_provider", "proxy.view_provider")
    assert 'name="private_network"' not in somebody.get(ADD_PROVIDER).content.decode()
    data = {**PROVIDER, "kind": "openai", "base_url": "http://127.0.0.1:9/v1", "private_network": "on"}
    assert somebody.post(ADD_PROVIDER, data).status_code == 200
    assert not Provider.objects.exists()


def test_provider_from_the_environment_cannot_be_changed_here(admin_client: Client) -> None:
    provider = stored(origin=Provider.Origin.ENVIRONMENT)
    page = admin_client.get(change_url(provider)).content.decode()
    assert "set up from the gateway's environment variables" in page
    assert 'name="_save"' not in page
    assert admin_client.post(change_url(provider), PROVIDER).status_code == 403
    delete = reverse("admin:proxy_provider_delete", args=[provider.pk])
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403


def test_test_connection_reports_in_plain_words(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = stored(origin=Provider.Origin.ENVIRONMENT)
    verdict = probe.Verdict(False, "Reachable, but it refuses the API key.", 401, 12)
    monkeypatch.setattr(probe, "probe", lambda _provider: verdict)
    response = admin_client.get(reverse("admin:proxy_provider_test_connection", args=[provider.pk]))
    assert response.headers["location"] == change_url(provider)
    assert messages_of(response) == ["openai: Reachable, but it refuses the API key. (status 401, 12 ms)"]


def test_several_providers_are_tested_at_once(admin_client: Client) -> None:
    rows = [Provider.objects.create(name=f"echo-{number}", kind="echo") for number in range(3)]
    data = {"action": "test_selected", "_selected_action": [row.pk for row in rows]}
    response = admin_client.post(PROVIDERS, data)
    assert len(messages_of(response)) == 3
    assert "nothing to connect to" in messages_of(response)[0]


def test_testing_needs_the_right_to_change(client: Client) -> None:
    provider = stored()
    somebody = staff(client, "proxy.view_provider")
    assert somebody.get(reverse("admin:proxy_provider_test_connection", args=[provider.pk])).status_code == 403


@pytest.mark.parametrize("kind", ["provider", "model"])
def test_lists_cost_the_same_however_long_they_are(
    admin_client: Client, kind: str, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        provider = Provider.objects.create(name=f"p{number}", kind="openai")
        Route.objects.create(model=Model.objects.create(name=f"m{number}"), provider=provider)
    with django_assert_max_num_queries(15):
        assert admin_client.get(reverse(f"admin:proxy_{kind}_changelist")).status_code == 200


def test_provider_list_shows_what_matters(admin_client: Client) -> None:
    provider = stored()
    for name in ("a", "b", "c", "d"):
        Route.objects.create(model=Model.objects.create(name=name), provider=provider)
    page = admin_client.get(PROVIDERS).content.decode()
    assert "https://api.openai.com/v1" in page
    assert "a, b, c and 1 more" in page


def test_empty_lists_say_what_to_do(admin_client: Client) -> None:
    assert "The kind Echo needs no account" in admin_client.get(PROVIDERS).content.decode()
    assert "at least one route" in admin_client.get(MODELS).content.decode()
    assert "Show everything" in admin_client.get(f"{MODELS}?q=nothing").content.decode()


# --- models ---------------------------------------------------------------------------------------------------------
def model_data(provider: Provider, **fields: Any) -> dict[str, Any]:
    route = {
        "routes-TOTAL_FORMS": 1,
        "routes-INITIAL_FORMS": 0,
        "routes-0-provider": provider.pk,
        "routes-0-upstream_model": "gpt-upstream",
        "routes-0-order": 0,
        "routes-0-weight": 1,
        "routes-0-enabled": "on",
    }
    return {"name": "gpt-test", "time_budget_s": 60, "enabled": "on", **route, **fields}


def test_model_is_saved_with_aliases_routes_and_price(admin_client: Client) -> None:
    provider = stored()
    data = model_data(provider, aliases="gpt-a\ngpt-b", input_usd="0.15", output_usd="0.6", cached_usd="0.075")
    response = admin_client.post(ADD_MODEL, data)
    assert response.status_code == 302, response.context["errors"]
    model = Model.objects.get(name="gpt-test")
    assert model.aliases == ["gpt-a", "gpt-b"]
    assert model.routes.get().upstream_model == "gpt-upstream"
    price = ModelPrice.objects.get(model="gpt-test")
    assert (price.input_nano_usd_per_mtok, price.cached_nano_usd_per_mtok) == (150_000_000, 75_000_000)


def test_model_without_a_price_entered_gets_none(admin_client: Client) -> None:
    admin_client.post(ADD_MODEL, model_data(stored()))
    assert Model.objects.exists()
    assert not ModelPrice.objects.exists()


def test_price_now_and_its_source_are_shown(admin_client: Client) -> None:
    provider = stored()
    listed = Model.objects.create(name="gpt-4o-mini")
    unknown = Model.objects.create(name="no-such-model")
    own = Model.objects.create(name="own")
    ModelPrice.objects.create(model="own", input_nano_usd_per_mtok=37_500_000, output_nano_usd_per_mtok=10**9)
    for model in (listed, unknown, own):
        Route.objects.create(model=model, provider=provider)
    page = admin_client.get(MODELS).content.decode()
    assert "$0.15 / $0.60 list" in page
    assert "unpriced" in page
    assert "$0.0375 / $1.00" in page
    assert "from the list that ships" in admin_client.get(change_url(listed)).content.decode()
    assert "Unpriced: nobody knows" in admin_client.get(change_url(unknown)).content.decode()
    assert "$0.0375 in, $1.00 out, set here" in admin_client.get(change_url(own)).content.decode()


def test_route_without_a_price_is_named(admin_client: Client) -> None:
    model = Model.objects.create(name="gpt-4o-mini")
    for name, kind in (("openai", "openai"), ("ours", "vllm")):
        Route.objects.create(model=model, provider=Provider.objects.create(name=name, kind=kind))
    assert "Unpriced through ours." in admin_client.get(change_url(model)).content.decode()
    assert "partly unpriced" in admin_client.get(MODELS).content.decode()


def test_renamed_model_takes_all_of_its_prices_along(client: Client, research: Team) -> None:
    """Also when whoever renames it may not set prices: it is no new price."""
    model = Model.objects.create(name="gpt-test")
    everyones: dict[str, Any] = {"input_usd_per_mtok": Decimal(1), "output_usd_per_mtok": Decimal(2)}
    set_price("gpt-test", **everyones, image_usd=Decimal("0.04"), audio_input_usd_per_mtok=Decimal(40))
    set_price("gpt-test", team=research, **everyones, request_usd=Decimal("0.01"))
    somebody = staff(client, "proxy.view_model", "proxy.change_model", "proxy.view_route")
    data = {"name": "renamed", "time_budget_s": 60, "enabled": "on", **NO_ROUTES}
    assert somebody.post(change_url(model), data).status_code == 302
    for team, price in ((None, {"image": 40_000_000, "audio_input": 40 * 10**9}), (research, {"request": 10_000_000})):
        carried = price_of(ModelPrice.objects.get(model="renamed", team=team))
        assert carried == Price(10**9, 2 * 10**9, **price)


def rename(client: Client, model: Model) -> Any:
    return client.post(change_url(model), {"name": "renamed", "time_budget_s": 60, "enabled": "on", **NO_ROUTES})


def policy_with(check: str, *models: str) -> Policy:
    policy = Policy.objects.create(name="careful")
    replace_rules(policy, [RuleSpec(check=check, settings={"models": list(models)})])
    publish(policy)
    return policy


def test_renamed_model_takes_budgets_limits_and_lists_along(admin_client: Client, research: Team) -> None:
    model = Model.objects.create(name="gpt-test")
    Budget.objects.create(scope="installation", limit=1, model="gpt-test")
    Limit.objects.create(scope="installation", requests_per_minute=1, model="gpt-test")
    AlertRule.objects.create(name="slow", kind="latency", model="gpt-test")
    Team.objects.filter(pk=research.pk).update(models_allowed=["gpt-test", "other"])
    said = messages_of(rename(admin_client, model))
    assert {row.model for row in (Budget.objects.get(), Limit.objects.get(), AlertRule.objects.get(name="slow"))} == {
        "renamed"
    }
    research.refresh_from_db()
    assert research.models_allowed == ["renamed", "other"]
    assert "budgets: 1, rate limits: 1, alert rules: 1, lists of allowed models: 1" in said[0]
    assert "do not count what was spent under the name gpt-test" in said[1]


def test_rename_that_a_rate_limit_is_in_the_way_of_is_refused(admin_client: Client) -> None:
    model = Model.objects.create(name="gpt-test")
    for name in ("gpt-test", "renamed"):
        Limit.objects.create(scope="installation", requests_per_minute=1, model=name)
    page = rename(admin_client, model)
    assert "rate limits under this name already" in page.context["adminform"].form.errors["name"][0]
    assert Model.objects.get().name == "gpt-test"


def test_model_that_a_rule_disables_by_name_keeps_its_name(admin_client: Client) -> None:
    """Else a new name would be a way around the rule."""
    model = Model.objects.create(name="gpt-test")
    policy_with("disabled_models", "gpt-test")
    page = rename(admin_client, model)
    assert "Add renamed to the disabled models of careful" in page.context["adminform"].form.errors["name"][0]


@pytest.mark.parametrize("names", [("gpt-test", "renamed"), ("*e*",), ("other",)], ids=str)
def test_model_whose_both_names_a_rule_judges_alike_can_be_renamed(
    admin_client: Client, names: tuple[str, ...]
) -> None:
    model = Model.objects.create(name="gpt-test")
    policy_with("disabled_models", *names)
    assert rename(admin_client, model).status_code == 302


def test_renaming_says_which_rules_allow_the_old_name_alone(admin_client: Client) -> None:
    model = Model.objects.create(name="gpt-test")
    policy = policy_with("allowed_models", "gpt-test")
    url = reverse("admin:policies_policy_change", args=[policy.pk])
    assert f'refuse renamed until you change and publish them: <a href="{url}">careful</a>' in "".join(
        messages_of(rename(admin_client, model))
    )


def test_price_that_changes_with_the_name_is_written_over_the_one_before(admin_client: Client) -> None:
    model = Model.objects.create(name="gpt-test")
    set_price("gpt-test", input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(2), image_usd=Decimal("0.04"))
    data = {"name": "renamed", "time_budget_s": 60, "enabled": "on", "input_usd": "3", "output_usd": "2", **NO_ROUTES}
    assert admin_client.post(change_url(model), data).status_code == 302
    newest = ModelPrice.objects.filter(model="renamed").latest("pk")
    assert price_of(newest) == Price(3 * 10**9, 2 * 10**9, image=40_000_000)


def test_prices_need_a_right_of_their_own(client: Client) -> None:
    model = Model.objects.create(name="gpt-test")
    somebody = staff(client, "proxy.view_model", "proxy.change_model", "proxy.view_route")
    page = somebody.get(change_url(model)).content.decode()
    assert 'name="input_usd"' not in page
    data = {"name": "gpt-test", "time_budget_s": 60, "enabled": "on", "input_usd": "1", "output_usd": "1", **NO_ROUTES}
    assert somebody.post(change_url(model), data).status_code == 302
    assert not ModelPrice.objects.exists()


def test_those_who_may_only_look_get_the_page_without_fields(client: Client) -> None:
    model = Model.objects.create(name="gpt-test", aliases=["gpt-alias"])
    page = staff(client, "proxy.view_model").get(change_url(model)).content.decode()
    assert "gpt-alias" in page
    assert "<textarea" not in page


def test_model_that_nobody_can_call_is_pointed_out(admin_client: Client) -> None:
    data = {"name": "lonely", "time_budget_s": 60, "enabled": "on", **NO_ROUTES}
    response = admin_client.post(ADD_MODEL, data)
    assert "Nobody can call lonely yet: add a route to a provider that is enabled." in messages_of(response)


def test_name_of_another_model_is_refused_on_the_page(admin_client: Client) -> None:
    Model.objects.create(name="taken", aliases=["gpt-test"])
    response = admin_client.post(ADD_MODEL, model_data(stored()))
    assert "already a name of the model taken" in response.content.decode()


def test_name_keeps_its_case_in_the_heading(admin_client: Client) -> None:
    page = admin_client.get(change_url(Model.objects.create(name="gpt-test"))).content.decode()
    assert "Gpt-test" not in page


# --- providers that rules ask ----------------------------------------------------------------------------------------
@pytest.fixture
def judge() -> Provider:
    """A provider that a rule in force asks."""
    provider = stored(name="judge")
    policy = Policy.objects.create(name="careful")
    replace_rules(policy, [RuleSpec(check="moderation", settings={"provider": "judge"})])
    publish(policy)
    return provider


def test_provider_that_a_rule_in_force_asks_cannot_be_deleted(admin_client: Client, judge: Provider) -> None:
    """Every call under that rule would be blocked for want of a verdict."""
    url = reverse("admin:proxy_provider_delete", args=[judge.pk])
    assert "policy careful asks judge" in admin_client.get(url).content.decode()
    admin_client.post(url, {"post": "yes"})
    assert Provider.objects.filter(name="judge").exists()


@pytest.mark.parametrize("change", [{"name": "another"}, {"enabled": ""}])
def test_provider_that_a_rule_in_force_asks_keeps_its_name_and_stays_on(
    admin_client: Client, judge: Provider, change: dict[str, str]
) -> None:
    data = {**PROVIDER, "name": "judge", "kind": "openai", **change}
    response = admin_client.post(change_url(judge), {name: value for name, value in data.items() if value})
    assert "asked" in str(response.context["errors"])
    judge.refresh_from_db()
    assert (judge.name, judge.enabled) == ("judge", True)


# --- the secrets are for those who may set them ---------------------------------------------------------------------
OPERATOR = ("proxy.add_provider", "proxy.change_provider", "proxy.view_provider")


def test_operator_is_offered_no_secret(client: Client) -> None:
    provider = stored()
    somebody = staff(client, *OPERATOR)
    for page in (ADD_PROVIDER, change_url(provider)):
        text = somebody.get(page).content.decode()
        assert 'name="_save"' in text
        for field in ("new_credential", "remove_credential", "new_extra_headers", "remove_extra_headers"):
            assert f'name="{field}"' not in text


def test_operator_sets_and_removes_no_secret(client: Client) -> None:
    provider = stored()
    before = (provider.credential, provider.extra_headers)
    data = {**PROVIDER, "new_credential": "sk-mine", "new_extra_headers": "X-Mine: 1", "first_byte_timeout_s": "7"}
    somebody = staff(client, *OPERATOR)
    base_url = provider.base_url
    removing = {"remove_credential": "on", "remove_extra_headers": "on"}
    for secrets in (data, {**PROVIDER, **removing, "first_byte_timeout_s": "7"}):
        response = somebody.post(change_url(provider), {**secrets, "kind": provider.kind, "base_url": base_url})
        assert response.status_code == 302, response.context["errors"]
        provider.refresh_from_db()
        assert (provider.credential, provider.extra_headers) == before
        assert provider.first_byte_timeout_s == 7


@pytest.mark.parametrize("change", [{"base_url": "https://203.0.113.9/v1"}, {"tls_verify": ""}], ids=["moved", "tls"])
def test_operator_does_not_send_a_stored_secret_elsewhere(client: Client, change: dict[str, str]) -> None:
    provider = stored()
    data = {**PROVIDER, "kind": provider.kind, "base_url": provider.base_url, **change}
    response = staff(client, *OPERATOR).post(change_url(provider), data)
    assert "sent where they were not meant for" in response.content.decode()
    provider.refresh_from_db()
    assert (provider.base_url, provider.tls_verify) == ("", True)
