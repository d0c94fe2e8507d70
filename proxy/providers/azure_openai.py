"""Azure OpenAI: OpenAI's dialect at addresses of its own. The upstream model is the name of a deployment.

Two address schemes, told apart by the base URL:
  https://NAME.openai.azure.com                one path a deployment, with an API version by date
  https://NAME.openai.azure.com/openai/v1      the newer v1 API, which needs neither
Source: https://learn.microsoft.com/azure/ai-foundry/openai/reference
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from proxy.providers.base import Target, register
from proxy.providers.openai import OpenAIAdapter, add_extra_headers, clean, error_object, error_said

VERDICT_FIELDS = ("filtered", "detected", "severity")
MAX_CATEGORIES = 20


@register
class AzureOpenAIAdapter(OpenAIAdapter):
    kind = "azure_openai"
    label = "Azure OpenAI"
    default_base_url = ""
    default_api_version = "2024-10-21"  # the newest that is generally available; later ones by date are previews

    def url(self, endpoint: str, target: Target) -> str:
        base, version = target.base_url, target.api_version or self.default_api_version
        if base.endswith("/openai/v1"):
            # The v1 API refuses dates; `preview` opens what is not yet released.
            return f"{base}/{endpoint}?api-version=preview" if version == "preview" else f"{base}/{endpoint}"
        base = base.removesuffix("/openai")
        path = endpoint if endpoint == "models" else f"deployments/{quote(target.upstream_model, safe='')}/{endpoint}"
        return f"{base}/openai/{path}?api-version={quote(version, safe='')}"

    def headers(self, target: Target, credential: str) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if credential:
            headers["api-key"] = credential
        return add_extra_headers(headers, target)

    def error(self, status: int, body: bytes) -> dict[str, Any]:
        """Also what the content filter found, by category, where Azure's own clients look for it."""
        said = error_said(body)
        error = error_object(status, said)
        verdict = _filter_verdict(said)
        if verdict:
            error["innererror"] = verdict
        return error


def _filter_verdict(said: dict[str, Any]) -> dict[str, Any]:
    """{"code", "content_filter_result": {category: {filtered, detected, severity}}}, or {}."""
    inner = said.get("innererror") or said.get("inner_error")
    if not isinstance(inner, dict) or not isinstance(inner.get("code"), str):
        return {}
    found = inner.get("content_filter_result") or inner.get("content_filter_results")
    if not isinstance(found, dict):
        return {}
    verdicts = {
        category: {name: verdict[name] for name in VERDICT_FIELDS if isinstance(verdict.get(name), bool | str)}
        for category, verdict in list(found.items())[:MAX_CATEGORIES]
        if isinstance(verdict, dict)
    }
    return {"code": clean(inner["code"]), "content_filter_result": verdicts}
