"""Every change of people, teams and keys.

All but `touch_keys` go through `save()`, which bumps the identity version (accounts.apps: each worker knows within a
second) and is in the audit trail, in the same transaction. Whoever adds an `.update()` or a bulk write here must do
both by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from accounts import keys
from accounts.keys import Peppers
from accounts.models import ApiKey, Membership, Team, User
from accounts.networks import BadNetwork, clean_networks
from accounts.versions import IDENTITY, bump


def peppers() -> Peppers:
    return Peppers(settings.KEY_PEPPERS)


# --- people and teams -----------------------------------------------------------------------------------------------
@transaction.atomic
def create_user(username: str, *, email: str = "", password: str | None = None) -> User:
    """A person with a personal team. Without a password they can sign in through an identity provider only.
    Raises ValidationError."""
    user = User(username=User.normalize_username(username), email=email)
    user.set_password(password)
    user.full_clean()
    user.save()
    personal_team(user)
    return user


@transaction.atomic
def personal_team(user: User) -> Team:
    """The team that the person has for themselves; made when it is missing."""
    # Locked, so that two who find it missing do not both make it.
    User.objects.select_for_update().get(pk=user.pk)
    team = Team.objects.filter(personal_of=user).first()
    if team is None:
        team = Team.objects.create(name=_free_team_name(user.username), personal_of=user)
        Membership.objects.create(user=user, team=team, role=Membership.Role.MANAGER)
    return team


def _free_team_name(wanted: str) -> str:
    """`wanted`, or `wanted (2)` and so on; cut to fit."""
    limit = Team._meta.get_field("name").max_length or 0
    name, number = wanted[:limit], 1
    while Team.objects.filter(name=name).exists():
        number += 1
        suffix = f" ({number})"
        name = wanted[: limit - len(suffix)] + suffix
    return name


# --- keys -----------------------------------------------------------------------------------------------------------
@transaction.atomic
def create_key(
    name: str,
    team: Team,
    user: User | None = None,
    *,
    secret: str | None = None,
    endpoints: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    networks: Sequence[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A key of `user` in `team`, or without `user` a service key of the team. Returns it and the whole key, which is
    never seen again. `secret` is a whole key that is to be this one (only `apply` gives it). Raises ValidationError."""
    if secret is None:
        secret = keys.make_key(_free_public_id())
    key = ApiKey(name=name, team=team, user=user, public_id=_public_id_of(secret), expires_at=expires_at)
    key.endpoints_allowed = None if endpoints is None else list(endpoints)
    key.models_allowed = None if models is None else list(models)
    key.networks_allowed = _networks(networks)
    _set_digest(key, secret)
    _check(key)
    _save_new(key)
    return key, secret


@transaction.atomic
def import_key(sha256: str, name: str, team: Team, user: User | None = None, *, expires_at: datetime) -> ApiKey:
    """A key of a replaced system, known by the SHA-256 of the whole key in hex. It goes on working until `expires_at`,
    or until it is rotated. Raises ValidationError."""
    sha256 = sha256.lower()
    if not keys.is_sha256(sha256):
        raise ValidationError({"sha256": "Must be 64 hexadecimal digits."})
    digests = peppers().all_digests(sha256)
    if ApiKey.objects.filter(imported_digest__in=digests).exists():
        raise ValidationError({"sha256": "This key has been imported already."})
    key = ApiKey(name=name, team=team, user=user, public_id=_free_public_id(), expires_at=expires_at)
    key.imported_digest = digests[0]
    _check(key)
    if expires_at <= timezone.now():
        raise ValidationError({"expires_at": "Must be in the future."})
    _save_new(key)
    return key


@transaction.atomic
def rotate_key(key: ApiKey, overlap: timedelta) -> str:
    """Gives the key a new secret under the same public id and returns the whole new key, which is never seen again.

    The secret before works until `overlap` is over (none: it ends at once), the one before that no longer."""
    if overlap < timedelta(0):
        raise ValueError("The overlap cannot be negative.")
    locked = ApiKey.objects.select_for_update().get(pk=key.pk)
    key.previous_digest, key.previous_pepper = (locked.digest, locked.pepper) if overlap else ("", "")
    key.previous_until = timezone.now() + overlap if overlap else None
    # An imported key is the one before only at the first rotation.
    key.imported_digest = locked.imported_digest if overlap and not locked.digest else None
    secret = keys.make_key(locked.public_id)
    _set_digest(key, secret)
    key.save(
        update_fields=[
            "digest",
            "pepper",
            "previous_digest",
            "previous_pepper",
            "previous_until",
            "imported_digest",
        ]
    )
    return secret


def revoke_key(key: ApiKey) -> None:
    """Refused from now on, until `enable_key`."""
    key.disabled = True
    key.save(update_fields=["disabled"])


def enable_key(key: ApiKey) -> None:
    key.disabled = False
    key.save(update_fields=["disabled"])


def touch_keys(used: Mapping[int, datetime]) -> None:
    """Notes when keys (by id) were last used. Bumps nothing: no decision depends on it. Never goes back in time, as
    several processes report late and in any order; unknown ids are passed over."""
    table, name = (connection.ops.quote_name(part) for part in (ApiKey._meta.db_table, "last_used_at"))
    moment = connection.ops.adapt_datetimefield_value
    # In the order of the ids, so that two processes cannot wait for each other's rows.
    rows = [(moment(at), key_id, moment(at)) for key_id, at in sorted(used.items())]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET {name} = %s WHERE id = %s AND ({name} IS NULL OR {name} < %s)",  # noqa: S608
            rows,
        )


@transaction.atomic
def rename_allowed(model: str, renamed: str) -> int:
    """In every list of allowed models: a model is called `renamed` from now on. Gives how many lists named it."""
    count = 0
    for owners in (Team.objects, User.objects, ApiKey.objects):
        rows: Any = owners.filter(models_allowed__isnull=False).values_list("pk", "models_allowed")
        named = [pk for pk, names in rows.iterator() if model in (names or ())]
        for owner in owners.select_for_update().filter(pk__in=named):
            names = [renamed if name == model else name for name in owner.models_allowed or ()]
            owner.models_allowed = list(dict.fromkeys(names))
            owner.save(update_fields=["models_allowed"])
        count += len(named)
    if count:
        bump(IDENTITY)
    return count


def check_owner(team: Team, user: User | None) -> None:
    """Whether a key in `team` may belong to `user` (None: to the team itself). Raises ValidationError."""
    if user is None:
        if team.personal_of_id is not None:
            raise ValidationError({"user": f"{team} is a person's own team: its keys belong to that person."})
    elif team.personal_of_id != user.pk and not Membership.objects.filter(user=user, team=team).exists():
        raise ValidationError({"user": f"{user} is not in the team {team}."})


def _networks(texts: Sequence[str] | None) -> list[str] | None:
    """Raises ValidationError."""
    try:
        return clean_networks(texts or ())
    except BadNetwork as error:
        raise ValidationError({"networks_allowed": str(error)}) from None


def _free_public_id() -> str:
    while True:
        public_id = keys.make_public_id()
        if not ApiKey.objects.filter(public_id=public_id).exists():
            return public_id


def _public_id_of(secret: str) -> str:
    try:
        return keys.public_id(secret)
    except keys.MalformedKey as error:
        raise ValidationError({"secret": f"Must be a well-formed key: {error}."}) from None


def _set_digest(key: ApiKey, secret: str) -> None:
    digest = peppers().digest(secret)
    key.digest, key.pepper = digest.value, digest.pepper


def _check(key: ApiKey) -> None:
    """Raises ValidationError."""
    check_owner(key.team, key.user)
    if key.expires_at is not None and timezone.is_naive(key.expires_at):
        raise ValidationError({"expires_at": "Must have a time zone."})
    for field in ("endpoints_allowed", "models_allowed"):
        names = getattr(key, field)
        if names is not None and not all(isinstance(name, str) and name for name in names):
            raise ValidationError({field: "Must be a list of names."})
    key.full_clean()


def _save_new(key: ApiKey) -> None:
    """Raises ValidationError."""
    try:
        with transaction.atomic():
            key.save()
    except IntegrityError:
        key.full_clean()  # somebody was quicker: says with what
        raise
