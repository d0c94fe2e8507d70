"""`manage.py import_usagepanda config.js`: the whole file, accounted for, and without Usage Panda's faults."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts import versions
from gateway_project import usagepanda
from gateway_project.apply import apply
from gateway_project.javascript import Settings
from policies import documents
from policies.book import build
from policies.documents import PolicySpec, RuleSpec
from policies.fold import Folded
from policies.models import Policy, PolicyVersion, Wordlist
from proxy.models import Model, Provider, Route

pytestmark = pytest.mark.django_db

WHOLE = """
// What a deployment of ours looks like.
module.exports = {
    LOCAL_MODE: true,
    PROXY_ID: process.env['USAGE_PANDA_PROXY_ID'] || 'ours',
    USAGE_PANDA_API: 'https://api.usagepanda.com/v1',
    USAGE_PANDA_API_KEY: process.env['USAGE_PANDA_API_KEY'],
    OPENAI_API_KEY: process.env['OPENAI_API_KEY'],
    LLM_API_BASE_PATH: 'https://api.openai.com',
    CONFIG_CACHE_MINUTES: 5,
    CORS_HEADERS: {'access-control-allow-origin': 'https://chat.example.org', 'Content-Type': 'application/json'},
    REDACTION_STRING: '****',
    POLICY_RETRY_COUNT: 9,
    PROMPT_REFLECTION_DELIMETER: '##',
    POLICY_DISABLED_MODELS: ["gpt-4", "1024x1024"],
    POLICY_AUTOREPLY: [
        {type: 'chat', request: 'hello', response: 'Hello, how can I help?'},
        {type: 'completion', request: 'hello', response: 'Hello.'},
    ],
    POLICY_REQUEST_WORDLIST: 'profanity:block, custom:redact',
    POLICY_RESPONSE_WORDLIST: 'Custom:Audit',
    POLICY_CUSTOM_WORDLIST: ['secret project', 'c++'],
    POLICY_MAX_TOKENS: '500',
    POLICY_MAX_PROMPT_CHARS: 8000,
    POLICY_AUTO_MODERATE: true,
    POLICY_ENFORCE_USER_IDS: 'true',
    POLICY_LOG_REQUEST: true,
    POLICY_LOG_RESPONSE: false,
    POLICY_PROMPT_REFLECTION: 'redact',
    AZURE_RESOURCE_NAME: null,
    AZURE_DEPLOYMENT_MAP: {},
    AZURE_API_VERSION: '2023-05-15',
    ASYNC_STATS_UPLOAD: false,
    FAIL_OPEN_ON_CONFIG_ERROR: false,
    MASK_USER_FIELD: false,
    TRACE_HEADER: 'x-usagepanda-trace-id',
    ALLOW_STREAMING: true,
    CUSTOM_AUTH_HANDLER: function(header) { return false },
    POLICY_SOMETHING_NEW: 1,
};
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    for name in ("USAGE_PANDA_PROXY_ID", "USAGE_PANDA_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.js"


def run(config: Path, text: str, *arguments: str) -> list[str]:
    """The lines that were printed."""
    config.write_text(text)
    out = io.StringIO()
    call_command("import_usagepanda", str(config), *arguments, stdout=out)
    return out.getvalue().splitlines()


def with_settings(config: Path, settings: str) -> list[str]:
    return run(config, f"module.exports = {{{settings}}}")


def in_force() -> PolicySpec:
    version = Policy.objects.get(name="usage-panda").current
    assert version is not None
    return documents.read(version.document, "usage-panda", version.number)


def rule(check: str, action: str = "block", stage: str = "request", **settings: Any) -> dict[str, Any]:
    return {"check": check, "action": action, "stage": stage, "settings": settings}


def seen(spec: RuleSpec, wanted: dict[str, Any]) -> dict[str, Any]:
    """The rule, as far as a test says what it should be."""
    settings = {name: spec.settings[name] for name in wanted["settings"]}
    return {"check": spec.check, "action": spec.action, "stage": spec.stage, "settings": settings}


# --- the whole file -------------------------------------------------------------------------------------------------
def test_every_policy_of_the_file_is_a_rule_in_usage_pandas_order(config: Path) -> None:
    run(config, WHOLE)
    expected = [
        rule("canned_reply", replies=[{"match": "hello", "reply": "Hello, how can I help?"}], match_how="exact"),
        rule("max_tokens", limit=500, missing_counts=True),
        rule("max_prompt_chars", limit=8000),
        rule("require_user"),
        rule("disabled_models", models=["gpt-4", "1024x1024"]),
        rule("retries", action="redact", count=5),
        rule("moderation", provider="openai", mode="before"),
        rule("wordlist", wordlists=["profanity"]),
        rule("wordlist", action="redact", wordlists=["custom"]),
        rule("wordlist", action="audit", stage="reply", wordlists=["custom"]),
        rule("prompt_reflection", action="redact", stage="reply", delimiter="##"),
    ]
    found = in_force().rules
    assert len(found) == len(expected)
    assert [seen(spec, wanted) for spec, wanted in zip(found, expected, strict=True)] == expected


def test_policy_holds_for_everyone_keeps_what_was_logged_and_lets_headers_only_tighten(config: Path) -> None:
    run(config, WHOLE)
    spec = in_force()
    assert (spec.log_request, spec.log_reply, spec.header_overrides) == (True, False, "tighten")
    assert [str(one) for one in Policy.objects.get().assignments.all()] == ["everyone"]
    assert build(None, lambda rules, policies: len(rules)).chain_for(None, None) == len(spec.rules)


def test_every_key_of_the_file_is_accounted_for(config: Path) -> None:
    lines = run(config, WHOLE)
    keys = re.findall(r"^    ([A-Z_]+):", WHOLE, re.MULTILINE)
    told = dict(re.split(r": | (?=->)", line, maxsplit=1) for line in lines[: len(keys)])
    assert list(told) == keys
    assert told["POLICY_SOMETHING_NEW"] == "unknown: nothing was carried over"
    assert told["POLICY_LOG_RESPONSE"] == "off"
    assert "1 more for the same questions left out" in told["POLICY_AUTOREPLY"]
    assert "in 1 of them signs of regular expressions stand for themselves" in told["POLICY_CUSTOM_WORDLIST"]
    assert told["CORS_HEADERS"].startswith("-> set CORS_ALLOWED_ORIGINS=https://chat.example.org")
    assert not any("sk-of-the-environment" in line for line in lines)


def test_every_key_of_usage_pandas_own_file_is_known() -> None:
    known = set(usagepanda.HANDLERS) | set(usagepanda.NOT_NEEDED)
    assert set(re.findall(r"^    ([A-Z_]+):", WHOLE, re.MULTILINE)) - {"POLICY_SOMETHING_NEW"} <= known


def test_file_with_everything_off_is_a_policy_without_rules(config: Path) -> None:
    with_settings(
        config,
        "POLICY_RETRY_COUNT: 0, POLICY_DISABLED_MODELS: [], POLICY_AUTOREPLY: [], POLICY_REQUEST_WORDLIST: '',"
        "POLICY_RESPONSE_WORDLIST: null, POLICY_CUSTOM_WORDLIST: [], POLICY_MAX_TOKENS: 0,"
        "POLICY_MAX_PROMPT_CHARS: '0', POLICY_AUTO_MODERATE: false, POLICY_ENFORCE_USER_IDS: 'no',"
        "POLICY_LOG_REQUEST: 1, POLICY_PROMPT_REFLECTION: 'none', PROMPT_REFLECTION_DELIMETER: '||'",
    )
    spec = in_force()
    assert (spec.rules, spec.log_request) == ((), False)
    assert not Wordlist.objects.filter(name="custom").exists()


def test_second_import_changes_nothing(config: Path) -> None:
    run(config, WHOLE)
    before = versions.current()
    assert run(config, WHOLE)[-1] == "nothing changed"
    assert (versions.current(), PolicyVersion.objects.count()) == (before, 1)


def test_dry_run_tells_the_same_and_writes_nothing(config: Path) -> None:
    lines = run(config, WHOLE, "--dry-run")
    assert "+ policy usage-panda" in "".join(lines)
    assert lines[-1] == "dry run: nothing was imported"
    assert not Policy.objects.exists()
    assert not Provider.objects.exists()


def test_file_is_not_run(config: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    text = f"module.exports = {{LOCAL_MODE: require('fs').writeFileSync('{ran}', ''), POLICY_MAX_TOKENS: 5}}"
    run(config, text)
    assert not ran.exists()
    assert [spec.check for spec in in_force().rules] == ["max_tokens"]


# --- word lists -----------------------------------------------------------------------------------------------------
def test_b1_custom_list_of_the_file_is_matched(config: Path) -> None:
    """Usage Panda looked for the list under a name that the file does not have, so it never matched anything."""
    with_settings(config, "POLICY_REQUEST_WORDLIST: 'custom:block', POLICY_CUSTOM_WORDLIST: ['secretword']")
    book = build(None, lambda rules, policies: rules)
    ((blocking,),) = (book.rules_for(None, None),)
    assert book.problems == ()
    assert blocking.action == "block"
    (span,) = blocking.check.scan(Folded("Tell me the SecretWord, please."), 0, True).spans
    assert (span.start, span.end, span.label) == (12, 22, "custom")


def test_b4_words_inside_other_words_are_not_matched(config: Path) -> None:
    with_settings(config, "POLICY_REQUEST_WORDLIST: 'custom:redact', POLICY_CUSTOM_WORDLIST: ['sex', 'f.ck']")
    (check,) = (one.check for one in build(None, lambda rules, policies: rules).rules_for(None, None))
    assert check.scan(Folded("Essex says hello, check the back of the document: fick"), 0, True).spans == ()


def test_list_that_was_filled_here_stays_when_the_file_does_not_have_it(config: Path) -> None:
    with_settings(config, "POLICY_REQUEST_WORDLIST: 'custom:block', POLICY_CUSTOM_WORDLIST: ['secretword']")
    with_settings(config, "POLICY_REQUEST_WORDLIST: 'custom:block'")
    assert Wordlist.objects.get(name="custom").entry_count == 1


# --- providers ------------------------------------------------------------------------------------------------------
def test_openai_is_a_provider_with_its_key_and_models(config: Path) -> None:
    with_settings(config, "OPENAI_API_KEY: process.env.OPENAI_API_KEY, LLM_API_BASE_PATH: 'https://api.openai.com/v1'")
    provider = Provider.objects.get()
    assert (provider.name, provider.kind, provider.base_url) == ("openai", "openai", "https://api.openai.com/v1")
    assert (provider.read_credential(), provider.caller_key) == ("sk-of-the-environment", False)
    assert Model.objects.filter(name="gpt-4o-mini", routes__provider=provider).exists()


def test_model_that_is_there_keeps_its_routes(config: Path) -> None:
    other = Provider.objects.create(name="other", kind="echo")
    model = Model.objects.create(name="gpt-4o-mini", aliases=["gpt-4o"])
    Route.objects.create(model=model, provider=other)
    with_settings(config, "LLM_API_BASE_PATH: 'https://api.openai.com'")
    assert model.routes.get().provider == other
    assert not Model.objects.filter(name="gpt-4o").exists()


def test_callers_bring_their_own_key_where_the_file_has_none(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    lines = with_settings(config, "OPENAI_API_KEY: process.env.OPENAI_API_KEY")
    assert Provider.objects.get().caller_key
    assert "send their own key" in lines[0]


def test_another_base_is_given_its_version_and_no_models(config: Path) -> None:
    with_settings(config, "LLM_API_BASE_PATH: 'https://llm.example.org/'")
    assert Provider.objects.get().base_url == "https://llm.example.org/v1"
    assert not Model.objects.exists()


AZURE = "AZURE_RESOURCE_NAME: 'ours', AZURE_DEPLOYMENT_MAP: {'gpt-4': 'big'}, AZURE_API_VERSION: '2024-10-21'"


def test_azure_is_a_provider_with_its_deployments(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "0123456789abcdef0123456789abcdef")
    settings = "OPENAI_API_KEY: process.env.OPENAI_API_KEY, LLM_API_BASE_PATH: 'https://api.openai.com'"
    with_settings(config, f"{AZURE}, {settings}")
    provider = Provider.objects.get()
    assert (provider.name, provider.kind, provider.base_url) == (
        "azure", "azure_openai", "https://ours.openai.azure.com",
    )  # fmt: skip
    assert (provider.read_credential(), provider.api_version) == ("0123456789abcdef0123456789abcdef", "2024-10-21")
    route = Route.objects.get()
    assert (route.model.name, route.provider, route.upstream_model) == ("gpt-4", provider, "big")


def test_key_of_openai_is_not_given_to_azure(config: Path) -> None:
    with_settings(config, f"{AZURE}, OPENAI_API_KEY: process.env.OPENAI_API_KEY")
    azure, openai = Provider.objects.order_by("name")
    assert (azure.name, azure.read_credential(), azure.caller_key) == ("azure", "", True)
    assert (openai.name, openai.read_credential()) == ("openai", "sk-of-the-environment")
    assert Model.objects.get(name="gpt-4").routes.get().provider == azure


@pytest.mark.parametrize("resource", ["evil.com/#", "a.b", "a b", "-x"])
def test_b8_resource_that_would_lead_elsewhere_is_refused(config: Path, resource: str) -> None:
    """Usage Panda put it into the host name unread, and sent its key there."""
    with pytest.raises(CommandError, match="AZURE_RESOURCE_NAME: must be the name of an Azure resource"):
        with_settings(config, f"AZURE_RESOURCE_NAME: '{resource}'")


def test_moderation_that_nobody_pays_for_is_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_key = with_settings(config, "POLICY_AUTO_MODERATE: true, OPENAI_API_KEY: process.env.OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_API_KEY")
    without = with_settings(config, "POLICY_AUTO_MODERATE: true, OPENAI_API_KEY: process.env.OPENAI_API_KEY")
    assert "Give the provider a key" not in with_key[0]
    assert "Give the provider a key" in without[0]


# --- what is refused ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("POLICY_MAX_TOKENS: 'many'", "must be a whole number; 0 switches it off"),
        ("POLICY_MAX_TOKENS: -1", "must be a whole number"),
        ("POLICY_MAX_PROMPT_CHARS: [1]", "must be a whole number"),
        ("POLICY_MAX_TOKENS: limit()", "is code, and nothing is run here: write down the value that it gives"),
        ("POLICY_CUSTOM_WORDLIST: require('./words.json')", "is code"),
        ("POLICY_CUSTOM_WORDLIST: ['a', f()]", "is code"),
        ("POLICY_CUSTOM_WORDLIST: 'secret'", "must be a list of texts"),
        ("POLICY_CUSTOM_WORDLIST: ['...']", ""),
        ("POLICY_DISABLED_MODELS: [1]", "must be a list of texts"),
        ("POLICY_REQUEST_WORDLIST: 'swearing:block'", "must be name:action, ... with profanity, adult, dan, custom"),
        ("POLICY_RESPONSE_WORDLIST: 'dan:delete'", "must be name:action"),
        ("POLICY_RESPONSE_WORDLIST: 'dan'", "must be name:action"),
        ("POLICY_AUTOREPLY: [{request: 'a'}]", "number 1 must have a request and a response"),
        ("POLICY_AUTOREPLY: {}", "must be a list of {type, request, response}"),
        ("POLICY_PROMPT_REFLECTION: 'maybe'", "must be none, audit, redact, block"),
        ("LLM_API_BASE_PATH: 'llm.example.org'", ""),
        ("AZURE_DEPLOYMENT_MAP: {'gpt-4': 1}", "must be names of deployments by names of models"),
    ],
)
def test_policy_that_cannot_be_carried_over_is_told_by_its_key_and_line(
    config: Path, setting: str, message: str
) -> None:
    with pytest.raises(CommandError) as caught:
        with_settings(config, f"LOCAL_MODE: true,\n{setting}")
    key = setting.partition(":")[0]
    assert f"config.js:2: {key}: {message}" in str(caught.value)
    assert str(caught.value).endswith("nothing was imported")
    assert not Policy.objects.exists()


def test_every_mistake_is_told_at_once(config: Path) -> None:
    with pytest.raises(CommandError) as caught:
        with_settings(config, "\nPOLICY_MAX_TOKENS: 'x',\nPOLICY_MAX_PROMPT_CHARS: 'y'")
    assert [line.partition("config.js:")[2][:1] for line in str(caught.value).splitlines()[:2]] == ["2", "3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"module.exports = {A: \xff}", "is not UTF-8"),
        (b"if (a) {}", "config.js:1: is code"),
        (b"", "exports no settings"),
    ],
)
def test_file_that_cannot_be_read_is_told(config: Path, content: bytes, message: str) -> None:
    config.write_bytes(content)
    with pytest.raises(CommandError, match=re.escape(message)):
        call_command("import_usagepanda", str(config))


def test_file_that_is_not_there_is_told(config: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_usagepanda", str(config))


# --- the way through apply ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("word", ["${HOME}", "$${X}", "a\x85b", "'quoted' \"twice\"", "#no: [comment]", "naïve\tword"])
def test_word_comes_through_as_it_is(config: Path, word: str) -> None:
    settings = Settings()
    settings.put("POLICY_CUSTOM_WORDLIST", [word], 1)
    apply(usagepanda.translate(settings, ()).as_yaml())
    assert Wordlist.objects.get(name="custom").entries.get().text == word
