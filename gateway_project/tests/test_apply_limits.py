"""`manage.py apply`: budgets, rate limits, networks and the settings of money, as the file says."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from accounts.models import ApiKey, ConfigVersion, Team
from gateway_project.tests.test_apply import check_refused, run
from usage.budgets import money_settings, top_up
from usage.models import Budget, Limit, TopUp
from usage.pricing import NANO

pytestmark = pytest.mark.django_db

CATALOGUE = """
models:
- {name: gpt, aliases: [the-best]}
- {name: mini}
"""
WHOLE = """
models:
- {name: gpt, aliases: [the-best], budgets: [{usd: 500, per: month}], requests_per_minute: 600}
- {name: mini}
teams:
- {name: research, budgets: [{usd: 50, per: month, soft: 40}], requests_per_minute: 600, networks: [192.0.2.0/24]}
users:
- {username: alice, teams: [research], budgets: [{tokens: 1000000, per: week, timezone: Europe/Berlin}]}
keys:
- name: laptop
  user: alice
  team: research
  budgets:
  - {usd: 1, per: day, when_spent: fall_back, fallback_model: mini, model: gpt}
  - {usd: 100, per: total}
  requests_per_minute: 60
  tokens_per_minute: 100000
  max_parallel: 8
  networks: [192.0.2.7, "2001:db8::/32"]
installation:
  budgets: [{usd: 1000, per: month}]
  requests_per_minute: 6000
  client_ip: {requests_per_minute: 30, max_parallel: 4}
  timezone: Europe/Berlin
  when_redis_is_away: serve
  default_max_tokens: 2048
  blocks_to_throttle: 10
  throttle_s: 120
  currency: EUR
  units_per_usd: 0.92
  events_kept_days: 400
  rollups_kept_days: null
"""


def budgets_of(**owner: Any) -> list[tuple[Any, ...]]:
    rows = Budget.objects.filter(**owner).order_by("id")
    return [(row.limit, row.unit, row.per, row.model) for row in rows]


def check_budget_refused(budget: str, field: str, words: str) -> None:
    """`field`: under the budget; "" is the budget itself."""
    text = f"{CATALOGUE}teams:\n- name: research\n  budgets:\n  - {budget}\n"
    check_refused(text, (8, f"teams[0].budgets[0]{field and '.'}{field}", words))


# --- the whole ------------------------------------------------------------------------------------------------------
def test_budgets_are_made_for_whom_they_stand_with() -> None:
    run(WHOLE)
    assert budgets_of(scope="team", team__name="research") == [(50 * NANO, "usd", "month", "")]
    assert budgets_of(scope="user", user__username="alice") == [(1_000_000, "tokens", "week", "")]
    key = [(NANO, "usd", "day", "gpt"), (100 * NANO, "usd", "total", "")]
    assert budgets_of(scope="key", key__name="laptop") == key
    everybody = [(500 * NANO, "usd", "month", "gpt"), (1000 * NANO, "usd", "month", "")]
    assert budgets_of(scope="installation") == everybody


def test_budget_has_what_its_entry_says() -> None:
    run(WHOLE)
    team, user = Budget.objects.get(scope="team"), Budget.objects.get(scope="user")
    key = Budget.objects.get(scope="key", model="gpt")
    assert (team.soft, team.timezone, team.on_exhaustion, team.enabled) == (40 * NANO, "", "refuse", True)
    assert (user.soft, user.timezone) == (None, "Europe/Berlin")
    assert (key.on_exhaustion, key.fallback_model) == ("fall_back", "mini")


def test_rates_are_set_for_whom_they_stand_with() -> None:
    run(WHOLE)
    rows = Limit.objects.values_list("scope", "model", "requests_per_minute", "tokens_per_minute", "max_parallel")
    assert set(rows) == {
        ("installation", "gpt", 600, None, None),
        ("installation", "", 6000, None, None),
        ("client_ip", "", 30, None, 4),
        ("team", "", 600, None, None),
        ("key", "", 60, 100_000, 8),
    }


def test_settings_of_money_are_set() -> None:
    run(WHOLE)
    row = money_settings()
    assert (row.timezone, row.when_redis_is_away, row.default_max_tokens) == ("Europe/Berlin", "serve", 2048)
    assert (row.blocks_to_throttle, row.throttle_s) == (10, 120)
    assert (row.currency, row.units_per_usd) == ("EUR", Decimal("0.92"))
    assert (row.events_kept_days, row.rollups_kept_days) == (400, None)


def test_second_run_changes_nothing_and_wakes_no_worker() -> None:
    run(WHOLE)
    versions = list(ConfigVersion.objects.values_list("part", "number"))
    assert run(WHOLE) == []
    assert list(ConfigVersion.objects.values_list("part", "number")) == versions


def test_workers_are_woken_by_a_change() -> None:
    run(WHOLE)
    before = ConfigVersion.objects.get(part="limits").number
    run("teams: [{name: research, max_parallel: 5}]")
    assert ConfigVersion.objects.get(part="limits").number > before


def test_dry_run_tells_the_same_and_writes_nothing() -> None:
    run(CATALOGUE + "teams: [{name: research}]")
    text = "teams: [{name: research, budgets: [{usd: 5, per: day}], max_parallel: 3}]\ninstallation: {timezone: UTC}\n"
    told = run(text, dry_run=True)
    assert told == ["~ team research: budgets, max_parallel"]
    assert not Budget.objects.exists()
    assert not Limit.objects.exists()
    assert run(text) == told


def test_every_change_is_told_with_its_owner() -> None:
    run(WHOLE)
    told = run("""
models: [{name: gpt, budgets: []}]
teams: [{name: research, cost_center: "1", requests_per_minute: 1}]
users: [{username: alice, max_parallel: 1}]
keys: [{name: laptop, disabled: true, budgets: [], networks: []}]
installation: {client_ip: {max_parallel: 5}, throttle_s: 120, currency: USD, units_per_usd: 1}
""")
    assert told == [
        "~ team research: cost_center, requests_per_minute",
        "~ key laptop: disabled, networks, budgets",
        "~ model gpt: budgets",
        "~ user alice: max_parallel",
        "~ installation limits: client_ip, currency, units_per_usd",
    ]


# --- lists replace, absent fields stay ------------------------------------------------------------------------------
def test_unchanged_budget_keeps_its_row_and_its_top_ups() -> None:
    run(WHOLE)
    budget = Budget.objects.get(scope="key", per="total")
    top_up(budget, 5 * NANO, "a demo", None)
    run("keys: [{name: laptop, budgets: [{usd: 200, per: total}, {usd: 3, per: hour}]}]")
    kept = Budget.objects.get(scope="key", per="total")
    assert (kept.pk, kept.limit, kept.counts_from) == (budget.pk, 200 * NANO, budget.counts_from)
    assert TopUp.objects.get().budget == kept
    assert budgets_of(scope="key") == [(200 * NANO, "usd", "total", ""), (3 * NANO, "usd", "hour", "")]


def test_budget_in_another_zone_is_another_budget() -> None:
    run("teams: [{name: research, budgets: [{usd: 1, per: day, timezone: UTC}]}]")
    before = Budget.objects.get().pk
    run("teams: [{name: research, budgets: [{usd: 1, per: day, timezone: Asia/Tokyo}]}]")
    assert Budget.objects.get().pk != before


def test_what_a_listed_budget_does_not_say_is_as_usual() -> None:
    run(WHOLE)
    Budget.objects.filter(scope="team").update(enabled=False)
    run("teams: [{name: research, budgets: [{usd: 50, per: month}]}]")
    budget = Budget.objects.get(scope="team")
    assert (budget.soft, budget.enabled) == (None, True)


def test_budget_may_be_listed_and_switched_off() -> None:
    run("teams: [{name: research, budgets: [{usd: 50, per: month, enabled: false}]}]")
    assert not Budget.objects.get().enabled


def test_cheaper_model_is_enough_to_fall_back() -> None:
    run(f"{CATALOGUE}teams: [{{name: research, budgets: [{{usd: 1, per: day, fallback_model: mini}}]}}]")
    assert Budget.objects.get().on_exhaustion == "fall_back"


def test_object_named_without_limits_keeps_them() -> None:
    run(WHOLE)
    assert run("teams: [{name: research, cost_center: '2'}]\ninstallation: {}\n") == ["~ team research: cost_center"]
    assert Budget.objects.filter(scope="team").exists()
    assert Limit.objects.filter(scope="team").exists()


def test_empty_list_clears_and_null_lifts_a_rate() -> None:
    run(WHOLE)
    run("keys: [{name: laptop, budgets: [], requests_per_minute: null, tokens_per_minute: 5}]")
    assert not Budget.objects.filter(scope="key").exists()
    limit = Limit.objects.get(scope="key")
    assert (limit.requests_per_minute, limit.tokens_per_minute, limit.max_parallel) == (None, 5, 8)
    run("keys: [{name: laptop, tokens_per_minute: null, max_parallel: null}]")
    assert not Limit.objects.filter(scope="key").exists()


def test_budgets_of_the_installation_and_of_its_models_are_apart() -> None:
    run(WHOLE)
    run("installation: {budgets: []}")
    assert budgets_of(scope="installation") == [(500 * NANO, "usd", "month", "gpt")]
    run("models: [{name: gpt, budgets: [], requests_per_minute: null}]")
    assert budgets_of(scope="installation") == []
    assert Limit.objects.get(scope="installation").model == ""


def test_limit_of_one_model_that_was_made_in_the_admin_stays() -> None:
    run(WHOLE)
    Limit.objects.create(scope="team", team=Team.objects.get(name="research"), model="gpt", max_parallel=1)
    run("teams: [{name: research, requests_per_minute: null}]")
    assert Limit.objects.get(scope="team").model == "gpt"


def test_keys_of_one_name_have_budgets_of_their_own() -> None:
    told = run("""
users: [{username: alice}, {username: bob}]
keys:
- {name: laptop, user: alice}
- {name: laptop, user: bob, budgets: [{usd: 1, per: day}]}
""")
    assert len(told) == 4
    assert Budget.objects.get().key == ApiKey.objects.get(user__username="bob")


# --- networks -------------------------------------------------------------------------------------------------------
def test_networks_are_stored_as_they_are_usually_written() -> None:
    run("teams: [{name: research, networks: [192.0.2.9/24, 10.0.0.1]}]")
    assert Team.objects.get(name="research").networks_allowed == ["192.0.2.0/24", "10.0.0.1"]
    assert run("teams: [{name: research, networks: [192.0.2.0/24, 10.0.0.1]}]") == []


@pytest.mark.parametrize("nothing", ["[]", "null"])
def test_no_networks_means_from_anywhere(nothing: str) -> None:
    run(WHOLE)
    assert run(f"keys: [{{name: laptop, networks: {nothing}}}]") == ["~ key laptop: networks"]
    assert ApiKey.objects.get(name="laptop").networks_allowed is None


def test_what_is_no_network_is_refused_with_its_place() -> None:
    check_refused(
        "teams:\n- name: research\n  networks:\n  - 10.0.0.0/8\n  - home\n",
        (5, "teams[0].networks[1]", "“home” is neither an address nor a network"),
    )


# --- mistakes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("budget", "field", "words"),
    [
        ("{per: day}", "", "either usd or tokens"),
        ("{usd: 1, tokens: 1, per: day}", "", "either usd or tokens"),
        ("{usd: -1, per: day}", "usd", "must be an amount of US dollars between 0 and 1,000,000,000"),
        ("{usd: 1e30, per: day}", "usd", "must be an amount of US dollars between 0 and 1,000,000,000"),
        ("{usd: much, per: day}", "usd", "must be an amount of US dollars between 0 and 1,000,000,000"),
        ("{usd: 0.0000000001, per: day}", "usd", "must be 0, or at least 0.000000001"),
        ("{tokens: 1.5, per: day}", "tokens", "must be a whole number"),
        ("{usd: 1, per: year}", "per", "must be one of: hour, day, week, month, total"),
        ("{usd: 1, per: day, timezone: Mars}", "timezone", "'Mars' is no time zone"),
        ("{usd: 1, per: day, soft: 1}", "soft", "less than the limit"),
        ("{tokens: 10, per: day, soft: 1.5}", "soft", "must be whole tokens"),
        ("{usd: 1, per: day, model: gtp}", "model", "did you mean gpt?"),
        ("{usd: 1, per: day, model: the-best}", "model", "is an alias: name the model itself, gpt"),
        ("{usd: 1, per: day, fallback_model: gtp}", "fallback_model", "did you mean gpt?"),
        ("{usd: 1, per: day, model: gpt, fallback_model: gpt}", "fallback_model", "of this budget itself"),
        ("{usd: 1, per: day, when_spent: fall_back}", "", "Name the model"),
        ("{usd: 1, per: day, when_spent: warn}", "when_spent", "must be one of: refuse, fall_back"),
        ("{usd: 1, per: day, when_spent: refuse, fallback_model: mini}", "fallback_model", "is never used"),
    ],
)
def test_budget_that_makes_no_sense_is_refused_with_its_place(budget: str, field: str, words: str) -> None:
    check_budget_refused(budget, field, words)
    assert not Budget.objects.exists()


@pytest.mark.parametrize(
    ("holder", "path"), [("models:\n- name: gpt\n", "models[0]"), ("installation:\n", "installation")]
)
def test_budget_of_one_model_is_sent_to_where_it_stands(holder: str, path: str) -> None:
    text = f"{holder}  budgets:\n  - {{usd: 1, per: day, model: gpt}}\n"
    line = text.count("\n")
    check_refused(text, (line, f"{path}.budgets[0].model", "a budget of one model stands with it, under `models`"))


def test_budget_listed_twice_is_refused() -> None:
    check_refused(
        "teams:\n- name: research\n  budgets:\n  - {usd: 1, per: day}\n  - {usd: 2, per: day}\n",
        (5, "teams[0].budgets[1]", "is the budget of line 4 again"),
    )


def test_budget_for_a_model_that_could_not_be_read_is_not_told_again() -> None:
    text = "models:\n- {name: [x]}\nteams:\n- {name: research, budgets: [{usd: 1, per: day, model: x}]}\n"
    check_refused(text, (2, "models[0].name", "must be a text"))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("timezone", "Mars", "is no time zone"),
        ("when_redis_is_away", "panic", "not a valid choice"),
        ("currency", "EURO", "at most 3 characters"),
        ("units_per_usd", "0.5", "One US dollar is 1 US dollar"),
        ("throttle_s", "0", "must be a whole number between 1 and"),
        ("sharing", "1", "is unknown"),
    ],
)
def test_setting_that_makes_no_sense_is_refused_with_its_place(field: str, value: str, words: str) -> None:
    check_refused(f"installation:\n  {field}: {value}\n", (2, f"installation.{field}", words))
    assert money_settings().timezone == "UTC"
