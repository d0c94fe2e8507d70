"""Word lists and policies of a configuration file. What is in force is compared, not somebody's unpublished changes:
those are replaced as far as the file says otherwise, and only when it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.core.exceptions import ValidationError

from accounts.models import ApiKey, Team
from gateway_project.declarations import Declared, Value
from gateway_project.declared_rows import Rows, unknown_name
from policies import documents, selectors, services
from policies.checks.base import CHECKS, Check
from policies.documents import POLICY_FIELDS, RULE_FIELDS, PolicySpec, RuleSpec
from policies.models import Policy, Wordlist
from policies.types import Action, Stage

PUBLISHED_AS = "manage.py apply"
HOLDER = "must be everyone, {team: NAME} or {key: PUBLIC-ID-OR-NAME}, or a list of these"


class DeclaredPolicies(Rows):
    # --- word lists -------------------------------------------------------------------------------------------------
    def wordlist(self, declared: Declared) -> None:
        row, made = self._find(Wordlist, "name", declared)
        columns = {"description": "description", "catch_disguises": "catch_disguises"}
        changed = self._assign(row, declared, columns)
        fits = self._save(row, made, changed, "word list", declared)
        if fits and self._are_entries(declared):
            for name in self._entries(row, declared):
                self._also(made, "word list", row.name, name)

    def _are_entries(self, declared: Declared) -> bool:
        for item in [*declared.get("words", ()), *declared.get("allow", ())]:
            try:
                services.check_entry(item.value)
            except ValueError as error:
                self.document.wrong(item, str(error))
        return self._is_sound(declared)

    def _entries(self, row: Wordlist, declared: Declared) -> list[str]:
        """Replaces those that the file names: the fields that have changed."""
        before = {name: _entries_of(row, name) for name in ("words", "allow")}
        given = {name: [item.value for item in declared.get(name)] for name in before if name in declared}
        texts: dict[str, Iterable[str]] = {name: there.values() for name, there in before.items()}
        texts.update(given)
        if not given or not services.set_entries(row, texts["words"], texts["allow"]):
            return []
        return [name for name in given if _entries_of(row, name).keys() != before[name].keys()]

    # --- policies ---------------------------------------------------------------------------------------------------
    def policy(self, declared: Declared) -> None:
        row, made = self._find(Policy, "name", declared)
        if made and "scope" not in declared:
            self.document.wrong(declared, f"is missing: a new policy {HOLDER}", under="scope")
        changed = self._assign(row, declared, {"description": "description", "enabled": "enabled"})
        given = {name: declared.get(name) for name in POLICY_FIELDS if name in declared}
        for name in given:
            self._clean(Policy, name, declared.fields[name])
        if "rules" in declared:
            given["rules"] = tuple(self._rules(declared.fields["rules"]))
        if not self._save(row, made, changed, "policy", declared):
            return
        if "scope" in declared and self._scope(row, declared.fields["scope"]):
            self._also(made, "policy", row.name, "scope")
        if not self.document.mistakes:
            self._publish(row, made, declared, given)

    def _publish(self, row: Policy, made: bool, declared: Declared, given: dict[str, Any]) -> None:
        """A new version, if what the file says is not in force. What it does not say stays as it is in force."""
        before = _in_force(row)
        wanted = replace(before, **given)
        if row.current is not None and wanted == before:
            return
        for name in POLICY_FIELDS:
            setattr(row, name, given.get(name, getattr(row, name)))
        row.save()
        if "rules" in given:
            services.replace_rules(row, given["rules"])
        try:
            version = services.publish_spec(row, wanted, published_as=PUBLISHED_AS)
        except services.InvalidRules as error:
            self.document.wrong(declared, " ".join(error.messages), under="rules")
            return
        differing = [name for name in given if getattr(wanted, name) != getattr(before, name)]
        for name in [*differing, f"version {version.number}"]:
            self._also(made, "policy", row.name, name)

    def _rules(self, value: Value) -> list[RuleSpec]:
        wordlists = selectors.wordlist_names()
        rules = [self._rule(item.value, wordlists) for item in value.value]
        return [rule for rule in rules if rule is not None]

    def _rule(self, declared: Declared, wordlists: set[str]) -> RuleSpec | None:
        kind = CHECKS.get(declared.get("check", ""))
        if kind is None:
            if "check" in declared:
                self.document.wrong(
                    declared.fields["check"], unknown_name("check", declared.get("check"), sorted(CHECKS))
                )
            return None
        settings: dict[str, Value] = declared.get("settings", {})
        given = {name: declared.get(name) for name in RULE_FIELDS if name in declared}
        given["settings"] = {name: one.value for name, one in settings.items()}
        rule = replace(usual_rule(kind), **given)
        if "wordlists" in self.document.doubtful:
            wordlists = wordlists.union(*selectors.wordlist_settings(rule).values())
        try:
            return services.clean_rule(rule, wordlists)
        except ValidationError as error:
            for name, said in error.message_dict.items():
                self._wrong_in_rule(declared, settings, name, " ".join(said))
            return None

    def _wrong_in_rule(self, declared: Declared, settings: dict[str, Value], field: str, said: str) -> None:
        """At the line of the field, if it is there; not again, if it could not even be read."""
        name = field.removeprefix("settings.")
        value = settings.get(name) if name != field else declared.fields.get(field)
        if value is None:
            value = Value(None, declared.line, f"{declared.path}.{field}")
        if self._is_sound(value):
            self.document.wrong(value, said)

    # --- whom a policy holds for ------------------------------------------------------------------------------------
    def _scope(self, row: Policy, value: Value) -> bool:
        """Replaces the policy's assignments. True if changed."""
        everyone = False
        teams: list[Team] = []
        keys: list[ApiKey] = []
        for item in value.value:
            holder: Declared = item.value
            named = [name for name in ("everyone", "team", "key") if name in holder]
            if not self._is_sound(holder):
                continue
            if len(named) != 1 or holder.get("everyone", "everyone") != "everyone":
                self.document.wrong(holder, HOLDER)
            elif named == ["everyone"]:
                everyone = True
            elif named == ["team"]:
                team = self._one(Team, "name", holder.fields["team"], "teams")
                teams += [team] if team else []
            else:
                keys += self._key(holder.fields["key"])
        return self._is_sound(value) and services.set_assignments(row, everyone=everyone, teams=teams, keys=keys)

    def _key(self, value: Value) -> list[ApiKey]:
        """The key meant, or none and a mistake."""
        found = list(ApiKey.objects.filter(public_id=value.value) or ApiKey.objects.filter(name=value.value))
        if len(found) > 1:
            ids = ", ".join(sorted(key.public_id for key in found))
            self.document.wrong(value, f"is the name of several keys: give the public id, one of {ids}")
        elif not found and "keys" not in self.document.doubtful:
            names = ApiKey.objects.values_list("name", flat=True).distinct()
            self.document.wrong(value, unknown_name("API key", value.value, names))
        return found if len(found) == 1 else []


def usual_rule(kind: type[Check]) -> RuleSpec:
    """What a rule says that does not say it: it looks wherever its check can, and blocks if it can."""
    action = next(action for action in (Action.BLOCK, Action.REDACT, Action.AUDIT) if action in kind.actions)
    stage = "both" if len(kind.stages) == len(Stage) else next(iter(kind.stages)).value
    return RuleSpec(check=kind.name, action=action.value, stage=stage, timeout_ms=kind.default_timeout_ms)


def _entries_of(row: Wordlist, name: str) -> dict[str, str]:
    """Texts by what they are matched by."""
    return dict(row.entries.filter(allow=name == "allow").values_list("folded", "text"))


def _in_force(row: Policy) -> PolicySpec:
    """Of a policy that was never published: its working copy."""
    return documents.read(row.current.document if row.current else documents.document_of(row))
