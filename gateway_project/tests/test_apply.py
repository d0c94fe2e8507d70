"""`manage.py apply`: the database as the file says, or as it was."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts import keys
from accounts.models import ApiKey, ConfigVersion, Membership, Team, User
from accounts.services import create_key, create_user, personal_team
from gateway_project.apply import NotApplied, apply
from proxy.models import Model, Provider, Route
from usage.models import ModelPrice

pytestmark = pytest.mark.django_db

SECRET = keys.make_key(keys.make_public_id())
OTHER_SECRET = keys.make_key(keys.make_public_id())
WHOLE = f"""
providers:
  - name: openai
    kind: openai
    api_key: ${{OPENAI_API_KEY}}
    extra_headers: {{x-team: blue}}
    idle_timeout_s: 20
  - {{name: local, kind: vllm, base_url: http://gpu:8000/v1, enabled: false}}
models:
  - name: gpt-4o-mini
    aliases: [mini]
    context_window: 128000
    routes:
      - {{provider: openai}}
      - {{provider: local, upstream_model: llama}}
    input_usd_per_mtok: 0.15
    output_usd_per_mtok: 0.60
teams:
  - {{name: research, cost_center: "4711", models: [gpt-4o-mini]}}
users:
  - {{username: alice, email: alice@example.org, teams: [research], models: [gpt-4o-mini]}}
keys:
  - {{name: laptop, user: alice, team: research, secret: {SECRET}, expires: 2027-01-31,
     endpoints: [chat/completions], models: [gpt-4o-mini]}}
  - {{name: nightly, team: research}}
  - {{name: own, user: alice}}
"""


def run(text: str, *, dry_run: bool = False) -> list[str]:
    return [str(change) for change in apply(text.encode(), dry_run=dry_run)]


def check_refused(text: str, *expected: tuple[int, str, str]) -> None:
    """Exactly these mistakes (line, field, words of the message), and nothing is applied."""
    counts = [model.objects.count() for model in (Provider, Model, Route, Team, User, ApiKey, ModelPrice)]
    with pytest.raises(NotApplied) as caught:
        run(text)
    mistakes = caught.value.mistakes
    assert [(mistake.line, mistake.field) for mistake in mistakes] == [one[:2] for one in expected], mistakes
    for mistake, (_, _, words) in zip(mistakes, expected, strict=True):
        assert words in mistake.message
    assert counts == [model.objects.count() for model in (Provider, Model, Route, Team, User, ApiKey, ModelPrice)]


@pytest.fixture(autouse=True)
def provider_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")


# --- the whole ------------------------------------------------------------------------------------------------------
def test_everything_the_file_names_is_made_and_listed() -> None:
    changes = run(WHOLE)
    assert [change.partition(": ")[0] for change in changes] == [
        "+ provider openai",
        "+ provider local",
        "+ model gpt-4o-mini",
        "+ team research",
        "+ user alice",
        "+ key laptop",
        "+ key nightly",
        "+ key own",
    ]


def test_second_run_changes_nothing_and_wakes_no_worker() -> None:
    run(WHOLE)
    versions = list(ConfigVersion.objects.values_list("part", "number"))
    assert run(WHOLE) == []
    assert list(ConfigVersion.objects.values_list("part", "number")) == versions


def test_workers_are_woken_by_a_change() -> None:
    run(WHOLE)
    before = ConfigVersion.objects.get(part="catalogue").number
    run("models: [{name: gpt-4o-mini, description: small}]")
    assert ConfigVersion.objects.get(part="catalogue").number > before


def test_dry_run_tells_the_same_and_writes_nothing() -> None:
    changes = run(WHOLE, dry_run=True)
    assert "+ provider openai" in changes
    assert "+ key nightly" in changes
    assert not Provider.objects.exists()
    assert not ApiKey.objects.exists()


def test_what_the_file_does_not_name_stays() -> None:
    run(WHOLE)
    assert run("providers: [{name: openai, idle_timeout_s: 30}]") == ["~ provider openai: idle_timeout_s"]
    openai = Provider.objects.get(name="openai")
    assert (openai.idle_timeout_s, openai.kind, openai.read_credential()) == (30, "openai", "sk-from-the-environment")
    assert Provider.objects.filter(name="local").exists()


def test_one_mistake_and_nothing_is_applied() -> None:
    check_refused(
        "providers: [{name: openai, kind: openai}]\nmodels:\n- name: m\n  routes: [{provider: opnai}]\n",
        (4, "models[0].routes[0].provider", "did you mean openai?"),
    )


def test_mistakes_of_every_section_are_told_at_once() -> None:
    check_refused(
        "providers:\n- {name: p}\nteams:\n- {name: t, models: [gone]}\nkeys:\n- {name: k, user: nobody}\nzzz: 1\n",
        (2, "providers[0].kind", "is missing"),
        (4, "teams[0].models[0]", "there is no model 'gone'"),
        (6, "keys[0].user", "there is no user 'nobody'"),
        (7, "zzz", "is unknown"),
    )


def test_mistake_in_an_object_is_not_told_again_at_every_reference_to_it() -> None:
    check_refused(
        "providers:\n- {name: p, kind: nonsense}\nmodels:\n- {name: m, routes: [{provider: p}]}\n",
        (2, "providers[0].kind", "there is no kind 'nonsense'"),
    )


# --- providers ------------------------------------------------------------------------------------------------------
def test_provider_is_made_with_its_secrets_encrypted() -> None:
    run(WHOLE)
    openai = Provider.objects.get(name="openai")
    assert openai.read_credential() == "sk-from-the-environment"
    assert openai.read_extra_headers() == {"x-team": "blue"}
    assert "sk-from" not in openai.credential


def test_provider_may_be_in_the_private_network_because_the_operator_says_so() -> None:
    run(WHOLE)
    assert Provider.objects.get(name="local").private_network is True
    run("providers: [{name: local, private_network: false}]")
    assert run("providers: [{name: local, tls_verify: false}]") == ["~ provider local: tls_verify"]
    assert Provider.objects.get(name="local").private_network is False


def test_secret_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    run(WHOLE)
    changes = run("providers: [{name: openai, api_key: sk-changed, extra_headers: {x-a: secret-header}}]")
    assert changes == ["~ provider openai: api_key, extra_headers"]


def test_provider_of_the_environment_belongs_to_the_file_from_then_on() -> None:
    Provider.objects.create(name="openai", kind="openai", origin=Provider.Origin.ENVIRONMENT)
    assert run("providers: [{name: openai}]") == ["~ provider openai: origin"]
    assert run("providers: [{name: openai}]") == []


def test_secret_that_cannot_be_decrypted_is_replaced() -> None:
    Provider.objects.create(name="openai", kind="openai", credential="damaged")
    assert run("providers: [{name: openai, api_key: sk-new}]") == ["~ provider openai: api_key"]
    assert Provider.objects.get(name="openai").read_credential() == "sk-new"


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ("kind: opanai", "kind", "did you mean openai?"),
        ("kind: azure_openai", "base_url", "has no usual address"),
        ("kind: openai, base_url: 'ftp://x'", "base_url", "http:// or https://"),
        ("kind: openai, base_url: 'https://u:p@x/v1'", "base_url", "user name or password"),
        ("kind: openai, idle_timeout_s: 0", "idle_timeout_s", "greater than or equal to 0.1"),
        ("kind: openai, connect_timeout_s: 1000", "connect_timeout_s", "less than or equal to 120"),
        ("kind: openai, tls_ca: nonsense", "tls_ca", "PEM"),
        ("kind: openai, extra_headers: {'a b': c}", "extra_headers.a b", "is not a header"),
        ('kind: openai, extra_headers: {a: "c\\nd: e"}', "extra_headers.a", "is not a header"),
    ],
)
def test_bad_provider_is_refused(fields: str, field: str, message: str) -> None:
    check_refused(f"providers:\n- {{name: p, {fields}}}\n", (2, f"providers[0].{field}", message))


def test_name_must_be_one_the_admin_would_take() -> None:
    check_refused("providers:\n- {name: 'a b', kind: openai}\n", (2, "providers[0].name", "Letters, digits"))
    check_refused('models:\n- {name: "a\\tb"}\n', (2, "models[0].name", "Letters, digits"))
    check_refused('teams:\n- {name: "a\\tb"}\n', (2, "teams[0].name", "Control characters"))
    check_refused("users:\n- {username: 'a b'}\n", (2, "users[0].username", "valid username"))


# --- models ---------------------------------------------------------------------------------------------------------
def test_routes_without_order_are_tried_from_top_to_bottom() -> None:
    run(WHOLE)
    routes = Route.objects.filter(model__name="gpt-4o-mini").values_list("order", "provider__name", "upstream_model")
    assert list(routes) == [(0, "openai", ""), (1, "local", "llama")]


def test_routes_with_weights_share_the_calls() -> None:
    run(WHOLE)
    run("models: [{name: gpt-4o-mini, routes: [{provider: openai, weight: 3}, {provider: local}]}]")
    routes = Route.objects.filter(model__name="gpt-4o-mini").values_list("order", "weight", "provider__name")
    assert list(routes) == [(0, 3, "openai"), (0, 1, "local")]


def test_list_of_routes_replaces_what_was_there() -> None:
    run(WHOLE)
    kept = Route.objects.get(provider__name="openai").pk
    assert run("models: [{name: gpt-4o-mini, routes: [{provider: openai}]}]") == ["~ model gpt-4o-mini: routes"]
    assert [route.pk for route in Route.objects.all()] == [kept]


def test_empty_list_clears() -> None:
    run(WHOLE)
    changes = run("models: [{name: gpt-4o-mini, aliases: [], routes: []}]")
    assert changes == ["~ model gpt-4o-mini: aliases, routes"]
    assert not Route.objects.exists()


@pytest.mark.parametrize(
    ("routes", "field", "message"),
    [
        ("{provider: p}, {provider: p}", "routes[1]", "listed twice"),
        ("{provider: p, order: -1}", "routes[0].order", "between 0 and 32767"),
        ("{provider: p, weight: 99999}", "routes[0].weight", "between 0 and 32767"),
    ],
)
def test_bad_route_is_refused(routes: str, field: str, message: str) -> None:
    run("providers: [{name: p, kind: openai}]")
    check_refused(f"models:\n- {{name: m, routes: [{routes}]}}\n", (2, f"models[0].{field}", message))


def test_name_leads_to_one_model_only() -> None:
    run("models: [{name: a, aliases: [b]}, {name: c}]")
    check_refused("models:\n- {name: b}\n", (2, "models[0].name", "an alias of the model a"))
    check_refused("models:\n- {name: c, aliases: [b]}\n", (2, "models[0].aliases[0]", "leads to the model a"))
    check_refused("models:\n- {name: c, aliases: [a]}\n", (2, "models[0].aliases[0]", "leads to the model a"))
    check_refused("models:\n- {name: c, aliases: [c]}\n", (2, "models[0].aliases[0]", "own name"))


def test_alias_can_move_from_one_model_to_another_in_one_file() -> None:
    run("models: [{name: a, aliases: [b]}, {name: c}]")
    assert run("models: [{name: a, aliases: []}, {name: c, aliases: [b]}]") == [
        "~ model a: aliases",
        "~ model c: aliases",
    ]


def test_price_is_written_with_a_date_and_only_when_it_is_another() -> None:
    run(WHOLE)
    assert run("models: [{name: gpt-4o-mini, input_usd_per_mtok: 0.150}]") == []
    assert run("models: [{name: gpt-4o-mini, input_usd_per_mtok: 0.2}]") == ["~ model gpt-4o-mini: input_usd_per_mtok"]
    newest, first = ModelPrice.objects.filter(model="gpt-4o-mini")
    assert (first.input_nano_usd_per_mtok, first.output_nano_usd_per_mtok) == (150_000_000, 600_000_000)
    assert (newest.input_nano_usd_per_mtok, newest.output_nano_usd_per_mtok) == (200_000_000, 600_000_000)


def test_price_of_cached_input_can_be_given_and_taken_back() -> None:
    run(WHOLE)
    run("models: [{name: gpt-4o-mini, cached_input_usd_per_mtok: 0.075}]")
    assert ModelPrice.objects.first().cached_nano_usd_per_mtok == 75_000_000  # type: ignore[union-attr]
    run("models: [{name: gpt-4o-mini, cached_input_usd_per_mtok: null}]")
    assert ModelPrice.objects.first().cached_nano_usd_per_mtok is None  # type: ignore[union-attr]


def test_price_that_begins_later_does_not_count_yet() -> None:
    run(WHOLE)
    ModelPrice.objects.create(
        model="gpt-4o-mini",
        valid_from=timezone.now() + timedelta(days=1),
        input_nano_usd_per_mtok=1,
        output_nano_usd_per_mtok=1,
    )
    assert run("models: [{name: gpt-4o-mini, input_usd_per_mtok: 0.15}]") == []


def test_first_price_needs_input_and_output() -> None:
    check_refused(
        "models:\n- {name: m, input_usd_per_mtok: 1}\n", (2, "models[0].output_usd_per_mtok", "a price needs both")
    )


# --- teams and users ------------------------------------------------------------------------------------------------
def test_allowed_models_are_all_or_none_or_those_listed() -> None:
    run(WHOLE)
    research = Team.objects.get(name="research")
    assert research.models_allowed == ["gpt-4o-mini"]
    assert run("teams: [{name: research, models: []}]") == ["~ team research: models"]
    research.refresh_from_db()
    assert research.models_allowed == []
    assert run("teams: [{name: research, models: null}]") == ["~ team research: models"]
    research.refresh_from_db()
    assert research.models_allowed is None


def test_allowed_model_must_be_named_by_its_own_name() -> None:
    run(WHOLE)
    check_refused("teams:\n- {name: t, models: [mini]}\n", (2, "teams[0].models[0]", "is an alias"))


def test_person_gets_a_team_of_their_own() -> None:
    run(WHOLE)
    alice = User.objects.get(username="alice")
    assert {team.name for team in alice.teams.all()} == {"research", personal_team(alice).name}
    assert not alice.has_usable_password()


def test_list_of_teams_replaces_the_memberships_but_never_the_personal_team() -> None:
    run(WHOLE)
    run("teams: [{name: sales}]\nusers: [{username: alice, teams: [{team: sales, role: manager}]}]")
    alice = User.objects.get(username="alice")
    memberships = Membership.objects.filter(user=alice).exclude(team=personal_team(alice))
    assert [(one.team.name, one.role) for one in memberships] == [("sales", "manager")]


def test_role_that_is_not_named_stays() -> None:
    run("teams: [{name: sales}]\nusers: [{username: alice, teams: [{team: sales, role: manager}]}]")
    assert run("users: [{username: alice, teams: [sales]}]") == []


@pytest.mark.parametrize(
    ("teams", "field", "message"),
    [
        ("[sales, sales]", "teams[1]", "listed twice"),
        ("[gone]", "teams[0]", "there is no team 'gone'"),
        ("[{team: sales, role: boss}]", "teams[0].role", "member, manager"),
        ("[bob]", "teams[0]", "a person's own team"),
    ],
)
def test_bad_membership_is_refused(teams: str, field: str, message: str) -> None:
    create_user("bob")
    run("teams: [{name: sales}]")
    check_refused(f"users:\n- {{username: alice, teams: {teams}}}\n", (2, f"users[0].{field}", message))


# --- keys -----------------------------------------------------------------------------------------------------------
def test_key_without_secret_is_made_and_shown_once() -> None:
    run("teams: [{name: research}]")
    (change,) = run("keys: [{name: nightly, team: research}]")
    start, _, secret = change.partition(": ")
    assert start == "+ key nightly"
    assert keys.public_id(secret) == ApiKey.objects.get().public_id
    assert run("keys: [{name: nightly, team: research}]") == []


def test_key_with_a_given_secret_is_that_one_and_is_not_repeated() -> None:
    changes = run(WHOLE)
    assert "+ key laptop" in changes
    key = ApiKey.objects.get(name="laptop")
    assert key.public_id == keys.public_id(SECRET)
    assert key.expires_at == datetime(2027, 2, 1, tzinfo=UTC)
    assert (key.endpoints_allowed, key.models_allowed) == (["chat/completions"], ["gpt-4o-mini"])


def test_key_belongs_to_a_person_in_a_team_or_to_the_team_or_to_the_personal_team() -> None:
    run(WHOLE)
    alice = User.objects.get(username="alice")
    owners = {key.name: (key.user, key.team.name) for key in ApiKey.objects.select_related("user", "team")}
    assert owners == {
        "laptop": (alice, "research"),
        "nightly": (None, "research"),
        "own": (alice, personal_team(alice).name),
    }


def test_other_secret_replaces_the_key_at_once() -> None:
    run(WHOLE)
    changes = run(f"keys: [{{name: laptop, user: alice, team: research, secret: {OTHER_SECRET}}}]")
    assert changes == ["~ key laptop: secret"]
    assert ApiKey.objects.get(name="laptop").public_id == keys.public_id(OTHER_SECRET)


def test_key_can_be_named_alone_when_there_is_only_one_of_that_name() -> None:
    run(WHOLE)
    assert run("keys: [{name: laptop, disabled: true}]") == ["~ key laptop: disabled"]
    assert run("keys: [{name: laptop, user: alice, expires: null}]") == ["~ key laptop: expires"]
    assert ApiKey.objects.filter(name="laptop").count() == 1


def test_same_name_for_two_owners_is_two_keys() -> None:
    run(WHOLE)
    (change,) = run("keys: [{name: laptop, team: research}]")
    assert change.startswith("+ key laptop")
    check_refused("keys:\n- {name: laptop, disabled: true}\n", (2, "keys[0].name", "several keys"))


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ("", "", "it needs an owner"),
        ("user: alice, team: sales", "", "is not in the team sales"),
        ("team: alice", "", "person's own team"),
        ("user: alice, secret: sk-gh-typo", ".secret", "not a Gatehouse key"),
        ("user: alice, secret: SECRET!", ".secret", "not a Gatehouse key"),
        ("user: alice, secret: SECRET", ".secret", "belongs to another key already: laptop"),
        ("user: alice, endpoints: [chat]", ".endpoints[0]", "there are chat/completions"),
        ("user: alice, models: [gone]", ".models[0]", "there is no model"),
    ],
)
def test_bad_key_is_refused(fields: str, field: str, message: str) -> None:
    run(WHOLE)
    run("teams: [{name: sales}]")
    with pytest.raises(NotApplied) as caught:
        run(f"keys:\n- {{name: new, {fields.replace('SECRET', SECRET)}}}\n")
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.field) == (2, f"keys[0]{field}")
    assert message in mistake.message
    assert SECRET not in mistake.message


def test_same_key_declared_twice_is_refused() -> None:
    run(WHOLE)
    check_refused(
        "keys:\n- {name: own, user: alice}\n- {name: own, disabled: true}\n", (3, "keys[1]", "the key of line 2 again")
    )


def test_key_made_by_hand_can_be_changed_by_the_file() -> None:
    alice = create_user("alice")
    create_key("laptop", personal_team(alice), alice)
    assert run("keys: [{name: laptop, user: alice, disabled: true}]") == ["~ key laptop: disabled"]


# --- the command ----------------------------------------------------------------------------------------------------
@pytest.fixture
def command(tmp_path: Path) -> Callable[..., str]:
    def call(text: str, *arguments: str) -> str:
        path = tmp_path / "gatehouse.yaml"
        path.write_text(text)
        out = io.StringIO()
        call_command("apply", str(path), *arguments, stdout=out, stderr=io.StringIO())
        return out.getvalue()

    return call


def test_command_prints_what_changed_and_then_that_nothing_did(command: Callable[..., str]) -> None:
    assert command("teams: [{name: research}]") == "+ team research\n"
    assert command("teams: [{name: research}]") == "nothing changed\n"


def test_command_says_that_a_dry_run_was_one(command: Callable[..., str]) -> None:
    assert command("teams: [{name: research}]", "--dry-run") == "+ team research\ndry run: nothing was applied\n"
    assert not Team.objects.exists()


def test_command_names_file_line_and_field_of_every_mistake(command: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        command("teams:\n- {name: t, colour: red}\nkeys:\n- {name: k, secret: short, team: t}\n")
    path = tmp_path / "gatehouse.yaml"
    first, second, last = str(caught.value).splitlines()
    assert first.startswith(f"{path}:2: teams[0].colour: ")
    assert second.startswith(f"{path}:4: keys[0].secret: ")
    assert last == "nothing was applied"


def test_command_says_what_is_wrong_with_the_file_itself() -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("apply", "/nowhere/gatehouse.yaml")
    with pytest.raises(CommandError, match="directory"):
        call_command("apply", "/")


def test_price_survives_as_an_exact_amount() -> None:
    run("models: [{name: m, input_usd_per_mtok: 0.0000001, output_usd_per_mtok: 999999.999999999}]")
    price = ModelPrice.objects.get()
    assert price.input_nano_usd_per_mtok == 100
    assert price.output_nano_usd_per_mtok == int(Decimal("999999.999999999") * 10**9)
