"""What is asked about policies and word lists. Nothing here is on the path of a call."""

from __future__ import annotations

from collections.abc import Callable

from policies import documents
from policies.checks.base import CHECKS
from policies.documents import RuleSpec
from policies.fields import ProviderField, WordlistsField
from policies.models import Policy, Wordlist
from policies.names import Names


def wordlist_names() -> set[str]:
    return set(Wordlist.objects.values_list("name", flat=True))


def wordlist_settings(rule: RuleSpec) -> dict[str, list[str]]:
    """The word lists that a rule names, by the setting that does."""
    kind = CHECKS.get(rule.check)
    if kind is None:
        return {}
    fields = (name for name, field in kind.SettingsForm.base_fields.items() if isinstance(field, WordlistsField))
    return {name: list(rule.settings.get(name) or ()) for name in fields}


def provider_settings(rule: RuleSpec) -> dict[str, str]:
    """The providers that a rule names, by the setting that does."""
    kind = CHECKS.get(rule.check)
    if kind is None:
        return {}
    fields = (name for name, field in kind.SettingsForm.base_fields.items() if isinstance(field, ProviderField))
    return {name: named for name in fields if (named := rule.settings.get(name))}


def policies_using(wordlist: str) -> list[str]:
    """Names of the policies whose published rules use the word list, also where policy or rule is switched off."""
    found = _policies_with(lambda rule: any(wordlist in names for names in wordlist_settings(rule).values()))
    return [policy.name for policy in found]


def policies_asking(provider: str) -> list[str]:
    """The same of a provider that rules ask."""
    return [policy.name for policy in _policies_with(lambda rule: provider in provider_settings(rule).values())]


def policies_naming(model: str, renamed: str, check: str) -> list[Policy]:
    """The same of a model that rules of this check list, but not by `renamed`, its name to be."""

    def is_one(rule: RuleSpec) -> bool:
        names = Names(rule.settings.get("models") or () if rule.check == check else ())
        return names.match(model) is not None and names.match(renamed) is None

    return _policies_with(is_one)


def _policies_with(is_one: Callable[[RuleSpec], bool]) -> list[Policy]:
    found = []
    for policy in Policy.objects.filter(current__isnull=False).select_related("current").order_by("name"):
        rules = documents.read(policy.current.document).rules if policy.current else ()
        if any(map(is_one, rules)):
            found.append(policy)
    return found


def has_unpublished_changes(policy: Policy) -> bool:
    """Whether the working copy says something else than what is in force."""
    if policy.current is None:
        return True
    return not documents.say_the_same(policy.current.document, documents.document_of(policy))
