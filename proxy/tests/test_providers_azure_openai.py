from __future__ import annotations

import orjson
import pytest

from proxy.tests.recorded import chat, exchange_of, recording, sent, target_of, translate

BASE = "https://contoso.openai.azure.com"


@pytest.mark.parametrize(
    ("base_url", "fields", "expected"),
    [
        (BASE, {}, f"{BASE}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"),
        (f"{BASE}/openai", {}, f"{BASE}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"),
        (
            BASE,
            {"api_version": "2025-04-01-preview"},
            f"{BASE}/openai/deployments/gpt-4o/chat/completions?api-version=2025-04-01-preview",
        ),
        (
            BASE,
            {"upstream_model": "my model/2?"},
            f"{BASE}/openai/deployments/my%20model%2F2%3F/chat/completions?api-version=2024-10-21",
        ),
        (f"{BASE}/openai/v1", {}, f"{BASE}/openai/v1/chat/completions"),
        (f"{BASE}/openai/v1", {"api_version": "2024-10-21"}, f"{BASE}/openai/v1/chat/completions"),
        (f"{BASE}/openai/v1", {"api_version": "preview"}, f"{BASE}/openai/v1/chat/completions?api-version=preview"),
    ],
)
def test_address_follows_from_deployment_and_version(base_url: str, fields: dict[str, str], expected: str) -> None:
    target = target_of("azure_openai", **{"base_url": base_url, "upstream_model": "gpt-4o", **fields})

    assert translate(chat(), target).url == expected


def test_embeddings_have_their_own_deployment() -> None:
    target = target_of("azure_openai", base_url=BASE, upstream_model="ada")

    url = translate(exchange_of("embeddings", {"input": "x"}), target).url

    assert url == f"{BASE}/openai/deployments/ada/embeddings?api-version=2024-10-21"


def test_key_goes_into_azures_own_header() -> None:
    assert translate(chat(), target_of("azure_openai", base_url=BASE), "key-1").headers == {
        "content-type": "application/json",
        "api-key": "key-1",
    }


def test_body_is_openais_and_names_the_deployment() -> None:
    body = sent(chat(stream=True), target_of("azure_openai", base_url=BASE, upstream_model="gpt-4o"))

    assert body == {**chat(stream=True).body, "model": "gpt-4o", "stream_options": {"include_usage": True}}


def test_reply_keeps_what_the_filter_said() -> None:
    body = recording("azure_openai/chat.json")

    assert target_of("azure_openai").adapter.reply(chat(), body).body == body


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        (BASE, f"{BASE}/openai/models?api-version=2024-10-21"),
        (f"{BASE}/openai/v1", f"{BASE}/openai/v1/models"),
    ],
)
def test_probe_lists_the_models(base_url: str, expected: str) -> None:
    target = target_of("azure_openai", base_url=base_url, upstream_model="", credential="key-1")

    request = target.adapter.probe(target)

    assert (request.method, request.url, request.headers["api-key"]) == ("GET", expected, "key-1")


def test_content_filter_tells_what_it_found() -> None:
    error = target_of("azure_openai").adapter.error(400, recording("azure_openai/error_content_filter.json"))

    assert error["code"] == "content_filter"
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "prompt"
    assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert error["innererror"]["content_filter_result"]["jailbreak"] == {"filtered": True, "detected": True}
    assert error["innererror"]["content_filter_result"]["custom_blocklists"] == {"filtered": False}


def test_content_filter_behind_api_management_is_understood_too() -> None:
    error = target_of("azure_openai").adapter.error(400, recording("azure_openai/error_content_filter_by_apim.json"))

    assert error["innererror"] == {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"jailbreak": {"filtered": True, "detected": True}},
    }


@pytest.mark.parametrize(
    ("status", "type_", "code"),
    [
        (401, "invalid_request_error", None),
        (404, "invalid_request_error", "DeploymentNotFound"),
        (429, "requests", "rate_limit_exceeded"),
    ],
)
def test_azures_codes_become_openais(status: int, type_: str, code: str | None) -> None:
    body = recording(f"azure_openai/error_{status}.json")

    assert target_of("azure_openai").adapter.error(status, body) == {
        "message": orjson.loads(body)["error"]["message"],
        "type": type_,
        "param": None,
        "code": code,
    }
