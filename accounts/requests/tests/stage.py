"""What these tests share: a manager, budgets, requests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from accounts.models import ApiKey, Membership, Team, User
from accounts.requests import cohorts, services
from accounts.requests.models import AccessRequest, Cohort, Kind
from usage.models import Budget

USD = 10**9
Subject = AccessRequest.Subject


def manager_of(team: Team, name: str = "mona") -> User:
    user = User.objects.create_user(name, f"{name}@example.org")
    Membership.objects.create(user=user, team=team, role=Membership.Role.MANAGER)
    return user


def admin(name: str = "root") -> User:
    return User.objects.create_superuser(name, f"{name}@example.org")


def budget_of(owner: Team | User | ApiKey, usd: int = 5, per: str = "month") -> Budget:
    scope = {Team: "team", User: "user", ApiKey: "key"}[type(owner)]
    return Budget.objects.create(scope=scope, limit=usd * USD, per=per, **{scope: owner})


def larger_budget(requester: User, budget: Budget, usd: int, **fields: Any) -> AccessRequest:
    """Not asked yet."""
    subject = {"team": Subject.TEAM, "user": Subject.ME, "key": Subject.KEY}[budget.scope]
    team = budget.key.team if budget.key else budget.team
    given = {"reason": "a long paper", "subject": subject, "team": team, "key": budget.key} | fields
    return AccessRequest(kind=Kind.BUDGET, requester=requester, budget_id=budget.pk, amount=usd * USD, **given)


def join(requester: User, team: Team) -> AccessRequest:
    return services.ask(AccessRequest(kind=Kind.JOIN, requester=requester, team=team, reason="we work together"))


def key_request(requester: User, team: Team, usd: int | None = 50, **fields: Any) -> AccessRequest:
    given = {"name": "bot", "per": "month" if usd else "", "reason": "a bot"} | fields
    amount = usd * USD if usd else None
    return services.ask(AccessRequest(kind=Kind.KEY, requester=requester, team=team, amount=amount, **given))


def course(manager: User, team: Team | None, **fields: Any) -> Cohort:
    given: dict[str, Any] = {
        "name": "CS 101",
        "amount": 2 * USD,
        "per": "week",
        "requests_per_minute": 10,
        "ends_at": timezone.now() + timedelta(days=60),
    }
    cohort = Cohort(**(given | fields))
    return cohorts.make(cohort, manager, team, reason="a course")
