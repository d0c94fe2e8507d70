"""Destinations and rules of alerts in a configuration file."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Team
from gateway_project.apply import NotApplied, apply
from proxy.models import Model, Provider
from usage.alert_models import AlertDestination, AlertRule
from usage.alerts.kinds import KINDS

pytestmark = pytest.mark.django_db

URL = "https://hooks.example.org/services/T0/B0/secretsecretsecret"
SECRET = "correct horse battery staple"
EVERYTHING = """
teams: [{name: research}]
alerts:
  destinations:
    - {name: on-call, kind: slack, url: "${HOOK_URL}"}
    - {name: mail, kind: email, emails: [ops@example.org, anna@example.org, ops@example.org]}
    - {name: siem, kind: webhook, url: "${HOOK_URL}", secret: "${HOOK_SECRET}", private_network: true, enabled: false}
  rules:
    - {name: Budgets of research, kind: budget, team: research, thresholds: [100, 9], soft: false, destinations: [mail]}
    - {name: Slow, kind: latency, latency_ms: 5000, minutes: 30, at_least: 50, tell_when_over: false}
    - {name: Keys, kind: key_expiry, days: 30, enabled: false}
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_URL", URL)
    monkeypatch.setenv("HOOK_SECRET", SECRET)


@pytest.fixture(autouse=True)
def no_rules_yet() -> None:
    AlertRule.objects.all().delete()


def run(text: str) -> list[str]:
    return [str(change) for change in apply(text.encode())]


def mistakes(text: str) -> list[tuple[str, str]]:
    before = list(AlertDestination.objects.values()), list(AlertRule.objects.values())
    with pytest.raises(NotApplied) as refused:
        run(text)
    assert (list(AlertDestination.objects.values()), list(AlertRule.objects.values())) == before
    return [(mistake.field, mistake.message) for mistake in refused.value.mistakes]


def alerts(**lists: str) -> str:
    return "alerts:\n" + "".join(f"  {name}: [{items}]\n" for name, items in lists.items())


def test_destinations_and_rules_are_made() -> None:
    assert run(EVERYTHING) == [
        "+ team research",
        "+ alert destination on-call",
        "+ alert destination mail",
        "+ alert destination siem",
        "+ alert rule Budgets of research",
        "+ alert rule Slow",
        "+ alert rule Keys",
    ]
    made = {row.name: row for row in AlertDestination.objects.all()}
    assert {name: row.read_address() for name, row in made.items()} == {
        "on-call": URL,
        "mail": "ops@example.org, anna@example.org",
        "siem": URL,
    }
    assert {name: row.read_secret() for name, row in made.items() if row.secret} == {"siem": SECRET}
    assert [(row.private_network, row.enabled) for row in made.values() if row.name != "siem"] == [(False, True)] * 2
    assert (made["siem"].private_network, made["siem"].enabled) == (True, False)
    budgets, slow, keys = (AlertRule.objects.get(name=name) for name in ("Budgets of research", "Slow", "Keys"))
    assert (budgets.thresholds, budgets.soft, budgets.team) == ([9, 100], False, Team.objects.get(name="research"))
    assert list(budgets.destinations.all()) == [made["mail"]]
    assert (slow.latency_ms, slow.minutes, slow.at_least, slow.tell_when_over) == (5000, 30, 50, False)
    assert (keys.days, keys.enabled, keys.thresholds) == (30, False, [])


def test_second_run_changes_nothing() -> None:
    run(EVERYTHING)
    assert run(EVERYTHING) == []


def test_neither_address_nor_secret_is_ever_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said = str(run(EVERYTHING))
    monkeypatch.setenv("HOOK_URL", "ftp://secretsecretsecret")
    monkeypatch.setenv("HOOK_SECRET", "too short")
    said += str(mistakes(EVERYTHING))
    assert "secretsecretsecret" not in said and SECRET not in said and "too short" not in said


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("destinations: [{name: siem, secret: another-long-secret}]", "~ alert destination siem: secret"),
        ("destinations: [{name: siem, url: 'https://example.org/x'}]", "~ alert destination siem: url"),
        ("destinations: [{name: mail, emails: [a@example.org]}]", "~ alert destination mail: emails"),
        ("destinations: [{name: siem, enabled: true}]", "~ alert destination siem: enabled"),
        ("rules: [{name: Slow, minutes: 10}]", "~ alert rule Slow: minutes"),
        ("rules: [{name: Budgets of research, team: null}]", "~ alert rule Budgets of research: team"),
        ("rules: [{name: Budgets of research, destinations: []}]", "~ alert rule Budgets of research: destinations"),
        ("rules: [{name: Slow, destinations: [siem, mail]}]", "~ alert rule Slow: destinations"),
    ],
)
def test_what_is_changed_is_told_and_the_rest_stays(changed: str, told: str) -> None:
    run(EVERYTHING)
    text = f"alerts: {{{changed}}}"
    assert run(text) == [told]
    assert run(text) == []
    assert len(run(EVERYTHING)) <= 1, "nothing else was changed"


def test_other_kind_takes_its_own_fields_and_forgets_the_others() -> None:
    run(EVERYTHING)
    text = alerts(
        destinations="{name: siem, kind: email, emails: [a@example.org]}",
        rules="{name: Budgets of research, kind: errors, percent: 5}",
    )
    run(text)
    assert run(text) == []
    siem, rule = AlertDestination.objects.get(name="siem"), AlertRule.objects.get(name="Budgets of research")
    assert (siem.kind, siem.read_address(), siem.secret) == ("email", "a@example.org", "")
    assert (rule.thresholds, rule.percent, rule.minutes) == ([], 5, KINDS["errors"].numbers["minutes"])


def test_number_that_is_left_out_is_what_the_kind_begins_with() -> None:
    run(alerts(rules=", ".join(f"{{name: {kind}, kind: {kind}}}" for kind in KINDS)))
    for kind, is_ in KINDS.items():
        row = AlertRule.objects.get(name=kind)
        assert {name: getattr(row, name) for name in is_.numbers} == is_.numbers


def test_rule_is_narrowed_to_models_and_providers_that_are_there() -> None:
    Model.objects.create(name="gpt")
    Provider.objects.create(name="azure", kind="azure_openai")
    run(alerts(rules="{name: a, kind: errors, model: gpt, provider: azure}"))
    row = AlertRule.objects.get()
    assert (row.model, row.provider) == ("gpt", "azure")
    run(alerts(rules="{name: a, model: null, provider: null}"))
    row.refresh_from_db()
    assert (row.model, row.provider) == ("", "")


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ("{name: a, url: 'https://example.org'}", "kind", "is missing: it says how it is reached"),
        ("{name: a, kind: pager, url: 'https://example.org'}", "kind", "there is no kind 'pager'"),
        ("{name: a, kind: slack}", "url", "is missing: it says where to"),
        ("{name: a, kind: slack, url: example.org}", "url", "must begin with https://"),
        ("{name: a, kind: slack, url: 'http://example.org'}", "url", "must begin with https://"),
        ("{name: a, kind: slack, url: 'https://u:p@example.org'}", "url", "no user name"),
        ("{name: a, kind: slack, url: 'https://a.org', secret: correct-horse-battery}", "secret", "does not count"),
        ("{name: a, kind: slack, emails: [a@example.org]}", "emails", "does not count for what is of the kind slack"),
        ("{name: a, kind: webhook, url: 'https://example.org'}", "secret", "without a signature"),
        ("{name: a, kind: webhook, url: 'https://example.org', secret: short}", "secret", "At least 16"),
        ("{name: a, kind: email, emails: []}", "emails", "at least one address"),
        ("{name: a, kind: email, emails: [nonsense]}", "emails", "“nonsense” is no e-mail address"),
        ("{name: a, kind: email, emails: [a@example.org], colour: red}", "colour", "is unknown"),
    ],
)
def test_destination_that_makes_no_sense_is_refused(given: str, field: str, message: str) -> None:
    found = mistakes(alerts(destinations=given))
    assert [one for one, _ in found if one == f"alerts.destinations[0].{field}"], found
    assert message in str(found)


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ("{name: a}", "kind", "is missing: it says what it watches"),
        ("{name: a, kind: bugdet}", "kind", "did you mean budget?"),
        ("{name: a, kind: budget, percent: 5}", "percent", "does not count for what is of the kind budget"),
        ("{name: a, kind: budget, tell_when_over: true}", "tell_when_over", "does not count"),
        ("{name: a, kind: sign_in, team: research}", "team", "does not count"),
        ("{name: a, kind: budget, thresholds: [0]}", "thresholds[0]", "between 1 and 1000"),
        (f"{{name: a, kind: budget, thresholds: {list(range(1, 30))}}}", "thresholds", "at most 20"),
        ("{name: a, kind: budget, team: reserch}", "team", "there is no team 'reserch'"),
        ("{name: a, kind: errors, model: gpt}", "model", "there is no model 'gpt'"),
        ("{name: a, kind: errors, provider: azure}", "provider", "there is no provider 'azure'"),
        (
            "{name: a, kind: errors, destinations: [nobody]}",
            "destinations[0]",
            "there is no alert destination 'nobody'",
        ),
        ("{name: a, kind: errors, minutes: 121}", "minutes", "between 1 and 120"),
    ],
)
def test_rule_that_makes_no_sense_is_refused(given: str, field: str, message: str) -> None:
    found = mistakes(alerts(rules=given))
    assert [one for one, _ in found if one == f"alerts.rules[0].{field}"], found
    assert message in str(found)


@pytest.mark.parametrize("section", ["destinations", "rules"])
def test_name_that_comes_twice_is_refused(section: str) -> None:
    one: dict[str, Any] = {
        "destinations": "{name: a, kind: email, emails: [a@example.org]}",
        "rules": "{name: a, kind: errors}",
    }
    ((field, message),) = mistakes(alerts(**{section: f"{one[section]}, {one[section]}"}))
    assert (field, message) == (f"alerts.{section}[1].name", "is already in this file, in line 2")


def test_destination_that_is_wrong_is_not_missed_by_its_rule_as_well() -> None:
    found = mistakes(alerts(destinations="{name: a, kind: pager}", rules="{name: b, kind: errors, destinations: [a]}"))
    assert [field for field, _ in found] == ["alerts.destinations[0].kind"]


def test_stored_http_url_needs_the_private_network() -> None:
    run(alerts(destinations="{name: a, kind: slack, url: 'http://chat.internal/x', private_network: true}"))
    ((field, message),) = mistakes(alerts(destinations="{name: a, private_network: false}"))
    assert (field, "https://" in message) == ("alerts.destinations[0].private_network", True)
