"""Brings the database to what a configuration file says: the engine of `manage.py apply`.

One transaction: every mistake is collected, and with a single one nothing is applied. What is already as the file says
is not written, so a second run changes nothing and wakes no worker. What the file does not name stays as it is.
"""

from __future__ import annotations

import re
import ssl

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts import keys
from accounts.models import ApiKey, Membership, Team, User
from accounts.services import check_owner, create_key, peppers, personal_team
from gateway_project import declarations
from gateway_project.declarations import Declared, Document, Mistake, Value
from gateway_project.declared_alerts import DeclaredAlerts
from gateway_project.declared_limits import DeclaredLimits
from gateway_project.declared_policies import DeclaredPolicies
from gateway_project.declared_prices import DeclaredPrices
from gateway_project.declared_rows import Change, Rows, unknown_name, unless_undecryptable
from proxy.endpoints import ENDPOINTS
from proxy.models import Model, Provider, Route
from proxy.providers import presets
from proxy.ssrf import RefusedUrl, split_url

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
BASE_URL_CHARS = 500
PROVIDER_FIELDS = {
    name: name
    for name in (
        "kind",
        "api_version",
        "connect_timeout_s",
        "first_byte_timeout_s",
        "idle_timeout_s",
        "tls_verify",
        "private_network",
        "caller_key",
        "enabled",
    )
}
MODEL_FIELDS = {
    name: name for name in ("description", "context_window", "max_output_tokens", "time_budget_s", "enabled")
}


class NotApplied(Exception):
    """The file has mistakes. `mistakes`: all of them, in the order of their lines."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__(f"{len(mistakes)} mistakes")
        self.mistakes = sorted(mistakes)


def apply(raw: bytes, *, dry_run: bool = False) -> list[Change]:
    """What was changed (or would be). Raises NotApplied."""
    document = declarations.read(raw)
    with transaction.atomic():
        changes = _Application(document).run()
        if document.mistakes:
            raise NotApplied(document.mistakes)
        if dry_run:
            transaction.set_rollback(True)
    if dry_run:
        for change in changes:
            change.secret = ""
    return changes


class _Application(Rows):
    """One run over a document, section by section in the order in which they refer to each other."""

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self.keys_seen: dict[int, Declared] = {}
        self.limits = DeclaredLimits(document, self.changes, self._is_model)
        self.prices = DeclaredPrices(document, self.changes)

    def run(self) -> list[Change]:
        policies = DeclaredPolicies(self.document, self.changes)
        alerts = DeclaredAlerts(self.document, self.changes, self._is_model)
        for section, apply_one in (
            ("providers", self._provider),
            ("models", self._model),
            ("teams", self._team),
            ("users", self._user),
            ("keys", self._key),
            ("wordlists", policies.wordlist),
            ("policies", policies.policy),
            ("alerts", alerts.apply),
        ):
            for declared in self.document[section]:
                known = len(self.changes)
                apply_one(declared)
                self.limits.said(declared, self.changes[known:])
                notes = self.prices.take_notes()
                if len(self.changes) > known:
                    self.changes[-1].notes += notes
        self.limits.apply()
        if self.document["models"]:
            self._check_aliases()
        return self.changes

    # --- providers --------------------------------------------------------------------------------------------------
    def _provider(self, declared: Declared) -> None:
        row, made = self._find(Provider, "name", declared)
        if made:
            # Who may apply a file may run any command here: nothing to protect the private network from.
            row.private_network = True
            if "kind" not in declared:
                self.document.wrong(declared, "is missing: it says what a new provider speaks", under="kind")
        self._check_kind(declared)
        changed = self._assign(row, declared, PROVIDER_FIELDS)
        if "base_url" in declared and self._is_url(declared.fields["base_url"]):
            changed += self._put(row, "base_url", declared.fields["base_url"])
        if "tls_ca" in declared and self._is_authority(declared.fields["tls_ca"]):
            changed += self._put(row, "tls_ca", declared.fields["tls_ca"])
        if "api_key" in declared and unless_undecryptable(row.read_credential) != declared.get("api_key"):
            row.set_credential(declared.get("api_key"))
            changed.append("api_key")
        if "extra_headers" in declared and self._are_headers(declared.fields["extra_headers"]):
            headers = declared.get("extra_headers")
            if unless_undecryptable(row.read_extra_headers) != headers:
                row.set_extra_headers(headers)
                changed.append("extra_headers")
        if row.origin == Provider.Origin.ENVIRONMENT:
            # From now on the file says what it is, not the environment.
            row.origin = Provider.Origin.ADMIN
            changed.append("origin")
        self._check_address(row, declared)
        self._save(row, made, changed, "provider", declared)

    def _check_kind(self, declared: Declared) -> None:
        if "kind" in declared and declared.get("kind") not in presets.PRESETS:
            self.document.wrong(declared.fields["kind"], unknown_name("kind", declared.get("kind"), presets.PRESETS))

    def _check_address(self, row: Provider, declared: Declared) -> None:
        """A kind without a usual address needs one."""
        if row.base_url or row.kind not in presets.PRESETS or "base_url" in declared:
            return
        if presets.adapter_for(row.kind).answer is None and not presets.default_base_url(row.kind):
            self.document.wrong(declared, f"is missing: {row.kind} has no usual address", under="base_url")

    def _is_url(self, value: Value) -> bool:
        try:
            if value.value:
                split_url(value.value)
        except RefusedUrl as error:
            self.document.wrong(value, str(error))
            return False
        if len(value.value) > BASE_URL_CHARS:
            self.document.wrong(value, f"must be at most {BASE_URL_CHARS} characters")
        return len(value.value) <= BASE_URL_CHARS

    def _is_authority(self, value: Value) -> bool:
        try:
            if value.value:
                ssl.create_default_context(cadata=value.value)
        except (ssl.SSLError, ValueError):
            self.document.wrong(value, "must be certificates in PEM form")
            return False
        return True

    def _are_headers(self, value: Value) -> bool:
        wrong = [
            name
            for name, text in value.value.items()
            if not HEADER_NAME.fullmatch(name) or not text.isprintable() or not text.isascii()
        ]
        for name in wrong:
            self.document.wrong(value, "is not a header: printable ASCII only, and no blank in its name", under=name)
        return not wrong

    # --- models -----------------------------------------------------------------------------------------------------
    def _model(self, declared: Declared) -> None:
        row, made = self._find(Model, "name", declared)
        changed = self._assign(row, declared, MODEL_FIELDS)
        if "aliases" in declared:
            aliases = self._clean_names(Model, "name", declared.fields["aliases"])
            if aliases != row.aliases:
                row.aliases = aliases
                changed.append("aliases")
        fits = self._save(row, made, changed, "model", declared)
        if fits and "routes" in declared and self._routes(row, declared.fields["routes"]):
            self._also(made, "model", row.name, "routes")
        for name in self.prices.set_price(row.name, declared):
            self._also(made, "model", row.name, name)
        if fits:
            self.limits.remember(declared, None, row.name)

    def _routes(self, model: Model, value: Value) -> bool:
        """Replaces the model's routes. True if anything changed.

        Without any `order` or `weight` they are tried from top to bottom; else order counts as 0, weight as 1.
        """
        listed: list[Declared] = [item.value for item in value.value]
        by_position = not any("order" in route or "weight" in route for route in listed)
        kept: dict[tuple[int, str], Route] = {
            (route.provider_id, route.upstream_model): route for route in model.routes.all()
        }
        changed = False
        seen: set[tuple[int, str]] = set()
        for position, declared in enumerate(listed):
            provider = self._one(Provider, "name", declared.fields.get("provider"), "providers")
            if provider is None:
                continue
            target = (provider.pk, declared.get("upstream_model", ""))
            if target in seen:
                self.document.wrong(declared, "is listed twice: same provider, same upstream_model")
                continue
            seen.add(target)
            route = kept.get(target) or Route(model=model, provider=provider)
            wanted = {"order": position if by_position else 0, "weight": 1, "enabled": True}
            wanted = {name: declared.get(name, usual) for name, usual in wanted.items()}
            sound = [self._clean(Route, name, declared.fields.get(name)) for name in ("upstream_model", *wanted)]
            if all(sound) and (route.pk is None or any(getattr(route, name) != wanted[name] for name in wanted)):
                changed = True
                route.upstream_model = target[1]
                for name, now in wanted.items():
                    setattr(route, name, now)
                route.save()
        for target, route in kept.items():
            if target not in seen:
                changed = True
                route.delete()
        return changed

    def _check_aliases(self) -> None:
        """A name leads to one model. Judged at the end, when every model of the file is there."""
        owners: dict[str, str] = {name: name for name in Model.objects.values_list("name", flat=True)}
        taken: dict[str, str] = {}
        for model in Model.objects.all():
            for alias in model.aliases:
                taken.setdefault(alias, model.name)
        for declared in self.document["models"]:
            name = declared.get("name")
            if name in taken and taken[name] != name:
                self.document.wrong(declared.fields["name"], f"is already an alias of the model {taken[name]}")
            for item in declared.get("aliases", []):
                owner = owners.get(item.value) or taken.get(item.value, name)
                if owner != name:
                    self.document.wrong(item, f"already leads to the model {owner}")
                elif item.value in owners:
                    self.document.wrong(item, "is the model's own name")

    # --- teams, users -----------------------------------------------------------------------------------------------
    def _team(self, declared: Declared) -> None:
        row, made = self._find(Team, "name", declared)
        changed = self._assign(row, declared, {"cost_center": "cost_center", "disabled": "disabled"})
        changed += self._allowed_models(row, declared)
        changed += self.limits.networks(row, declared)
        fits = self._save(row, made, changed, "team", declared)
        if fits and "prices" in declared and self._team_prices(row, declared.fields["prices"]):
            self._also(made, "team", row.name, "prices")
        if fits:
            self.limits.remember(declared, row)

    def _team_prices(self, team: Team, value: Value) -> bool:
        known = [self._is_model(item.value.fields["model"]) for item in value.value if "model" in item.value]
        return all(known) and self.prices.of_team(team, value)

    def _user(self, declared: Declared) -> None:
        row, made = self._find(User, "username", declared)
        if made:
            row.set_unusable_password()
        changed = self._assign(row, declared, {"email": "email"})
        changed += self._allowed_models(row, declared)
        fits = self._save(row, made, changed, "user", declared)
        if fits and made:
            personal_team(row)
        if fits and "teams" in declared and self._memberships(row, declared.fields["teams"]):
            self._also(made, "user", row.username, "teams")
        if fits:
            self.limits.remember(declared, row)

    def _memberships(self, user: User, value: Value) -> bool:
        """Replaces the person's teams, but for the personal one. A role that is not named stays. True if changed."""
        kept = {one.team_id: one for one in Membership.objects.filter(user=user, team__personal_of=None)}
        changed = False
        seen: set[int] = set()
        for item in value.value:
            declared: Declared = item.value
            team = self._one(Team, "name", declared.fields.get("team"), "teams")
            if team is None or not self._is_role(declared):
                continue
            if team.pk in seen:
                self.document.wrong(declared, "is listed twice")
                continue
            if team.personal_of_id is not None:
                self.document.wrong(declared, "is a person's own team: nobody else can be in it")
                continue
            seen.add(team.pk)
            membership = kept.get(team.pk) or Membership(user=user, team=team)
            role = declared.get("role", membership.role)
            if membership.pk is None or membership.role != role:
                changed = True
                membership.role = role
                membership.save()
        for team_id, membership in kept.items():
            if team_id not in seen:
                changed = True
                membership.delete()
        return changed

    def _is_role(self, declared: Declared) -> bool:
        if "role" in declared and declared.get("role") not in Membership.Role.values:
            self.document.wrong(declared.fields["role"], f"must be one of: {', '.join(Membership.Role.values)}")
            return False
        return True

    def _allowed_models(self, row: Team | User | ApiKey, declared: Declared) -> list[str]:
        if "models" not in declared:
            return []
        allowed = declared.get("models")
        if allowed is not None:
            allowed = list(dict.fromkeys(item.value for item in allowed if self._is_model(item)))
        before = row.models_allowed
        if (before is None) == (allowed is None) and set(before or ()) == set(allowed or ()):
            return []
        row.models_allowed = allowed
        return ["models"]

    def _is_model(self, item: Value) -> bool:
        if Model.objects.filter(name=item.value).exists() or "models" in self.document.doubtful:
            return True
        rows = Model.objects.all()
        for row in rows:
            if item.value in row.aliases:
                self.document.wrong(item, f"is an alias: name the model itself, {row.name}")
                return False
        self.document.wrong(item, unknown_name("model", item.value, [row.name for row in rows]))
        return False

    # --- keys -------------------------------------------------------------------------------------------------------
    def _key(self, declared: Declared) -> None:
        user = self._one(User, "username", declared.fields.get("user"), "users")
        team = self._one(Team, "name", declared.fields.get("team"), "teams")
        if ("user" in declared and user is None) or ("team" in declared and team is None):
            return
        if not self._clean(ApiKey, "name", declared.fields["name"]):
            return
        row = self._find_key(declared, user, team)
        if row is not None:
            self._change_key(row, declared)
        elif self._is_sound(declared) and (owner := self._owner(declared, user, team)):
            self._make_key(declared, user, owner)

    def _find_key(self, declared: Declared, user: User | None, team: Team | None) -> ApiKey | None:
        """The key meant: by name, owner and team. Without a team it is the owner's only key of that name."""
        candidates = list(ApiKey.objects.filter(name=declared.get("name")).select_related("team"))
        if team is not None:
            candidates = [key for key in candidates if key.team_id == team.pk and key.user_id == (user and user.pk)]
        elif user is not None:
            own = [key for key in candidates if key.user_id == user.pk]
            candidates = [key for key in own if key.team.personal_of_id == user.pk] or own
        if len(candidates) > 1:
            self.document.wrong(declared, "is the name of several keys: say user and team", under="name")
        return candidates[0] if len(candidates) == 1 else None

    def _owner(self, declared: Declared, user: User | None, team: Team | None) -> Team | None:
        """The team of a new key, or None and a mistake."""
        if team is None:
            if user is None:
                self.document.wrong(declared, "is new, so it needs an owner: a user, a team, or both")
            return personal_team(user) if user else None
        try:
            check_owner(team, user)
        except ValidationError as error:
            self.document.wrong(declared, " ".join(error.messages))
            return None
        return team

    def _make_key(self, declared: Declared, user: User | None, team: Team) -> None:
        if not self._is_free_secret(declared, None) or not self._are_endpoints(declared):
            return
        row, secret = create_key(declared.get("name"), team, user, secret=declared.get("secret"))
        self.keys_seen[row.pk] = declared
        self._set_key_fields(row, declared)
        row.save()
        self.changes.append(Change("key", row.name, True, secret="" if "secret" in declared else secret))
        self.limits.remember(declared, row)

    def _change_key(self, row: ApiKey, declared: Declared) -> None:
        earlier = self.keys_seen.setdefault(row.pk, declared)
        if earlier is not declared:
            self.document.wrong(declared, f"is the key of line {earlier.line} again: give it its user and team")
            return
        if not self._is_free_secret(declared, row) or not self._are_endpoints(declared):
            return
        changed = self._set_key_fields(row, declared)
        if "secret" in declared and self._set_secret(row, declared.get("secret")):
            changed.append("secret")
        if changed:
            row.save()
            self.changes.append(Change("key", row.name, False, changed))
        self.limits.remember(declared, row)

    def _set_key_fields(self, row: ApiKey, declared: Declared) -> list[str]:
        changed = self._assign(row, declared, {"expires": "expires_at", "disabled": "disabled"})
        changed += self._allowed_models(row, declared)
        changed += self.limits.networks(row, declared)
        if "endpoints" in declared:
            allowed = declared.get("endpoints")
            wanted = None if allowed is None else [item.value for item in allowed]
            if wanted != row.endpoints_allowed:
                row.endpoints_allowed = wanted
                changed.append("endpoints")
        return changed

    def _are_endpoints(self, declared: Declared) -> bool:
        unknown = [item for item in declared.get("endpoints") or () if item.value not in ENDPOINTS]
        for item in unknown:
            self.document.wrong(item, unknown_name("endpoint", item.value, ENDPOINTS))
        return not unknown

    def _is_free_secret(self, declared: Declared, row: ApiKey | None) -> bool:
        """True if there is no secret, or one that is well-formed and nobody else's. It is never quoted."""
        if "secret" not in declared:
            return True
        try:
            public_id = keys.public_id(declared.get("secret"))
        except keys.MalformedKey as error:
            self.document.wrong(declared.fields["secret"], f"is {error}: let the gateway make one (leave it out)")
            return False
        holder = ApiKey.objects.filter(public_id=public_id).first()
        if holder is None or holder == row:
            return True
        self.document.wrong(declared.fields["secret"], f"belongs to another key already: {holder}")
        return False

    def _set_secret(self, row: ApiKey, secret: str) -> bool:
        """The key's public id and digest from the given secret. True if it was another one. It works alone, at once."""
        public_id = keys.public_id(secret)
        if row.public_id == public_id and peppers().verify(secret, keys.Digest(row.digest, row.pepper)):
            return False
        digest = peppers().digest(secret)
        row.public_id, row.digest, row.pepper = public_id, digest.value, digest.pepper
        row.previous_digest, row.previous_pepper, row.previous_until = "", "", None
        row.imported_digest = None
        return True
