"""Destinations and rules of alerts as a configuration file declares them. An address or a secret is never quoted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError

from accounts.models import Team
from gateway_project.declarations import Declared, Document, Value
from gateway_project.declared_rows import Change, Rows, unknown_name, unless_undecryptable
from proxy.models import Provider
from usage.alert_models import AlertDestination, AlertRule
from usage.alerts.addresses import NEEDS_HTTPS, UNSIGNED, clean_emails, clean_secret, clean_url
from usage.alerts.kinds import KINDS, MAX_THRESHOLDS, OF_SOME_KINDS, counts, fitting

DESTINATIONS = "alerts.destinations"
Kind = AlertDestination.Kind
# Which of these says where to, and with what, by the kind of a destination.
ADDRESSES = ("emails", "url", "secret")
ADDRESS_OF = dict.fromkeys(Kind.values, ("url",)) | {Kind.EMAIL: ("emails",), Kind.WEBHOOK: ("url", "secret")}


class DeclaredAlerts(Rows):
    """`is_model`: whether this is the name of a model; else it says what is wrong."""

    def __init__(self, document: Document, changes: list[Change], is_model: Callable[[Value], bool]) -> None:
        super().__init__(document, changes)
        self._is_model = is_model

    def apply(self, declared: Declared) -> None:
        """The whole section."""
        self._each(declared, "destinations", self._destination)
        self._each(declared, "rules", self._rule)

    def _each(self, declared: Declared, field: str, apply_one: Callable[[Declared], None]) -> None:
        seen: dict[str, Declared] = {}
        for item in declared.get(field, ()):
            one: Declared = item.value
            if "name" not in one:
                self.document.doubtful.add(f"alerts.{field}")
                continue
            earlier = seen.setdefault(one.get("name"), one)
            if earlier is one:
                apply_one(one)
            else:
                self.document.wrong(one.fields["name"], f"is already in this file, in line {earlier.line}")

    # --- destinations -----------------------------------------------------------------------------------------------
    def _destination(self, declared: Declared) -> None:
        row, made = self._find(AlertDestination, "name", declared)
        if not self._has_kind(declared, AlertDestination.Kind.values, made, "how it is reached"):
            self.document.doubtful.add(DESTINATIONS)
            return
        kind_before = "" if made else row.kind
        changed = self._assign(row, declared, {name: name for name in ("kind", "private_network", "enabled")})
        self._check_fields(declared, ADDRESSES, ADDRESS_OF[row.kind], f"of the kind {row.kind}")
        changed += self._address(row, declared, is_needed=row.kind != kind_before)
        changed += self._secret(row, declared)
        self._save(row, made, changed, "alert destination", declared)

    def _address(self, row: AlertDestination, declared: Declared, *, is_needed: bool) -> list[str]:
        field = ADDRESS_OF[row.kind][0]
        before = unless_undecryptable(row.read_address) if row.address else ""
        if field not in declared:
            if is_needed:
                self.document.wrong(declared, "is missing: it says where to", under=field)
            elif before and before.startswith("http://") and not row.private_network:
                self.document.wrong(declared, NEEDS_HTTPS, under="private_network")
            return []
        value = declared.fields[field]
        address = self._cleaned(value, self._emails if field == "emails" else clean_url)
        if field == "url" and address and not address.startswith("https://") and not row.private_network:
            self.document.wrong(value, NEEDS_HTTPS)
        if not address or address == before:
            return []
        row.set_address(address)
        return [field]

    def _emails(self, given: list[Value]) -> str:
        if not (found := clean_emails(item.value for item in given)):
            raise ValidationError("must name at least one address")
        return found

    def _secret(self, row: AlertDestination, declared: Declared) -> list[str]:
        if row.kind != Kind.WEBHOOK:
            if row.secret:
                row.set_secret("")
            return []
        if "secret" not in declared:
            if not row.secret:
                self.document.wrong(declared, UNSIGNED, under="secret")
            return []
        secret = self._cleaned(declared.fields["secret"], clean_secret)
        if not secret or (row.secret and unless_undecryptable(row.read_secret) == secret):
            return []
        row.set_secret(secret)
        return ["secret"]

    # --- rules ------------------------------------------------------------------------------------------------------
    def _rule(self, declared: Declared) -> None:
        row, made = self._find(AlertRule, "name", declared)
        if not self._has_kind(declared, KINDS, made, "what it watches"):
            return
        before = {} if made else {name: getattr(row, name) for name in OF_SOME_KINDS}
        changed = self._assign(row, declared, {name: name for name in ("kind", "enabled", "tell_when_over")})
        known = len(self.document.mistakes)
        usable = [name for name in OF_SOME_KINDS if counts(name, row.kind)]
        usable += ["tell_when_over"] if KINDS[row.kind].says_over else []
        self._check_fields(declared, (*OF_SOME_KINDS, "tell_when_over"), usable, f"of the kind {row.kind}")
        given = {name: self._value(name, declared.fields[name]) for name in OF_SOME_KINDS if name in declared}
        destinations = self._destinations(declared)
        if len(self.document.mistakes) > known:
            return
        for name, wanted in fitting(row.kind, before | given).items():
            if getattr(row, name) != wanted:
                setattr(row, name, wanted)
                changed.append(name)
        if not self._save(row, made, changed, "alert rule", declared) or destinations is None:
            return
        if set(row.destinations.all()) != set(destinations):
            row.destinations.set(destinations)
            self._also(made, "alert rule", row.name, "destinations")

    def _value(self, name: str, value: Value) -> Any:
        """As the rule keeps it. Texts that may be emptied are None in the file."""
        if name == "thresholds":
            shares = sorted({item.value for item in value.value})
            if len(shares) > MAX_THRESHOLDS:
                self.document.wrong(value, f"must be at most {MAX_THRESHOLDS} numbers")
            return shares
        if name == "team":
            return value.value and self._one(Team, "name", value, "teams")
        if name == "model":
            return value.value if value.value and self._is_model(value) else ""
        if name == "provider":
            return value.value if value.value and self._one(Provider, "name", value, "providers") else ""
        return value.value

    def _destinations(self, declared: Declared) -> list[AlertDestination] | None:
        if "destinations" not in declared:
            return None
        found = [self._one(AlertDestination, "name", item, DESTINATIONS) for item in declared.get("destinations")]
        return [row for row in found if row is not None]

    # --- both -------------------------------------------------------------------------------------------------------
    def _has_kind(self, declared: Declared, known: Any, made: bool, says: str) -> bool:
        if "kind" not in declared:
            if made:
                self.document.wrong(declared, f"is missing: it says {says}", under="kind")
            return not made
        if declared.get("kind") in list(known):
            return True
        self.document.wrong(declared.fields["kind"], unknown_name("kind", declared.get("kind"), map(str, known)))
        return False

    def _check_fields(self, declared: Declared, fields: Any, usable: Any, of: str) -> None:
        for name in fields:
            if name in declared and name not in usable:
                self.document.wrong(declared.fields[name], f"does not count for what is {of}")

    def _cleaned(self, value: Value, clean: Callable[[Any], str]) -> str:
        """ "" and a mistake, where it is none."""
        try:
            return clean(value.value)
        except ValidationError as error:
            self.document.wrong(value, " ".join(error.messages))
            return ""
