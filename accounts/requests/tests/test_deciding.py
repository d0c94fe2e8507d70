"""Asking for something, and what becomes of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts import services as accounts_services
from accounts.audit.models import AuditEvent
from accounts.models import ApiKey, Membership, Team, User
from accounts.requests import policy, services
from accounts.requests.models import AccessRequest, AccessSettings, Kind, Outcome, RequestRule
from accounts.requests.services import AlreadyDecided, NotYours
from accounts.requests.tests.stage import (
    USD,
    Subject,
    admin,
    budget_of,
    join,
    key_request,
    larger_budget,
    manager_of,
)
from usage.models import Budget, TopUp

State = AccessRequest.State


def key_of(user: User, team: Team, name: str = "laptop") -> ApiKey:
    return accounts_services.create_key(name, team, user)[0]


# --- what an approval does -------------------------------------------------------------------------------------------
def test_approval_makes_a_person_a_member(charlie: User, research: Team) -> None:
    request = join(charlie, research)
    services.approve(request.pk, manager_of(research))
    assert Membership.objects.get(user=charlie, team=research).role == Membership.Role.MEMBER


def test_approval_enlarges_the_budget(alice: User, research: Team) -> None:
    budget = budget_of(key_of(alice, research))
    request = services.ask(larger_budget(alice, budget, 20))
    services.approve(request.pk, manager_of(research))
    budget.refresh_from_db()
    assert budget.limit == 20 * USD


def test_approver_may_grant_less_than_was_asked(alice: User, research: Team) -> None:
    budget = budget_of(key_of(alice, research))
    request = services.ask(larger_budget(alice, budget, 20))
    decided = services.approve(request.pk, manager_of(research), 8 * USD, "8 will do")
    budget.refresh_from_db()
    assert (budget.limit, decided.granted_amount, decided.amount) == (8 * USD, 8 * USD, 20 * USD)
    assert decided.decision_reason == "8 will do"


def test_larger_budget_of_one_window_is_a_top_up(alice: User, research: Team) -> None:
    manager = manager_of(research)
    budget = budget_of(key_of(alice, research))
    request = services.ask(larger_budget(alice, budget, 20, once=True))
    services.approve(request.pk, manager)
    budget.refresh_from_db()
    given = TopUp.objects.get()
    assert (budget.limit, given.amount, given.by) == (5 * USD, 15 * USD, manager)


def test_approval_allows_the_model(alice: User, research: Team, models: None) -> None:
    key = accounts_services.create_key("k", research, alice, models=["gpt-test"])[0]
    request = AccessRequest(
        kind=Kind.MODEL, requester=alice, subject=Subject.KEY, key=key, team=research, model="echo", reason="to try"
    )
    services.approve(services.ask(request).pk, manager_of(research))
    key.refresh_from_db()
    assert key.models_allowed == ["gpt-test", "echo"]


def test_key_gets_no_model_that_its_team_may_not_use(alice: User, research: Team, models: None) -> None:
    research.models_allowed = ["gpt-test"]
    research.save()
    key = accounts_services.create_key("k", research, alice, models=["gpt-test"])[0]
    request = AccessRequest(
        kind=Kind.MODEL, requester=alice, subject=Subject.KEY, key=key, team=research, model="echo", reason="to try"
    )
    asked = services.ask(request)
    with pytest.raises(ValidationError, match="team may not use"):
        services.approve(asked.pk, manager_of(research))
    asked.refresh_from_db()
    assert asked.is_open


def test_new_team_has_its_requester_as_manager_and_its_budget(alice: User) -> None:
    request = AccessRequest(
        kind=Kind.TEAM, requester=alice, name="physics", amount=30 * USD, per="month", cost_center="4712", reason="new"
    )
    services.approve(services.ask(request).pk, admin(), 25 * USD)
    team = Team.objects.get(name="physics")
    assert team.cost_center == "4712"
    assert Membership.objects.get(team=team).role == Membership.Role.MANAGER
    assert Budget.objects.get(team=team).limit == 25 * USD


def test_approved_key_is_made_by_its_requester_with_the_approved_budget(alice: User, research: Team) -> None:
    request = key_request(alice, research)
    services.approve(request.pk, manager_of(research), 40 * USD)
    assert not ApiKey.objects.exists()
    key, secret = services.collect(request.pk, alice)
    assert secret.startswith("sk-gh-")
    assert Budget.objects.get(key=key).limit == 40 * USD


def test_approved_key_is_made_once(alice: User, research: Team) -> None:
    request = key_request(alice, research)
    services.approve(request.pk, manager_of(research))
    services.collect(request.pk, alice)
    with pytest.raises(AlreadyDecided):
        services.collect(request.pk, alice)
    assert ApiKey.objects.count() == 1


def test_nobody_else_collects_a_key(alice: User, research: Team) -> None:
    manager = manager_of(research)
    request = key_request(alice, research)
    services.approve(request.pk, manager)
    with pytest.raises(NotYours):
        services.collect(request.pk, manager)


def test_approval_of_a_key_lapses(alice: User, research: Team) -> None:
    request = key_request(alice, research)
    decided = services.approve(request.pk, manager_of(research))
    decided.decided_at = timezone.now() - timedelta(days=31)
    decided.save()
    with pytest.raises(ValidationError, match="lapsed"):
        services.collect(request.pk, alice)


def test_what_cannot_be_done_leaves_the_request_open(alice: User, research: Team) -> None:
    manager = manager_of(research)
    budget = budget_of(key_of(alice, research))
    request = services.ask(larger_budget(alice, budget, 20))
    budget.delete()
    with pytest.raises(ValidationError, match="no longer there"):
        services.approve(request.pk, manager)
    assert AccessRequest.objects.get().is_open


# --- who decides -----------------------------------------------------------------------------------------------------
def test_nobody_decides_their_own_request(research: Team) -> None:
    manager = manager_of(research)
    root = admin()
    own = [key_request(manager, research), services.ask(larger_budget(root, budget_of(root), 50))]
    for request, person in zip(own, (manager, root), strict=True):
        with pytest.raises(NotYours):
            services.approve(request.pk, person)


@pytest.mark.parametrize("who", ["bob", "charlie"])
def test_neither_members_nor_strangers_decide(who: str, request: pytest.FixtureRequest, research: Team) -> None:
    asked = key_request(request.getfixturevalue("alice"), research)
    with pytest.raises(NotYours):
        services.approve(asked.pk, request.getfixturevalue(who))
    with pytest.raises(NotYours):
        services.decline(asked.pk, request.getfixturevalue(who), "no")


def test_manager_of_another_team_does_not_decide(alice: User, charlie: User, research: Team) -> None:
    asked = key_request(alice, research)
    with pytest.raises(NotYours):
        services.approve(asked.pk, manager_of(Team.objects.get(name="sales")))


def test_money_of_the_team_and_of_people_is_for_administrators(alice: User, research: Team) -> None:
    manager = manager_of(research)
    for owner in (research, alice):
        asked = services.ask(larger_budget(alice, budget_of(owner), 20))
        assert asked.outcome == Outcome.ADMIN
        with pytest.raises(NotYours):
            services.approve(asked.pk, manager)
    services.approve(asked.pk, admin())


def test_permission_without_being_superuser_is_enough(alice: User, bob: User, research: Team) -> None:
    from django.contrib.auth.models import Permission

    bob.user_permissions.add(Permission.objects.get(codename="decide_accessrequest"))
    asked = services.ask(larger_budget(alice, budget_of(research), 20))
    assert services.approve(asked.pk, User.objects.get(pk=bob.pk)).state == State.APPROVED


def test_decided_request_is_not_decided_again(alice: User, research: Team) -> None:
    manager = manager_of(research)
    request = key_request(alice, research)
    services.decline(request.pk, manager, "no need")
    with pytest.raises(AlreadyDecided):
        services.approve(request.pk, manager)


def test_declining_needs_a_reason(alice: User, research: Team) -> None:
    request = key_request(alice, research)
    with pytest.raises(ValidationError, match="Say why"):
        services.decline(request.pk, manager_of(research), " ")


def test_requester_withdraws_and_nobody_else(alice: User, bob: User, research: Team) -> None:
    request = key_request(alice, research)
    with pytest.raises(NotYours):
        services.withdraw(request.pk, bob)
    assert services.withdraw(request.pk, alice).state == State.WITHDRAWN


def test_old_requests_expire(alice: User, research: Team) -> None:
    old, new = key_request(alice, research, name="old"), key_request(alice, research, name="new")
    old.created_at = timezone.now() - timedelta(days=31)
    old.save()
    assert services.expire_old() == 1
    assert [AccessRequest.objects.get(pk=one.pk).state for one in (old, new)] == [State.EXPIRED, State.OPEN]


# --- what may be asked -----------------------------------------------------------------------------------------------
def test_the_same_is_not_asked_twice(alice: User, research: Team) -> None:
    key_request(alice, research)
    with pytest.raises(ValidationError, match="already"):
        key_request(alice, research)


def test_smaller_budget_is_no_larger_one(alice: User, research: Team) -> None:
    with pytest.raises(ValidationError, match="as much already"):
        services.ask(larger_budget(alice, budget_of(key_of(alice, research)), 5))


def test_budget_of_somebody_else_is_not_asked_for(alice: User, bob: User, charlie: User, research: Team) -> None:
    sales = budget_of(Team.objects.get(name="sales"))
    key = budget_of(key_of(bob, research))
    person = budget_of(bob)
    for budget in (sales, key):
        with pytest.raises(ValidationError):
            services.ask(larger_budget(alice, budget, 20))
    with pytest.raises(ValidationError):
        services.ask(larger_budget(alice, person, 20))


def test_personal_team_cannot_be_joined(alice: User, bob: User) -> None:
    with pytest.raises(ValidationError, match="no team"):
        join(bob, accounts_services.personal_team(alice))


# --- rules -----------------------------------------------------------------------------------------------------------
def rule(**fields: object) -> RequestRule:
    given = {"kind": Kind.BUDGET, "outcome": Outcome.AUTOMATIC} | fields
    return RequestRule.objects.create(**given)


def test_automatic_is_granted_at_once(alice: User, research: Team) -> None:
    rule(max_per_month=20 * USD)
    budget = budget_of(key_of(alice, research))
    asked = services.ask(larger_budget(alice, budget, 20))
    budget.refresh_from_db()
    assert (asked.state, asked.decided_by, budget.limit) == (State.APPROVED, None, 20 * USD)
    assert "policy" in asked.decision_reason


def test_above_the_rule_somebody_decides(alice: User, research: Team) -> None:
    rule(max_per_month=20 * USD)
    assert services.ask(larger_budget(alice, budget_of(key_of(alice, research)), 21)).is_open


@pytest.mark.parametrize(("per", "granted"), [("day", False), ("week", False), ("month", True)])
def test_other_windows_are_reckoned_as_a_month(alice: User, research: Team, per: str, granted: bool) -> None:
    rule(max_per_month=30 * USD)
    asked = services.ask(larger_budget(alice, budget_of(key_of(alice, research), per=per), 7))
    assert (asked.state == State.APPROVED) is granted


def test_many_small_automatic_keys_are_a_large_one(alice: User, research: Team) -> None:
    rule(kind=Kind.KEY, max_per_month=50 * USD)
    states = [key_request(alice, research, 20, name=name).state for name in ("a", "b", "c")]
    assert states == [State.APPROVED, State.APPROVED, State.OPEN]


def test_key_without_a_budget_is_above_every_amount(alice: User, research: Team) -> None:
    rule(kind=Kind.KEY, max_per_month=50 * USD)
    assert key_request(alice, research, None).is_open


def test_rules_of_a_team_a_model_or_a_group_hold_for_these_only(
    alice: User, research: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = larger_budget(alice, budget_of(research), 20)
    request.per = "month"
    sales = Team.objects.create(name="sales")
    for fields, fits in (
        ({"team": sales}, False),
        ({"team": research}, True),
        ({"model": "echo"}, False),
        ({"group": "staff"}, False),
    ):
        RequestRule.objects.all().delete()
        rule(**fields)
        assert (policy.outcome_of(request) == Outcome.AUTOMATIC) is fits
    monkeypatch.setattr(policy, "_groups", [lambda user: ["staff"]])
    assert policy.outcome_of(request) == Outcome.AUTOMATIC


def test_first_rule_that_fits_counts(alice: User, research: Team) -> None:
    rule(position=2)
    rule(position=1, outcome=Outcome.ADMIN)
    assert services.ask(larger_budget(alice, budget_of(key_of(alice, research)), 20)).outcome == Outcome.ADMIN


def test_manager_does_not_approve_more_than_the_rules_leave_to_managers(alice: User, research: Team) -> None:
    rule(outcome=Outcome.MANAGER, max_per_month=20 * USD)
    rule(outcome=Outcome.ADMIN, position=200)
    asked = services.ask(larger_budget(alice, budget_of(key_of(alice, research)), 10))
    with pytest.raises(ValidationError, match="administrator"):
        services.approve(asked.pk, manager_of(research), 21 * USD)


def test_keys_above_the_threshold_have_to_be_asked_for(db: None) -> None:
    assert not policy.needs_request(None, "")
    AccessSettings.objects.create(key_threshold=10 * USD)
    asked = [policy.needs_request(amount, per) for amount, per in ((None, ""), (USD, "day"), (10 * USD, "month"))]
    assert asked == [True, True, False]


def test_every_step_is_in_the_audit_trail(alice: User, research: Team) -> None:
    request = key_request(alice, research)
    services.approve(request.pk, manager_of(research))
    services.collect(request.pk, alice)
    actions = list(AuditEvent.objects.values_list("action", flat=True))
    assert {"accessrequest.created", "accessrequest.changed", "apikey.created"} <= set(actions)
