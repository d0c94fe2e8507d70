"""Every change of policies and word lists.

What goes through `save()` or `delete()` tells the data plane by the signals of policies.apps, in the same transaction;
bulk writes here bump the version themselves. Each worker has the change within a second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import Max
from django.utils import timezone

from accounts import catalogue
from accounts.audit import record
from accounts.models import ApiKey, Team, User
from accounts.versions import POLICIES, bump
from policies import documents, selectors
from policies.book import action_of, known_check, stages_of
from policies.checks.base import Check, WordMatcher, clean_settings
from policies.documents import POLICY_FIELDS, RULE_FIELDS, PolicySpec, RuleSpec
from policies.fold import Folded
from policies.models import Assignment, Policy, PolicyVersion, Rule, Wordlist, WordlistEntry
from policies.types import Scan
from policies.wordlists.matcher import fold_entry, validate_entry

COMMAND = "a command"
BULK_ROWS = 2000
MISTAKES_SHOWN = 20
ENTRY_CHARS = 200
ENTRIES_TOLD = 20


# --- rules ----------------------------------------------------------------------------------------------------------
class InvalidRules(ValidationError):
    """`by_rule`: position in the list (from 0) -> ValidationError by field, as of `clean_rule`."""

    def __init__(self, by_rule: Mapping[int, ValidationError], rules: Sequence[RuleSpec]) -> None:
        self.by_rule = dict(by_rule)
        super().__init__(
            [
                f"Rule {position + 1} ({rules[position].title}), {name}: {' '.join(said)}"
                for position, error in self.by_rule.items()
                for name, said in error.message_dict.items()
            ]
        )


def clean_rule(rule: RuleSpec, wordlists: Collection[str]) -> RuleSpec:
    """The rule as it is stored: its settings checked, with defaults for what is not given.

    `wordlists`: names of those that it may use. Raises ValidationError by field: a name of RuleSpec, or
    `settings.<name>`.
    """
    try:
        kind = known_check(rule.check)
    except LookupError as error:
        raise ValidationError({"check": str(error)}) from None
    errors: dict[str, Any] = _wrong_columns(rule)
    for name, judge in (("stage", stages_of), ("action", action_of)):
        try:
            judge(rule, kind)
        except ValueError as error:
            errors.setdefault(name, str(error))
    try:
        settings = clean_settings(kind, rule.settings)
    except ValidationError as error:
        errors |= {f"settings.{name}": said for name, said in error.message_dict.items()}
    else:
        rule = replace(rule, settings=settings)
        errors |= _wrong_settings(kind, rule, wordlists)
    if errors:
        raise ValidationError(errors)
    return rule


def clean_rules(rules: Sequence[RuleSpec]) -> list[RuleSpec]:
    """Those that are switched off are taken as they are: they do nothing. Raises InvalidRules."""
    wordlists = selectors.wordlist_names()
    cleaned: list[RuleSpec] = []
    wrong: dict[int, ValidationError] = {}
    for position, rule in enumerate(rules):
        try:
            cleaned.append(clean_rule(rule, wordlists) if rule.enabled else rule)
        except ValidationError as error:
            wrong[position] = error
    if wrong:
        raise InvalidRules(wrong, rules)
    return cleaned


@transaction.atomic
def replace_rules(policy: Policy, rules: Sequence[RuleSpec]) -> None:
    """Let these be the rules of the working copy, in this order. Rows that stay at their place keep their id. Nothing
    of it is in force before it is published, so nothing is judged yet."""
    rows = list(policy.rules.all())
    for position, rule in enumerate(rules):
        row = rows[position] if position < len(rows) else Rule(policy=policy)
        row.position, row.check_name = position, rule.check
        for name in RULE_FIELDS:
            if name != "check":
                setattr(row, name, getattr(rule, name))
        row.save()
    policy.rules.filter(pk__in=[row.pk for row in rows[len(rules) :]]).delete()


def _wrong_columns(rule: RuleSpec) -> dict[str, Any]:
    """What the columns of a rule cannot hold, in the words of the admin's own checks."""
    errors: dict[str, Any] = {}
    for name in RULE_FIELDS:
        if name not in ("check", "settings"):
            try:
                Rule._meta.get_field(name).clean(getattr(rule, name), None)  # type: ignore[union-attr]
            except ValidationError as error:
                errors[name] = error.messages
    return errors


def _wrong_settings(kind: type[Check], rule: RuleSpec, wordlists: Collection[str]) -> dict[str, str]:
    """What is found when the rule is compiled."""
    for name, named in selectors.wordlist_settings(rule).items():
        if missing := [one for one in named if one not in wordlists]:
            return {f"settings.{name}": f"there is no word list {missing[0]}"}
    for name, provider in selectors.provider_settings(rule).items():
        if provider not in catalogue.provider_names():
            return {f"settings.{name}": f"there is no provider {provider} that is switched on"}
    try:
        kind(rule.settings, _AnyWordlist())
    except (LookupError, ValueError) as error:
        return {"settings": str(error.args[0]) if error.args else type(error).__name__}
    return {}


class _NoWords:
    """Stands for a compiled list while a rule is judged: to compile a long one takes a second."""

    left_context = 1

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        return Scan((), len(text.original))


class _AnyWordlist:
    def wordlist(self, name: str) -> WordMatcher:
        return _NoWords()


# --- publishing -----------------------------------------------------------------------------------------------------
@transaction.atomic
def publish(policy: Policy, by: User | None = None, note: str = "", *, published_as: str = "") -> PolicyVersion:
    """Put the working copy in force as a new version; without any change it is the version in force already.

    `published_as`: who, when it is no person. Raises InvalidRules.
    """
    locked = Policy.objects.select_for_update(of=("self",)).select_related("current").get(pk=policy.pk)
    rules = documents.specs_of(locked.rules.all())
    cleaned = clean_rules(rules)
    if cleaned != rules:
        replace_rules(locked, cleaned)
    version = _put_in_force(locked, documents.document_of(locked), by, note, published_as)
    policy.current = version
    return version


@transaction.atomic
def publish_spec(
    policy: Policy, spec: PolicySpec, by: User | None = None, note: str = "", *, published_as: str = ""
) -> PolicyVersion:
    """Put `spec` in force, whatever the working copy says. Raises InvalidRules."""
    locked = Policy.objects.select_for_update(of=("self",)).select_related("current").get(pk=policy.pk)
    document: dict[str, Any] = {name: getattr(spec, name) for name in POLICY_FIELDS}
    document["rules"] = [asdict(rule) for rule in clean_rules(spec.rules)]
    policy.current = _put_in_force(locked, document, by, note, published_as)
    return policy.current


@transaction.atomic
def roll_back(policy: Policy, version: PolicyVersion, by: User | None = None, note: str = "") -> PolicyVersion:
    """Publish what `version` said again, as a new version, and make it the working copy. Raises InvalidRules when that
    cannot work any more, and ValidationError when it is a version of another policy."""
    if version.policy_id != policy.pk:
        raise ValidationError("That is a version of another policy.")
    locked = Policy.objects.select_for_update().get(pk=policy.pk)
    spec = documents.read(version.document)
    for name in POLICY_FIELDS:
        setattr(locked, name, getattr(spec, name))
        setattr(policy, name, getattr(spec, name))
    locked.save(update_fields=POLICY_FIELDS)
    replace_rules(locked, spec.rules)
    return publish(policy, by, note or f"Back to version {version.number}")


def _put_in_force(
    locked: Policy, document: dict[str, Any], by: User | None, note: str, published_as: str
) -> PolicyVersion:
    if locked.current is not None and documents.say_the_same(locked.current.document, document):
        return locked.current
    last = locked.versions.aggregate(last=Max("number"))["last"] or 0
    locked.current = PolicyVersion.objects.create(
        policy=locked,
        number=last + 1,
        document=document,
        published_by=by,
        published_as=published_as or (by.get_username() if by else COMMAND),
        note=note[: PolicyVersion._meta.get_field("note").max_length],
    )
    locked.save(update_fields=["current"])
    return locked.current


# --- assignment -----------------------------------------------------------------------------------------------------
def assign(policy: Policy, *, team: Team | None = None, key: ApiKey | None = None) -> Assignment:
    """Let the policy hold for a team, for a key, or for everyone. Already so is fine."""
    if team is not None and key is not None:
        raise ValueError("A team or a key, not both.")
    scope = Assignment.Scope.TEAM if team else Assignment.Scope.KEY if key else Assignment.Scope.EVERYONE
    return Assignment.objects.get_or_create(policy=policy, scope=scope, team=team, key=key)[0]


@transaction.atomic
def set_assignments(
    policy: Policy, *, everyone: bool = False, teams: Collection[Team] = (), keys: Collection[ApiKey] = ()
) -> bool:
    """Let the policy hold for exactly these. True if anything changed."""
    Policy.objects.select_for_update().get(pk=policy.pk)
    wanted: dict[tuple[int | None, int | None], tuple[Team | None, ApiKey | None]] = {}
    wanted |= {(None, None): (None, None)} if everyone else {}
    wanted |= {(team.pk, None): (team, None) for team in teams}
    wanted |= {(None, key.pk): (None, key) for key in keys}
    there = {(row.team_id, row.key_id): row for row in policy.assignments.all()}
    for who in there.keys() - wanted.keys():
        there[who].delete()
    for who in wanted.keys() - there.keys():
        team, key = wanted[who]
        assign(policy, team=team, key=key)
    return there.keys() != wanted.keys()


# --- word lists -----------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class EntriesChanged:
    """`duplicates`: given more than once, or there already under another spelling; as they were given."""

    added: int = 0
    removed: int = 0
    duplicates: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


EntryKey = tuple[str, bool]  # folded, whether it is an exception


@transaction.atomic
def set_entries(wordlist: Wordlist, entries: Iterable[str], allowed: Iterable[str] = ()) -> EntriesChanged:
    """Let these be the entries of the list, and these its exceptions. 100,000 take a few seconds.

    Blank ones are left out. Raises ValidationError that says which cannot be entries; then nothing is changed.
    """
    wanted, changed = _read_entries(entries, allowed)
    there = _entries_there(wordlist)
    _write_entries(wordlist, {key: wanted[key] for key in wanted if key not in there})
    changed.added = len(wanted.keys() - there.keys())
    changed.removed = _delete_entries([pk for key, pk in there.items() if key not in wanted])
    _refresh(wordlist)
    _record(wordlist, wanted.keys() - there.keys(), there.keys() - wanted.keys())
    return changed


@transaction.atomic
def add_entries(wordlist: Wordlist, entries: Iterable[str], allowed: Iterable[str] = ()) -> EntriesChanged:
    """As `set_entries`, but what is there stays."""
    wanted, changed = _read_entries(entries, allowed)
    there = _entries_there(wordlist)
    new = {key: text for key, text in wanted.items() if key not in there}
    changed.duplicates += [text for key, text in wanted.items() if key in there]
    changed.added = len(new)
    _write_entries(wordlist, new)
    _refresh(wordlist)
    _record(wordlist, new.keys(), ())
    return changed


@transaction.atomic
def remove_entries(wordlist: Wordlist, entries: Iterable[str], allowed: Iterable[str] = ()) -> EntriesChanged:
    """However they are spelled. What is not there is not missed."""
    unwanted, _ = _read_entries(entries, allowed)
    there = _entries_there(wordlist)
    gone = unwanted.keys() & there.keys()
    changed = EntriesChanged(removed=_delete_entries([there[key] for key in gone]))
    _refresh(wordlist)
    _record(wordlist, (), gone)
    return changed


@transaction.atomic
def save_wordlist(wordlist: Wordlist) -> None:
    """A new list, or a change of one but for its entries. Raises ValidationError when it gets another name although
    rules in force know it by the one it has."""
    before = Wordlist.objects.select_for_update().filter(pk=wordlist.pk).first() if wordlist.pk else None
    if before is not None and before.name != wordlist.name:
        if before.builtin:
            raise ValidationError({"name": "This list ships with Gatehouse and keeps its name."})
        if users := selectors.policies_using(before.name):
            raise ValidationError({"name": f"It is used as {before.name} by {_policies(users)}."})
    wordlist.full_clean()
    wordlist.updated_at = timezone.now()
    wordlist.save()


@transaction.atomic
def delete_wordlist(wordlist: Wordlist) -> None:
    """Raises ValidationError when a rule in force uses it, or it ships with Gatehouse."""
    Wordlist.objects.select_for_update().get(pk=wordlist.pk)
    if wordlist.builtin:
        raise ValidationError(f"{wordlist.name} ships with Gatehouse. Take it out of the rules that use it instead.")
    if users := selectors.policies_using(wordlist.name):
        raise ValidationError(f"{wordlist.name} is used by {_policies(users)}. Publish without it first.")
    _delete_entries(list(_entries_there(wordlist).values()))
    wordlist.delete()


def check_entry(text: str) -> None:
    """Raises ValueError, with what is wrong with it as an entry."""
    if len(text) > ENTRY_CHARS:
        raise ValueError(f"An entry has at most {ENTRY_CHARS} characters.")
    validate_entry(text)


def entry_changed(wordlist: Wordlist) -> None:
    """An entry was saved or deleted by itself, without the services above."""
    _refresh(wordlist)


def _policies(names: Sequence[str]) -> str:
    return f"the {'policy' if len(names) == 1 else 'policies'} {', '.join(names)}"


def _read_entries(entries: Iterable[str], allowed: Iterable[str]) -> tuple[dict[EntryKey, str], EntriesChanged]:
    """What is meant, each once under what it is matched by."""
    found: dict[EntryKey, str] = {}
    changed = EntriesChanged()
    mistakes: list[str] = []
    for texts, allow in ((entries, False), (allowed, True)):
        for text in filter(None, (text.strip() for text in texts)):
            try:
                check_entry(text)
            except ValueError as error:
                mistakes.append(f"{text[:80]!r}: {error}")
                continue
            if found.setdefault((fold_entry(text), allow), text) is not text:
                changed.duplicates.append(text)
    if mistakes:
        more = [f"and {len(mistakes) - MISTAKES_SHOWN} more"] if len(mistakes) > MISTAKES_SHOWN else []
        raise ValidationError(mistakes[:MISTAKES_SHOWN] + more)
    return found, changed


def _entries_there(wordlist: Wordlist) -> dict[EntryKey, int]:
    Wordlist.objects.select_for_update().get(pk=wordlist.pk)  # so that two writers do not miss each other's entries
    return {(folded, allow): pk for folded, allow, pk in wordlist.entries.values_list("folded", "allow", "pk")}


def _write_entries(wordlist: Wordlist, entries: Mapping[EntryKey, str]) -> None:
    """A statement of our own: for 100,000 rows it takes half a second of CPU, `bulk_create` takes three."""
    rows = [(wordlist.pk, text, folded, allow) for (folded, allow), text in entries.items()]
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT_ENTRY, rows)


_INSERT_ENTRY = f"INSERT INTO {WordlistEntry._meta.db_table} (wordlist_id, text, folded, allow) VALUES (%s, %s, %s, %s)"  # noqa: S608


def _delete_entries(pks: Sequence[int]) -> int:
    for start in range(0, len(pks), BULK_ROWS):
        rows = WordlistEntry.objects.filter(pk__in=pks[start : start + BULK_ROWS])
        # Nothing refers to an entry; `delete` would load each row to tell its signals.
        rows._raw_delete(rows.db)
    return len(pks)


def _record(wordlist: Wordlist, added: Collection[EntryKey], removed: Collection[EntryKey]) -> None:
    """In the audit trail: how many, and the first few of them."""
    told = {
        name: {"count": len(keys), "exceptions": sum(allow for _, allow in keys), "first": few}
        for name, keys in (("added", added), ("removed", removed))
        if (few := sorted(folded for folded, _ in keys)[:ENTRIES_TOLD])
    }
    if told:
        record("wordlist.entries_changed", wordlist, details=told)


def _refresh(wordlist: Wordlist) -> None:
    """Count the entries and take their hash anew. Compiled lists are kept by it, so it is what makes a change count."""
    digest, count = sha256(), 0
    rows = wordlist.entries.order_by("allow", "folded").values_list("text", "allow")
    for text, allow in rows.iterator(chunk_size=BULK_ROWS):
        digest.update(f"{'!' if allow else ''}{text}\n".encode())
        count += 1
    before = wordlist.content_hash
    wordlist.entry_count, wordlist.content_hash = count, digest.hexdigest() if count else ""
    if wordlist.content_hash != before:
        wordlist.updated_at = timezone.now()
        wordlist.save(update_fields=["entry_count", "content_hash", "updated_at"])
        bump(POLICIES)
