"""Management tokens: what they look like, what is kept of them, and when they are refused."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts import keys
from accounts.models import User
from accounts.tokens import services
from accounts.tokens.models import ManagementToken, StoredReply
from accounts.tokens.scopes import covers
from accounts.tokens.services import InvalidToken, OtherNetwork, authenticate, create_token, purge_replies, revoke_token

pytestmark = pytest.mark.django_db


def test_token_has_a_beginning_of_its_own_and_the_checksum_of_keys(alice: User) -> None:
    token, secret = create_token("ci", alice, ["keys:read"])
    assert secret.startswith(f"gh-mt-{token.public_id}-")
    assert keys.checksum(secret[:-6]) == secret[-6:]
    with pytest.raises(keys.MalformedKey):
        keys.public_id(secret)


def test_only_a_keyed_digest_is_kept(alice: User) -> None:
    token, secret = create_token("ci", alice, ["keys:read"])
    stored = ManagementToken.objects.filter(pk=token.pk).values().get()
    assert secret not in str(stored)
    assert secret.rpartition("-")[2] not in str(stored)
    assert services.peppers().digest(secret).value == stored["digest"]


def test_token_lives_for_90_days_and_for_a_year_at_most(alice: User) -> None:
    token, _ = create_token("ci", alice, ["*"])
    assert timedelta(days=89) < token.expires_at - timezone.now() <= timedelta(days=90)
    with pytest.raises(ValidationError, match="at most a year"):
        create_token("ci", alice, ["*"], expires_at=timezone.now() + timedelta(days=367))
    with pytest.raises(ValidationError, match="in the future"):
        create_token("ci", alice, ["*"], expires_at=timezone.now())


@pytest.mark.parametrize("scopes", [[], ["keys"], ["keys:delete"], ["planets:read"]])
def test_scope_that_is_none_is_refused(alice: User, scopes: list[str]) -> None:
    with pytest.raises(ValidationError, match="scope"):
        create_token("ci", alice, scopes)


@pytest.mark.parametrize(
    ("held", "resource", "what", "enough"),
    [
        (["keys:read"], "keys", "read", True),
        (["keys:read"], "keys", "write", False),
        (["keys:read"], "users", "read", False),
        (["keys:write"], "keys", "read", True),
        (["*:read"], "users", "read", True),
        (["*:read"], "users", "write", False),
        (["*:write"], "users", "write", True),
        (["*"], "users", "write", True),
        ("*", "users", "read", False),
    ],
)
def test_scopes_cover(held: object, resource: str, what: str, enough: bool) -> None:
    assert covers(held, resource, what) is enough


def test_token_is_known_again_and_its_use_is_noted_once_a_minute(alice: User) -> None:
    token, secret = create_token("ci", alice, ["*"])
    assert authenticate(secret, "192.0.2.1") == token
    used = ManagementToken.objects.get().last_used_at
    assert used is not None
    authenticate(secret, "192.0.2.1")
    assert ManagementToken.objects.get().last_used_at == used


def test_every_way_to_be_invalid_is_the_same(alice: User) -> None:
    token, secret = create_token("ci", alice, ["*"])
    other = keys.make_key(token.public_id, services.PREFIX)
    unknown = keys.make_key(keys.make_public_id(), services.PREFIX)
    for given in ("", "x", secret[:-1], secret[:-1] + "!", other, unknown, secret.replace("gh-mt-", "sk-gh-")):
        with pytest.raises(InvalidToken):
            authenticate(given, "192.0.2.1")


def test_expired_revoked_and_ownerless_tokens_are_invalid(alice: User) -> None:
    token, secret = create_token("ci", alice, ["*"])
    alice.is_active = False
    alice.save()
    with pytest.raises(InvalidToken):
        authenticate(secret, "192.0.2.1")
    alice.is_active = True
    alice.save()
    ManagementToken.objects.update(expires_at=timezone.now())
    with pytest.raises(InvalidToken):
        authenticate(secret, "192.0.2.1")
    ManagementToken.objects.update(expires_at=timezone.now() + timedelta(days=1))
    revoke_token(token)
    with pytest.raises(InvalidToken):
        authenticate(secret, "192.0.2.1")


def test_token_works_from_its_networks_only(alice: User) -> None:
    _, secret = create_token("ci", alice, ["*"], networks=["192.0.2.0/24"])
    assert authenticate(secret, "192.0.2.7")
    for elsewhere in ("198.51.100.1", ""):
        with pytest.raises(OtherNetwork):
            authenticate(secret, elsewhere)


def test_command_prints_the_token_alone_when_quiet(alice: User) -> None:
    out = StringIO()
    call_command("create_token", "ci", "--user", "alice", "--scopes", "keys:read,users:read", "--quiet", stdout=out)
    token = authenticate(out.getvalue().strip(), "192.0.2.1")
    assert (token.user, token.scopes) == (alice, ["keys:read", "users:read"])


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--user", "nobody", "--scopes", "*"], "no user"), (["--user", "alice", "--scopes", "x"], "is no scope"),
     (["--user", "alice", "--scopes", "*", "--days", "400"], "a year")],
)  # fmt: skip
def test_command_says_what_is_wrong(alice: User, options: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("create_token", "ci", *options)


def test_stored_replies_are_deleted_after_a_day() -> None:
    given = {"caller": "token 1", "request_digest": "", "attempt": ""}
    StoredReply.objects.create(key_digest="old", at=timezone.now() - timedelta(hours=25), **given)
    new = StoredReply.objects.create(key_digest="new", at=timezone.now() - timedelta(hours=23), **given)
    purge_replies()
    assert list(StoredReply.objects.all()) == [new]
