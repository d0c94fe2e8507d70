"""Documents of versions: complete, and read whichever release has written them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policies import documents
from policies.documents import PolicySpec, RuleSpec
from policies.models import Policy, Rule

pytestmark = pytest.mark.django_db

WHOLE = {
    "show_flags": False,
    "header_overrides": "tighten",
    "log_request": True,
    "log_reply": True,
    "retention_days": 7,
    "rules": [
        {
            "check": "wordlist",
            "name": "no names",
            "action": "redact",
            "block_with": "answer",
            "answer": "No.",
            "stage": "reply",
            "settings": {"wordlists": ["custom"]},
            "message": "Leave names out.",
            "timeout_ms": 50,
            "fail_open": True,
            "dry_run": True,
            "enabled": False,
        }
    ],
}


def working_copy() -> Policy:
    document = dict(WHOLE)
    (rule,) = document.pop("rules")
    policy = Policy.objects.create(name="default", **document)
    Rule.objects.create(policy=policy, position=1, check_name="max_tokens")
    Rule.objects.create(policy=policy, check_name=rule["check"], **{k: v for k, v in rule.items() if k != "check"})
    return policy


def test_document_holds_all_of_the_working_copy_with_its_rules_in_order() -> None:
    document = documents.document_of(working_copy())
    assert {**document, "rules": document["rules"][:1]} == WHOLE
    assert [rule["check"] for rule in document["rules"]] == ["wordlist", "max_tokens"]
    assert json.loads(json.dumps(document)) == document


def test_document_is_read_back_as_it_was() -> None:
    spec = documents.read(WHOLE, "default", 3)
    assert (spec.name, spec.version, spec.retention_days) == ("default", 3, 7)
    assert spec.rules[0] == RuleSpec(**WHOLE["rules"][0])  # type: ignore[index,arg-type]


def test_document_of_an_older_release_is_read_with_defaults_for_what_it_lacks() -> None:
    spec = documents.read({"rules": [{"check": "wordlist", "settings": {"wordlists": ["custom"]}}]})
    assert spec == PolicySpec(rules=(RuleSpec(check="wordlist", settings={"wordlists": ["custom"]}),))
    assert documents.read({}) == PolicySpec()


def test_document_of_a_newer_release_is_read_without_what_it_has_more() -> None:
    newer: dict[str, Any] = {"shiny": 1, "rules": [{"check": "wordlist", "glitter": 2}]}
    assert documents.read(newer) == PolicySpec(rules=(RuleSpec(check="wordlist"),))


def test_defaults_of_documents_are_those_of_the_working_copy() -> None:
    policy = Policy.objects.create(name="plain")
    Rule.objects.create(policy=policy, check_name="wordlist")
    assert documents.read(documents.document_of(policy)) == PolicySpec(rules=(RuleSpec(check="wordlist"),))


def test_documents_say_the_same_when_only_defaults_are_left_out() -> None:
    assert documents.say_the_same({}, {"show_flags": True, "rules": []})
    assert not documents.say_the_same({}, {"show_flags": False})


@pytest.mark.parametrize(("name", "title"), [("", "wordlist"), ("names", "names")])
def test_rule_without_a_name_is_called_by_its_check(name: str, title: str) -> None:
    assert RuleSpec(check="wordlist", name=name).title == title
