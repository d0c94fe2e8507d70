"""Two people at the same moment: whatever is decided, collected or taken is so exactly once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import ApiKey, Membership, Team, User
from accounts.requests import cohorts, enrolment, services, teams
from accounts.requests.enrolment import CourseFull, NoSuchInvitation
from accounts.requests.models import AccessRequest, CohortStudent
from accounts.requests.services import AlreadyDecided
from accounts.requests.tests.stage import USD, admin, budget_of, course, key_request, larger_budget, manager_of
from usage.models import TopUp

pytestmark = pytest.mark.django_db(transaction=True)
AT_ONCE = 4


def at_once(act: Callable[[int], Any]) -> list[str]:
    """What came of it for each of them: "done", or the name of what was raised."""
    start = Barrier(AT_ONCE)

    def one(number: int) -> str:
        start.wait()
        try:
            act(number)
        except Exception as error:
            return type(error).__name__
        finally:
            connection.close()
        return "done"

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return sorted(threads.map(one, range(AT_ONCE)))


@pytest.fixture
def people() -> list[User]:
    """As many as act at once."""
    return [User.objects.create_user(f"person{number}") for number in range(AT_ONCE)]


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="research")


def test_request_is_carried_out_once(team: Team, people: list[User]) -> None:
    requester, root = people[0], admin()
    Membership.objects.create(user=requester, team=team)
    budget = budget_of(team)
    asked = services.ask(larger_budget(requester, budget, 20, once=True))
    outcomes = at_once(lambda number: services.approve(asked.pk, root))
    assert outcomes == ["AlreadyDecided"] * (AT_ONCE - 1) + ["done"]
    assert TopUp.objects.get().amount == 15 * USD


def test_request_is_either_approved_or_declined_or_withdrawn(team: Team, people: list[User]) -> None:
    requester, root = people[0], admin()
    asked = services.ask(AccessRequest(kind="join", requester=requester, team=team, reason="r"))
    acts: list[Callable[[], Any]] = [
        lambda: services.approve(asked.pk, root),
        lambda: services.decline(asked.pk, root, "no"),
        lambda: services.withdraw(asked.pk, requester),
        lambda: services.approve(asked.pk, root),
    ]
    outcomes = at_once(lambda number: acts[number]())
    assert outcomes == [AlreadyDecided.__name__] * (AT_ONCE - 1) + ["done"]
    asked.refresh_from_db()
    is_member = Membership.objects.filter(user=requester, team=team).exists()
    assert is_member is (asked.state == AccessRequest.State.APPROVED)


def test_approved_key_is_made_once(team: Team, people: list[User]) -> None:
    requester = people[0]
    Membership.objects.create(user=requester, team=team)
    asked = key_request(requester, team)
    services.approve(asked.pk, admin())
    assert at_once(lambda number: services.collect(asked.pk, requester)).count("done") == 1
    assert ApiKey.objects.count() == 1


def test_the_same_is_asked_once(team: Team, people: list[User]) -> None:
    Membership.objects.create(user=people[0], team=team)
    outcomes = at_once(lambda number: key_request(people[0], team))
    assert outcomes == ["ValidationError"] * (AT_ONCE - 1) + ["done"]


def test_last_place_of_a_link_is_one_persons(team: Team, people: list[User]) -> None:
    cohort = course(manager_of(team), team)
    _, token = enrolment.make_link(cohort, timezone.now() + timedelta(days=1), 1)
    outcomes = at_once(lambda number: enrolment.join(token, people[number]))
    assert outcomes == [NoSuchInvitation.__name__] * (AT_ONCE - 1) + ["done"]


def test_last_place_of_a_course_is_one_persons(team: Team, people: list[User]) -> None:
    cohort = course(manager_of(team), team, max_students=1)
    _, token = enrolment.make_link(cohort, timezone.now() + timedelta(days=1), 9)
    outcomes = at_once(lambda number: enrolment.join(token, people[number]))
    assert outcomes == [CourseFull.__name__] * (AT_ONCE - 1) + ["done"]


def test_student_has_one_key_also_when_they_press_twice(team: Team, people: list[User]) -> None:
    from accounts import services as accounts_services

    cohort = course(manager_of(team), team)
    enrolment.invite(cohort, ["person0"])
    outcomes = at_once(lambda number: accounts_services.create_key(f"k{number}", team, people[0]))
    assert outcomes == ["ValidationError"] * (AT_ONCE - 1) + ["done"]
    assert CohortStudent.objects.get().key == ApiKey.objects.get()


def test_no_key_is_made_past_a_stop(team: Team, people: list[User]) -> None:
    from accounts import services as accounts_services

    cohort = course(manager_of(team), team)
    enrolment.invite(cohort, [person.username for person in people])

    def act(number: int) -> None:
        if number:
            accounts_services.create_key("k", team, people[number])
        else:
            cohorts.stop(cohort)

    at_once(act)
    now = timezone.now()
    assert all(key.expires_at and key.expires_at <= now for key in ApiKey.objects.all())


def test_two_managers_who_remove_each_other_leave_one(team: Team, people: list[User]) -> None:
    for person in people[:2]:
        Membership.objects.create(user=person, team=team, role=Membership.Role.MANAGER)
    at_once(lambda number: teams.remove_member(team, people[number % 2].pk))
    assert Membership.objects.filter(team=team, role=Membership.Role.MANAGER).count() == 1
