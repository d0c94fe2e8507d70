"""Usage Panda's config.js in Gatehouse's terms: a policy, its word list, providers and models, as a file of `apply`.

Every key of the file has an outcome in words: what became of it, or why nothing did. What would quietly leave a rule
out (a value that only running the file would tell, a word list that does not exist) is a mistake instead. Meaning and
value formats of the keys: the comments of Usage Panda's own config.js.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from gateway_project.declarations import Mistake
from gateway_project.environment_providers import listed_models
from gateway_project.javascript import Settings, has_code

POLICY = "usage-panda"
CUSTOM = "custom"
OPENAI = "https://api.openai.com"
WORDLISTS = ("profanity", "adult", "dan", CUSTOM)
ACTIONS = ("audit", "redact", "block")
MOST_RETRIES = 5
REDACTION = "****"
TRACE_HEADER = "x-usagepanda-trace-id"
AZURE_RESOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
REGEX_SIGNS = set(".[](){}|\\^$+?")

IS_CODE = "is code, and nothing is run here: write down the value that it gives"
NOTES = (
    f"Policy {POLICY} holds for everyone. Headers x-usagepanda-* count as far as they are stricter than its rules; "
    "Usage Panda let every caller switch every rule off. To allow that again: header_overrides of the policy.",
    "A blocked call gets 400 policy_violation, where Usage Panda answered 422. Rules hold in streams too.",
    "Callers need an API key of Gatehouse. They may go on sending it in x-usagepanda-api-key.",
)
NOT_NEEDED = {
    "LOCAL_MODE": "not needed: Gatehouse always works by itself",
    "PROXY_ID": "not needed: a call is found by its x-request-id",
    "USAGE_PANDA_API": "not needed: usage is kept in Gatehouse's own database",
    "USAGE_PANDA_API_KEY": "not needed: nothing is sent to Usage Panda any more",
    "CONFIG_CACHE_MINUTES": "not needed: a change is in force in a second",
    "CONFIG_CACHE_TYPE": "not needed: the configuration is in the database",
    "CONFIG_CACHE_PATH": "not needed: the configuration is in the database",
    "CACHE_ENABLED": "not needed: a change is in force in a second",
    "ASYNC_STATS_UPLOAD": "not needed: no call waits for its usage to be written",
    "FAIL_OPEN_ON_CONFIG_ERROR": "not needed: the last good configuration stays in force",
    "CUSTOM_AUTH_HANDLER": "not carried over: callers have API keys of Gatehouse, which it checks itself",
    "DEBUG_MODE": "not carried over: set LOG_LEVEL=DEBUG in the environment",
}


class Wrong(Exception):
    """A value that cannot be what the key is for."""


@dataclass(slots=True)
class Translation:
    """`document`: a file of `apply`. `outcomes`: for each key of config.js, in its order, what became of it.
    `origins`: which key a field of the document comes from. `mistakes`: then nothing must be applied."""

    document: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def as_yaml(self) -> bytes:
        """JSON is YAML, once control characters are escaped; and nothing in it is a variable."""
        text = json.dumps(self.document, ensure_ascii=False).replace("${", "$${")
        return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", text).encode()

    def key_of(self, path: str) -> str:
        """The key that a mistake in the document is about."""
        fitting = [origin for origin in self.origins if path == origin or path.startswith((f"{origin}.", f"{origin}["))]
        return self.origins[max(fitting, key=len)] if fitting else ""


def translate(settings: Settings, known_models: Collection[str]) -> Translation:
    """`known_models`: names that mean a model already; their routes are left as they are."""
    return _Translator(settings, known_models).run()


class _Translator:
    def __init__(self, settings: Settings, known_models: Collection[str]) -> None:
        self._settings = settings
        self._known_models = known_models
        self._result = Translation()
        self._rules: list[tuple[str, dict[str, Any]]] = []
        self._policy: dict[str, Any] = {
            "name": POLICY,
            "description": "Imported from Usage Panda's config.js.",
            "scope": "everyone",
            "header_overrides": "tighten",
        }
        self._key = self._text("OPENAI_API_KEY")
        self._azure = self._text("AZURE_RESOURCE_NAME")
        names_openai = "LLM_API_BASE_PATH" in settings or "OPENAI_API_KEY" in settings
        # With a resource Usage Panda sent everything to Azure, and the key was Azure's.
        self._has_openai = names_openai and (not self._azure or self._key.startswith("sk-"))

    def run(self) -> Translation:
        for name, value in self._settings.items():
            try:
                self._result.outcomes[name] = self._outcome(name, value)
            except Wrong as error:
                line = self._settings.lines[name]
                self._result.mistakes.append(Mistake(line, name, str(error)))
        if not self._result.mistakes:
            self._write()
        return self._result

    def _outcome(self, name: str, value: Any) -> str:
        if name in NOT_NEEDED:
            return NOT_NEEDED[name]
        handler = HANDLERS.get(name)
        if handler is None:
            return "unknown: nothing was carried over"
        if has_code(value):
            raise Wrong(IS_CODE)
        return handler(self, value)

    # --- the file of apply ------------------------------------------------------------------------------------------
    def _write(self) -> None:
        document: dict[str, list[dict[str, Any]]] = {"providers": [], "models": [], "wordlists": [], "policies": []}
        self._result.document = document
        if self._has_openai:
            self._add_provider({"name": "openai", "kind": "openai", "base_url": self._base_url()}, "LLM_API_BASE_PATH")
            self._add_models()
        if self._azure:
            self._add_azure()
        uses_custom = any(rule["settings"].get("wordlists") == [CUSTOM] for _, rule in self._rules)
        if self._words or uses_custom:
            given = {"words": self._words} if "POLICY_CUSTOM_WORDLIST" in self._settings else {}
            self._add("wordlists", {"name": CUSTOM, **given}, "POLICY_CUSTOM_WORDLIST")
        self._rules.sort(key=lambda rule: ORDER.index(rule[0]))
        for index, (name, _) in enumerate(self._rules):
            self._result.origins[f"policies[0].rules[{index}]"] = name
        document["policies"] = [self._policy | {"rules": [rule for _, rule in self._rules]}]

    def _add(self, section: str, row: dict[str, Any], origin: str) -> str:
        rows = self._result.document[section]
        path = f"{section}[{len(rows)}]"
        self._result.origins[path] = origin
        rows.append(row)
        return path

    def _add_provider(self, row: dict[str, Any], origin: str) -> None:
        is_theirs = row["name"] == "openai" or not self._has_openai
        credential = {"api_key": self._key} if self._key and is_theirs else {"caller_key": True}
        path = self._add("providers", row | credential, origin)
        self._result.origins[f"{path}.api_key"] = "OPENAI_API_KEY"

    def _add_models(self) -> None:
        """A provider lists them; Usage Panda let every name pass."""
        if self._base_url() != f"{OPENAI}/v1":
            return
        deployed = self._settings.get("AZURE_DEPLOYMENT_MAP") or {}
        for name in listed_models("openai"):
            if name not in self._known_models and not (self._azure and name in deployed):
                self._add("models", {"name": name, "routes": [{"provider": "openai"}]}, "LLM_API_BASE_PATH")

    def _add_azure(self) -> None:
        row = {"name": "azure", "kind": "azure_openai", "base_url": f"https://{self._azure}.openai.azure.com"}
        if version := self._text("AZURE_API_VERSION"):
            row["api_version"] = version
        self._add_provider(row, "AZURE_RESOURCE_NAME")
        for name, deployment in (self._settings.get("AZURE_DEPLOYMENT_MAP") or {}).items():
            route = {"provider": "azure", "upstream_model": deployment}
            self._add("models", {"name": name, "routes": [route]}, "AZURE_DEPLOYMENT_MAP")

    # --- providers --------------------------------------------------------------------------------------------------
    def base_path(self, value: Any) -> str:
        if not self._has_openai:
            return "not needed: with AZURE_RESOURCE_NAME everything went to Azure"
        base_url = self._base_url()
        models = "its models" if base_url == f"{OPENAI}/v1" else "its models are still to be set up"
        return f"-> provider openai at {base_url}, {models}"

    def openai_key(self, value: Any) -> str:
        provider = "openai" if self._has_openai else "azure"
        if self._key:
            return f"-> provider {provider}, kept encrypted"
        return f"empty: callers of provider {provider} send their own key, unless you give it one"

    def azure_resource(self, value: Any) -> str:
        if not self._azure:
            return "off"
        if not AZURE_RESOURCE.fullmatch(self._azure):
            raise Wrong("must be the name of an Azure resource: letters, digits and dashes")
        return f"-> provider azure at https://{self._azure}.openai.azure.com"

    def azure_deployments(self, value: Any) -> str:
        if not isinstance(value or {}, dict) or not all(isinstance(one, str) and one for one in (value or {}).values()):
            raise Wrong("must be names of deployments by names of models")
        if not value:
            return "empty"
        if not self._azure:
            return "not carried over: without AZURE_RESOURCE_NAME there is no provider azure"
        return f"-> models of provider azure: {', '.join(value)}"

    def azure_version(self, value: Any) -> str:
        if not self._azure:
            return "not needed: without AZURE_RESOURCE_NAME there is no provider azure"
        return f"-> api_version {value} of provider azure" if value else "empty"

    def _base_url(self) -> str:
        base = (self._text("LLM_API_BASE_PATH") or OPENAI).rstrip("/").removesuffix("/v1")
        return f"{base}/v1"

    # --- rules ------------------------------------------------------------------------------------------------------
    def max_tokens(self, value: Any) -> str:
        limit = _count(value)
        if limit:
            self._add_rule("POLICY_MAX_TOKENS", "max_tokens", {"limit": limit, "missing_counts": True})
        return f"-> rule max_tokens: blocks more than {limit}, and calls that name no limit" if limit else "off"

    def max_prompt_chars(self, value: Any) -> str:
        limit = _count(value)
        if limit:
            self._add_rule("POLICY_MAX_PROMPT_CHARS", "max_prompt_chars", {"limit": limit})
        return f"-> rule max_prompt_chars: blocks more than {limit}" if limit else "off"

    def require_user(self, value: Any) -> str:
        if not _is_on(value):
            return "off"
        self._add_rule("POLICY_ENFORCE_USER_IDS", "require_user", {})
        return "-> rule require_user: blocks"

    def disabled_models(self, value: Any) -> str:
        names = _texts(value)
        if names:
            self._add_rule("POLICY_DISABLED_MODELS", "disabled_models", {"models": names})
        return f"-> rule disabled_models: blocks {len(names)}" if names else "empty"

    def retries(self, value: Any) -> str:
        count = min(_count(value), MOST_RETRIES)
        if count:
            self._add_rule("POLICY_RETRY_COUNT", "retries", {"count": count}, action="redact")
        return f"-> rule retries: {count}" if count else "off"

    def moderation(self, value: Any) -> str:
        if not _is_on(value):
            return "off"
        provider = {"provider": "openai"} if self._has_openai else {}
        self._add_rule("POLICY_AUTO_MODERATE", "moderation", {"mode": "before", **provider}, stage="request")
        return (
            "-> rule moderation: blocks what is flagged, before it is sent; also when there is no verdict, where Usage "
            "Panda let it pass (fail_open of the rule)"
            f"{'' if self._key else '. Give the provider a key: without one there is never a verdict'}"
        )

    def autoreply(self, value: Any) -> str:
        listed = _list(value, "{type, request, response}")
        replies: dict[str, str] = {}
        for number, one in enumerate(listed, 1):
            request, response = (one.get("request"), one.get("response")) if isinstance(one, dict) else ("", "")
            if not (isinstance(request, str) and request.strip() and isinstance(response, str) and response.strip()):
                raise Wrong(f"number {number} must have a request and a response, both texts")
            replies.setdefault(request, response)
        if not replies:
            return "empty"
        pairs = [{"match": match, "reply": reply} for match, reply in replies.items()]
        self._add_rule("POLICY_AUTOREPLY", "canned_reply", {"replies": pairs, "match_how": "exact"})
        left_out = len(listed) - len(replies)
        tail = f"; {left_out} more for the same questions left out" if left_out else ""
        return f"-> rule canned_reply: answers {len(replies)}, in chat and completions{tail}"

    def request_words(self, value: Any) -> str:
        return self._wordlists("POLICY_REQUEST_WORDLIST", value, "request")

    def response_words(self, value: Any) -> str:
        return self._wordlists("POLICY_RESPONSE_WORDLIST", value, "reply")

    def _wordlists(self, key: str, value: Any, stage: str) -> str:
        told = []
        for item in filter(None, (part.strip().lower() for part in str(value or "").split(","))):
            name, _, action = (part.strip() for part in item.partition(":"))
            if name not in WORDLISTS or action not in ACTIONS:
                raise Wrong(f"must be name:action, ... with {', '.join(WORDLISTS)} and {', '.join(ACTIONS)}")
            self._add_rule(key, "wordlist", {"wordlists": [name]}, action=action, stage=stage)
            told.append(f"{action} {name}")
        return f"-> rules wordlist on each {stage}: {', '.join(told)}" if told else "off"

    def custom_words(self, value: Any) -> str:
        words = _texts(value)
        if not words:
            return "empty"
        tail = "matched as whole words, which Usage Panda did not; * stands for any letters"
        if signs := sum(bool(REGEX_SIGNS.intersection(word)) for word in words):
            tail += f"; in {signs} of them signs of regular expressions stand for themselves"
        return f"-> word list {CUSTOM}, entries: {len(words)}; {tail}"

    @property
    def _words(self) -> list[str]:
        return _texts(self._settings.get("POLICY_CUSTOM_WORDLIST"))

    def reflection(self, value: Any) -> str:
        action = str(value or "none").lower()
        if action == "none":
            return "off"
        if action not in ACTIONS:
            raise Wrong(f"must be none, {', '.join(ACTIONS)}")
        settings = {"delimiter": delimiter} if (delimiter := self._text("PROMPT_REFLECTION_DELIMETER")) else {}
        self._add_rule("POLICY_PROMPT_REFLECTION", "prompt_reflection", settings, action=action)
        return f"-> rule prompt_reflection: {action}"

    def delimiter(self, value: Any) -> str:
        if str(self._settings.get("POLICY_PROMPT_REFLECTION") or "none").lower() == "none":
            return "not needed: POLICY_PROMPT_REFLECTION is off"
        return "-> delimiter of the rule prompt_reflection"

    def _add_rule(self, key: str, check: str, settings: dict[str, Any], action: str = "block", stage: str = "") -> None:
        rule: dict[str, Any] = {"check": check, "action": action, "settings": settings}
        self._rules.append((key, rule | ({"stage": stage} if stage else {})))

    # --- settings ---------------------------------------------------------------------------------------------------
    def log_request(self, value: Any) -> str:
        return self._log("log_request", value)

    def log_response(self, value: Any) -> str:
        return self._log("log_reply", value)

    def _log(self, name: str, value: Any) -> str:
        self._policy[name] = _is_on(value)
        return f"-> {name} of the policy: kept encrypted in the database, for 30 days" if _is_on(value) else "off"

    def cors(self, value: Any) -> str:
        found = value if isinstance(value, dict) else {}
        allowed = next((text for name, text in found.items() if name.lower() == "access-control-allow-origin"), "")
        if not allowed:
            return "not needed: no page may call the gateway from a browser, unless CORS_ALLOWED_ORIGINS says so"
        return f"-> set CORS_ALLOWED_ORIGINS={allowed} in the environment, if pages call the gateway from a browser"

    def redaction(self, value: Any) -> str:
        if value == REDACTION:
            return f"not needed: redacted text becomes {REDACTION} here too"
        return f"not carried over: redacted text becomes {REDACTION}"

    def mask_user(self, value: Any) -> str:
        if not _is_on(value):
            return "off"
        return "not carried over: usage events name the field 'user' as it was sent; nothing leaves Gatehouse with it"

    def trace_header(self, value: Any) -> str:
        if str(value or TRACE_HEADER).lower() == TRACE_HEADER:
            return f"not needed: {TRACE_HEADER} is read"
        return f"not carried over: send {TRACE_HEADER}, x-gatehouse-trace-id or traceparent"

    def streaming(self, value: Any) -> str:
        if value is False or str(value).lower() == "false":
            return "not carried over: callers may stream, and rules hold in streams"
        return "not needed: callers may stream"

    def port(self, value: Any) -> str:
        return f"-> set PORT={value} in the environment" if value else "empty"

    def _text(self, name: str) -> str:
        value = self._settings.get(name)
        return value.strip() if isinstance(value, str) else ""


def _count(value: Any) -> int:
    """0, "", null and false are off."""
    text = str(value or 0).strip() or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Wrong("must be a whole number; 0 switches it off")
    return int(text)


def _is_on(value: Any) -> bool:
    """true, as a value or a text; Usage Panda takes anything else as off."""
    return str(value).lower() == "true"


def _list(value: Any, what: str) -> list[Any]:
    if value in (None, ""):
        return []
    if not isinstance(value, list):
        raise Wrong(f"must be a list of {what}")
    return value


def _texts(value: Any) -> list[str]:
    listed = _list(value, "texts")
    if not all(isinstance(one, str) for one in listed):
        raise Wrong("must be a list of texts")
    return [text for text in listed if text.strip()]


HANDLERS: dict[str, Callable[[_Translator, Any], str]] = {
    "LLM_API_BASE_PATH": _Translator.base_path,
    "OPENAI_API_KEY": _Translator.openai_key,
    "AZURE_RESOURCE_NAME": _Translator.azure_resource,
    "AZURE_DEPLOYMENT_MAP": _Translator.azure_deployments,
    "AZURE_API_VERSION": _Translator.azure_version,
    "POLICY_AUTOREPLY": _Translator.autoreply,
    "POLICY_MAX_TOKENS": _Translator.max_tokens,
    "POLICY_MAX_PROMPT_CHARS": _Translator.max_prompt_chars,
    "POLICY_ENFORCE_USER_IDS": _Translator.require_user,
    "POLICY_DISABLED_MODELS": _Translator.disabled_models,
    "POLICY_RETRY_COUNT": _Translator.retries,
    "POLICY_AUTO_MODERATE": _Translator.moderation,
    "POLICY_REQUEST_WORDLIST": _Translator.request_words,
    "POLICY_RESPONSE_WORDLIST": _Translator.response_words,
    "POLICY_PROMPT_REFLECTION": _Translator.reflection,
    "PROMPT_REFLECTION_DELIMETER": _Translator.delimiter,
    "POLICY_CUSTOM_WORDLIST": _Translator.custom_words,
    "POLICY_LOG_REQUEST": _Translator.log_request,
    "POLICY_LOG_RESPONSE": _Translator.log_response,
    "CORS_HEADERS": _Translator.cors,
    "REDACTION_STRING": _Translator.redaction,
    "MASK_USER_FIELD": _Translator.mask_user,
    "TRACE_HEADER": _Translator.trace_header,
    "ALLOW_STREAMING": _Translator.streaming,
    "PORT": _Translator.port,
}
# Rules stand in the order in which Usage Panda ran them, whatever the order of the file.
ORDER = list(HANDLERS)
