"""What the admin's forms for providers and models accept, and what they never give back."""

from __future__ import annotations

import socket
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from proxy.forms import ModelForm, PricedModelForm, ProviderForm
from proxy.models import Model, Provider
from usage.models import ModelPrice

pytestmark = pytest.mark.django_db

SUPERUSER = User(is_superuser=True)
STAFF = User(is_staff=True)
SECRET = "sk-very-secret-1"
PROVIDER = {
    "name": "openai",
    "kind": "openai",
    "connect_timeout_s": 5,
    "first_byte_timeout_s": 300,
    "idle_timeout_s": 60,
    "tls_verify": True,
    "enabled": True,
}


@pytest.fixture(autouse=True)
def public_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is somewhere on the internet, but those that end with .internal; addresses are what they are."""

    def look_up(host: str, port: int, **_kwargs: Any) -> list[Any]:
        if host == "nowhere.example":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        address = "10.0.0.5" if host.endswith(".internal") else host if host[0].isdigit() else "8.8.8.8"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def provider_form(user: User, provider: Provider | None = None, **data: Any) -> ProviderForm:
    form_class = type("Form", (ProviderForm,), {"user": user})
    return form_class(data={**PROVIDER, **data}, instance=provider)


def stored(**fields: Any) -> Provider:
    provider = Provider(**{"name": "openai", "kind": "openai", **fields})
    provider.set_credential(SECRET)
    provider.set_extra_headers({"X-Team": "very-secret-2"})
    provider.save()
    return provider


# --- secrets --------------------------------------------------------------------------------------------------------
def test_new_key_and_headers_are_given_to_the_service() -> None:
    form = provider_form(SUPERUSER, new_credential=f" {SECRET} ", new_extra_headers="X-Team: a\n\nX-B:b: c \n")
    assert form.is_valid(), form.errors
    assert form.new_secrets() == {"credential": SECRET, "extra_headers": {"X-Team": "a", "X-B": "b: c"}}


def test_empty_secrets_keep_what_is_stored() -> None:
    form = provider_form(SUPERUSER, stored())
    assert form.is_valid(), form.errors
    assert form.new_secrets() == {}


def test_secrets_are_removed_when_asked_for() -> None:
    form = provider_form(SUPERUSER, stored(), remove_credential=True, remove_extra_headers=True)
    assert form.is_valid(), form.errors
    assert form.new_secrets() == {"credential": "", "extra_headers": {}}


def test_secret_is_either_entered_or_removed() -> None:
    form = provider_form(SUPERUSER, stored(), new_credential="sk-new", remove_credential=True)
    assert "remove_credential" in form.errors


def test_form_says_what_is_stored_and_shows_none_of_it() -> None:
    provider = stored()
    page = str(provider_form(SUPERUSER, provider, new_credential="sk-typed", new_extra_headers="X-T: typed"))
    assert "X-Team" in page
    for secret in (SECRET, "very-secret", "sk-typed", "X-T: typed", provider.credential, provider.extra_headers):
        assert secret not in page


def test_name_of_a_header_is_shown_as_text() -> None:
    provider = stored()
    provider.set_extra_headers({"<script>": "x"})
    assert "<script>" not in str(provider_form(SUPERUSER, provider)["new_extra_headers"].help_text)


@pytest.mark.parametrize("headers", ["no colon", "Bad Name: x", "X: línea", "Host: x", "content-length: 3", ": x"])
def test_header_that_cannot_be_sent_is_refused(headers: str) -> None:
    assert "new_extra_headers" in provider_form(SUPERUSER, new_extra_headers=headers).errors


def test_key_with_a_line_break_inside_is_refused() -> None:
    assert "new_credential" in provider_form(SUPERUSER, new_credential="sk-a\nsk-b").errors


def test_stored_key_does_not_follow_to_another_host() -> None:
    """Otherwise whoever may edit providers could have the key sent to themselves."""
    form = provider_form(STAFF, stored(), base_url="https://elsewhere.example/v1")
    assert "address has changed" in form.errors["new_credential"][0]


@pytest.mark.parametrize(
    "secrets",
    [
        {"new_credential": "sk-other", "remove_extra_headers": True},
        {"remove_credential": True, "new_extra_headers": "X-A: b"},
    ],
)
def test_address_may_change_together_with_the_secrets(secrets: dict[str, Any]) -> None:
    assert provider_form(STAFF, stored(), base_url="https://elsewhere.example/v1", **secrets).is_valid()


def test_change_of_kind_changes_the_address_too() -> None:
    assert "new_credential" in provider_form(STAFF, stored(), kind="mistral").errors


def test_path_may_change_with_the_key_kept() -> None:
    assert provider_form(STAFF, stored(), base_url="https://api.openai.com/v2").is_valid()


# --- addresses ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://llm.internal/v1", "http://169.254.169.254/v1"])
def test_private_address_is_refused(url: str) -> None:
    errors = provider_form(STAFF, base_url=url).errors
    assert "Only a superuser can allow that" in errors["base_url"][0]


def test_superuser_is_told_what_to_tick() -> None:
    errors = provider_form(SUPERUSER, base_url="http://llm.internal/v1").errors
    assert "Tick “may be in the private network”" in errors["base_url"][0]


def test_superuser_may_tick_it() -> None:
    assert provider_form(SUPERUSER, base_url="http://llm.internal/v1", private_network=True).is_valid()


def test_ticking_it_without_being_a_superuser_does_not_help() -> None:
    assert "base_url" in provider_form(STAFF, base_url="http://llm.internal/v1", private_network=True).errors


def test_private_usual_address_of_a_kind_is_private_too() -> None:
    assert "base_url" in provider_form(STAFF, kind="ollama").errors


def test_provider_that_a_superuser_let_in_can_be_edited_but_not_moved_by_others() -> None:
    provider = stored(base_url="http://llm.internal/v1", private_network=True)
    same = {"base_url": "http://llm.internal/v1"}
    assert provider_form(STAFF, provider, **same, idle_timeout_s=30).is_valid()
    assert "base_url" in provider_form(STAFF, provider, base_url="http://llm.internal/admin").errors


def test_unknown_host_is_refused_unless_a_superuser_means_it() -> None:
    assert "cannot be resolved" in provider_form(STAFF, base_url="https://nowhere.example/v1").errors["base_url"][0]
    form = provider_form(SUPERUSER, base_url="https://nowhere.example/v1")
    assert form.is_valid()
    assert "cannot be resolved" in form.unresolved


def test_kind_without_a_usual_address_needs_one() -> None:
    assert "enter yours" in provider_form(SUPERUSER, kind="azure_openai").errors["base_url"][0]


def test_echo_takes_no_address() -> None:
    assert provider_form(STAFF, kind="echo").is_valid()
    assert "base_url" in provider_form(STAFF, kind="echo", base_url="https://x.example/v1").errors


def test_credentials_in_the_url_are_refused() -> None:
    assert "base_url" in provider_form(SUPERUSER, base_url="https://u:p@x.example/v1").errors


def test_authority_must_be_certificates() -> None:
    assert "PEM" in provider_form(SUPERUSER, tls_ca="nonsense").errors["tls_ca"][0]


def test_unknown_kind_is_refused() -> None:
    assert "kind" in provider_form(SUPERUSER, kind="telepathy").errors


# --- models ---------------------------------------------------------------------------------------------------------
def model_form(model: Model | None = None, form: type[ModelForm] = ModelForm, **data: Any) -> Any:
    return form(data={"name": "gpt-test", "time_budget_s": 60, "enabled": True, **data}, instance=model)


def test_aliases_are_read_from_lines_and_commas() -> None:
    form = model_form(aliases="gpt-a, gpt-b\n\n gpt/c ")
    assert form.is_valid(), form.errors
    assert form.save().aliases == ["gpt-a", "gpt-b", "gpt/c"]


def test_aliases_are_shown_one_a_line() -> None:
    assert ModelForm(instance=Model(aliases=["a", "b"]))["aliases"].value() == "a\nb"


@pytest.mark.parametrize("aliases", ["-dash", "späce", "a b!", "gpt-test", "twice twice"])
def test_alias_that_cannot_be_a_name_of_the_model_is_refused(aliases: str) -> None:
    assert "aliases" in model_form(aliases=aliases).errors


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"name": "taken"}, "name"),
        ({"name": "other-name"}, "name"),
        ({"aliases": "taken"}, "aliases"),
        ({"aliases": "fine other-name"}, "aliases"),
    ],
)
def test_name_means_one_model_only(data: dict[str, str], field: str) -> None:
    Model.objects.create(name="taken", aliases=["other-name"])
    errors = model_form(**data).errors
    assert list(errors) == [field]
    assert "already a name of the model taken" in errors[field][-1] or "already exists" in errors[field][0]


def test_model_keeps_its_own_names() -> None:
    model = Model.objects.create(name="gpt-test", aliases=["alias"])
    assert model_form(model, aliases="alias").is_valid()


# --- prices ---------------------------------------------------------------------------------------------------------
def priced(model: Model | None = None, **data: Any) -> PricedModelForm:
    form = model_form(model, PricedModelForm, **data)
    form.is_valid()
    return form


def own_price(name: str = "gpt-test") -> Model:
    ModelPrice.objects.create(
        model=name,
        valid_from=timezone.now(),
        input_nano_usd_per_mtok=150_000_000,
        output_nano_usd_per_mtok=600_000_000,
    )
    return Model.objects.create(name=name)


def test_price_in_force_is_what_the_fields_begin_with() -> None:
    form = PricedModelForm(instance=own_price())
    assert form["input_usd"].value() == Decimal("0.15")
    assert form["output_usd"].value() == Decimal("0.6")
    assert form["cached_usd"].value() is None


def test_unchanged_price_is_not_written_again() -> None:
    assert not priced(own_price(), input_usd="0.150", output_usd="0.6").has_new_price()


def test_changed_price_is_written() -> None:
    assert priced(own_price(), input_usd="0.2", output_usd="0.6").has_new_price()
    assert priced(own_price("b"), name="b", input_usd="0.15", output_usd="0.6", cached_usd="0").has_new_price()


def test_renamed_model_takes_its_price_along() -> None:
    assert priced(own_price(), name="renamed", input_usd="0.15", output_usd="0.6").has_new_price()


def test_model_without_a_price_of_its_own_needs_none() -> None:
    form = priced()
    assert form.errors == {}
    assert not form.has_new_price()


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"input_usd": "1"}, ["output_usd"]), ({"cached_usd": "1"}, ["input_usd", "output_usd"])],
)
def test_price_needs_input_and_output(given: dict[str, str], missing: list[str]) -> None:
    assert sorted(priced(**given).errors) == missing


def test_price_cannot_be_emptied() -> None:
    assert "To go back to the list price" in priced(own_price()).errors["input_usd"][0]


@pytest.mark.parametrize("amount", ["-1", "1000001", "0.0000000001", "free"])
def test_price_is_an_amount_that_can_be_kept_exactly(amount: str) -> None:
    assert "input_usd" in priced(input_usd=amount, output_usd="1").errors
