"""What each kind of destination gets, and that names in it can do no harm."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from usage.alerts import messages
from usage.alerts.messages import Message
from usage.tests.events import NOON

MESSAGE = Message(
    id="d1",
    event="alert.fired",
    alert_id="a1",
    kind="budget",
    rule="Budgets",
    subject="budget 7 window 2026-11-01T00:00 80 %",
    severity="warning",
    title="Team research: 80 % of the budget is used",
    text="$0.85 of $1.00.\nSecond line.",
    fired_at=NOON,
    resolved_at=None,
    facts={"budget_id": 7},
    url="https://gateway.example.org/admin/usage/alert/a1/change/",
)
EVIL = "<!channel> <https://evil.example|click> [click](https://evil.example) @everyone <@123> **b** `c` \r\nBcc: x@y"


def test_webhook_gets_these_fields() -> None:
    assert messages.webhook(MESSAGE) == {
        "id": "d1",
        "version": 1,
        "event": "alert.fired",
        "alert": {
            "id": "a1",
            "kind": "budget",
            "rule": "Budgets",
            "subject": "budget 7 window 2026-11-01T00:00 80 %",
            "severity": "warning",
            "title": "Team research: 80 % of the budget is used",
            "text": "$0.85 of $1.00.\nSecond line.",
            "fired_at": "2026-11-20T12:00:00+00:00",
            "resolved_at": None,
            "facts": {"budget_id": 7},
            "url": "https://gateway.example.org/admin/usage/alert/a1/change/",
        },
    }


def test_signature_is_the_hmac_of_time_and_body() -> None:
    digest = hmac.new(b"s3cret", b'1763640000.{"a":1}', hashlib.sha256).hexdigest()
    assert messages.signature("s3cret", b'{"a":1}', 1763640000) == f"t=1763640000,v1={digest}"


def test_verification_in_the_documentation_accepts_ours_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(settings.BASE_DIR) / "docs/alerts.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    is_ours = names["is_from_gatehouse"]
    monkeypatch.setattr(names["time"], "time", lambda: 1763640000.0)
    body = messages.as_json(messages.webhook(MESSAGE))
    good = messages.signature("s3cret", body, 1763640000)
    assert is_ours("s3cret", good, body)
    assert not is_ours("s3cret", good, body + b" ")
    assert not is_ours("other", good, body)
    assert not is_ours("s3cret", messages.signature("s3cret", body, 1763640000 - 3600), body)  # sent again by somebody
    assert not is_ours("s3cret", "", body)
    assert not is_ours("s3cret", "t=x,v1=y", body)


def test_slack_gets_plain_text_blocks() -> None:
    body = messages.slack(MESSAGE)
    assert [block["type"] for block in body["blocks"]] == ["header", "section", "section", "context"]
    assert body["blocks"][0]["text"] == {
        "type": "plain_text",
        "text": "⚠️ Team research: 80 % of the budget is used",
        "emoji": False,
    }
    assert body["blocks"][2]["text"]["text"] == f"<{MESSAGE.url}|Open in Gatehouse>"
    assert body["text"] == "⚠️ Team research: 80 % of the budget is used"


def test_slack_mentions_nobody() -> None:
    body = messages.slack(replace(MESSAGE, title=EVIL, text=EVIL))
    assert body["text"].startswith("⚠️ &lt;!channel&gt; &lt;https://evil.example|click&gt;")
    marked = [block for block in body["blocks"] if block.get("text", {}).get("type") == "mrkdwn"]
    assert EVIL not in json.dumps(marked)


def test_teams_gets_an_adaptive_card_of_text_runs() -> None:
    body = messages.teams(replace(MESSAGE, title=EVIL))
    assert body["type"] == "message"
    (attachment,) = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}  # a TextBlock would read Markdown
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open in Gatehouse", "url": MESSAGE.url}]


def test_discord_gets_an_embed_that_mentions_nobody() -> None:
    body = messages.discord(replace(MESSAGE, title=EVIL, text=EVIL))
    assert body["allowed_mentions"] == {"parse": []}
    (embed,) = body["embeds"]
    assert embed["url"] == MESSAGE.url
    assert r"\[click\]\(https\:" in embed["description"]
    assert r"\<\@123\>" in embed["description"]
    assert r"\*\*b\*\*" in embed["title"]


def test_mail_has_one_line_as_its_subject() -> None:
    subject, text = messages.mail(replace(MESSAGE, title=EVIL))
    assert "\r" not in subject and "\n" not in subject
    assert text.startswith("$0.85 of $1.00.\nSecond line.\n\nhttps://gateway.example.org/")


@pytest.mark.parametrize(
    "to_body", [messages.slack, messages.teams, messages.discord], ids=["slack", "teams", "discord"]
)
def test_long_texts_are_cut_to_what_is_taken(to_body: Any) -> None:
    body = to_body(replace(MESSAGE, title="t" * 5000, text="x" * 50_000, rule="r" * 3000))
    texts = re.findall(r'"(?:text|title|description)": "([^"]*)"', json.dumps(body, ensure_ascii=False))
    limits = {messages.slack: 3000, messages.teams: 2000, messages.discord: 4096}
    assert 0 < max(map(len, texts)) <= limits[to_body]
    if to_body is messages.slack:
        assert len(body["blocks"][0]["text"]["text"]) <= 150
    if to_body is messages.discord:
        assert len(body["embeds"][0]["title"]) <= 256
        assert sum(len(body["embeds"][0][name]) for name in ("title", "description")) + 1024 <= 6000


@pytest.mark.parametrize(
    "to_body", [messages.slack, messages.teams, messages.discord], ids=["slack", "teams", "discord"]
)
def test_without_the_gateways_address_there_is_no_link(to_body: Any) -> None:
    assert "http" not in json.dumps(to_body(replace(MESSAGE, url=""))).replace("http://adaptivecards.io", "")


def test_what_is_over_looks_so() -> None:
    over = replace(MESSAGE, event="alert.over", title="Provider openai is back", resolved_at=NOON)
    assert messages.slack(over)["text"] == "✅ Provider openai is back"
    assert messages.mail(over)[0] == "[Gatehouse] ✅ Provider openai is back"
    assert messages.webhook(over)["alert"]["resolved_at"] == "2026-11-20T12:00:00+00:00"
