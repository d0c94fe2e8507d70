"""How to use a key from the tools that people have, ready to be copied."""

from __future__ import annotations

from typing import NamedTuple


class Snippet(NamedTuple):
    """`code` "" : there is nothing to copy, `note` says why."""

    id: str
    title: str
    code: str
    note: str = ""


def snippets(base_url: str, secret: str, model: str, endpoints: list[str]) -> list[Snippet]:
    """`base_url` ends with /v1. `endpoints`: what the gateway serves, because some tools speak another dialect."""
    values = {"base": base_url, "origin": base_url.removesuffix("/v1"), "key": secret, "model": model}
    plain = [
        Snippet("curl", "curl", _filled(CURL, values)),
        Snippet("python", "Python", _filled(PYTHON, values), "pip install openai"),
        Snippet("javascript", "JavaScript", _filled(JAVASCRIPT, values), "npm install openai"),
        Snippet("langchain", "LangChain", _filled(LANGCHAIN, values), "pip install langchain-openai"),
    ]
    if "messages" in endpoints:
        claude = Snippet("claude-code", "Claude Code", _filled(CLAUDE_CODE, values), "In the shell you start it from.")
    else:
        claude = Snippet("claude-code", "Claude Code", "", NO_MESSAGES)
    wire_api = "responses" if "responses" in endpoints else "chat"
    codex = Snippet(
        "codex",
        "Codex",
        _filled(CODEX, {**values, "wire": wire_api}),
        "The first part goes into ~/.codex/config.toml, the last line into your shell."
        + ("" if wire_api == "responses" else " For versions of Codex that speak Chat Completions."),
    )
    return [*plain, claude, codex]


def _filled(template: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        template = template.replace(f"<{name}>", value)
    return template


NO_MESSAGES = (
    "Claude Code speaks Anthropic's Messages API, which this gateway does not serve. Use one of the others, or ask "
    "whoever runs the gateway."
)

CURL = """\
curl <base>/chat/completions \\
  -H "Authorization: Bearer <key>" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "<model>", "messages": [{"role": "user", "content": "Hello"}]}'"""

PYTHON = """\
from openai import OpenAI

client = OpenAI(
    base_url="<base>",
    api_key="<key>",
)
reply = client.chat.completions.create(
    model="<model>",
    messages=[{"role": "user", "content": "Hello"}],
)
print(reply.choices[0].message.content)"""

JAVASCRIPT = """\
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "<base>",
  apiKey: "<key>",
});
const reply = await client.chat.completions.create({
  model: "<model>",
  messages: [{ role: "user", content: "Hello" }],
});
console.log(reply.choices[0].message.content);"""

LANGCHAIN = """\
from langchain_openai import ChatOpenAI

llm = ChatOpenAI(
    base_url="<base>",
    api_key="<key>",
    model="<model>",
)
print(llm.invoke("Hello").content)"""

CLAUDE_CODE = """\
export ANTHROPIC_BASE_URL="<origin>"
export ANTHROPIC_AUTH_TOKEN="<key>"
export ANTHROPIC_MODEL="<model>"
claude"""

CODEX = """\
model = "<model>"
model_provider = "gatehouse"

[model_providers.gatehouse]
name = "Gatehouse"
base_url = "<base>"
env_key = "GATEHOUSE_API_KEY"
wire_api = "<wire>"

# in your shell:
export GATEHOUSE_API_KEY="<key>\""""
