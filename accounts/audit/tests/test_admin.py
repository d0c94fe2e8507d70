"""The audit trail in the admin, and the buttons on the page of a person."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from accounts.audit import acting, record
from accounts.audit.models import AuditEvent
from accounts.models import Team, User
from accounts.services import create_key

pytestmark = pytest.mark.django_db
LIST = reverse("admin:audit_auditevent_changelist")


@pytest.fixture
def auditor(db: None) -> Client:
    user = User.objects.create_user("ada", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_auditevent"))
    client = Client()
    client.force_login(user)
    return client


def page_of(event: AuditEvent) -> str:
    return reverse("admin:audit_auditevent_change", args=[event.pk])


def test_list_tells_who_did_what_to_what_from_where(auditor: Client) -> None:
    with acting("scim", name="token ci", ip="192.0.2.9"):
        Team.objects.create(name="research", cost_center="4711")
    page = auditor.get(LIST).content.decode()
    for told in ("token ci", "scim", "team.created", "research", "192.0.2.9"):
        assert told in page


@pytest.mark.parametrize(
    "query",
    [
        "action=team.created",
        "channel=scim",
        "who=token+ci",
        "target=research",
        "target=accounts.team:{pk}",
        "q=req-1",
        "window=hour",
    ],
)
def test_list_is_filtered(query: str, auditor: Client) -> None:
    with acting("scim", name="token ci", request_id="req-1"):
        team = Team.objects.create(name="research")
    record("session.signed_out", ("accounts.user", 1, "someone"))
    shown = auditor.get(f"{LIST}?{query.format(pk=team.pk)}").context["cl"].result_list
    names = [event.action for event in shown]
    assert "team.created" in names
    assert ("session.signed_out" in names) is (query == "window=hour")


@pytest.mark.parametrize("query", ["who=%00", "target=%00", "q=%00", "channel=nothing", "who=99999999999999999999"])
def test_filters_take_anything(query: str, auditor: Client) -> None:
    assert auditor.get(f"{LIST}?{query}").status_code == 200


def test_list_is_paged_by_key_and_never_counted(
    auditor: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    team = Team.objects.create(name="research")
    for number in range(60):
        team.cost_center = str(number)
        team.save()
    with django_assert_max_num_queries(15) as captured:
        first = auditor.get(LIST).context["cl"]
    assert not [query for query in captured.captured_queries if "COUNT(" in query["sql"]]
    older = auditor.get(LIST + first.older_url).context["cl"]
    numbers = [event.number for event in [*first.result_list, *older.result_list]]
    assert numbers == list(range(AuditEvent.objects.latest("number").number, 0, -1))


def test_page_of_an_event_has_before_and_after(auditor: Client, research: Team) -> None:
    research.cost_center = "0815"
    research.save()
    page = auditor.get(page_of(AuditEvent.objects.latest("number"))).content.decode()
    assert '<th scope="row">cost_center</th>' in page
    assert ">4711</td>" in page
    assert ">0815</td>" in page


def test_what_is_shown_is_escaped(auditor: Client) -> None:
    Team.objects.create(name="<script>alert(1)</script>")
    event = AuditEvent.objects.latest("number")
    for url in (LIST, page_of(event)):
        page = auditor.get(url).content.decode()
        assert "<script>alert(1)" not in page
        assert "&lt;script&gt;alert(1)" in page


def test_target_is_a_link_for_those_who_may_see_it_only(auditor: Client, admin_client: Client, research: Team) -> None:
    event = AuditEvent.objects.get(target_type="accounts.team")
    link = f'href="/admin/accounts/team/{research.pk}/change/"'
    assert link in admin_client.get(page_of(event)).content.decode()
    assert link not in auditor.get(page_of(event)).content.decode()


@pytest.mark.parametrize("target", [("accounts.team", "x", ""), ("usage.usageevent", "x", ""), ("nothing.here", 1, "")])
def test_page_of_an_event_whose_target_is_gone(target: Any, auditor: Client) -> None:
    record("note.made", target)
    assert auditor.get(page_of(AuditEvent.objects.latest("number"))).status_code == 200


def test_page_of_a_team_leads_to_its_events(admin_client: Client, research: Team) -> None:
    link = f"{LIST}?target=accounts.team%3A{research.pk}&amp;window=all"
    assert link in admin_client.get(f"/admin/accounts/team/{research.pk}/change/").content.decode()


def test_nobody_writes_in_the_trail(admin_client: Client, research: Team) -> None:
    event = AuditEvent.objects.latest("number")
    assert admin_client.post(page_of(event), {"action": "x"}).status_code == 403
    assert admin_client.post(reverse("admin:audit_auditevent_delete", args=[event.pk])).status_code == 403
    assert admin_client.get(reverse("admin:audit_auditevent_add")).status_code == 403


@pytest.mark.parametrize("url", [LIST, reverse("admin:audit_auditevent_download")])
def test_without_the_permission_nothing_is_shown(url: str) -> None:
    client = Client()
    client.force_login(User.objects.create_user("bob", is_staff=True))
    assert client.get(url).status_code == 403


def test_download_has_what_is_listed(auditor: Client, research: Team) -> None:
    Team.objects.create(name="sales")
    answer: Any = auditor.get(reverse("admin:audit_auditevent_download") + "?target=sales&window=all")
    (line,) = b"".join(answer.streaming_content).splitlines()
    assert json.loads(line)["target"]["name"] == "sales"
    assert AuditEvent.objects.latest("number").action == "audit.exported"


# --- the page of a person -------------------------------------------------------------------------------------------
def test_person_is_erased_after_a_question(admin_client: Client, alice: User) -> None:
    url = f"/admin/accounts/user/{alice.pk}/erase-person/"
    assert "This cannot be undone" in admin_client.get(url).content.decode()
    alice.refresh_from_db()
    assert alice.username == "alice"
    assert admin_client.post(url, {"confirmed": "yes"}).status_code == 302
    alice.refresh_from_db()
    assert alice.username == f"erased-{alice.pk}"


def test_personal_data_is_a_file(admin_client: Client, alice: User, research: Team) -> None:
    key, _ = create_key("laptop", research, alice, expires_at=alice.date_joined + timedelta(days=1))
    answer = admin_client.post(f"/admin/accounts/user/{alice.pk}/export-person/")
    assert answer["Content-Disposition"] == f'attachment; filename="person-{alice.pk}.json"'
    told = json.loads(answer.content)
    assert told["accounts.apikey"][0]["name"] == "laptop"
    assert key.digest not in answer.content.decode()


def test_nobody_erases_themselves(admin_client: Client, admin_user: User) -> None:
    admin_client.post(f"/admin/accounts/user/{admin_user.pk}/erase-person/", {"confirmed": "yes"})
    admin_user.refresh_from_db()
    assert admin_user.is_active


@pytest.mark.parametrize("page", ["erase-person", "export-person"])
def test_person_is_neither_erased_nor_exported_without_the_permission(page: str, alice: User) -> None:
    helper = User.objects.create_user("helper", is_staff=True)
    helper.user_permissions.add(*Permission.objects.filter(codename__in=["view_user", "change_user"]))
    client = Client()
    client.force_login(helper)
    assert client.post(f"/admin/accounts/user/{alice.pk}/{page}/", {"confirmed": "yes"}).status_code == 403
    alice.refresh_from_db()
    assert alice.username == "alice"
