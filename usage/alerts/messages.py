"""What is sent: an alert as the body that each kind of destination takes. Pure.

Names in alerts are chosen by people, so nothing in them may mention anybody, link anywhere or change the layout.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

ICONS = {"info": "ℹ️", "warning": "⚠️", "critical": "🔴", "over": "✅"}
DISCORD_COLORS = {"info": 0x3B82F6, "warning": 0xF59E0B, "critical": 0xEF4444, "over": 0x16A34A}
TEAMS_COLORS = {"info": "accent", "warning": "warning", "critical": "attention", "over": "good"}
MARKDOWN = re.compile(r"([\\`*_~|>#\[\]()<@:-])")
SIGNATURE_HEADER = "x-gatehouse-signature"


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery, whatever it is sent through. `id` is the same at every try; `event`: alert.fired, alert.over or
    alert.test; `url`: the alert in the admin, "" when the gateway's address is not known."""

    id: str
    event: str
    alert_id: str
    kind: str
    rule: str
    subject: str
    severity: str
    title: str
    text: str
    fired_at: datetime
    resolved_at: datetime | None
    facts: dict[str, Any]
    url: str

    @property
    def look(self) -> str:
        return "over" if self.event == "alert.over" else self.severity

    @property
    def footer(self) -> str:
        return f"Gatehouse · rule “{self.rule}” · {self.fired_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


# --- webhook --------------------------------------------------------------------------------------------------------
def webhook(message: Message) -> dict[str, Any]:
    """Documented in docs/alerts.md: fields are added, never changed or taken away."""
    return {
        "id": message.id,
        "version": 1,
        "event": message.event,
        "alert": {
            "id": message.alert_id,
            "kind": message.kind,
            "rule": message.rule,
            "subject": message.subject,
            "severity": message.severity,
            "title": message.title,
            "text": message.text,
            "fired_at": message.fired_at.astimezone(UTC).isoformat(),
            "resolved_at": message.resolved_at.astimezone(UTC).isoformat() if message.resolved_at else None,
            "facts": message.facts,
            "url": message.url or None,
        },
    }


def signature(secret: str, body: bytes, at: int) -> str:
    """Value of x-gatehouse-signature. `at`: unix time, signed too, so that an old message cannot be sent again."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def as_json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


# --- chats ----------------------------------------------------------------------------------------------------------
def slack(message: Message) -> dict[str, Any]:
    """Block Kit of plain texts, in which no mention and no link counts. `text` is what notifications show."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _slack_text(f"{ICONS[message.look]} {message.title}", 150)},
        {"type": "section", "text": _slack_text(message.text, 3000)},
        {"type": "context", "elements": [_slack_text(message.footer, 2000)]},
    ]
    if message.url:
        link = {"type": "mrkdwn", "text": f"<{message.url}|Open in Gatehouse>"}
        blocks.insert(2, {"type": "section", "text": link})
    fallback = _shortened(f"{ICONS[message.look]} {message.title}", 1000)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        fallback = fallback.replace(character, entity)
    return {"text": fallback, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def _slack_text(text: str, most: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": _shortened(text, most) or "-", "emoji": False}


def teams(message: Message) -> dict[str, Any]:
    """An Adaptive Card for a webhook of the Workflows app. Text runs, because text blocks read Markdown."""
    look = message.look
    body = [
        _runs(f"{ICONS[look]} {message.title}", weight="bolder", size="large", color=TEAMS_COLORS[look]),
        *[_runs(line) for line in message.text.splitlines()],
        _runs(message.footer, isSubtle=True, size="small"),
    ]
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "msteams": {"width": "Full"},
    }
    if message.url:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open in Gatehouse", "url": message.url}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _runs(text: str, **look: Any) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": _shortened(text, 2000), **look}]}


def discord(message: Message) -> dict[str, Any]:
    embed: dict[str, Any] = {
        "title": _shortened(MARKDOWN.sub(r"\\\1", f"{ICONS[message.look]} {message.title}"), 256),
        "description": _shortened(MARKDOWN.sub(r"\\\1", message.text), 4000),
        "color": DISCORD_COLORS[message.look],
        "footer": {"text": _shortened(message.footer, 1000)},
    }
    if message.url:
        embed["url"] = message.url
    return {"username": "Gatehouse", "embeds": [embed], "allowed_mentions": {"parse": []}}


# --- mail -----------------------------------------------------------------------------------------------------------
def mail(message: Message) -> tuple[str, str]:
    """Subject and text."""
    subject = " ".join(f"[Gatehouse] {ICONS[message.look]} {message.title}".split())
    parts = [message.text, message.url, f"-- \n{message.footer}"]
    return _shortened(subject, 200), "\n\n".join(part for part in parts if part) + "\n"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
