"""Courses: their students' keys have limits, and end together."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts import services as accounts_services
from accounts.authentication import InvalidKey, check_now
from accounts.models import ApiKey, Membership, Team, User
from accounts.portal.keys import PLAYGROUND
from accounts.requests import cohorts, enrolment, policy, services
from accounts.requests.enrolment import CourseFull, NoSuchInvitation
from accounts.requests.models import AccessRequest, Cohort, CohortStudent, Kind, Notice, Outcome, RequestRule
from accounts.requests.tests.stage import USD, admin, course, manager_of
from usage.models import Budget, Limit


@pytest.fixture
def mona(research: Team) -> User:
    return manager_of(research)


def key_in(cohort: Cohort, user: User, name: str = "mine", **fields: object) -> tuple[ApiKey, str]:
    return accounts_services.create_key(name, cohort.team, user, **fields)  # type: ignore[arg-type]


def works(secret: str) -> bool:
    try:
        check_now(secret, accounts_services.peppers())
    except InvalidKey:
        return False
    return True


# --- a student's key -------------------------------------------------------------------------------------------------
def test_key_of_a_student_has_the_limits_and_the_end_of_the_course(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research, models_allowed=["echo"])
    enrolment.invite(cohort, ["charlie"])
    key, _ = key_in(cohort, charlie)
    budget, limit = Budget.objects.get(key=key), Limit.objects.get(key=key)
    assert (budget.limit, budget.per, limit.requests_per_minute) == (2 * USD, "week", 10)
    assert (key.expires_at, key.models_allowed) == (cohort.ends_at, ["echo"])
    assert CohortStudent.objects.get(user=charlie).key == key


def test_student_has_one_key_however_they_try(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    key, _ = key_in(cohort, charlie)
    accounts_services.revoke_key(key)
    with pytest.raises(ValidationError, match="already"):
        key_in(cohort, charlie, "another")


def test_no_later_end_and_no_other_models_can_be_given_to_the_key(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research, models_allowed=["echo"])
    enrolment.invite(cohort, ["charlie"])
    key, _ = key_in(cohort, charlie)
    key.expires_at, key.models_allowed = None, ["echo", "gpt-test"]
    key.save()
    key.refresh_from_db()
    assert (key.expires_at, key.models_allowed) == (cohort.ends_at, ["echo"])


def test_keys_of_others_in_the_team_are_left_alone(mona: User, research: Team, alice: User) -> None:
    course(mona, research, models_allowed=["echo"])
    for user in (alice, mona, None):
        key = accounts_services.create_key("k", research, user)[0]
        assert (key.expires_at, key.models_allowed) == (None, None)
    assert not Budget.objects.exists()


# --- the end ---------------------------------------------------------------------------------------------------------
def thirty(cohort: Cohort) -> list[str]:
    """The secrets of thirty students' keys."""
    people = [User.objects.create_user(f"student{number}") for number in range(30)]
    enrolment.invite(cohort, [user.username for user in people])
    return [key_in(cohort, user)[1] for user in people]


def test_all_keys_stop_at_once_and_go_on_again(mona: User, research: Team) -> None:
    cohort = course(mona, research)
    secrets = thirty(cohort)
    teachers = accounts_services.create_key("k", research, mona)[1]
    assert all(map(works, secrets))
    cohorts.stop(cohort)
    assert not any(map(works, secrets))
    assert works(teachers)
    cohorts.go_on(cohort)
    assert all(map(works, secrets))


def test_all_keys_end_with_the_course_without_anybody_doing_anything(
    mona: User, research: Team, charlie: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    _, secret = key_in(cohort, charlie)
    end = cohort.ends_at.timestamp()
    for now, answered in ((end - 1, True), (end, False)):
        monkeypatch.setattr("accounts.authentication.time.time", lambda now=now: now)
        assert works(secret) is answered


def test_the_end_can_be_put_off(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    key, _ = key_in(cohort, charlie)
    cohort.ends_at += timedelta(days=7)
    cohorts.change(cohort, mona)
    key.refresh_from_db()
    assert key.expires_at == cohort.ends_at


def test_over_a_course_its_own_team_is_switched_off(charlie: User) -> None:
    cohort = course(admin(), None)
    Cohort.objects.filter(pk=cohort.pk).update(ends_at=timezone.now())
    assert cohorts.end_due() == 1
    cohort.refresh_from_db()
    assert cohort.closed
    assert cohort.team.disabled
    assert cohorts.end_due() == 0


def test_after_the_course_its_students_make_no_keys_in_the_team(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    Cohort.objects.filter(pk=cohort.pk).update(ends_at=timezone.now())
    for _ in range(2):
        with pytest.raises(ValidationError, match="over"):
            key_in(cohort, charlie)
        cohorts.end_due()


def test_one_student_is_stopped_and_goes_on(mona: User, research: Team, charlie: User, alice: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    _, secret = key_in(cohort, charlie)
    place = CohortStudent.objects.get()
    cohorts.stop_student(place)
    assert not works(secret)
    cohorts.stop(cohort)
    cohorts.go_on(cohort)
    assert not works(secret)
    cohorts.let_go_on(CohortStudent.objects.get())
    assert works(secret)


def test_removed_student_is_out_of_the_team(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    _, secret = key_in(cohort, charlie)
    cohorts.remove_student(CohortStudent.objects.get())
    assert not works(secret)
    assert not Membership.objects.filter(user=charlie, team=research).exists()


def test_changed_limits_hold_for_keys_that_are_there(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    key, _ = key_in(cohort, charlie)
    cohort.amount, cohort.requests_per_minute, cohort.models_allowed = 3 * USD, None, ["echo"]
    cohorts.change(cohort, mona)
    key.refresh_from_db()
    assert Budget.objects.get(key=key).limit == 3 * USD
    assert not Limit.objects.filter(key=key).exists()
    assert key.models_allowed == ["echo"]


# --- who makes one ---------------------------------------------------------------------------------------------------
def test_only_who_manages_the_team_makes_a_course_in_it(alice: User, research: Team) -> None:
    with pytest.raises(ValidationError, match="manage"):
        course(alice, research)
    assert not cohorts.may_invite(alice)


def test_one_course_at_a_time_in_a_team(mona: User, research: Team) -> None:
    course(mona, research)
    with pytest.raises(ValidationError, match="has a course"):
        course(mona, research, name="another")


def test_course_with_its_own_team_waits_for_approval(mona: User, charlie: User) -> None:
    cohort = course(mona, None)
    enrolment.invite(cohort, ["charlie"])
    _, secret = key_in(cohort, charlie)
    assert cohort.waits
    assert not works(secret)
    services.approve(AccessRequest.objects.get().pk, admin(), USD)
    assert works(secret)
    assert Budget.objects.get(key__user=charlie).limit == USD


def test_declined_course_stays_off(mona: User, charlie: User) -> None:
    cohort = course(mona, None)
    services.decline(AccessRequest.objects.get().pk, admin(), "no money")
    cohort.refresh_from_db()
    assert cohort.is_over()
    assert cohort.team.disabled


def test_course_needs_no_approval_where_the_policy_says_so(mona: User, charlie: User) -> None:
    RequestRule.objects.create(kind=Kind.COHORT, outcome=Outcome.AUTOMATIC, max_per_month=30 * 5 * 2 * USD)
    assert not course(mona, None, max_students=30).waits
    assert course(mona, None, name="CS 102", max_students=31).waits


def test_approved_course_is_not_made_dearer_by_its_teacher(mona: User) -> None:
    cohort = course(mona, None)
    services.approve(AccessRequest.objects.get().pk, admin())
    cohort.refresh_from_db()
    for fields in ({"amount": 3 * USD}, {"amount": None}, {"max_students": 101}):
        changed = Cohort.objects.get(pk=cohort.pk)
        for name, value in fields.items():
            setattr(changed, name, value)
        with pytest.raises(ValidationError, match="More than was approved"):
            cohorts.change(changed, mona)


# --- by list ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a@x.org\nb@x.org\n", ["a@x.org", "b@x.org"]),
        ("Name,Email\nAda,a@x.org\nBob,b@x.org", ["a@x.org", "b@x.org"]),
        ("name;mail\nAda;a@x.org", ["a@x.org"]),
        ("Ada\ta@x.org\r\nBob\tb@x.org", ["a@x.org", "b@x.org"]),
        ('"Lovelace, Ada",<a@x.org>', ["a@x.org"]),
        ("ada\n\n  bob  \nADA", ["ada", "bob"]),
        ("username\nada", ["ada"]),
        ("", []),
    ],
)
def test_lists_are_read_as_they_come(text: str, names: list[str]) -> None:
    assert enrolment.names_in(text) == names


def test_known_people_are_in_at_once_and_others_are_invited(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    invited = enrolment.invite(cohort, ["Charlie@example.org", "new@x.org", "later", "not an address", "a@b"])
    assert invited.joined == ["Charlie@example.org"]
    assert invited.waiting == ["new@x.org", "later"]
    assert invited.not_understood == ["not an address", "a@b"]
    assert Membership.objects.filter(user=charlie, team=research).exists()
    assert [notice.student.invited for notice in Notice.objects.all() if notice.student] == ["new@x.org"]


def test_nobody_is_invited_twice(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie", "new@x.org"])
    assert enrolment.invite(cohort, ["charlie@example.org", "NEW@x.org"]).there == ["charlie@example.org", "NEW@x.org"]


def test_full_course_takes_nobody(mona: User, research: Team) -> None:
    cohort = course(mona, research, max_students=2)
    with pytest.raises(CourseFull):
        enrolment.invite(cohort, ["a@x.org", "b@x.org", "c@x.org"])
    assert not CohortStudent.objects.exists()


def test_who_was_invited_by_username_is_in_when_they_sign_in(mona: User, research: Team) -> None:
    enrolment.invite(course(mona, research), ["Nina@uni.example"])
    nina = User.objects.create_user("nina@uni.example")
    enrolment.at_sign_in(nina)
    assert CohortStudent.objects.get().user == nina


def test_who_was_invited_by_address_is_in_when_they_sign_in(mona: User, research: Team) -> None:
    enrolment.invite(course(mona, research), ["nina@uni.example"])
    nina = User.objects.create_user("nn1", "Nina@uni.example")
    enrolment.at_sign_in(nina)
    assert CohortStudent.objects.get().user == nina


def test_address_of_two_people_takes_no_place(mona: User, research: Team) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["nina@uni.example"])
    for name in ("nina", "mallory"):
        user = User.objects.create_user(name, "nina@uni.example")
    enrolment.at_sign_in(user)
    assert CohortStudent.objects.get().user is None
    assert enrolment.invite(cohort, ["nina@uni.example"]).joined == []


# --- by link ---------------------------------------------------------------------------------------------------------
def soon() -> timezone.datetime:
    return timezone.now() + timedelta(days=1)


def test_link_brings_people_in_and_is_kept_as_a_digest(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    link, token = enrolment.make_link(cohort, soon(), 5)
    assert enrolment.join(token, charlie) == cohort
    link.refresh_from_db()
    assert link.uses == 1
    assert token not in str(vars(link))


@pytest.mark.parametrize(
    "change",
    [
        {"expires_at": timezone.now() - timedelta(seconds=1)},
        {"revoked_at": timezone.now()},
        {"max_uses": 1, "uses": 1},
        {"digest": "0" * 64},
    ],
)
def test_link_leads_nowhere(change: dict[str, object], mona: User, research: Team, charlie: User) -> None:
    link, token = enrolment.make_link(course(mona, research), soon(), 5)
    for name, value in change.items():
        setattr(link, name, value)
    link.save()
    for look in (lambda: enrolment.course_of(token), lambda: enrolment.join(token, charlie)):
        with pytest.raises(NoSuchInvitation):
            look()


def test_link_of_a_stopped_course_leads_nowhere(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    _, token = enrolment.make_link(cohort, soon(), 5)
    cohorts.stop(cohort)
    with pytest.raises(NoSuchInvitation):
        enrolment.join(token, charlie)


def test_coming_twice_counts_once(mona: User, research: Team, charlie: User) -> None:
    link, token = enrolment.make_link(course(mona, research), soon(), 1)
    enrolment.join(token, charlie)
    enrolment.join(token, charlie)
    link.refresh_from_db()
    assert link.uses == 1


# --- by group --------------------------------------------------------------------------------------------------------
def test_group_brings_people_in_and_out(
    mona: User, research: Team, charlie: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    course(mona, research, group="cs101")
    enrolment.at_sign_in(charlie)
    assert not CohortStudent.objects.exists()
    monkeypatch.setattr(policy, "_groups", [lambda user: ["staff", "cs101"]])
    enrolment.at_sign_in(charlie)
    assert CohortStudent.objects.get().way == "group"
    monkeypatch.setattr(policy, "_groups", [lambda user: ["staff"]])
    enrolment.at_sign_in(charlie)
    assert not CohortStudent.objects.exists()
    assert not Membership.objects.filter(user=charlie, team=research).exists()


def test_playground_spends_nothing_beside_the_course(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    with pytest.raises(ValidationError, match="choose another team"):
        key_in(cohort, charlie, PLAYGROUND)
    assert CohortStudent.objects.get().key is None


def test_earlier_end_that_the_student_chose_stays(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    tomorrow = timezone.now() + timedelta(days=1)
    assert key_in(cohort, charlie, expires_at=tomorrow)[0].expires_at == tomorrow


def test_deleted_key_gives_no_second_budget(mona: User, research: Team, charlie: User) -> None:
    cohort = course(mona, research)
    enrolment.invite(cohort, ["charlie"])
    key_in(cohort, charlie)[0].delete()
    with pytest.raises(ValidationError, match="deleted"):
        key_in(cohort, charlie)
    cohorts.let_go_on(CohortStudent.objects.get())
    assert key_in(cohort, charlie)[0].expires_at == cohort.ends_at
