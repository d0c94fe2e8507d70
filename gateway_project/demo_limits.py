"""Budgets, rate limits and networks of the invented company (gateway_project.demo).

They are for its own teams, people and keys: nothing here limits a call that is not the demo's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from accounts.models import ApiKey, Team, User
from usage.budgets import save_budget, save_limit, top_up
from usage.models import Budget, Limit
from usage.pricing import NANO

# Team, user or key: (what it is, its name).
_Owner = tuple[str, str]
BUDGETS: tuple[tuple[_Owner, dict[str, Any]], ...] = (
    (("team", "Engineering"), {"limit": 400 * NANO, "soft": 300 * NANO, "per": "month", "timezone": "Europe/Berlin"}),
    (("team", "Customer support"), {"limit": 60 * NANO, "per": "month", "timezone": "Europe/Berlin"}),
    (("team", "Data science"), {"unit": "tokens", "limit": 5_000_000, "per": "week"}),
    (("team", "Marketing"), {"limit": 2 * NANO, "per": "month", "timezone": "Europe/Rome"}),
    (("team", "Legal"), {"limit": 15 * NANO, "per": "day", "timezone": "Europe/Stockholm"}),
    (("user", "jonas.weber"), {"limit": 20 * NANO, "per": "week", "model": "claude-sonnet-5"}),
    (
        ("key", "helpdesk-bot"),
        {"limit": 3 * NANO, "per": "day", "on_exhaustion": "fall_back", "fallback_model": "gpt-5.4-mini"},
    ),
    (("key", "experiments"), {"limit": 5 * NANO, "per": "total"}),
    (("key", "code-review"), {"limit": 25 * NANO, "per": "day", "enabled": False}),
)
LIMITS: tuple[tuple[_Owner, dict[str, int]], ...] = (
    (("team", "Engineering"), {"requests_per_minute": 600, "max_parallel": 20}),
    (("team", "Data science"), {"tokens_per_minute": 2_000_000}),
    (("user", "tom.okafor"), {"requests_per_minute": 30}),
    (("key", "helpdesk-bot"), {"requests_per_minute": 300, "tokens_per_minute": 600_000, "max_parallel": 12}),
)
# From where its people call (gateway_project.demo).
NETWORKS = {"Legal": ["10.24.0.0/22"]}
TOPPED_UP = ("team", "Marketing")


def make(keys: list[ApiKey], start: datetime) -> None:
    """For the owners of these keys, where they have none of it yet. Totals count from `start`."""
    by_name: dict[_Owner, Team | User | ApiKey] = {}
    for key in keys:
        by_name["key", key.name] = key
        by_name["team", key.team.name] = key.team
        if key.user is not None:
            by_name["user", key.user.username] = key.user
    for (scope, name), fields in BUDGETS:
        owner = {"scope": scope, scope: by_name[scope, name]}
        if not Budget.objects.filter(**owner).exists():
            budget = Budget(**owner, **fields, counts_from=start)
            save_budget(budget)
            if (scope, name) == TOPPED_UP:
                top_up(budget, NANO // 2, "Launch of the spring collection", None)
    for (scope, name), fields in LIMITS:
        owner = {"scope": scope, scope: by_name[scope, name]}
        if not Limit.objects.filter(**owner).exists():
            save_limit(Limit(**owner, **fields))
    for name, networks in NETWORKS.items():
        team = by_name["team", name]
        if isinstance(team, Team) and team.networks_allowed is None:
            team.networks_allowed = networks
            team.save(update_fields=["networks_allowed"])
