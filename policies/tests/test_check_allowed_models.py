from __future__ import annotations

import pytest

from policies.tests.request_checks import CHAT, chat, compiled, completion, embedding, exchange_of, found, said

MESSAGES = {"messages": [{"role": "user", "content": "Hello"}]}


def asks_for(model: str, alias: str = "") -> list[str]:
    check = compiled("allowed_models", models=["gpt-4o-mini", "claude-*", "fast"])
    return found(check, exchange_of(CHAT, {**MESSAGES}, model=model, requested_model=alias or model))


@pytest.mark.parametrize("model", ["gpt-4o-mini", "GPT-4o-Mini", "claude-sonnet", "claude-"])
def test_listed_models_are_allowed(model: str) -> None:
    assert asks_for(model) == []


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini-2024", "my-claude-sonnet", "o1", ""])
def test_all_other_models_are_found(model: str) -> None:
    assert asks_for(model) == ["not on the list"]


def test_model_is_allowed_by_its_alias_or_by_its_name() -> None:
    assert asks_for("o1", alias="fast") == []
    assert asks_for("gpt-4o-mini", alias="whatever") == []
    assert asks_for("o1", alias="slow") == ["not on the list"]


@pytest.mark.parametrize("exchange", [chat(), completion(), embedding()], ids=lambda exchange: exchange.endpoint)
def test_every_endpoint_is_looked_at(exchange) -> None:
    assert found(compiled("allowed_models", models=["o1"]), exchange) == ["not on the list"]
    assert found(compiled("allowed_models", models=["gpt-4o-mini"]), exchange) == []


def test_fallbacks_that_a_provider_chooses_from_must_be_allowed_too() -> None:
    check = compiled("allowed_models", models=["gpt-4o-mini", "openai/gpt-4o-mini"])
    assert found(check, chat(models=["openai/gpt-4o-mini"])) == []
    assert found(check, chat(models=["openai/gpt-4o-mini", "openai/o1-pro"])) == ["not on the list"]


def test_lists_of_several_rules_intersect() -> None:
    """Usage Panda let a caller's header replace the list; here each list is a rule, and all of them hold."""
    team, everyone = compiled("allowed_models", models=["gpt-*", "o1"]), compiled("allowed_models", models=["gpt-*"])
    rules = (team, everyone)
    assert [found(rule, exchange_of(CHAT, {**MESSAGES}, model="o1")) for rule in rules] == [[], ["not on the list"]]
    assert [found(rule, exchange_of(CHAT, {**MESSAGES}, model="gpt-4o")) for rule in rules] == [[], []]


def test_caller_reads_which_models_are_allowed_and_not_what_was_asked_for() -> None:
    check = compiled("allowed_models", models=["gpt-4o-mini", "claude-*"])
    message = said(check, exchange_of(CHAT, {**MESSAGES}, model="secret-model"))
    assert message.endswith("Use one of these: gpt-4o-mini, claude-*.")
    assert "secret-model" not in message


def test_long_list_is_cut_in_the_message() -> None:
    models = [f"m{number}" for number in range(11)]
    assert said(compiled("allowed_models", models=models), chat()).endswith("m8, m9 and others.")
    assert said(compiled("allowed_models", models=models[:10]), chat()).endswith("m8, m9.")
