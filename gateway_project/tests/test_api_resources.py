"""Each resource of the management API: what can be done with it, and what cannot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import services
from accounts.authentication import InvalidKey, check_now
from accounts.models import ApiKey, Team, User
from accounts.requests.models import AccessRequest, Kind
from gateway_project.tests.api_client import Program, error
from policies.models import Policy
from proxy.models import Model, Provider
from usage.models import Budget
from usage.rollups import roll_up_all
from usage.tests.events import add

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(admin_user: User) -> Program:
    return Program(admin_user)


def works(secret: str) -> bool:
    try:
        return bool(check_now(secret, services.peppers()))
    except InvalidKey:
        return False


# --- the calls of LLMGateway's admin, see docs/api.md -----------------------------------------------------------------
def test_llmgateway_addmodel_and_removemodel(admin: Program) -> None:
    provider = Provider.objects.create(name="ours", kind="echo")
    body = {"name": "llama", "routes": [{"provider": provider.pk, "upstream_model": "llama-3"}]}
    made = admin.post("models", body)
    assert made.status_code == 201
    assert error(admin.post("models", body), 400)["param"] == "name"
    assert admin.delete(f"models/{made.json()['id']}").status_code == 204
    assert error(admin.delete(f"models/{made.json()['id']}"), 404)["code"] == "not_found"


def test_llmgateway_addapikey_listkeys_and_removeapikey(admin: Program, alice: User, research: Team) -> None:
    body = {"name": "notebook", "user": alice.pk, "team": research.pk}
    made = admin.post("keys", body)
    secret = made.json()["secret"]
    assert made.status_code == 201
    assert works(secret)
    assert error(admin.post("keys", body), 400)["param"] == "name"
    listed = admin.get(f"keys?user={alice.pk}").json()["data"]
    assert [key["name"] for key in listed] == ["notebook"]
    assert "secret" not in listed[0]
    assert secret not in str(listed)
    assert admin.delete(f"keys/{listed[0]['id']}").status_code == 204
    assert not works(secret)


# --- keys -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def key(admin: Program, research: Team) -> dict[str, Any]:
    found: dict[str, Any] = admin.post("keys", {"name": "service", "team": research.pk}).json()
    return found


def test_rotated_key_overlaps_as_long_as_asked(admin: Program, key: dict[str, Any]) -> None:
    renewed = admin.post(f"keys/{key['id']}/rotate", {"overlap_s": 3600}).json()
    assert works(key["secret"])
    assert works(renewed["secret"])
    assert renewed["state"] == "rotating"
    again = admin.post(f"keys/{key['id']}/rotate", {"overlap_s": 0}).json()
    assert not works(renewed["secret"])
    assert works(again["secret"])


def test_revoked_key_can_be_enabled_again(admin: Program, key: dict[str, Any]) -> None:
    assert admin.post(f"keys/{key['id']}/revoke").json()["state"] == "revoked"
    assert not works(key["secret"])
    assert admin.post(f"keys/{key['id']}/enable").json()["state"] == "active"
    assert works(key["secret"])


def test_key_does_not_move_and_takes_known_models_only(admin: Program, key: dict[str, Any], alice: User) -> None:
    assert error(admin.patch(f"keys/{key['id']}", {"user": alice.pk}), 403)["code"] == "permission_denied"
    assert error(admin.patch(f"keys/{key['id']}", {"models_allowed": ["o1"]}), 400)["param"] == "models_allowed"
    assert admin.patch(f"keys/{key['id']}", {"models_allowed": []}).json()["models_allowed"] == []


def test_key_that_was_used_is_not_deleted(admin: Program, key: dict[str, Any]) -> None:
    ApiKey.objects.update(last_used_at=timezone.now())
    assert error(admin.delete(f"keys/{key['id']}"), 403)["code"] == "permission_denied"


def test_key_is_made_only_for_members_of_the_team(admin: Program, charlie: User, research: Team) -> None:
    reply = admin.post("keys", {"name": "x", "user": charlie.pk, "team": research.pk})
    assert "not in the team" in error(reply, 400)["message"]


# --- people ---------------------------------------------------------------------------------------------------------
def test_person_gets_a_personal_team_and_memberships(admin: Program, research: Team) -> None:
    person = admin.post("users", {"username": "eve", "email": "eve@example.org"}).json()
    assert Team.objects.get(personal_of=person["id"])
    made = admin.post("memberships", {"user": person["id"], "team": research.pk}).json()
    assert admin.patch(f"memberships/{made['id']}", {"role": "manager"}).json()["role"] == "manager"
    assert error(admin.post("memberships", {"user": person["id"], "team": research.pk}), 400)
    assert admin.delete(f"memberships/{made['id']}").status_code == 204


def test_disabled_team_stops_its_keys(admin: Program, key: dict[str, Any], research: Team) -> None:
    assert admin.patch(f"teams/{research.pk}", {"disabled": True}).json()["disabled"] is True
    assert not works(key["secret"])


def test_networks_are_judged_as_in_the_admin(admin: Program, research: Team) -> None:
    url = f"teams/{research.pk}"
    assert admin.patch(url, {"networks_allowed": ["192.0.2.7/24"]}).json()["networks_allowed"] == ["192.0.2.0/24"]
    assert error(admin.patch(url, {"networks_allowed": ["everywhere"]}), 400)["param"] == "networks_allowed"


# --- providers, models, prices ----------------------------------------------------------------------------------------
def test_credential_goes_in_and_never_comes_out(admin: Program) -> None:
    body = {"name": "openai", "kind": "openai", "credential": "sk-secret", "extra_headers": {"X-Org": "acme"}}
    made = admin.post("providers", body, idempotency_key="k")
    assert made.status_code == 201
    assert (made.json()["has_credential"], made.json()["extra_header_names"]) == (True, ["X-Org"])
    assert b"sk-secret" not in made.content + admin.get("providers").content
    assert b"acme" not in made.content
    row = Provider.objects.get()
    assert (row.read_credential(), row.read_extra_headers()) == ("sk-secret", {"X-Org": "acme"})
    url = f"providers/{row.pk}"
    assert admin.patch(url, {"enabled": False}).json()["has_credential"] is True
    assert admin.patch(url, {"credential": ""}).json()["has_credential"] is False


def test_credential_is_not_sent_to_another_address(admin: Program) -> None:
    made = admin.post("providers", {"name": "openai", "kind": "openai", "credential": "sk-secret"}).json()
    reply = admin.patch(f"providers/{made['id']}", {"base_url": "https://api.evil.example/v1"})
    assert error(reply, 400)["param"] == "credential"


def test_operator_without_the_right_to_secrets_sets_none(alice: User) -> None:
    program = Program(alice, may=("proxy.add_provider", "proxy.view_provider", "proxy.change_provider"))
    body = {"name": "openai", "kind": "openai"}
    assert error(program.post("providers", {**body, "credential": "sk-x"}), 403)["code"] == "permission_denied"
    assert error(program.post("providers", {**body, "private_network": True}), 403)["code"] == "permission_denied"
    assert program.post("providers", body).status_code == 201


def test_header_cannot_bring_another_header_along(admin: Program) -> None:
    body = {"name": "openai", "kind": "openai", "extra_headers": {"X-A": "1\r\nX-B: 2"}}
    assert error(admin.post("providers", body), 400)["param"] == "extra_headers"


def test_routes_are_replaced_by_those_given(admin: Program) -> None:
    one, two = (Provider.objects.create(name=name, kind="echo") for name in ("one", "two"))
    made = admin.post("models", {"name": "gpt", "routes": [{"provider": one.pk}]}).json()
    url = f"models/{made['id']}"
    routes = admin.patch(url, {"routes": [{"provider": two.pk, "order": 1}, {"provider": one.pk, "weight": 3}]}).json()
    assert [(route["provider"], route["order"], route["weight"]) for route in routes["routes"]] == [
        (one.pk, 0, 3),
        (two.pk, 1, 1),
    ]
    admin.patch(url, {"routes": [{"provider": one.pk}, {"provider": one.pk, "upstream_model": "other"}]})
    assert len(admin.get(f"models?provider={one.pk}").json()["data"]) == 1
    twice = admin.patch(url, {"routes": [{"provider": one.pk}, {"provider": one.pk}]})
    assert error(twice, 400)["param"] == "routes.1.provider"


def test_renamed_model_takes_its_budgets_along(admin: Program) -> None:
    made = admin.post("models", {"name": "old"}).json()
    Budget.objects.create(scope="installation", model="old", limit=1)
    assert admin.patch(f"models/{made['id']}", {"name": "new"}).status_code == 200
    assert Budget.objects.get().model == "new"


def test_price_is_set_with_every_digit(admin: Program) -> None:
    Model.objects.create(name="gpt")
    made = admin.post(
        "prices",
        {
            "model": "gpt", "input_usd_per_mtok": "0.15", "output_usd_per_mtok": "0.60",
            "tools_usd": {"web_search": "0.01"},
            "tiers": [{"from_prompt_tokens": 200001, "input_usd_per_mtok": "0.3", "output_usd_per_mtok": "1.2"}],
        },
    )  # fmt: skip
    assert made.status_code == 201, made.content
    found = made.json()
    assert (found["input_usd_per_mtok"], found["tools_usd"]) == ("0.15", {"web_search": "0.01"})
    assert found["tiers"][0]["from_prompt_tokens"] == 200001
    assert admin.get("models?name=gpt").json()["data"][0]["price"]["input_usd_per_mtok"] == "0.15"
    assert error(admin.post("prices", {"model": "o1", "input_usd_per_mtok": "1", "output_usd_per_mtok": "1"}), 400)


# --- policies, word lists ---------------------------------------------------------------------------------------------
RULE = {"check": "max_prompt_chars", "action": "block", "settings": {"limit": 10}}


def test_policy_is_drafted_tried_published_and_rolled_back(admin: Program) -> None:
    url = f"policies/{admin.post('policies', {'name': 'default'}).json()['id']}"
    draft = admin.put(f"{url}/draft", {"rules": [RULE]})
    assert draft.json()["rules"][0]["settings"]["limit"] == 10
    assert admin.get(url).json()["version"] is None
    tried = admin.post(f"{url}/try", {"text": "Hello, this is a long prompt"}).json()
    assert (tried["request"]["ending"], tried["reply"]) == ("blocked", None)
    assert admin.post(f"{url}/publish", {"note": "first"}).json()["number"] == 1
    admin.put(f"{url}/draft", {"rules": []})
    assert admin.get(url).json()["unpublished_changes"] is True
    assert admin.post(f"{url}/publish").json()["number"] == 2
    back = admin.post(f"{url}/versions/1/roll-back").json()
    assert (back["number"], len(back["document"]["rules"])) == (3, 1)
    listed = admin.get(f"{url}/versions?limit=2").json()
    assert [one["number"] for one in listed["data"]] == [3, 2]
    assert [one["number"] for one in admin.get(f"{url}/versions?after={listed['next']}").json()["data"]] == [1]


def test_mistake_in_a_draft_names_rule_and_setting(admin: Program) -> None:
    url = f"policies/{admin.post('policies', {'name': 'default'}).json()['id']}/draft"
    reply = admin.put(url, {"rules": [RULE, {"check": "max_prompt_chars", "settings": {"limit": -1}}]})
    assert error(reply, 400)["param"] == "rules.1.settings.limit"
    assert error(admin.put(url, {"rules": [{"check": "nonsense"}]}), 400)["param"] == "rules.0.check"
    assert admin.get(url).json()["rules"] == []


def test_draft_has_a_tag_of_its_own(admin: Program) -> None:
    url = f"policies/{admin.post('policies', {'name': 'default'}).json()['id']}/draft"
    tag = admin.get(url)["ETag"]
    assert admin.put(url, {"rules": [RULE]}, if_match=tag).status_code == 200
    assert error(admin.put(url, {"rules": []}, if_match=tag), 412)


def test_who_may_not_publish_changes_nothing_in_force(alice: User, admin: Program, research: Team) -> None:
    url = f"policies/{admin.post('policies', {'name': 'default'}).json()['id']}"
    admin.post(f"{url}/publish")
    editor = Program(alice, may=("policies.view_policy", "policies.change_policy", "policies.delete_policy",
                                 "accounts.view_team", "accounts.view_apikey"))  # fmt: skip
    assert editor.put(f"{url}/draft", {"rules": [RULE]}).status_code == 200
    whom = {"everyone": True, "teams": [], "keys": []}
    for reply in (
        editor.post(f"{url}/publish"),
        editor.post(f"{url}/versions/1/roll-back"),
        editor.patch(url, {"enabled": False}),
        editor.put(f"{url}/assignments", whom),
        editor.delete(url),
    ):
        assert error(reply, 403)["code"] == "permission_denied"
    assert not Policy.objects.get().assignments.exists()


def test_policy_holds_for_exactly_those_given(admin: Program, research: Team) -> None:
    url = f"policies/{admin.post('policies', {'name': 'default'}).json()['id']}/assignments"
    assert admin.put(url, {"everyone": False, "teams": [research.pk], "keys": []}).json()["teams"] == [research.pk]
    assert admin.put(url, {"everyone": True, "teams": [], "keys": []}).json()["everyone"] is True
    assert admin.get(url).json() == {"everyone": True, "teams": [], "keys": []}


def test_entries_are_added_replaced_and_removed(admin: Program) -> None:
    url = f"wordlists/{admin.post('wordlists', {'name': 'custom'}).json()['id']}"
    added = admin.post(f"{url}/entries", {"entries": ["Secret project", "SECRET project", "codename*"]}).json()
    assert (added["added"], len(added["duplicates"])) == (2, 1)
    assert admin.post(f"{url}/entries/remove", {"entries": ["secret PROJECT"]}).json()["removed"] == 1
    assert admin.put(f"{url}/entries", {"entries": ["one"], "exceptions": ["two"]}).json()["removed"] == 1
    listed = admin.get(f"{url}/entries").json()["data"]
    assert sorted((entry["text"], entry["allow"]) for entry in listed) == [("one", False), ("two", True)]
    assert error(admin.post(f"{url}/entries", {"entries": ["*"]}), 400)


# --- money ----------------------------------------------------------------------------------------------------------
def test_budget_is_made_topped_up_and_stands(admin: Program, research: Team) -> None:
    made = admin.post("budgets", {"scope": "team", "team": research.pk, "limit": "50.25", "soft": "40"})
    assert made.status_code == 201, made.content
    url = f"budgets/{made.json()['id']}"
    assert (made.json()["limit"], made.json()["unit"]) == ("50.25", "usd")
    assert admin.post(f"{url}/top-ups", {"amount": "9.75", "reason": "A conference"}).status_code == 201
    standing = admin.get(f"{url}/standing").json()
    assert (standing["limit"], standing["spent"], standing["remaining"]) == ("60", "0", "60")
    (given,) = admin.get(f"{url}/top-ups").json()["data"]
    assert (given["amount"], given["by"]) == ("9.75", "admin")
    assert error(admin.patch(url, {"unit": "tokens"}), 403)
    assert error(admin.delete(url), 403)


def test_mistakes_in_money_name_the_field_of_the_api(admin: Program, research: Team) -> None:
    given = {"scope": "team", "team": research.pk, "limit": "5"}
    assert error(admin.post("budgets", {**given, "soft": "6"}), 400)["param"] == "soft"
    assert error(admin.post("budgets", {**given, "limit": "-5"}), 400)["param"] == "limit"
    assert error(admin.post("budgets", {**given, "limit": 5}), 400)["param"] == "limit"
    assert error(admin.post("budgets", {**given, "team": None}), 400)["param"] == "team"
    assert error(admin.post("budgets", {**given, "unit": "tokens", "limit": "1.5"}), 400)["param"] == "limit"


def test_rate_limit_is_made_and_lifted(admin: Program, research: Team) -> None:
    made = admin.post("limits", {"scope": "team", "team": research.pk, "requests_per_minute": 60})
    assert made.status_code == 201, made.content
    again = admin.post("limits", {"scope": "team", "team": research.pk, "max_parallel": 1})
    assert error(again, 400)["type"] == "invalid_request_error"
    url = f"limits/{made.json()['id']}"
    assert admin.patch(url, {"max_parallel": 3}).json()["requests_per_minute"] == 60
    assert admin.delete(url).status_code == 204


# --- usage ----------------------------------------------------------------------------------------------------------
def test_sums_and_events_tell_the_same(admin: Program, research: Team) -> None:
    now = datetime.now(UTC)
    for minutes in range(3):
        add(now - timedelta(minutes=minutes), team_id=research.pk, cost_nano_usd=1_500_000_000)
    roll_up_all()
    found = admin.get(f"usage/sums?by=team&team={research.pk}").json()
    assert (found["total"]["calls"], found["total"]["cost_usd"]) == (3, "4.5")
    assert [(line["group"], line["name"]) for line in found["lines"]] == [(research.pk, "research")]
    page = admin.get("usage/events?limit=2").json()
    rest = admin.get(f"usage/events?limit=2&after={page['next']}").json()
    assert [event["cost_usd"] for event in page["data"] + rest["data"]] == ["1.5"] * 3
    assert page["data"][0]["at"] > page["data"][1]["at"] > rest["data"][0]["at"]
    since = (now - timedelta(seconds=90)).isoformat().replace("+00:00", "Z")
    assert len(admin.get(f"usage/events?since={since}").json()["data"]) == 2
    assert admin.get(f"usage/events/{page['data'][0]['id']}").json() == page["data"][0]


@pytest.mark.parametrize(
    ("query", "param"),
    [("by=planet", "by"), ("start=soon", "start"), ("start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "start"),
     ("start=2020-01-01T00:00:00Z", "start"), ("team=x", "team"), ("lines=0", "lines"), ("start=0001-01-01T00:00:00Z&"
     "end=0001-01-02T00:00:00Z", "start")],
)  # fmt: skip
def test_sums_that_cannot_be_are_mistakes(admin: Program, query: str, param: str) -> None:
    assert error(admin.get(f"usage/sums?{query}"), 400)["param"] == param


# --- requests, the trail ----------------------------------------------------------------------------------------------
def test_request_is_approved_once(admin: Program, alice: User, charlie: User, research: Team) -> None:
    row = AccessRequest.objects.create(kind=Kind.JOIN, requester=charlie, team=research, reason="To join")
    reply = admin.post(f"requests/{row.pk}/approve", {"reason": "Welcome"})
    assert reply.status_code == 200, reply.content
    assert (reply.json()["state"], reply.json()["decided_by"]) == ("approved", admin.user.pk)
    assert charlie.memberships.filter(team=research).exists()
    assert error(admin.post(f"requests/{row.pk}/decline", {"reason": "No"}), 409)["code"] == "conflict"


def test_nobody_decides_on_their_own_request(admin: Program, research: Team) -> None:
    row = AccessRequest.objects.create(kind=Kind.JOIN, requester=admin.user, team=research, reason="To join")
    assert error(admin.post(f"requests/{row.pk}/approve"), 403)["code"] == "permission_denied"


def test_trail_is_read_by_action_and_person_and_not_written(admin: Program) -> None:
    admin.post("teams", {"name": "a"})
    (event,) = admin.get(f"audit?action=team.created&user={admin.user.pk}&channel=api").json()["data"]
    assert event["after"]["name"] == "a"
    assert admin.get(f"audit/{event['id']}").json()["digest"] == event["digest"]
    assert error(admin.delete(f"audit/{event['id']}"), 405)
