from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from genai_prices.data_snapshot import get_snapshot

from proxy.endpoints import ENDPOINTS
from proxy.models import PROVIDER_NAME
from proxy.providers import presets
from proxy.providers.base import ADAPTERS
from proxy.providers.presets import PRESETS

ROWS = list(PRESETS.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kind)
def test_every_kind_has_an_adapter_and_an_address_that_can_be_joined(row: presets.Preset) -> None:
    assert presets.adapter_for(row.kind) is ADAPTERS[row.adapter]
    address = urlsplit(presets.default_base_url(row.kind))
    assert not address.path.endswith("/")
    assert address.scheme in ("https", "") or address.hostname == "127.0.0.1"


def test_every_adapter_can_be_chosen() -> None:
    assert set(ADAPTERS) == {row.adapter for row in ROWS}
    assert set(ADAPTERS) <= set(PRESETS)


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_adapter_and_its_row_agree(kind: str) -> None:
    adapter = ADAPTERS[kind]

    assert PRESETS[kind].base_url == adapter.default_base_url
    assert adapter.endpoints <= set(ENDPOINTS)
    assert adapter.endpoints


def test_kinds_are_offered_with_the_usual_ones_first() -> None:
    offered = presets.kinds()

    assert [kind for kind, _ in offered][:3] == ["openai", "azure_openai", "anthropic"]
    assert len(dict(offered)) == len(offered) == len(PRESETS)
    assert len({label for _, label in offered}) == len(offered)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kind)
def test_kinds_can_be_names_of_providers(row: presets.Preset) -> None:
    PROVIDER_NAME(row.kind)
    assert len(row.kind) <= 40


def test_prices_are_looked_up_where_there_are_some() -> None:
    known = {provider.id for provider in get_snapshot().providers}

    assert {row.prices_id for row in ROWS if row.prices_id} <= known
    assert presets.prices_id("xai") == "x-ai"
    assert presets.prices_id("ollama") == ""


def test_environment_variables_are_told_apart() -> None:
    keys = [key for row in ROWS for key in row.keys]

    assert len(set(keys)) == len(keys)
    assert presets.environment_key("openai") == ("OPENAI_API_KEY",)
    assert presets.environment_key("anthropic") == ("ANTHROPIC_API_KEY",)
    assert presets.environment_key("azure_openai") == ("AZURE_OPENAI_API_KEY",)
    assert presets.environment_url("azure_openai") == "AZURE_OPENAI_ENDPOINT"


def test_unknown_kind_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        presets.adapter_for("unheard-of")
