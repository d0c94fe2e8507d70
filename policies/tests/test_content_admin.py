"""Logged content in the admin: who may read it, and that nobody reads it unseen."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.encryption import encrypt
from accounts.models import Team, User
from accounts.services import create_key
from accounts.time_ids import first_id
from policies import content
from policies.models import ContentView, LoggedContent
from policies.tests.admin_pages import MAX_QUERIES, staff, superuser, text_of
from usage.models import UsageEvent
from usage.tests import events

pytestmark = pytest.mark.django_db

CONTENTS = reverse("admin:policies_loggedcontent_changelist")
LOOKS = reverse("admin:policies_contentview_changelist")
VIEW, DELETE = "policies.view_loggedcontent", "policies.delete_loggedcontent"
PROMPT, ANSWER = "What does the frog say?", "The frog says quack."
HOSTILE = "</pre></div><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7|add:7 }}\u202eevil"


@pytest.fixture
def admin_client(client: Client) -> Client:
    return superuser(client)


@pytest.fixture
def kept() -> LoggedContent:
    return keep()


def keep(number: int = 0, *, prompt: str = PROMPT, answer: str = ANSWER, **columns: Any) -> LoggedContent:
    at = columns.pop("at", timezone.now())
    request = {"model": "gpt-test", "messages": [{"role": "user", "content": prompt}]}
    reply = {"choices": [{"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}]}
    given: dict[str, Any] = {
        "event_id": UUID(int=first_id(at).int + 2**62 + number), "at": at, "expires_at": at + timedelta(days=30),
        "request_id": "req_1", "model": "gpt-test", "key_label": "laptop (abc)",
        "request": encrypt(json.dumps(request)), "reply": encrypt(json.dumps(reply)),
    }  # fmt: skip
    return LoggedContent.objects.create(**given | columns)


def page_url(kept: LoggedContent, page: str = "change") -> str:
    return reverse(f"admin:policies_loggedcontent_{page}", args=[kept.pk])


def open_(client: Client, kept: LoggedContent, **headers: Any) -> Any:
    return client.get(page_url(kept), **headers)


# --- who may --------------------------------------------------------------------------------------------------------
def test_being_staff_is_not_enough_to_read(client: Client, kept: LoggedContent) -> None:
    everything_else = (DELETE, "policies.view_contentview", "policies.view_finding", "policies.change_policy")
    somebody = staff(client, *everything_else, "usage.view_usageevent")
    for url in (CONTENTS, page_url(kept), page_url(kept, "delete"), page_url(kept, "history")):
        response = somebody.get(url)
        assert response.status_code == 403
        assert PROMPT not in text_of(response)
    assert not ContentView.objects.exists()


def test_those_who_were_given_the_permission_read(client: Client, kept: LoggedContent) -> None:
    page = text_of(open_(staff(client, VIEW), kept))
    assert PROMPT in page
    assert ANSWER in page


def test_superusers_read(admin_client: Client, kept: LoggedContent) -> None:
    assert PROMPT in text_of(open_(admin_client, kept))


def test_nobody_reads_without_signing_in(client: Client, kept: LoggedContent) -> None:
    assert open_(client, kept).status_code == 302
    assert not ContentView.objects.exists()


# --- a look leaves a trace ------------------------------------------------------------------------------------------
def test_each_look_is_recorded_with_who_and_from_where(client: Client, kept: LoggedContent) -> None:
    reader = staff(client, VIEW, name="carol")
    open_(reader, kept, REMOTE_ADDR="198.51.100.7")
    look = ContentView.objects.get()
    assert (look.username, look.user.username) == ("carol", "carol")
    assert (look.client_ip, look.event_id, look.request_id) == ("198.51.100.7", kept.pk, "req_1")
    assert timezone.now() - look.at < timedelta(minutes=1)
    reader.head(page_url(kept))
    open_(reader, kept)
    assert ContentView.objects.count() == 3


@pytest.mark.parametrize(
    ("trusted", "recorded"),
    [(["198.51.100.0/24"], "203.0.113.9"), ([], "198.51.100.7"), (["10.0.0.0/8"], "198.51.100.7")],
)
def test_address_is_that_of_whoever_is_behind_a_trusted_proxy(
    admin_client: Client, kept: LoggedContent, settings: Any, trusted: list[str], recorded: str
) -> None:
    settings.TRUSTED_PROXIES = trusted
    open_(admin_client, kept, REMOTE_ADDR="198.51.100.7", HTTP_X_FORWARDED_FOR="192.0.2.1, 203.0.113.9")
    assert ContentView.objects.get().client_ip == recorded


def test_look_is_on_record_before_anything_is_decrypted(
    admin_client: Client, kept: LoggedContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = []

    def decrypt(token: str) -> str:
        recorded.append(ContentView.objects.count())
        return "{}"

    monkeypatch.setattr(content, "decrypt", decrypt)
    open_(admin_client, kept)
    assert recorded == [1, 1]


def test_nothing_is_shown_when_the_look_cannot_be_recorded(
    admin_client: Client, kept: LoggedContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_columns: Any) -> None:
        raise OperationalError("disk full")

    monkeypatch.setattr(ContentView.objects, "create", fail)
    monkeypatch.setattr(content, "decrypt", lambda token: pytest.fail("decrypted all the same"))
    response = open_(admin_client, kept)
    page = text_of(response)
    assert response.status_code == 503
    assert "nothing is shown" in page
    assert PROMPT not in page
    assert ANSWER not in page


def test_look_stays_on_record_when_the_page_fails(
    admin_client: Client, kept: LoggedContent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("policies.transcript.of_request", lambda text: 1 / 0)
    admin_client.raise_request_exception = False
    with caplog.at_level(logging.CRITICAL, "django.request"):
        assert open_(admin_client, kept).status_code == 500
    assert ContentView.objects.count() == 1


def test_browser_keeps_no_copy_of_the_page(admin_client: Client, kept: LoggedContent) -> None:
    assert "no-store" in open_(admin_client, kept)["Cache-Control"]


@pytest.mark.parametrize("name", ["01a1fe5a-6949-709f-93d6-434ded0b2fca", "nonsense", "1"])
def test_content_that_is_not_there_leaves_no_trace(admin_client: Client, name: str) -> None:
    url = reverse("admin:policies_loggedcontent_change", args=[name])
    assert admin_client.get(url).status_code == 404
    assert not ContentView.objects.exists()


# --- the list -------------------------------------------------------------------------------------------------------
def test_list_holds_no_texts_and_is_no_look(admin_client: Client, kept: LoggedContent) -> None:
    with CaptureQueriesContext(connection) as asked:
        page = text_of(admin_client.get(CONTENTS))
    assert "laptop (abc)" in page
    for text in (PROMPT, ANSWER, kept.request, kept.reply):
        assert text not in page
    columns = [entry["sql"].partition(" FROM ")[0] for entry in asked if "policies_loggedcontent" in entry["sql"]]
    assert not [sql for sql in columns if '"policies_loggedcontent"."request",' in sql]
    assert len(asked) <= MAX_QUERIES
    assert not ContentView.objects.exists()


def test_list_says_what_was_kept_and_until_when(admin_client: Client, research: Team) -> None:
    now = timezone.now()
    keep(1, reply="", team_id=research.pk)
    keep(2, request="", team_id=4711)
    keep(3, expires_at=now - timedelta(hours=1))
    page = text_of(admin_client.get(CONTENTS))
    for words in ("research", "deleted (4711)", "with the next sweep", "in 4\xa0weeks"):
        assert words in page
    listed = admin_client.get(CONTENTS).context["cl"]
    assert [listed.model_admin.kept(row) for row in listed.result_list] == ["request and reply", "reply", "request"]


def test_every_page_of_a_long_list_is_cheap(admin_client: Client) -> None:
    for number in range(120):
        keep(number, request="x", reply="y", team_id=number % 3, key_id=number % 5)
    middle = LoggedContent.objects.order_by("pk")[60].pk
    for query in ("", "?window=all", f"?before={middle}", "?team__id__exact=1", "?key__id__exact=2", "?q=nothing"):
        with CaptureQueriesContext(connection) as asked:
            assert admin_client.get(f"{CONTENTS}{query}").status_code == 200
        assert len(asked) <= MAX_QUERIES, query
        assert not [entry for entry in asked if "COUNT(" in entry["sql"].upper()], query


def test_content_is_found_by_request_id_and_by_the_public_id_of_its_key(admin_client: Client, research: Team) -> None:
    key, _ = create_key("app", research)
    long_ago = timezone.now() - timedelta(days=20)
    events.add(long_ago, request_id="req_wanted")
    event = UsageEvent.objects.get()
    keep(1, event_id=event.pk, at=long_ago)
    keep(2, key_id=key.pk)
    keep(3)

    def found(term: str) -> list[Any]:
        return [row.pk for row in admin_client.get(CONTENTS, {"q": term}).context["cl"].result_list]

    assert found("req_wanted") == [event.pk]
    assert found(key.public_id) == [LoggedContent.objects.get(key_id=key.pk).pk]


def test_empty_list_says_how_texts_are_kept(admin_client: Client) -> None:
    assert "switch on “log requests” or “log replies”" in text_of(admin_client.get(CONTENTS))


def test_export_is_not_offered(admin_client: Client, kept: LoggedContent) -> None:
    assert "xport" not in text_of(admin_client.get(CONTENTS)) + text_of(open_(admin_client, kept))


# --- the texts ------------------------------------------------------------------------------------------------------
def test_texts_are_shown_by_role_with_all_of_the_json(
    admin_client: Client, kept: LoggedContent, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(MAX_QUERIES):
        response = open_(admin_client, kept)
    request, reply = response.context["sides"]
    assert [turn.role for turn in request["told"].turns] == ["user"]
    assert [turn.role for turn in reply["told"].turns] == ["assistant"]
    assert "&quot;finish_reason&quot;: &quot;stop&quot;" in text_of(response)


def test_whatever_was_written_is_shown_as_text(admin_client: Client) -> None:
    call = {"function": {"name": HOSTILE, "arguments": HOSTILE}}
    message = {"role": HOSTILE, "name": HOSTILE, "content": [HOSTILE, {"type": HOSTILE}], "tool_calls": [call]}
    body = {"messages": [message], HOSTILE: HOSTILE, "prompt": HOSTILE}
    reply = {"choices": [{"message": {"role": HOSTILE, "refusal": HOSTILE}, "finish_reason": HOSTILE}]}
    kept = keep(
        request=encrypt(json.dumps(body)), reply=encrypt(json.dumps(reply)), key_label=HOSTILE[:100], model=HOSTILE,
        request_id=HOSTILE[:100],
    )  # fmt: skip
    for response in (open_(admin_client, kept), admin_client.get(CONTENTS), admin_client.get(LOOKS)):
        page = text_of(response)
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "onerror=alert(2)>" not in page
        assert "14\u202eevil" not in page


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("gAAAAAbroken", "cannot be decrypted"),
        ("\x00\xff", "cannot be decrypted"),
        ("", "Not kept"),
        (encrypt("cut off {"), "cut off {"),
        (encrypt("[" * 100_000), "[[[["),
        (encrypt("\0"), "All of it"),
    ],
    ids=["damaged", "no token", "empty", "cut off", "nested deeply", "NUL"],
)
def test_page_says_so_when_a_text_cannot_be_read(admin_client: Client, token: str, words: str) -> None:
    for columns in ({"request": token}, {"reply": token}):
        LoggedContent.objects.all().delete()
        if "\0" in token and connection.vendor == "postgresql":
            continue  # no such row can be there
        response = open_(admin_client, keep(**columns))
        assert response.status_code == 200
        assert words in text_of(response)


def test_text_under_a_key_that_was_dropped_says_so(admin_client: Client, kept: LoggedContent, settings: Any) -> None:
    settings.ENCRYPTION_KEYS = ["another-key-0123456789-abcdefghijklmnopq"]
    page = text_of(open_(admin_client, kept))
    assert page.count("cannot be decrypted") == 2
    assert ContentView.objects.count() == 1


def test_usage_event_links_to_what_was_logged_of_its_call(admin_client: Client) -> None:
    events.add(timezone.now())
    event = UsageEvent.objects.get()
    url = reverse("admin:usage_usageevent_change", args=[event.pk])
    assert "were logged" not in text_of(admin_client.get(url))
    kept = keep(event_id=event.pk)
    page = text_of(admin_client.get(url))
    assert page_url(kept) in page
    assert PROMPT not in page
    assert not ContentView.objects.exists()


def test_usage_event_says_nothing_of_it_to_others(client: Client) -> None:
    events.add(timezone.now())
    event = UsageEvent.objects.get()
    keep(event_id=event.pk)
    url = reverse("admin:usage_usageevent_change", args=[event.pk])
    assert "were logged" not in text_of(staff(client, "usage.view_usageevent").get(url))


# --- changing and deleting ------------------------------------------------------------------------------------------
def test_nobody_adds_or_changes_logged_content(admin_client: Client, kept: LoggedContent) -> None:
    assert admin_client.post(page_url(kept), {"request": "x"}).status_code == 403
    assert admin_client.get(reverse("admin:policies_loggedcontent_add")).status_code == 403
    assert not ContentView.objects.exists()


def test_deleting_needs_its_own_permission(client: Client, kept: LoggedContent) -> None:
    reader = staff(client, VIEW)
    assert page_url(kept, "delete") not in text_of(open_(reader, kept))
    assert reader.post(page_url(kept, "delete"), {"post": "yes"}).status_code == 403
    assert LoggedContent.objects.exists()


def test_deleting_asks_shows_no_text_and_is_in_the_log(client: Client, kept: LoggedContent) -> None:
    somebody = staff(client, VIEW, DELETE)
    page = text_of(somebody.get(page_url(kept, "delete")))
    assert "Are you sure" in page
    assert PROMPT not in page
    assert somebody.post(page_url(kept, "delete"), {"post": "yes"}).status_code == 302
    assert not LoggedContent.objects.exists()
    assert LogEntry.objects.get().object_id == str(kept.pk)
    assert not ContentView.objects.exists()


# --- looks ----------------------------------------------------------------------------------------------------------
def look(username: str = "carol", **columns: Any) -> ContentView:
    given = {"client_ip": "192.0.2.1", "event_id": first_id(timezone.now()), "request_id": "req_1"}
    return ContentView.objects.create(username=username, **given | columns)


def test_looks_are_listed_newest_first(client: Client) -> None:
    look("carol")
    look("dave", request_id="req_2")
    reader = staff(client, "policies.view_contentview")
    assert [row.username for row in reader.get(LOOKS).context["cl"].result_list] == ["dave", "carol"]
    for term in ("dave", "req_2"):
        assert [row.username for row in reader.get(LOOKS, {"q": term}).context["cl"].result_list] == ["dave"]


def test_nobody_changes_or_deletes_a_look(admin_client: Client) -> None:
    seen = look()
    for page in ("change", "delete"):
        url = reverse(f"admin:policies_contentview_{page}", args=[seen.pk])
        assert admin_client.post(url, {"post": "yes", "username": "x"}).status_code == 403
    admin_client.post(LOOKS, {"action": "delete_selected", "_selected_action": [seen.pk], "post": "yes"})
    assert admin_client.get(reverse("admin:policies_contentview_add")).status_code == 403
    assert ContentView.objects.get().username == "carol"


def test_look_outlives_who_looked_and_what_was_seen(admin_client: Client, alice: User) -> None:
    seen = look("alice", user=alice)
    alice.delete()
    seen.refresh_from_db()
    assert (seen.user, seen.username) == (None, "alice")
    assert "alice" in text_of(admin_client.get(LOOKS))


def test_looks_are_for_those_who_may_see_them(client: Client) -> None:
    assert staff(client, VIEW).get(LOOKS).status_code == 403


def test_long_list_of_looks_is_paged_and_never_counted(admin_client: Client) -> None:
    for _ in range(60):
        look()
    with CaptureQueriesContext(connection) as asked:
        page = admin_client.get(LOOKS).context["cl"]
    assert len(page.result_list) == 50
    assert page.older_url
    assert len(asked) <= MAX_QUERIES
    assert not [entry for entry in asked if "COUNT(" in entry["sql"].upper()]
