"""Usage Panda's headers: what they ask for, and how much of it a policy lets a caller have."""

from __future__ import annotations

import pytest

from policies import overrides
from policies.checks.max_tokens import MaxTokensCheck
from policies.checks.wordlist import Wordlist
from policies.documents import PolicySpec
from policies.engine import Chain
from policies.overrides import BadOverride, Given, given, overridden
from policies.rules import CompiledRule
from policies.tests.tools import Words, made, rule
from policies.types import Action, Stage

BOTH, REQUEST, REPLY = frozenset(Stage), frozenset({Stage.REQUEST}), frozenset({Stage.REPLY})
WORLD = Words(profanity=["darn"], adult=["nude"], dan=["act as"], custom=["secret"])


def listed(name: str = "custom", action: str = "block", stages: frozenset[Stage] = BOTH) -> CompiledRule:
    return rule(made(Wordlist, WORLD, wordlists=[name]), action, stages=stages, name=name)


def limited(limit: int) -> CompiledRule:
    return rule(made(MaxTokensCheck, WORLD, limit=limit), name="limit")


def chain_of(*rules: CompiledRule, may: str = "loosen", policy: str = "policy") -> Chain:
    return Chain(rules, [PolicySpec(name=policy, version=1, header_overrides=may)])


def asked(**headers: str) -> Given:
    return given({f"x-usagepanda-{name.replace('_', '-')}".encode(): value.encode() for name, value in headers.items()})


def says(chain: Chain) -> list[tuple[str, str, frozenset[Stage]]]:
    return [(one.name, str(one.action), one.stages) for one in chain.rules]


def test_only_headers_about_rules_count() -> None:
    headers = {b"x-usagepanda-max-tokens": b" 10 ", b"x-usagepanda-api-key": b"sk", b"authorization": b"Bearer sk"}
    assert given(headers) == (("max-tokens", "10"),)


def test_without_permission_nothing_changes() -> None:
    chain = chain_of(limited(100), may="never")
    assert overridden(chain, asked(max_tokens="0"), WORLD) is chain


def test_who_may_only_tighten_adds_a_rule_and_keeps_all_others() -> None:
    chain = overridden(chain_of(limited(100), may="tighten"), asked(max_tokens="10"), WORLD)
    assert says(chain) == [("limit", "block", REQUEST), ("x-usagepanda-max-tokens", "block", REQUEST)]
    assert says(overridden(chain_of(limited(100), may="tighten"), asked(max_tokens="0"), WORLD)) == [
        ("limit", "block", REQUEST)
    ]


def test_who_may_loosen_replaces_the_rules_that_the_header_is_about() -> None:
    chain = chain_of(limited(100), listed())
    assert says(overridden(chain, asked(max_tokens="500"), WORLD)) == [
        ("custom", "block", BOTH),
        ("x-usagepanda-max-tokens", "block", REQUEST),
    ]
    assert says(overridden(chain, asked(max_tokens="0"), WORLD)) == [("custom", "block", BOTH)]


@pytest.mark.parametrize(
    ("header", "replaced", "left"),
    [("request_wordlists", REQUEST, REPLY), ("response_wordlists", REPLY, REQUEST)],
)
def test_rule_for_both_sides_is_replaced_on_one_and_stays_on_the_other(
    header: str, replaced: frozenset[Stage], left: frozenset[Stage]
) -> None:
    chain = overridden(chain_of(listed()), asked(**{header: "custom:redact"}), WORLD)
    name = f"x-usagepanda-{header.replace('_', '-')}"
    assert says(chain) == [("custom", "block", left), (name, "redact", replaced)]
    assert says(overridden(chain_of(listed()), asked(**{header: ""}), WORLD)) == [("custom", "block", left)]


def test_rule_for_both_sides_goes_when_both_are_replaced() -> None:
    headers = asked(request_wordlists="dan:audit", response_wordlists="")
    assert says(overridden(chain_of(listed()), headers, WORLD)) == [
        ("x-usagepanda-request-wordlists", "audit", REQUEST)
    ]


def test_rules_of_policies_that_do_not_allow_it_stay() -> None:
    """What is set for somebody above is nobody's to loosen."""
    strict, loose = PolicySpec(name="above", version=1), PolicySpec(name="policy", version=1, header_overrides="loosen")
    above = rule(limited(50).check, policy="above", name="above")
    chain = Chain([above, limited(100)], [strict, loose])
    assert says(overridden(chain, asked(max_tokens="0"), WORLD)) == [("above", "block", REQUEST)]


def test_several_lists_each_have_their_action() -> None:
    chain = overridden(chain_of(), asked(request_wordlists="profanity:audit, Adult:block ,custom:redact,"), WORLD)
    assert [one.action for one in chain.rules] == [Action.AUDIT, Action.BLOCK, Action.REDACT]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("max_tokens", "many"),
        ("max_tokens", "-1"),
        ("max_tokens", "1e3"),
        ("max_prompt_chars", "9" * 10),
        ("request_wordlists", "custom"),
        ("request_wordlists", "nope:block"),
        ("response_wordlists", "custom:explode"),
        ("prompt_reflection", "maybe"),
        ("retry_count", "two"),
    ],
)
def test_value_that_makes_no_sense_is_refused_by_the_name_of_its_header(header: str, value: str) -> None:
    with pytest.raises(BadOverride, match=f"x-usagepanda-{header.replace('_', '-')}"):
        overridden(chain_of(), asked(**{header: value}), WORLD)


def test_list_that_is_not_set_up_is_nothing_the_caller_can_mend() -> None:
    with pytest.raises(BadOverride, match="ask whoever runs this gateway"):
        overridden(chain_of(), asked(request_wordlists="custom:block"), Words())


def test_keeping_texts_may_be_asked_for_and_only_loosening_may_refuse_it() -> None:
    keeps = PolicySpec(name="policy", version=1, header_overrides="tighten", log_request=True)
    asks = overridden(Chain([], [keeps]), asked(log_request="false", log_response="true"), WORLD)
    assert (asks.logs_requests, asks.logs_replies) == (True, True)
    loose = PolicySpec(name="policy", version=1, header_overrides="loosen", log_request=True)
    assert not overridden(Chain([], [loose]), asked(log_request="false"), WORLD).logs_requests


def test_same_headers_are_compiled_once() -> None:
    chain = chain_of()
    first = overridden(chain, asked(request_wordlists="custom:block"), WORLD)
    assert overridden(chain, asked(request_wordlists="custom:block"), WORLD) is first


def test_callers_cannot_fill_the_memory_with_headers() -> None:
    chain = chain_of()
    for limit in range(1, overrides.KEPT + 10):
        overridden(chain, asked(max_tokens=str(limit)), WORLD)
    assert len(chain.overridden) <= overrides.KEPT
