"""A model that gets another name keeps what limits it and what watches it."""

from __future__ import annotations

import pytest
from django.db import IntegrityError

from accounts import versions
from accounts.models import Team
from usage.alert_models import AlertRule
from usage.models import Budget, Limit
from usage.renames import carry, in_the_way

pytestmark = pytest.mark.django_db


def test_budgets_limits_and_alert_rules_go_along(research: Team) -> None:
    Budget.objects.create(scope="team", team=research, limit=1, model="gpt")
    Budget.objects.create(scope="team", team=research, limit=1, on_exhaustion="fall_back", fallback_model="gpt")
    Limit.objects.create(scope="team", team=research, requests_per_minute=1, model="gpt")
    AlertRule.objects.create(name="slow", kind="latency", model="gpt")
    carried = carry("gpt", "renamed")
    assert carried == {"budgets": 1, "cheaper models of budgets": 1, "rate limits": 1, "alert rules": 1}
    assert sorted(Budget.objects.values_list("model", "fallback_model")) == [("", "renamed"), ("renamed", "")]
    assert Limit.objects.get().model == "renamed"
    assert AlertRule.objects.get(name="slow").model == "renamed"


def test_what_names_another_model_stays(research: Team) -> None:
    Budget.objects.create(scope="team", team=research, limit=1, model="gpt-2")
    Limit.objects.create(scope="team", team=research, requests_per_minute=1)
    assert carry("gpt", "renamed") == {}
    assert (Budget.objects.get().model, Limit.objects.get().model) == ("gpt-2", "")


def test_data_plane_hears_of_the_limits() -> None:
    before = versions.current().get(versions.LIMITS, 0)
    carry("gpt", "renamed")
    assert versions.current()[versions.LIMITS] > before


def test_limit_of_the_same_owner_under_the_new_name_is_in_the_way(research: Team) -> None:
    for model in ("gpt", "renamed"):
        Limit.objects.create(scope="team", team=research, requests_per_minute=1, model=model)
    Limit.objects.create(scope="installation", requests_per_minute=1, model="renamed")
    assert in_the_way("gpt", "renamed") == ["research, renamed"]
    with pytest.raises(IntegrityError):
        carry("gpt", "renamed")
