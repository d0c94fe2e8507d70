from __future__ import annotations

from typing import Any

import pytest

from policies.tests.request_checks import CHAT, chat, compiled, completion, embedding, exchange_of, found, said

MESSAGES = {"messages": [{"role": "user", "content": "Hello"}]}


def asks_for(model: str, alias: str = "", **fields: Any) -> list[str]:
    check = compiled("disabled_models", models=["o1", "gpt-3*", "legacy", "256x256"])
    exchange = exchange_of(CHAT, {**MESSAGES, **fields}, model=model, requested_model=alias or model)
    return found(check, exchange)


@pytest.mark.parametrize(("model", "entry"), [("o1", "o1"), ("O1", "o1"), ("gpt-3.5-turbo", "gpt-3*")])
def test_listed_models_are_found_and_named_by_their_entry(model: str, entry: str) -> None:
    assert asks_for(model) == [entry]


@pytest.mark.parametrize("model", ["o1-mini", "gpt-4o", "my-o1"])
def test_all_other_models_may_be_used(model: str) -> None:
    assert asks_for(model) == []


def test_alias_is_no_way_around() -> None:
    assert asks_for("o1", alias="clever") == ["o1"]
    assert asks_for("gpt-4o", alias="legacy") == ["legacy"]
    assert asks_for("gpt-4o", alias="clever") == []


@pytest.mark.parametrize("exchange", [chat(), completion(), embedding()], ids=lambda exchange: exchange.endpoint)
def test_every_endpoint_is_looked_at(exchange) -> None:
    assert found(compiled("disabled_models", models=["gpt-4o-mini"]), exchange) == ["gpt-4o-mini"]


def test_sizes_of_images_may_be_disabled() -> None:
    assert asks_for("dall-e-3", size="256x256") == ["256x256"]
    assert asks_for("dall-e-3", size="512x512") == []
    assert asks_for("o1", size="256x256") == ["o1", "256x256"]


def test_fallbacks_that_a_provider_chooses_from_count() -> None:
    assert asks_for("gpt-4o", models=["gpt-4o", "o1"]) == ["o1"]
    assert asks_for("gpt-4o", models=["gpt-4o"]) == []


def test_caller_is_told_what_to_do_and_not_what_it_asked_for() -> None:
    check = compiled("disabled_models", models=["gpt-*", "256x256"])
    model = said(check, chat())
    assert model == "This model is disabled by a policy of your organisation. Use another one."
    size = said(check, exchange_of(CHAT, {**MESSAGES, "size": "256x256"}, model="x"))
    assert size == "Images of this size are disabled by a policy of your organisation. Ask for another size."


def test_label_fits_into_a_finding() -> None:
    check = compiled("disabled_models", models=["g" * 150 + "*"])
    (label,) = found(check, exchange_of(CHAT, {**MESSAGES}, model="g" * 160))
    assert len(label) == 100
