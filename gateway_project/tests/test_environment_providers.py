"""Providers from the environment alone, and what happens to their rows when the environment changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from accounts import versions
from gateway_project.environment_providers import read, sync
from proxy.models import Model, Provider, Route
from proxy.providers import presets

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what the developer's own shell has."""
    usual = {
        name for kind in presets.PRESETS for name in (*presets.environment_key(kind), presets.environment_url(kind))
    }
    for name in list(os.environ):
        if name.removesuffix("_FILE") in usual or name.startswith("GATEHOUSE_PROVIDER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_PROVIDER_ACME_URL", "http://127.0.0.1:9999/v1/")
    monkeypatch.setenv("GATEHOUSE_PROVIDER_ACME_KEY", "sk-acme")
    monkeypatch.setenv("GATEHOUSE_PROVIDER_ACME_MODELS", "large, small")


def routes() -> list[tuple[str, str, int]]:
    return list(Route.objects.order_by("model__name", "order").values_list("model__name", "provider__name", "order"))


# --- what the environment says --------------------------------------------------------------------------------------
def test_nothing_set_means_no_provider() -> None:
    assert read() == []
    assert sync() is False


def test_usual_key_of_a_provider_brings_it_with_its_known_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-usual")
    assert sync() is True
    provider = Provider.objects.get()
    assert (provider.name, provider.kind, provider.origin) == ("openai", "openai", "environment")
    assert provider.read_credential() == "sk-usual"
    assert ("gpt-4o-mini", "openai", 0) in routes()


def test_usual_address_goes_with_the_usual_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-usual")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://relay.example.org/v1")
    assert read()[0].base_url == "https://relay.example.org/v1"


def test_key_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-from-file\n")
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / "key"))
    assert [(one.name, one.credential) for one in read()] == [("anthropic", "sk-from-file")]


def test_key_may_be_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-usual")
    assert "sk-usual" not in repr(read())


def test_provider_of_any_name_speaks_the_dialect_of_openai_unless_said(acme: None) -> None:
    (one,) = read()
    assert (one.name, one.kind, one.base_url) == ("acme", "openai", "http://127.0.0.1:9999/v1")
    assert one.models == ("large", "small")


def test_provider_named_like_a_kind_is_of_that_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_PROVIDER_ANTHROPIC_KEY", "sk-a")
    assert [(one.kind, "claude-sonnet-4-5" in one.models) for one in read()] == [("anthropic", True)]


def test_own_variables_count_before_the_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-usual")
    monkeypatch.setenv("GATEHOUSE_PROVIDER_OPENAI_MODELS", "gpt-4o")
    assert [(one.credential, one.models) for one in read()] == [("sk-usual", ("gpt-4o",))]


def test_key_without_the_address_it_needs_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
    assert read() == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACME_KEY": "k"}, "GATEHOUSE_PROVIDER_ACME_KEY is set, but not GATEHOUSE_PROVIDER_ACME_URL"),
        ({"ACME_URL": "acme.example.org"}, "GATEHOUSE_PROVIDER_ACME_URL: The URL must begin with"),
        ({"ACME_URL": "https://a.example", "ACME_KIND": "opanai"}, "GATEHOUSE_PROVIDER_ACME_KIND is 'opanai'"),
        ({"ACME_URL": "https://a.example", "ACME_MODELS": "a b"}, "GATEHOUSE_PROVIDER_ACME_MODELS holds 'a b'"),
        ({"A B_URL": "https://a.example"}, "'a b' is not a provider's name"),
    ],
)
def test_mistake_names_the_variable(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"GATEHOUSE_PROVIDER_{name}", value)
    with pytest.raises(ImproperlyConfigured, match=message):
        read()


# --- the rows -------------------------------------------------------------------------------------------------------
def test_second_sync_writes_nothing_and_wakes_no_worker(acme: None) -> None:
    assert sync() is True
    before = versions.current()
    assert sync() is False
    assert versions.current() == before


def test_workers_are_woken_when_something_was_written(acme: None) -> None:
    before = versions.current().get("catalogue", 0)
    sync()
    assert versions.current()["catalogue"] > before


def test_provider_of_the_environment_may_be_in_the_private_network(acme: None) -> None:
    sync()
    assert Provider.objects.get().private_network is True


def test_changed_variable_changes_the_row(acme: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sync()
    monkeypatch.setenv("GATEHOUSE_PROVIDER_ACME_KEY", "sk-other")
    assert sync() is True
    assert Provider.objects.get().read_credential() == "sk-other"


def test_provider_whose_variables_are_gone_is_disabled_and_forgets_its_key(
    acme: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync()
    with monkeypatch.context() as gone:
        for part in ("URL", "KEY", "MODELS"):
            gone.delenv(f"GATEHOUSE_PROVIDER_ACME_{part}")
        assert sync() is True
        assert sync() is False
    provider = Provider.objects.get()
    assert (provider.enabled, provider.credential) == (False, "")
    assert sync() is True
    provider.refresh_from_db()
    assert (provider.enabled, provider.read_credential()) == (True, "sk-acme")


def test_provider_that_an_administrator_disabled_stays_so(acme: None) -> None:
    sync()
    Provider.objects.update(enabled=False)
    assert sync() is False


def test_provider_set_up_by_hand_is_left_alone(acme: None) -> None:
    Provider.objects.create(name="acme", kind="anthropic")
    assert sync() is False
    assert not Model.objects.exists()


def test_second_provider_of_a_model_is_its_fallback(acme: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_PROVIDER_SPARE_URL", "http://127.0.0.1:9998/v1")
    monkeypatch.setenv("GATEHOUSE_PROVIDER_SPARE_MODELS", "large")
    sync()
    assert routes() == [("large", "acme", 0), ("large", "spare", 1), ("small", "acme", 0)]


def test_model_routed_by_hand_gets_no_route_that_nobody_asked_for(acme: None) -> None:
    provider = Provider.objects.create(name="inside", kind="vllm")
    Route.objects.create(model=Model.objects.create(name="large"), provider=provider)
    sync()
    assert routes() == [("large", "inside", 0), ("small", "acme", 0)]


def test_name_that_is_an_alias_already_is_not_taken(acme: None) -> None:
    Model.objects.create(name="huge", aliases=["large"])
    sync()
    assert routes() == [("small", "acme", 0)]
