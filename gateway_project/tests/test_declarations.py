"""How a configuration file is read, before any of it meets the database."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from gateway_project.declarations import MAX_BYTES, Document, read


def read_text(text: str) -> Document:
    return read(text.encode())


def check_read(text: str, section: str, field: str, expected: Any) -> None:
    document = read_text(text)
    assert not document.mistakes
    assert document[section][0].get(field) == expected


def check_mistake(text: str, line: int, field: str, message: str) -> None:
    """Exactly one mistake, at this line and field, whose message holds these words."""
    mistakes = read_text(text).mistakes
    assert [(mistake.line, mistake.field) for mistake in mistakes] == [(line, field)], mistakes
    assert message in mistakes[0].message


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t: [not, yaml]")
    monkeypatch.setenv("NOTHING", "")
    monkeypatch.setenv("BYTES", "\udcff")  # a byte that is not UTF-8
    monkeypatch.delenv("UNSET", raising=False)


# --- what it takes --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "providers:\n", "providers: []\n"])
def test_file_that_says_nothing_is_fine(text: str) -> None:
    document = read_text(text)
    assert not document.mistakes
    assert document["providers"] == []


def test_object_has_the_fields_that_were_given_and_no_others() -> None:
    document = read_text("providers:\n- name: openai\n  enabled: false\n")
    assert set(document["providers"][0].fields) == {"name", "enabled"}


def test_example_of_the_contract_is_read_with_variables_in_flow_mappings() -> None:
    text = "providers:\n  - {name: openai, kind: openai, base_url: https://api.openai.com/v1, api_key: ${TOKEN}}\n"
    check_read(text, "providers", "api_key", "s3cr3t: [not, yaml]")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${TOKEN}", "s3cr3t: [not, yaml]"),
        ("a-${TOKEN}-${TOKEN}-b", "a-s3cr3t: [not, yaml]-s3cr3t: [not, yaml]-b"),
        ('"<${TOKEN}>"', "<s3cr3t: [not, yaml]>"),
        ("'${TOKEN}'", "s3cr3t: [not, yaml]"),
        ("$${TOKEN}", "${TOKEN}"),
        ('"$${not a name}"', "${not a name}"),
        ("pa$$word", "pa$$word"),
        ("$TOKEN", "$TOKEN"),
        ("x${NOTHING}y", "xy"),
    ],
)
def test_variable_is_filled_in_as_text(written: str, expected: str) -> None:
    check_read(f"providers: [{{name: p, api_key: {written}}}]", "providers", "api_key", expected)
    check_read(f"providers:\n- name: p\n  api_key: {written}\n", "providers", "api_key", expected)


def test_variable_may_be_in_a_file_as_settings_may(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "key").write_text("from a file\n")
    monkeypatch.setenv("UNSET_FILE", str(tmp_path / "key"))
    check_read("providers: [{name: p, api_key: ${UNSET}}]", "providers", "api_key", "from a file")


@pytest.mark.parametrize("written", ["2024-10-21", "4711", "0815", "1.50", '"2024-10-21"'])
def test_number_or_date_in_a_text_field_is_taken_as_written(written: str) -> None:
    check_read(f"providers: [{{name: p, api_version: {written}}}]", "providers", "api_version", written.strip('"'))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2027-01-31", datetime(2027, 2, 1, tzinfo=UTC)),
        ('"2027-01-31"', datetime(2027, 2, 1, tzinfo=UTC)),
        ("2027-01-31T18:00:00Z", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31 18:00:00", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31T18:00:00+02:00", datetime(2027, 1, 31, 16, tzinfo=UTC)),
        ("null", None),
    ],
)
def test_expiry_date_means_the_end_of_that_day_in_utc(written: str, expected: datetime | None) -> None:
    check_read(f"keys:\n- name: k\n  expires: {written}\n", "keys", "expires", expected)


def test_price_is_exact() -> None:
    check_read("models: [{name: m, input_usd_per_mtok: 0.15}]", "models", "input_usd_per_mtok", Decimal("0.15"))


def test_team_of_a_user_may_be_a_name_or_a_name_with_a_role() -> None:
    document = read_text("users:\n- username: a\n  teams: [research, {team: sales, role: manager}]\n")
    memberships = [item.value for item in document["users"][0].get("teams")]
    assert [(one.get("team"), one.get("role")) for one in memberships] == [("research", None), ("sales", "manager")]


# --- what it refuses ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("providers:\n- name: p\n  base_urll: x\n", 3, "providers[0].base_urll", "did you mean base_url?"),
        ("provider: []\n", 1, "provider", "did you mean providers?"),
        ("zzz: []\n", 1, "zzz", "known are providers, models, teams, users, keys"),
        ("providers:\n- name: p\n  enabled: maybe\n", 3, "providers[0].enabled", "true or false"),
        ("providers:\n- name: p\n  enabled: 1\n", 3, "providers[0].enabled", "true or false"),
        ("providers:\n- name: yes\n", 2, "providers[0].name", "put it in quotes"),
        ('teams:\n- name: "a\\0"\n', 2, "teams[0].name", "cannot be stored"),
        ("teams:\n- name: ${BYTES}\n", 2, "teams[0].name", "cannot be stored"),
        ("providers:\n- name: [p]\n", 2, "providers[0].name", "must be a text"),
        ("providers:\n- name: p\n  api_key:\n", 3, "providers[0].api_key", "must be a text"),
        ("providers:\n- name: p\n  idle_timeout_s: soon\n", 3, "providers[0].idle_timeout_s", "a number of seconds"),
        ("providers:\n- name: p\n  idle_timeout_s: .inf\n", 3, "providers[0].idle_timeout_s", "a number of seconds"),
        ("providers:\n- name: p\n  extra_headers: [a]\n", 3, "providers[0].extra_headers", "must be a mapping"),
        ("providers:\n- name: p\n  extra_headers: {a: [b]}\n", 3, "providers[0].extra_headers.a", "must be a text"),
        ("models:\n- name: m\n  context_window: 1.5\n", 3, "models[0].context_window", "whole number"),
        ("models:\n- name: m\n  context_window: 0x10\n", 3, "models[0].context_window", "plain digits"),
        ("models:\n- name: m\n  aliases: gpt\n", 3, "models[0].aliases", "must be a list of names"),
        ("models:\n- name: m\n  routes: [openai]\n", 3, "models[0].routes[0]", "must be a mapping"),
        ("models:\n- name: m\n  routes:\n  - {order: 1}\n", 4, "models[0].routes[0].provider", "is missing"),
        (
            "models:\n- name: m\n  input_usd_per_mtok: -1\n",
            3,
            "models[0].input_usd_per_mtok",
            "between 0 and 1,000,000",
        ),
        ("models:\n- name: m\n  input_usd_per_mtok: '1'\n", 3, "models[0].input_usd_per_mtok", "US dollars"),
        ("keys:\n- name: k\n  expires: tomorrow\n", 3, "keys[0].expires", "2027-01-31"),
        ("keys:\n- name: k\n  expires: 2027-02-30\n", 3, "keys[0].expires", "2027-01-31"),
        ("keys:\n- {user: alice}\n", 2, "keys[0].name", "is missing"),
        ("teams: {name: t}\n", 1, "teams", "must be a list of teams"),
        ("teams:\n- t\n", 2, "teams[0]", "must be a mapping"),
        ("teams:\n- name: t\n  name: u\n", 3, "teams[0].name", "is given twice"),
        ("teams:\n- name: t\n- name: t\n", 3, "teams[1].name", "already in this file, in line 2"),
        ("teams: []\nteams: []\n", 2, "teams", "is given twice"),
        ("teams:\n- name: t\n  [a]: b\n", 3, "teams[0]", "a field's name must be a plain text"),
        ("- name: t\n", 1, "", "must be sections: providers"),
        ("just words\n", 1, "", "must be sections: providers"),
        ("teams:\n- name: !!python/object:os.system x\n", 2, "teams[0].name", "must be a text"),
    ],
)
def test_mistake_names_line_and_field(text: str, line: int, field: str, message: str) -> None:
    check_mistake(text, line, field, message)


def test_field_that_this_version_cannot_enforce_is_refused() -> None:
    check_mistake("teams:\n- name: x\n  sharing: 1\n", 3, "teams[0].sharing", "does not enforce it")


def test_installation_is_one_object_and_no_list() -> None:
    check_mistake("installation: []\n", 1, "installation", "must be a mapping")
    assert read_text("installation: {max_parallel: 9}")["installation"][0].get("max_parallel") == 9
    assert read_text("installation:\n")["installation"] == []


@pytest.mark.parametrize(
    ("budget", "field", "message"),
    [
        ("{usd: 1}", "", "is missing"),
        ("{usd: -1, per: day}", "usd", "between 0 and 1,000,000,000"),
        ("{usd: a lot, per: day}", "usd", "must be an amount of US dollars"),
        ("{usd: 1e3, per: day}", "usd", "between 0 and 1,000,000,000: write 1000, not 1e3"),
        ("{usd: 2.5E1, per: day}", "usd", "write 25, not 2.5E1"),
        ("{tokens: 1e6, per: day}", "tokens", "write 1000000, not 1e6"),
        ("{tokens: 1.5, per: day}", "tokens", "must be a whole number"),
        ("{usd: 1, per: day, timzone: UTC}", "timzone", "did you mean timezone?"),
    ],
)
def test_mistake_in_a_budget_names_its_place(budget: str, field: str, message: str) -> None:
    place = f"teams[0].budgets[0].{field or 'per'}"
    check_mistake(f"teams:\n- name: x\n  budgets:\n  - {budget}\n", 4, place, message)


@pytest.mark.parametrize("rate", ["0", "1.5", "-1", "many", "2147483648"])
def test_rate_is_a_whole_number_above_nothing(rate: str) -> None:
    text = f"keys:\n- name: x\n  requests_per_minute: {rate}\n"
    check_mistake(text, 3, "keys[0].requests_per_minute", "must be a whole number between 1 and")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${UNSET}", "the environment variable UNSET is not set"),
        ("x-${UNSET}", "the environment variable UNSET is not set"),
        ("${NOTHING}", "is set to nothing"),
        ('"${not a name}"', "no variable"),
    ],
)
def test_variable_that_cannot_be_filled_in_is_a_mistake(written: str, message: str) -> None:
    check_mistake(f"providers:\n- name: p\n  api_key: {written}\n", 3, "providers[0].api_key", message)


def test_value_of_a_variable_is_never_read_as_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "true")
    check_mistake("providers:\n- name: p\n  enabled: ${TOKEN}\n", 3, "providers[0].enabled", "true or false")


def test_every_mistake_is_told_at_once() -> None:
    document = read_text("providers:\n- name: p\n  enabled: 3\n  colour: red\nteams:\n- {}\n")
    assert [mistake.line for mistake in sorted(document.mistakes)] == [3, 4, 6]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("providers:\n- name: [\n", 3, "is not YAML"),
        ("providers:\n\t- name: p\n", 2, "is not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "single document"),
        ("teams:\n- &a {name: t}\n- *a\n", 3, "aliases"),
        ("teams:\n- name: t\n  <<: *undefined\n", 3, "aliases"),
        ("teams:\n- name: \x07\n", 2, "control character"),
        ("teams:\n- name: \ue000x\n", 2, "U+E000"),
        ("teams:\n  " + "[" * 30 + "]" * 30, 2, "nested too deeply"),
    ],
)
def test_file_that_cannot_be_read_is_told_with_its_line(text: str, line: int, message: str) -> None:
    check_mistake(text, line, "", message)


def test_file_that_is_not_utf_8_is_told_with_its_line() -> None:
    (mistake,) = read(b"teams:\n- name: \xff\n").mistakes
    assert (mistake.line, mistake.message) == (2, "is not UTF-8")


def test_huge_file_is_refused_unread() -> None:
    (mistake,) = read(b"#" * (MAX_BYTES + 1)).mistakes
    assert "larger than 4 MiB" in mistake.message


def test_small_file_that_would_grow_to_gigabytes_is_refused_at_once() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [*{p},*{p},*{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (mistake,) = read_text(bomb).mistakes
    assert (mistake.line, "aliases" in mistake.message) == (2, True)
