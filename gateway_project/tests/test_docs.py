"""The documentation says what the code does: settings, kinds, errors, metrics, checks, fields, commands, links."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from django.core.management import get_commands
from prometheus_client.metrics import MetricWrapperBase

from gateway_project import declarations
from gateway_project.tests.gateway_process import ROOT
from policies.checks.base import CHECKS, Check
from proxy import errors
from proxy.endpoints import CHAT, COMPLETIONS, EMBEDDINGS
from proxy.providers import presets
from usage import metrics

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
# Read by the servers themselves, see configuration.md.
OF_SERVERS = {"BIND", "PORT", "PROMETHEUS_MULTIPROC_DIR", "WEB_CONCURRENCY"}


def page(name: str) -> str:
    return (ROOT / name).read_text()


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = re.split(r"^#+ ", text[text.index(f"\n{heading}\n") + 1 :], maxsplit=2, flags=re.MULTILINE)[1]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def named(cell: str) -> list[str]:
    """What is `quoted` in a cell."""
    return re.findall(r"`([^`]+)`", cell)


# --- settings -------------------------------------------------------------------------------------------------------
def settings_in_code() -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(page("gateway_project/settings.py"))):
        is_reading = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if is_reading and ast.unparse(node.func.value) == "env":  # type: ignore[attr-defined]
            found.add(ast.literal_eval(node.args[0]))  # type: ignore[attr-defined]
    return found


def settings_in_docs() -> set[str]:
    text = page("docs/configuration.md").partition("## The file of")[0]
    return set(re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE))


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    assert settings_in_docs() == settings_in_code() | OF_SERVERS


def test_every_limit_is_documented_with_its_default() -> None:
    defaults = {}
    for node in ast.walk(ast.parse(page("gateway_project/settings.py"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "env.number":
            name, default = node.args[:2]
            defaults[ast.literal_eval(name)] = str(eval(compile(ast.Expression(default), "default", "eval")))
    text = page("docs/configuration.md")
    rows = table(text, "### Limits of the data plane") + table(text, "### What is kept")
    assert {named(row[0])[0]: row[1] for row in rows} == defaults


def test_example_of_the_environment_names_only_settings_that_exist() -> None:
    given = set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", page(".env.example"), re.MULTILINE))
    providers = {name for kind in presets.PRESETS for name in presets.environment_key(kind)}
    unknown = given - settings_in_docs() - providers - {"POSTGRES_PASSWORD"}
    assert {name for name in unknown if not name.startswith("GATEHOUSE_PROVIDER_")} == set()


def test_compose_sets_only_settings_that_exist() -> None:
    given = set(re.findall(r"^ +([A-Z][A-Z_]+): ", page("docker-compose.yml"), re.MULTILINE))
    assert given - settings_in_docs() == {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}


# --- the file of apply ----------------------------------------------------------------------------------------------
SECTIONS = {
    **declarations.SECTIONS,
    **declarations.SINGLE,
    "a budget": declarations.BUDGET,
    "an alert destination": declarations.ALERT_DESTINATION,
    "an alert rule": declarations.ALERT_RULE,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_of_a_file_is_documented_and_nothing_else_is(section: str) -> None:
    rows = table(page("docs/configuration.md"), f"### {section}")
    documented = {name for row in rows for name in named(row[0])}
    assert documented == set(SECTIONS[section].fields)


def test_every_field_of_a_rule_is_documented_and_nothing_else_is() -> None:
    rows = table(page("docs/configuration.md"), "### a rule of a policy")
    assert {name for row in rows for name in named(row[0])} == set(declarations.RULE.fields)


def test_what_a_file_may_not_hold_yet_is_documented() -> None:
    refused = {name for schema in declarations.SECTIONS.values() for name in schema.not_enforced}
    text = page("docs/configuration.md").partition("### Refused in this version")[2]
    assert refused <= set(named(text))


def test_files_in_the_readme_are_well_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "AZURE_KEY"):
        monkeypatch.setenv(name, "k")
    examples = re.findall(r"```yaml\n(.*?)```", page("README.md"), re.DOTALL)
    assert len(examples) == 3
    assert [declarations.read(example.encode()).mistakes for example in examples] == [[], [], []]


# --- tables ---------------------------------------------------------------------------------------------------------
def test_every_kind_of_provider_is_documented_as_it_is() -> None:
    expected = []
    for kind, preset in presets.PRESETS.items():
        address = f"`{preset.base_url}`" if preset.base_url else "-" if kind == "echo" else "yours"
        keys = " or ".join(f"`{name}`" for name in preset.keys) or "-"
        if preset.url_variable:
            keys += f", address from `{preset.url_variable}`"
        able = [one.name for one in (CHAT, COMPLETIONS, EMBEDDINGS) if one.name in presets.adapter_for(kind).endpoints]
        expected.append([f"`{kind}`", address, keys, "all" if len(able) == 3 else ", ".join(able)])
    assert table(page("docs/providers.md"), "## Kinds") == expected


def test_every_error_is_documented_with_its_status_type_and_code() -> None:
    classes = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.GatewayError) and kind.__module__ == errors.__name__
    ]
    expected = {
        kind.__name__: ["as sent"] * 3
        if kind is errors.ProviderError
        else [str(kind.status), kind.type, kind.code or "null"]
        for kind in classes
    }
    assert {row[0]: row[1:4] for row in table(page("docs/errors.md"), "## The table")} == expected


def test_every_metric_is_documented_with_its_labels() -> None:
    expected = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            name = metric._name + ("_total" if metric._type == "counter" else "")
            expected[name] = [", ".join(metric._labelnames) or "-", metric._documentation]
    assert {named(row[0])[0]: row[1:] for row in table(page("docs/operations.md"), "## Metrics")} == expected


def test_every_check_is_documented() -> None:
    in_code = set(re.findall(r'id="(gatehouse\.[EW]\d{3})"', page("gateway_project/checks.py")))
    assert {named(row[0])[0] for row in table(page("docs/operations.md"), "## Checks at start")} == in_code


@pytest.mark.parametrize("kind", CHECKS.values(), ids=lambda kind: kind.name)
def test_every_check_of_a_policy_is_documented_with_its_settings(kind: type[Check]) -> None:
    text = page("docs/policies.md")
    assert f"\n### {kind.label} (`{kind.name}`)\n" in text
    section = text.partition(f"\n### {kind.label} (`{kind.name}`)\n")[2].partition("\n### ")[0]
    documented = {name for row in re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE) for name in [row]}
    assert documented == set(kind.SettingsForm.base_fields)


# --- text -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_inside_the_documentation_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                target
            )


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_that_is_named_exists(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"manage\.py ([a-z_]+)", text)) <= set(get_commands())
    targets = set(re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE))
    assert set(re.findall(r"`(?:[A-Z_]+=\S+ )?make ([a-z]+)", text)) <= targets


def test_readme_gives_the_two_commands() -> None:
    (block,) = re.findall(r"## Two commands.*?```sh\n(.*?)```", page("README.md"), re.DOTALL)
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["make run", "make test"]


def test_changelog_begins_with_a_version_and_its_date() -> None:
    headings = re.findall(r"^## (.+)$", page("CHANGELOG.md"), re.MULTILINE)
    assert all(re.fullmatch(r"v\d+\.\d+(\.\d+)? - \d{4}-\d{2}-\d{2}", heading) for heading in headings)
    dates = [heading.split(" - ")[1] for heading in headings]
    assert dates == sorted(dates, reverse=True)


def test_decisions_are_numbered_without_a_gap_and_say_what_was_weighed() -> None:
    pages = sorted((DOCS / "adr").glob("*.md"))
    assert [path.name[:4] for path in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for path in pages:
        headings = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "What else we looked at", "Consequences", "Date"], path.name
