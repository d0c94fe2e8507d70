"""Budgets, rate limits and the settings of money as a configuration file declares them.

Applied after everything else, because a budget may name any model of the file. A budget that is listed as it was keeps
its row, and with it its top-ups and the day from which a total counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet

from accounts.models import ApiKey, Team, User
from accounts.networks import BadNetwork, clean_networks
from gateway_project.declarations import Declared, Document, Value
from gateway_project.declared_rows import Change, Rows
from usage import budgets
from usage.models import Budget, Limit, MoneySettings
from usage.pricing import to_nano

RATES = ("requests_per_minute", "tokens_per_minute", "max_parallel")
SETTINGS = (
    "timezone",
    "when_redis_is_away",
    "default_max_tokens",
    "blocks_to_throttle",
    "throttle_s",
    "currency",
    "units_per_usd",
    "events_kept_days",
    "rollups_kept_days",
)
# How the file calls what the model calls otherwise.
FIELD_NAMES = {"on_exhaustion": "when_spent"}
Owner = Team | User | ApiKey | None
Identity = tuple[str, str, str, str]  # model, unit, per, time zone


@dataclass(slots=True)
class Holder:
    """Whom limits are declared for: an owner, or all calls (of `model`, or of any). `change`: what was told of it."""

    declared: Declared
    scope: str
    owner: Owner
    model: str
    what: str
    name: str
    change: Change | None = None
    changed: list[str] = field(default_factory=list)


class DeclaredLimits(Rows):
    def __init__(self, document: Document, changes: list[Change], is_model: Callable[[Value], bool]) -> None:
        super().__init__(document, changes)
        self._is_model = is_model
        self._holders: list[Holder] = []

    def remember(self, declared: Declared, owner: Owner, model: str = "") -> None:
        """That `declared` is in the database now, as `owner`, or as a model of this name."""
        scope = {Team: "team", User: "user", ApiKey: "key"}.get(type(owner), "installation")  # type: ignore[arg-type]
        name = model or (str(getattr(owner, "username", "") or getattr(owner, "name", "")))
        self._holders.append(Holder(declared, scope, owner, model, "model" if model else scope, name))

    def said(self, declared: Declared, changes: Sequence[Change]) -> None:
        """What has been changed of it already, so that its limits are told with it."""
        if self._holders and self._holders[-1].declared is declared and changes:
            self._holders[-1].change = changes[-1]

    def apply(self) -> None:
        for holder in self._holders:
            self._limits(holder)
            self._tell(holder)
        for declared in self.document["installation"]:
            holder = Holder(declared, "installation", None, "", "installation", "limits")
            self._limits(holder)
            if "client_ip" in declared:
                rates = declared.get("client_ip")
                if self._rates(rates, Limit.Scope.CLIENT_IP, None, ""):
                    holder.changed.append("client_ip")
            holder.changed += self._settings(declared)
            self._tell(holder)

    def _tell(self, holder: Holder) -> None:
        if not holder.changed:
            return
        if holder.change is None:
            self.changes.append(Change(holder.what, holder.name, False, holder.changed))
        elif not holder.change.made:
            holder.change.fields += holder.changed

    def _limits(self, holder: Holder) -> None:
        if "budgets" in holder.declared and self._budgets(holder, holder.declared.fields["budgets"]):
            holder.changed.append("budgets")
        holder.changed += self._rates(holder.declared, holder.scope, holder.owner, holder.model)

    # --- budgets ----------------------------------------------------------------------------------------------------
    def _budgets(self, holder: Holder, value: Value) -> bool:
        """Replaces the budgets. True if any has changed."""
        kept = {identity_of(row): row for row in self._rows(Budget.objects.all(), holder)}
        changed = False
        seen: dict[Identity, Declared] = {}
        for item in value.value:
            declared: Declared = item.value
            identity = self._identity(declared, holder.model)
            if identity is None:
                continue
            earlier = seen.setdefault(identity, declared)
            if earlier is not declared:
                self.document.wrong(
                    declared, f"is the budget of line {earlier.line} again: same unit, model and window"
                )
                continue
            row = kept.get(identity) or self._new_budget(holder, identity)
            before = {name: getattr(row, name) for name in self._wanted(declared)}
            for name, wanted in self._wanted(declared).items():
                setattr(row, name, wanted)
            if row.pk is None or any(getattr(row, name) != old for name, old in before.items()):
                changed = True
                self._save_budget(row, declared)
        for identity, row in kept.items():
            if identity not in seen:
                changed = True
                row.delete()
        return changed

    def _rows(self, rows: QuerySet[Budget], holder: Holder) -> QuerySet[Budget]:
        """An owner's budgets are all of theirs, whatever model they are for; those of all calls stand with each
        model, or with the installation."""
        if holder.owner is None:
            return rows.filter(scope=holder.scope, model=holder.model)
        return rows.filter(**{"scope": holder.scope, holder.scope: holder.owner})

    def _new_budget(self, holder: Holder, identity: Identity) -> Budget:
        model, unit, per, timezone = identity
        row = Budget(scope=holder.scope, model=model, unit=unit, per=per, timezone=timezone)
        if holder.owner is not None:
            setattr(row, holder.scope, holder.owner)
        return row

    def _identity(self, declared: Declared, model: str) -> Identity | None:
        """What tells it from the other budgets of its owner, or None and mistakes."""
        amounts = [name for name in ("usd", "tokens") if name in declared or self._is_mistaken(declared, name)]
        if len(amounts) != 1:
            self.document.wrong(declared, "must have an amount: either usd or tokens")
        if "per" in declared and declared.get("per") not in Budget.Per.values:
            self.document.wrong(declared.fields["per"], f"must be one of: {', '.join(Budget.Per.values)}")
        zone = declared.get("timezone", "")
        if zone and (problem := budgets.zone_problem(zone)):
            self.document.wrong(declared.fields["timezone"], problem)
        for name in ("model", "fallback_model"):
            if name in declared:
                self._is_model(declared.fields[name])
        self._check_when_spent(declared)
        soft = declared.get("soft")
        if soft is not None and "tokens" in declared and soft != int(soft):
            self.document.wrong(declared.fields["soft"], "must be whole tokens")
        if not self._is_sound(declared):
            return None
        unit = Budget.Unit.USD if "usd" in declared else Budget.Unit.TOKENS
        return declared.get("model", model), unit.value, declared.get("per"), zone

    def _is_mistaken(self, declared: Declared, name: str) -> bool:
        """It was given, and could not be read: that is told already."""
        return any(one.field == f"{declared.path}.{name}" for one in self.document.mistakes)

    def _check_when_spent(self, declared: Declared) -> None:
        choices = Budget.OnExhaustion.values
        if "when_spent" not in declared:
            return
        given = declared.get("when_spent")
        if given not in choices:
            self.document.wrong(declared.fields["when_spent"], f"must be one of: {', '.join(choices)}")
        elif given == Budget.OnExhaustion.REFUSE and "fallback_model" in declared:
            self.document.wrong(declared.fields["fallback_model"], "is never used: when_spent says refuse")

    def _wanted(self, declared: Declared) -> dict[str, Any]:
        in_usd = "usd" in declared
        soft = declared.get("soft")
        usual = Budget.OnExhaustion.FALL_BACK if "fallback_model" in declared else Budget.OnExhaustion.REFUSE
        return {
            "limit": to_nano(declared.get("usd")) if in_usd else declared.get("tokens"),
            "soft": None if soft is None else to_nano(soft) if in_usd else int(soft),
            "on_exhaustion": declared.get("when_spent", usual.value),
            "fallback_model": declared.get("fallback_model", ""),
            "enabled": declared.get("enabled", True),
        }

    def _save_budget(self, row: Budget, declared: Declared) -> None:
        amount = "usd" if "usd" in declared else "tokens"
        self._try(lambda: budgets.save_budget(row), declared, {**FIELD_NAMES, "limit": amount})

    # --- rates ------------------------------------------------------------------------------------------------------
    def _rates(self, declared: Declared, scope: str, owner: Owner, model: str) -> list[str]:
        """Sets the rates that are given; returns those that differ. A limit without any is deleted."""
        given = {name: declared.get(name) for name in RATES if name in declared}
        if not given:
            return []
        same: dict[str, Any] = {"scope": scope, "model": model, **({scope: owner} if owner is not None else {})}
        row = Limit.objects.filter(**same).first() or Limit(**same)
        changed = [name for name, rate in given.items() if getattr(row, name) != rate]
        for name in changed:
            setattr(row, name, given[name])
        if not changed:
            return []
        if any(getattr(row, name) is not None for name in RATES):
            self._try(lambda: budgets.save_limit(row), declared, {})
        elif row.pk is not None:
            row.delete()
        return changed

    # --- settings ---------------------------------------------------------------------------------------------------
    def _settings(self, declared: Declared) -> list[str]:
        row = budgets.money_settings()
        changed: list[str] = []
        for name in SETTINGS:
            if name in declared and self._clean(MoneySettings, name, declared.fields[name]):
                changed += self._put(row, name, declared.fields[name])
        if changed:
            self._try(lambda: budgets.save_money_settings(row), declared, {})
        return changed

    def _try(self, save: Callable[[], None], declared: Declared, names: dict[str, str]) -> None:
        """Saves, or says at the right field what is wrong."""
        try:
            save()
        except ValidationError as error:
            for column, messages in error.message_dict.items():
                if column in ("model", "fallback_model") and "models" in self.document.doubtful:
                    continue
                name = names.get(column, column)
                self.document.wrong(declared.fields.get(name, declared), " ".join(messages))

    # --- networks ---------------------------------------------------------------------------------------------------
    def networks(self, row: Team | ApiKey, declared: Declared) -> list[str]:
        """Sets the networks of a team or key; returns what has changed. None and []: from anywhere."""
        if "networks" not in declared:
            return []
        items: list[Value] = declared.get("networks") or []
        texts = [item.value for item in items if self._is_network(item)]
        wanted = clean_networks(texts)
        if wanted == row.networks_allowed:
            return []
        row.networks_allowed = wanted
        return ["networks"]

    def _is_network(self, item: Value) -> bool:
        try:
            clean_networks([item.value])
        except BadNetwork as error:
            self.document.wrong(item, str(error))
            return False
        return True


def identity_of(row: Budget) -> Identity:
    return row.model, str(row.unit), str(row.per), row.timezone
