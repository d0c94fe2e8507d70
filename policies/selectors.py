"""What is asked about policies and word lists. Nothing here is on the path of a call."""

from __future__ import annotations

from collections.abc import Callable

from policies import documents
from policies.checks.base import CHECKS
from policies.documents import RuleSpec
from policies.fields import ProviderField, WordlistsField
from policies.models import Policy, Wordlist


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
    return _policies_with(lambda rule: any(wordlist in names for names in wordlist_settings(rule).values()))


def policies_asking(provider: str) -> list[str]:
    """The same of a provider that rules ask."""
    return _policies_with(lambda rule: provider in provider_settings(rule).values())


def _policies_with(is_one: Callable[[RuleSpec], bool]) -> list[str]:
    found = []
    for policy in Policy.objects.filter(current__isnull=False).select_related("current").order_by("name"):
        rules = documents.read(policy.current.document).rules if policy.current else ()
        if any(map(is_one, rules)):
            found.append(policy.name)
    return found


def has_unpublished_changes(policy: Policy) -> bool:
    """Whether the working copy says something else than what is in force."""
    if policy.current is None:
        return True
    return not documents.say_the_same(policy.current.document, documents.document_of(policy))
