"""The portal's pages of requests, courses, terms and teams."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import services as accounts_services
from accounts.models import ApiKey, Membership, Team, User
from accounts.requests import enrolment, services
from accounts.requests.models import AccessRequest, Cohort, CohortLink, CohortStudent, RequestRule, TermsVersion
from accounts.requests.tests.stage import USD, admin, budget_of, course, key_request, larger_budget, manager_of
from usage.models import Budget

State = AccessRequest.State
SECRET = re.compile(r"sk-gh-[A-Za-z0-9_-]{20,}")


@pytest.fixture
def mona(research: Team) -> User:
    return manager_of(research)


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(client: Client, name: str, *args: Any, **query: Any) -> str:
    response = client.get(reverse(name, args=args), query, follow=True)
    assert response.status_code == 200, (name, response.status_code)
    return str(response.content.decode())


# --- requests --------------------------------------------------------------------------------------------------------
def test_request_goes_from_a_form_to_a_decision_with_an_edit(alice: User, mona: User, research: Team) -> None:
    budget = budget_of(accounts_services.create_key("laptop", research, alice)[0])
    given = {"budget": budget.pk, "amount": "20", "reason": "a thesis", "cost_center": "4711"}
    student, manager = browser(alice), browser(mona)
    student.post(f"{reverse('access_ask')}?kind=budget", given)
    asked = AccessRequest.objects.get()
    assert "a thesis" in text_of(manager, "access_decide", asked.pk)
    assert "To decide (1)" in text_of(manager, "access_requests")
    manager.post(reverse("access_decide", args=[asked.pk]), {"amount": "8.50", "decision": "approve", "reason": "so"})
    budget.refresh_from_db()
    assert budget.limit == 8_500_000_000
    page = text_of(student, "access_request", asked.pk)
    assert "$8.50 a month" in page
    assert "Approved" in page


def test_declined_request_says_why(alice: User, mona: User, research: Team) -> None:
    asked = key_request(alice, research)
    page = reverse("access_decide", args=[asked.pk])
    assert browser(mona).post(page, {"amount": "50", "decision": "decline"}).status_code == 422
    browser(mona).post(page, {"amount": "50", "decision": "decline", "reason": "use the team's"})
    assert "use the team&#x27;s" in text_of(browser(alice), "access_request", asked.pk)


def test_approved_key_is_shown_to_its_requester_alone_and_once(alice: User, mona: User, research: Team) -> None:
    asked = key_request(alice, research)
    services.approve(asked.pk, mona)
    collect = reverse("access_collect", args=[asked.pk])
    assert browser(mona).post(collect).status_code == 404
    shown = browser(alice).post(collect)
    assert SECRET.search(shown.content.decode())
    assert "no-store" in shown["Cache-Control"]
    again = browser(alice).post(collect, follow=True)
    assert not SECRET.search(again.content.decode())
    assert ApiKey.objects.count() == 1
    assert not SECRET.search(text_of(browser(mona), "access_decide", asked.pk))


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("join", {"team": "Research"}),
        ("team", {"name": "physics", "amount": "5", "per": "month"}),
        ("key", {"name": "bot", "team": "me", "amount": "5", "per": "day"}),
        ("model", {"model": "echo", "owner": "me"}),
    ],
)
def test_every_kind_can_be_asked_for(
    kind: str, given: dict[str, str], charlie: User, research: Team, models: None
) -> None:
    charlie.models_allowed = []
    charlie.save()
    client = browser(charlie)
    text_of(client, "access_ask", kind=kind)
    client.post(f"{reverse('access_ask')}?kind={kind}", {**given, "reason": "why not"})
    assert AccessRequest.objects.get().kind == kind


def test_nothing_to_click_where_the_policy_says_automatic(alice: User, research: Team) -> None:
    RequestRule.objects.create(kind="budget", outcome="automatic")
    budget = budget_of(alice)
    page = f"{reverse('access_ask')}?kind=budget"
    response = browser(alice).post(page, {"budget": budget.pk, "amount": "20", "reason": "r"}, follow=True)
    assert "Granted at once" in response.content.decode()
    assert Budget.objects.get().limit == 20 * USD


def test_budgets_of_others_are_no_choice(alice: User, bob: User, charlie: User, research: Team) -> None:
    for owner in (bob, Team.objects.get(name="sales"), accounts_services.create_key("k", research, bob)[0]):
        other = budget_of(owner)
        page = f"{reverse('access_ask')}?kind=budget"
        response = browser(alice).post(page, {"budget": other.pk, "amount": "20", "reason": "r"})
        assert response.status_code == 422
    assert not AccessRequest.objects.exists()


def test_requester_withdraws(alice: User, research: Team) -> None:
    asked = key_request(alice, research)
    browser(alice).post(reverse("access_withdraw", args=[asked.pk]))
    asked.refresh_from_db()
    assert asked.state == State.WITHDRAWN


def test_what_waits_is_told_on_every_page(alice: User, mona: User, research: Team) -> None:
    key_request(alice, research)
    home = browser(mona).get("/").content.decode()
    assert "1 request waits" in home
    assert re.search(r"waiting: </span>1</span>", home)


def test_what_people_write_is_escaped(alice: User, mona: User, research: Team) -> None:
    script = "<script>alert(1)</script>"
    asked = key_request(alice, research, name=script, reason=script, cost_center=script)
    for client, pages in ((browser(mona), ("access_decide",)), (browser(alice), ("access_request",))):
        for page in pages:
            assert script not in text_of(client, page, asked.pk)
    assert script not in text_of(browser(mona), "access_decide_list")


# --- courses ---------------------------------------------------------------------------------------------------------
def in_days(days: int) -> str:
    return (timezone.now() + timedelta(days=days)).date().isoformat()


def test_from_a_course_to_a_students_key(mona: User, research: Team, charlie: User) -> None:
    teacher, student = browser(mona), browser(charlie)
    given = {"name": "CS 101", "team": research.pk, "amount": "2", "per": "week", "ends_at": in_days(30)}
    teacher.post(reverse("access_new_cohort"), {**given, "max_students": 30, "requests_per_minute": 10})
    cohort = Cohort.objects.get()
    link = teacher.post(reverse("access_new_link", args=[cohort.pk]), {"expires_at": in_days(3), "max_uses": 30})
    address = re.search(r"/cohorts/join/[\w-]+/", link.content.decode())
    assert address
    assert "You are invited to CS 101" in student.get(address.group()).content.decode()
    assert not CohortStudent.objects.exists()
    assert "Make my key" in student.post(address.group(), follow=True).content.decode()
    shown = student.post(reverse("access_course_key", args=[cohort.pk]))
    secret = SECRET.search(shown.content.decode())
    assert secret
    again = student.post(reverse("access_course_key", args=[cohort.pk]))
    renewed = SECRET.search(again.content.decode())
    assert renewed
    assert renewed.group() != secret.group()
    assert ApiKey.objects.filter(user=charlie).count() == 1


def test_link_leads_through_sign_in(client: Client, mona: User, research: Team) -> None:
    _, token = enrolment.make_link(course(mona, research), timezone.now() + timedelta(days=1), 5)
    address = reverse("access_join", args=[token])
    response = client.get(address)
    assert response.status_code == 302
    assert address in response["Location"]


def test_list_and_file_are_both_taken(mona: User, research: Team) -> None:
    cohort = course(mona, research)
    file = SimpleUploadedFile("list.csv", "\ufeffmail\na@x.org\n".encode(), "text/csv")
    browser(mona).post(reverse("access_invite", args=[cohort.pk]), {"people": "b@x.org", "file": file})
    assert set(CohortStudent.objects.values_list("invited", flat=True)) == {"a@x.org", "b@x.org"}


def test_course_is_stopped_by_one_button(mona: User, research: Team) -> None:
    cohort = course(mona, research)
    browser(mona).post(reverse("access_stop_cohort", args=[cohort.pk]))
    cohort.refresh_from_db()
    assert cohort.is_over()
    browser(mona).post(reverse("access_go_on", args=[cohort.pk]))
    cohort.refresh_from_db()
    assert not cohort.is_over()


def test_page_of_a_course_asks_as_much_for_thirty_as_for_two(
    mona: User, research: Team, django_assert_max_num_queries: Any
) -> None:
    cohort = course(mona, research)
    people = [User.objects.create_user(f"s{number}") for number in range(30)]
    enrolment.invite(cohort, [user.username for user in people])
    for user in people[:5]:
        accounts_services.create_key("k", research, user)
    client = browser(mona)
    client.get(reverse("access_cohort", args=[cohort.pk]))
    with django_assert_max_num_queries(18):
        client.get(reverse("access_cohort", args=[cohort.pk]))


# --- terms -----------------------------------------------------------------------------------------------------------
def test_terms_are_agreed_to_before_a_key_is_made(alice: User, mona: User, research: Team) -> None:
    version = TermsVersion.objects.create(text="Be nice.\n\nAnd <b>careful</b>.", published_at=timezone.now())
    asked = key_request(alice, research)
    services.approve(asked.pk, mona)
    client = browser(alice)
    page = reverse("access_request", args=[asked.pk])
    response = client.post(reverse("access_collect", args=[asked.pk]), headers={"referer": f"http://testserver{page}"})
    assert response["Location"] == f"{reverse('access_terms')}?next={page.replace('/', '%2F')}"
    shown = client.get(response["Location"]).content.decode()
    assert "And &lt;b&gt;careful&lt;/b&gt;." in shown
    agreed = client.post(reverse("access_terms"), {"version": version.pk, "next": page})
    assert agreed["Location"] == page
    assert SECRET.search(client.post(reverse("access_collect", args=[asked.pk])).content.decode())


@pytest.mark.parametrize(
    "address", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_terms_lead_back_to_our_own_pages_only(address: str, alice: User) -> None:
    version = TermsVersion.objects.create(text="Be nice.", published_at=timezone.now())
    response = browser(alice).post(reverse("access_terms"), {"version": version.pk, "next": address})
    assert response["Location"] == "/"


# --- teams -----------------------------------------------------------------------------------------------------------
def test_manager_adds_changes_and_removes_members(mona: User, research: Team, charlie: User) -> None:
    client = browser(mona)
    client.post(reverse("access_add_member", args=[research.pk]), {"person": "charlie@example.org", "role": "member"})
    change = reverse("access_change_member", args=[research.pk, charlie.pk])
    client.post(change, {"role": "manager"})
    assert Membership.objects.get(user=charlie, team=research).role == "manager"
    client.post(change, {"role": "remove"})
    assert not Membership.objects.filter(user=charlie, team=research).exists()


def test_last_manager_stays(mona: User, research: Team) -> None:
    change = reverse("access_change_member", args=[research.pk, mona.pk])
    for role in ("member", "remove"):
        response = browser(mona).post(change, {"role": role}, follow=True)
        assert "Name another manager first" in response.content.decode()
    assert Membership.objects.get(user=mona).role == "manager"


def test_manager_makes_and_revokes_a_service_key(mona: User, research: Team) -> None:
    client = browser(mona)
    shown = client.post(
        reverse("access_new_team_key", args=[research.pk]), {"name": "bot", "amount": "3", "per": "day"}
    )
    assert SECRET.search(shown.content.decode())
    key = ApiKey.objects.get()
    assert (key.user, Budget.objects.get(key=key).limit) == (None, 3 * USD)
    client.post(reverse("access_revoke_team_key", args=[research.pk, key.public_id]))
    key.refresh_from_db()
    assert key.disabled


def test_budgets_are_lowered_freely_and_raised_within_the_teams(mona: User, research: Team) -> None:
    team = budget_of(research, 50)
    key = budget_of(accounts_services.create_key("bot", research)[0], 10)
    client = browser(mona)
    wanted = [(key, 5, 5), (key, 50, 50), (key, 51, 50), (team, 40, 40), (team, 50, 40)]
    for budget, amount, after in wanted:
        client.post(reverse("access_change_budget", args=[research.pk, budget.pk]), {"amount": amount})
        budget.refresh_from_db()
        assert budget.limit == after * USD, amount


@pytest.mark.parametrize("page", ["access_team", "access_team_keys", "access_team_budgets", "access_team_usage"])
def test_pages_of_a_team_are_its_managers(page: str, mona: User, alice: User, charlie: User, research: Team) -> None:
    accounts_services.create_key("bot", research)
    budget_of(research)
    text_of(browser(mona), page, research.pk)
    for other in (alice, charlie, manager_of(Team.objects.get(name="sales"), "sam")):
        assert browser(other).get(reverse(page, args=[research.pk])).status_code == 404


def test_keys_budgets_and_members_of_another_team_are_not_there(mona: User, research: Team, charlie: User) -> None:
    sales = Team.objects.get(name="sales")
    key = accounts_services.create_key("bot", sales)[0]
    budgets = [budget_of(sales), budget_of(key), budget_of(charlie)]
    client = browser(mona)
    pages = [reverse("access_change_budget", args=[research.pk, budget.pk]) for budget in budgets]
    pages.append(reverse("access_revoke_team_key", args=[research.pk, key.public_id]))
    pages.append(reverse("access_change_member", args=[research.pk, charlie.pk]))
    assert [client.post(page, {"amount": 1, "role": "remove"}).status_code for page in pages] == [404] * 5
    key.refresh_from_db()
    assert not key.disabled


# --- what is not theirs is not there ---------------------------------------------------------------------------------
def test_whatever_is_not_ones_own_is_a_404(mona: User, alice: User, charlie: User, research: Team) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["alice"])
    link, _ = enrolment.make_link(cohort, timezone.now() + timedelta(days=1), 5)
    place = CohortStudent.objects.get()
    key = accounts_services.create_key("laptop", research, alice)[0]
    asked = services.ask(larger_budget(alice, budget_of(key), 20))
    pages = {
        "access_request": [asked.pk],
        "access_withdraw": [asked.pk],
        "access_collect": [asked.pk],
        "access_decide": [asked.pk],
        "access_cohort": [cohort.pk],
        "access_change_cohort": [cohort.pk],
        "access_invite": [cohort.pk],
        "access_stop_cohort": [cohort.pk],
        "access_go_on": [cohort.pk],
        "access_new_link": [cohort.pk],
        "access_revoke_link": [cohort.pk, link.pk],
        "access_student": [cohort.pk, place.pk, "stop"],
        "access_my_course": [cohort.pk],
        "access_course_key": [cohort.pk],
    }
    sam = manager_of(Team.objects.get(name="sales"), "sam")
    for person in (charlie, sam):
        client = browser(person)
        for name, args in pages.items():
            address = reverse(name, args=args)
            assert {client.get(address).status_code, client.post(address).status_code} <= {404, 405}, (person, name)
    assert not CohortLink.objects.exclude(revoked_at=None).exists()


def test_an_administrator_sees_every_request_and_course(mona: User, alice: User, research: Team) -> None:
    cohort, asked = course(mona, research), key_request(alice, research)
    client = browser(admin())
    assert "CS 101" in text_of(client, "access_cohort", cohort.pk)
    assert "bot" in text_of(client, "access_decide", asked.pk)


def test_forms_need_a_token(mona: User, research: Team) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(mona)
    assert client.post(reverse("access_add_member", args=[research.pk]), {"person": "x"}).status_code == 403
