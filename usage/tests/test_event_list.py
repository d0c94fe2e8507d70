"""The list of usage events: any window, what its rows cost today, and all of it as a file."""

from __future__ import annotations

import csv
import io
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import Team, User
from usage import exports
from usage.event_list import bounds_of
from usage.exports import FORMATS
from usage.models import Adjustment, UsageEvent
from usage.tests.events import add

LIST = reverse("admin:usage_usageevent_changelist")
START = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def export_url(kind: str) -> str:
    return reverse("admin:usage_usageevent_export", args=[kind])


def exported(client: Client, query: str) -> list[str]:
    response: Any = client.get(export_url("csv") + query)
    text = b"".join(response.streaming_content).decode()
    return [row["request_id"] for row in csv.DictReader(io.StringIO(text, newline=""))]


@pytest.fixture
def november(db: None, research: Team) -> None:
    for day in range(5):
        add(START + day * DAY, request_id=f"day {day}", team_id=research.pk if day % 2 else None)


# --- windows --------------------------------------------------------------------------------------------------------
def test_any_window_can_be_asked_for(admin_client: Client, november: None) -> None:
    page: Any = admin_client.get(f"{LIST}?window=2026-11-02T00:00..2026-11-04T00:00").context["cl"]
    assert [event.request_id for event in page.result_list] == ["day 2", "day 1"]
    assert [words for words, _, is_shown in page.windows if is_shown] == ["2 Nov 2026 to 3 Nov 2026"]


def test_windows_end_is_excluded(admin_client: Client, november: None) -> None:
    page: Any = admin_client.get(f"{LIST}?window=2026-11-01T00:00..2026-11-02T00:00").context["cl"]
    assert [event.request_id for event in page.result_list] == ["day 0"]


def test_own_window_goes_with_the_next_request(admin_client: Client, november: None) -> None:
    admin_client.get(f"{LIST}?window=2026-11-01T00:00..2026-11-02T00:00")
    assert len(admin_client.get(LIST).context["cl"].windows) == 5


@pytest.mark.parametrize(
    "text",
    ["", "..", "x..y", "2026-11-02..2026-11-01", "2026-11-01", "2026-11-01..2026-11-01", "0001-01-01..2026-01-01"],
)
def test_anything_else_is_no_window(text: str) -> None:
    assert bounds_of(text) is None


@pytest.mark.parametrize("window", ["yesterday", "2026-11-04T00:00..2026-11-02T00:00"])
def test_window_that_cannot_be_read_is_said_with_what_is_shown_instead(
    admin_client: Client, november: None, window: str
) -> None:
    page = admin_client.get(f"{LIST}?window={window}").content.decode()
    assert f"The time “{window}” could not be read. Shown instead: last 24 hours." in page
    assert "could not be read" not in admin_client.get(f"{LIST}?window=week").content.decode()
    assert "could not be read" not in admin_client.get(LIST).content.decode()


def test_window_that_cannot_be_read_makes_no_file(admin_client: Client, november: None) -> None:
    response = admin_client.get(f"{export_url('csv')}?window=yesterday")
    assert (response.status_code, response["Location"]) == (302, f"{LIST}?window=yesterday")


def test_calls_without_a_team_can_be_listed(admin_client: Client, november: None) -> None:
    page: Any = admin_client.get(f"{LIST}?window=all&team__isnull=True").context["cl"]
    assert [event.request_id for event in page.result_list] == ["day 4", "day 2", "day 0"]


# --- what a row costs -----------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_cost_includes_adjustments_and_the_event_tells_of_them(admin_client: Client) -> None:
    add(timezone.now(), cost_nano_usd=2_000_000_000)
    event = UsageEvent.objects.get()
    Adjustment.objects.create(
        id=uuid.uuid4(), event_id=event.pk, at=event.at, model="gpt", provider="openai", status=200,
        delta_nano_usd=-500_000_000,
    )  # fmt: skip
    assert "$1.50" in admin_client.get(LIST).content.decode()
    page = admin_client.get(reverse("admin:usage_usageevent_change", args=[event.pk])).content.decode()
    assert "-$0.50; when it was called: $2.00" in page


# --- files ----------------------------------------------------------------------------------------------------------
def test_file_has_all_that_is_listed_and_all_pages_of_it(
    admin_client: Client, november: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usage.admin.UsageEventAdmin.list_per_page", 2)
    assert exported(admin_client, "?window=all") == [f"day {day}" for day in range(5)]


def test_file_has_the_lists_filters_and_window(admin_client: Client, november: None, research: Team) -> None:
    window = "window=2026-11-01T00:00..2026-11-04T00:00"
    assert exported(admin_client, f"?{window}") == ["day 0", "day 1", "day 2"]
    assert exported(admin_client, f"?{window}&team__id__exact={research.pk}") == ["day 1"]
    assert exported(admin_client, "?window=all&q=day+3") == ["day 3"]


def test_list_links_to_its_files(admin_client: Client, november: None) -> None:
    page = admin_client.get(f"{LIST}?window=all&model=gpt").content.decode()
    for kind in FORMATS:
        assert f'href="{export_url(kind)}?model=gpt&amp;window=all"' in page


@pytest.mark.parametrize("kind", FORMATS)
def test_file_is_a_download_that_nobody_keeps(admin_client: Client, november: None, kind: str) -> None:
    response: Any = admin_client.get(export_url(kind))
    assert response["Content-Disposition"].startswith('attachment; filename="usage-events-')
    assert response["Content-Disposition"].endswith(f'.{kind}"')
    assert "no-store" in response["Cache-Control"]
    assert response.streaming


@pytest.mark.django_db
def test_nonsense_is_answered_as_the_list_does(admin_client: Client) -> None:
    assert admin_client.get(export_url("pdf")).status_code == 404
    response = admin_client.get(export_url("csv") + "?nonsense=1")
    assert (response.status_code, response["Location"]) == (302, f"{LIST}?e=1")


@pytest.mark.django_db
def test_files_are_for_those_who_may_see_events(client: Client) -> None:
    assert client.get(export_url("csv")).status_code == 302
    user = User.objects.create_user("staff", password="x", is_staff=True)
    client.force_login(user)
    assert client.get(export_url("csv")).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_usageevent"))
    assert client.get(export_url("csv")).status_code == 200


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])  # Parquet comes in groups of rows, as its writer has them ready
async def test_file_is_sent_in_parts_under_asgi(
    async_client: AsyncClient, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the web process serves it: each page is read when the one before is on its way."""
    monkeypatch.setattr(exports.pages, "__defaults__", (2,))
    read: list[int] = []
    completed = exports._completed
    monkeypatch.setattr(exports, "_completed", lambda *given: read.append(1) or completed(*given))
    await _prepare(async_client)
    response: Any = await async_client.get(export_url(kind) + "?window=all")
    parts, seen = [], []
    async for part in response.streaming_content:
        parts.append(part)
        seen.append(len(read))
    response.close()
    assert len(read) == 10
    assert len(b"".join(parts)) > 100
    assert seen[:3] in ([0, 2, 4], [2, 4, 6])


async def _prepare(client: AsyncClient) -> None:
    from asgiref.sync import sync_to_async

    user = await User.objects.acreate(username="root", is_staff=True, is_superuser=True)
    await client.aforce_login(user)
    await sync_to_async(add)(START, count=10)
