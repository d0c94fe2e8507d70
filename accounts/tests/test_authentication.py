"""Who is let in, from what is remembered, and what happens when the database is away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from accounts import authentication, keys, selectors
from accounts.authentication import Authenticator, InvalidKey, LookupUnavailable, Principal
from accounts.models import ApiKey, Membership, Team, User
from accounts.services import create_key, import_key, peppers, personal_team, revoke_key, rotate_key

pytestmark = pytest.mark.django_db(transaction=True)
OLD_KEY = "old-system-key-1"
MINUTE, HOUR = 60, 3600


class Clock:
    """Both clocks at once; they stand still until told."""

    def __init__(self) -> None:
        self.wall = time.time()
        self.uptime = 1000.0

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.uptime += seconds


class LookUps:
    """Counts the questions to the database. While `held`, their answers wait."""

    def __init__(self) -> None:
        self.questions: list[object] = []
        self.failures: list[Exception] = []
        self.reached = threading.Event()
        self.free = threading.Event()
        self.free.set()

    @property
    def count(self) -> int:
        return len(self.questions)

    def read(self, question):
        self.questions.append(question)
        if self.failures:
            raise self.failures.pop()
        answer = self._real(question)
        self.reached.set()
        assert self.free.wait(5)
        return answer

    _real = staticmethod(authentication._read)

    @contextmanager
    def held(self) -> Iterator[None]:
        self.free.clear()
        try:
            yield
        finally:
            self.free.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def look_ups(monkeypatch) -> LookUps:
    seen = LookUps()
    monkeypatch.setattr(authentication, "_read", seen.read)
    return seen


@pytest.fixture
def make(clock, look_ups) -> Iterator[Callable[..., Authenticator]]:
    made = []

    def make_one(size: int = 100, keys: keys.Peppers | None = None) -> Authenticator:
        made.append(Authenticator(keys or peppers(), size, now=lambda: clock.wall, monotonic=lambda: clock.uptime))
        return made[-1]

    yield make_one
    for authenticator in made:
        authenticator.close()


@pytest.fixture
def authenticator(make) -> Authenticator:
    return make()


@pytest.fixture
def key(alice, research) -> tuple[ApiKey, str]:
    return create_key("laptop", research, alice)


def authenticate(authenticator: Authenticator, key: str) -> Principal:
    return asyncio.run(authenticator.authenticate(key))


@contextmanager
def database_down() -> Iterator[None]:
    def fail(self, *args):
        raise OperationalError("the server closed the connection unexpectedly")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", fail)
        yield


def unknown_key() -> str:
    return keys.make_key(keys.make_public_id())


def with_another_secret(secret: str) -> str:
    return keys.make_key(keys.public_id(secret))


# --- who it is --------------------------------------------------------------------------------------------------------
def test_principal_says_whose_key_it_is(authenticator, key, alice, research):
    row, secret = key
    assert authenticate(authenticator, secret) == Principal(
        key_id=row.pk,
        public_id=row.public_id,
        key_label=f"laptop ({row.public_id})",
        user_id=alice.pk,
        team_id=research.pk,
        endpoints=None,
        models=None,
        expires_at=None,
    )


def test_service_key_has_no_user(authenticator, research):
    _, secret = create_key("nightly", research)
    assert authenticate(authenticator, secret).user_id is None


def test_key_in_the_personal_team_works_without_a_membership(authenticator, charlie):
    team = personal_team(charlie)
    Membership.objects.all().delete()
    assert authenticate(authenticator, create_key("laptop", team, charlie)[1]).team_id == team.pk


def test_endpoints_and_expiry_come_with_the_principal(authenticator, alice, research):
    until = timezone.now() + timedelta(days=1)
    _, secret = create_key("laptop", research, alice, endpoints=["embeddings"], expires_at=until)
    principal = authenticate(authenticator, secret)
    assert principal.endpoints == {"embeddings"}
    assert principal.expires_at == pytest.approx(until.timestamp())


@pytest.mark.parametrize(
    ("team", "user", "key", "expected"),
    [
        (None, None, None, None),
        (["a", "b"], None, None, {"a", "b"}),
        (None, ["a"], None, {"a"}),
        (["a", "b"], None, ["b", "c"], {"b"}),
        (["a", "b"], ["b", "c"], ["b"], {"b"}),
        (["a"], ["b"], None, set()),
        (None, None, [], set()),
        ([], None, ["a"], set()),
        ("a", None, None, set()),  # not a list: nobody can have meant "all"
        ({"a": 1}, None, ["a"], set()),
        (None, None, [1, "a", None], {"a"}),
    ],
)
def test_models_are_those_that_team_user_and_key_all_allow(authenticator, alice, research, team, user, key, expected):
    row, secret = create_key("laptop", research, alice)
    for model, pk, allowed in ((Team, research.pk, team), (User, alice.pk, user), (ApiKey, row.pk, key)):
        model.objects.filter(pk=pk).update(models_allowed=allowed)
    assert authenticate(authenticator, secret).models == expected


# --- who is not let in ------------------------------------------------------------------------------------------------
REASONS = {
    "key deleted": lambda key: key.delete(),
    "key disabled": revoke_key,
    "team disabled": lambda key: (setattr(key.team, "disabled", True), key.team.save()),
    "owner inactive": lambda key: (setattr(key.user, "is_active", False), key.user.save()),
    "owner left the team": lambda key: Membership.objects.filter(user=key.user, team=key.team).delete(),
}


@pytest.mark.parametrize("reason", REASONS)
def test_key_that_is_not_in_force_is_invalid_and_asked_for_once(authenticator, key, look_ups, reason):
    REASONS[reason](key[0])
    for _ in range(3):
        with pytest.raises(InvalidKey):
            authenticate(authenticator, key[1])
    assert look_ups.count == 1


@pytest.mark.parametrize("reason", REASONS)
def test_cached_key_is_invalid_from_the_next_refresh_on(authenticator, key, look_ups, reason):
    authenticate(authenticator, key[1])
    REASONS[reason](key[0])
    assert authenticator.cached(key[1])
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticator.cached(key[1])
    assert look_ups.count == 1


def test_unknown_key_is_invalid_and_asked_for_once(authenticator, look_ups):
    secret = unknown_key()
    for _ in range(3):
        with pytest.raises(InvalidKey):
            authenticate(authenticator, secret)
    assert look_ups.count == 1


def test_wrong_secret_is_invalid_without_a_look_up(authenticator, key, look_ups):
    authenticate(authenticator, key[1])
    for _ in range(3):
        with pytest.raises(InvalidKey):
            authenticate(authenticator, with_another_secret(key[1]))
    assert look_ups.count == 1


def test_wrong_secret_first_does_not_keep_the_right_one_out(authenticator, key, look_ups):
    with pytest.raises(InvalidKey):
        authenticate(authenticator, with_another_secret(key[1]))
    assert authenticator.cached(key[1])
    assert look_ups.count == 1


MALFORMED = {
    "empty": "",
    "other format": "sk-proj-" + "x" * 40,
    "typing mistake": unknown_key()[:-1] + "!",
    "NUL": "sk-gh-\0" + "x" * 61,
    "only NUL": "\0",
    "not ASCII": "schlüssel",
    "surrogate": "\udc80" * 10,
    "line break": "a\nb",
    "blank at the end": "abc ",
    "too long": "x" * 513,
    "a megabyte": "x" * 1_000_000,
}


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_key_is_invalid_without_a_look_up(authenticator, look_ups, text):
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticate(authenticator, MALFORMED[text])
    assert look_ups.count == 0


@pytest.mark.parametrize("text", [name for name in MALFORMED if name not in ("other format", "typing mistake")])
def test_what_no_header_could_carry_is_no_imported_key_either(authenticator, old_key, look_ups, text):
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticate(authenticator, MALFORMED[text])
    assert look_ups.count == 0


def test_expiry_is_judged_by_the_clock_without_a_refresh(authenticator, alice, research, clock, look_ups):
    until = timezone.now() + timedelta(minutes=10)
    _, secret = create_key("laptop", research, alice, expires_at=until)
    authenticate(authenticator, secret)
    clock.wall = until.timestamp() - 0.001
    assert authenticator.cached(secret)
    clock.wall = until.timestamp()
    with pytest.raises(InvalidKey):
        authenticator.cached(secret)
    assert look_ups.count == 1


def test_expired_key_is_invalid_and_asked_for_once(authenticator, alice, research, look_ups):
    _, secret = create_key("laptop", research, alice, expires_at=timezone.now() - timedelta(days=1))
    for _ in range(2):
        with pytest.raises(InvalidKey):
            authenticate(authenticator, secret)
    assert look_ups.count == 1


def test_dropped_pepper_makes_its_keys_invalid(make, key):
    with pytest.raises(InvalidKey):
        authenticate(make(keys=keys.Peppers(["another pepper"])), key[1])


# --- what is remembered -----------------------------------------------------------------------------------------------
def test_cached_key_costs_no_query(authenticator, key, look_ups, django_assert_num_queries):
    principal = authenticate(authenticator, key[1])
    with django_assert_num_queries(0):
        assert authenticator.cached(key[1]) is principal
        assert authenticate(authenticator, key[1]) is principal
    assert look_ups.count == 1


def test_look_up_is_one_query(authenticator, key, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert selectors.caller_by_public_id(key[0].public_id)


def test_key_not_seen_yet_needs_a_look_up(authenticator, key):
    assert authenticator.cached(key[1]) is None


def test_neither_the_key_nor_its_sha256_stays_in_memory(authenticator, key, old_key):
    for secret in (key[1], OLD_KEY):
        authenticate(authenticator, secret)
    kept = repr((authenticator._known, authenticator._unknown))
    assert key[1][-49:] not in kept
    assert OLD_KEY not in kept
    assert keys.old_key_sha256(OLD_KEY) not in kept


def test_new_key_works_after_a_refresh_though_it_was_unknown_before(authenticator, alice, research):
    secret = unknown_key()
    with pytest.raises(InvalidKey):
        authenticate(authenticator, secret)
    create_key("laptop", research, alice, secret=secret)
    with pytest.raises(InvalidKey):
        authenticate(authenticator, secret)
    authenticator.refresh()
    assert authenticate(authenticator, secret)


def test_unknown_key_is_asked_for_again_after_a_minute(authenticator, clock, look_ups):
    secret = unknown_key()
    for advance in (0, MINUTE - 1, 1):
        clock.advance(advance)
        with pytest.raises(InvalidKey):
            authenticate(authenticator, secret)
    assert look_ups.count == 2


def test_flood_of_unknown_keys_evicts_no_known_one(make, key, look_ups):
    authenticator = make(size=3)
    authenticate(authenticator, key[1])

    async def flood() -> None:
        answers = await asyncio.gather(
            *(authenticator.authenticate(unknown_key()) for _ in range(50)), return_exceptions=True
        )
        assert {type(answer) for answer in answers} == {InvalidKey}

    asyncio.run(flood())
    assert authenticator.cached(key[1])
    assert len(authenticator._unknown) == 3


def test_known_keys_are_bounded_and_the_oldest_goes_first(make, alice, research, look_ups):
    authenticator = make(size=2)
    secrets = [create_key(name, research, alice)[1] for name in "abc"]
    for secret in secrets:
        authenticate(authenticator, secret)
    assert authenticator.cached(secrets[0]) is None
    assert authenticator.cached(secrets[1])
    assert authenticator.cached(secrets[2])


# --- look-ups ---------------------------------------------------------------------------------------------------------
def test_all_who_wait_for_a_key_share_one_look_up(authenticator, key, look_ups):
    async def together() -> list[object]:
        callers = [authenticator.authenticate(key[1]) for _ in range(50)]
        callers += [authenticator.authenticate(with_another_secret(key[1]))]
        return await asyncio.gather(*callers, return_exceptions=True)

    *right, wrong = asyncio.run(together())
    assert all(isinstance(answer, Principal) for answer in right)
    assert isinstance(wrong, InvalidKey)
    assert look_ups.count == 1


def test_caller_who_leaves_does_not_take_the_look_up_along(authenticator, key, look_ups):
    async def scenario() -> Principal:
        with look_ups.held():
            first = asyncio.create_task(authenticator.authenticate(key[1]))
            second = asyncio.create_task(authenticator.authenticate(key[1]))
            await asyncio.to_thread(look_ups.reached.wait)
            first.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert asyncio.run(scenario()).public_id == key[0].public_id
    assert look_ups.count == 1


def test_failed_look_up_that_nobody_waits_for_any_more_is_silent(authenticator, look_ups, caplog):
    async def scenario() -> None:
        look_ups.failures = [OperationalError(), OperationalError()]
        waiting = asyncio.create_task(authenticator.authenticate(unknown_key()))
        await asyncio.sleep(0)
        waiting.cancel()
        while authenticator._flights:
            await asyncio.sleep(0.001)

    asyncio.run(scenario())
    assert "never retrieved" not in caplog.text


def test_look_ups_that_wait_are_capped(authenticator, key, look_ups, monkeypatch):
    monkeypatch.setattr(authentication, "MAX_WAITING", 3)
    monkeypatch.setattr(authentication, "LOOK_UP_THREADS", 1)

    async def scenario() -> list[object]:
        with look_ups.held():
            busy = asyncio.create_task(authenticator.authenticate(key[1]))
            await asyncio.to_thread(look_ups.reached.wait)
            waiting = [asyncio.create_task(authenticator.authenticate(unknown_key())) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(LookupUnavailable):
                await authenticator.authenticate(unknown_key())
        return await asyncio.gather(busy, *waiting, return_exceptions=True)

    first, *others = asyncio.run(scenario())
    assert isinstance(first, Principal)
    assert {type(answer) for answer in others} == {InvalidKey}


def test_look_up_takes_a_bounded_time(authenticator, key, look_ups, monkeypatch):
    monkeypatch.setattr(authentication, "LOOK_UP_TIMEOUT_S", 0.05)
    with look_ups.held(), pytest.raises(LookupUnavailable):
        authenticate(authenticator, key[1])


def test_look_ups_that_timed_out_do_not_pile_up_behind_a_dead_connection(authenticator, key, look_ups, monkeypatch):
    monkeypatch.setattr(authentication, "LOOK_UP_THREADS", 1)
    monkeypatch.setattr(authentication, "MAX_WAITING", 2)

    async def scenario() -> None:
        with look_ups.held():
            busy = asyncio.create_task(authenticator.authenticate(key[1]))
            await asyncio.to_thread(look_ups.reached.wait)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(authentication, "LOOK_UP_TIMEOUT_S", 0.01)
                for _ in range(6):
                    with pytest.raises(LookupUnavailable):
                        await authenticator.authenticate(unknown_key())
            assert authenticator._readers.waiting() == 2
        await busy

    asyncio.run(scenario())
    with pytest.raises(InvalidKey):
        authenticate(authenticator, unknown_key())
    assert look_ups.count == 2


def test_connection_that_broke_while_idle_is_replaced_unnoticed(authenticator, key, look_ups, monkeypatch):
    monkeypatch.setattr(authentication, "LOOK_UP_THREADS", 1)
    with pytest.raises(InvalidKey):
        authenticate(authenticator, unknown_key())
    look_ups.failures = [InterfaceError("connection already closed")]
    assert authenticate(authenticator, key[1])


def test_connections_that_the_server_ended_are_replaced_unnoticed(authenticator, key):
    if connection.vendor != "postgresql":
        pytest.skip("needs a database server")
    for _ in range(authentication.LOOK_UP_THREADS):
        with pytest.raises(InvalidKey):
            authenticate(authenticator, unknown_key())
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert authenticate(authenticator, key[1])


def test_error_of_our_own_is_not_taken_for_an_outage(authenticator, key, look_ups):
    look_ups.failures = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        authenticate(authenticator, key[1])
    assert authenticate(authenticator, key[1])


def test_after_closing_known_keys_still_work_and_others_cannot_be_looked_up(authenticator, key):
    authenticate(authenticator, key[1])
    authenticator.close()
    assert authenticate(authenticator, key[1])
    with pytest.raises(LookupUnavailable):
        authenticate(authenticator, unknown_key())
    assert not any(thread.name.startswith("key-look-up") for thread in threading.enumerate())


# --- the database is away ---------------------------------------------------------------------------------------------
def test_known_keys_work_for_an_hour_without_the_database(authenticator, key, clock):
    authenticate(authenticator, key[1])
    with database_down():
        clock.advance(HOUR - 1)
        assert authenticate(authenticator, key[1])
        clock.advance(1)
        with pytest.raises(LookupUnavailable):
            authenticate(authenticator, key[1])
    assert authenticate(authenticator, key[1])


def test_the_hour_counts_from_the_last_refresh(authenticator, key, clock):
    authenticate(authenticator, key[1])
    clock.advance(HOUR - 1)
    authenticator.refresh()
    with database_down():
        clock.advance(HOUR - 1)
        assert authenticate(authenticator, key[1])


def test_the_hour_counts_from_the_last_time_that_nothing_had_changed(authenticator, key, clock):
    authenticate(authenticator, key[1])
    clock.advance(HOUR - 1)
    authenticator.confirm()
    with database_down():
        clock.advance(HOUR - 1)
        assert authenticate(authenticator, key[1])


def test_while_a_change_waits_for_its_refresh_nothing_is_confirmed(authenticator, key, clock):
    authenticate(authenticator, key[1])
    with database_down():
        with pytest.raises(OperationalError):
            authenticator.refresh()
        clock.advance(HOUR - 1)
        authenticator.confirm()
        clock.advance(1)
        with pytest.raises(LookupUnavailable):
            authenticate(authenticator, key[1])


def test_unknown_key_is_not_called_invalid_without_the_database(authenticator, key):
    with database_down():
        for secret in (key[1], unknown_key(), "an old key perhaps"):
            with pytest.raises(LookupUnavailable):
                authenticate(authenticator, secret)
    assert authenticate(authenticator, key[1])


def test_expired_and_wrong_keys_stay_invalid_without_the_database(authenticator, alice, research, clock):
    _, secret = create_key("laptop", research, alice, expires_at=timezone.now() + timedelta(minutes=1))
    authenticate(authenticator, secret)
    with database_down():
        with pytest.raises(InvalidKey):
            authenticate(authenticator, with_another_secret(secret))
        clock.advance(2 * MINUTE)
        with pytest.raises(InvalidKey):
            authenticate(authenticator, secret)


def test_key_older_than_an_hour_is_looked_up_again(authenticator, key, clock, look_ups):
    authenticate(authenticator, key[1])
    ApiKey.objects.all().delete()
    clock.advance(HOUR)
    with pytest.raises(InvalidKey):
        authenticate(authenticator, key[1])
    with pytest.raises(InvalidKey):
        authenticator.cached(key[1])
    assert look_ups.count == 2


def test_outage_is_logged_once_and_so_is_its_end(authenticator, key, caplog):
    caplog.set_level("INFO")
    with database_down():
        for _ in range(3):
            with pytest.raises(LookupUnavailable):
                authenticate(authenticator, unknown_key())
    authenticate(authenticator, key[1])
    said = [record.message for record in caplog.records if record.name == "accounts.authentication"]
    assert len(said) == 2
    assert key[1] not in caplog.text


# --- refresh ----------------------------------------------------------------------------------------------------------
def test_refresh_brings_changes_of_key_team_and_user(authenticator, key, alice, research):
    authenticate(authenticator, key[1])
    ApiKey.objects.update(name="desktop", models_allowed=["a", "b", "c"], endpoints_allowed=["embeddings"])
    research.models_allowed = ["a", "b"]
    research.save()
    alice.models_allowed = ["b"]
    alice.save()
    authenticator.refresh()

    principal = authenticator.cached(key[1])
    assert principal.key_label.startswith("desktop (")
    assert principal.models == {"b"}
    assert principal.endpoints == {"embeddings"}


def test_enabled_key_works_again_after_a_refresh(authenticator, key):
    authenticate(authenticator, key[1])
    for disabled in (True, False):
        ApiKey.objects.update(disabled=disabled)
        authenticator.refresh()
    assert authenticate(authenticator, key[1])


def test_refresh_reads_keys_in_bulk(authenticator, alice, research, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(selectors, "CHUNK", 2)
    secrets = [create_key(name, research, alice)[1] for name in "abcde"]
    for secret in secrets:
        authenticate(authenticator, secret)
    with django_assert_num_queries(3 + 1):  # three chunks, and whether there are imported keys
        authenticator.refresh()
    assert all(authenticator.cached(secret) for secret in secrets)


def test_failed_refresh_keeps_the_old_entries_and_says_so(authenticator, key):
    authenticate(authenticator, key[1])
    revoke_key(key[0])
    with database_down(), pytest.raises(OperationalError):
        authenticator.refresh()
    assert authenticator.cached(key[1])
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticator.cached(key[1])


def test_key_that_got_another_public_id_is_gone_under_the_first(authenticator, key):
    authenticate(authenticator, key[1])
    ApiKey.objects.update(public_id="b" * 12)
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticator.cached(key[1])


def test_look_up_that_began_before_a_refresh_does_not_bring_back_the_old_state(authenticator, key, look_ups):
    async def scenario() -> None:
        with look_ups.held():
            waiting = asyncio.create_task(authenticator.authenticate(key[1]))
            await asyncio.to_thread(look_ups.reached.wait)
            await asyncio.to_thread(revoke_and_refresh)
        with pytest.raises(InvalidKey):
            await waiting

    def revoke_and_refresh() -> None:
        revoke_key(key[0])
        authenticator.refresh()
        connection.close()

    asyncio.run(scenario())
    with pytest.raises(InvalidKey):
        authenticator.cached(key[1])
    assert look_ups.count == 2


def test_look_up_that_is_overtaken_again_and_again_answers_but_is_not_kept(authenticator, key, monkeypatch):
    real = authentication._read

    def read_and_be_overtaken(question):
        answer = real(question)
        authenticator.refresh()
        return answer

    monkeypatch.setattr(authentication, "_read", read_and_be_overtaken)
    assert authenticate(authenticator, key[1])
    assert authenticator.cached(key[1]) is None


def test_unknown_key_that_was_made_during_its_look_up_is_found(authenticator, alice, research, look_ups):
    secret = unknown_key()

    async def scenario() -> Principal:
        with look_ups.held():
            waiting = asyncio.create_task(authenticator.authenticate(secret))
            await asyncio.to_thread(look_ups.reached.wait)
            await asyncio.to_thread(make_and_refresh)
        return await waiting

    def make_and_refresh() -> None:
        create_key("laptop", research, alice, secret=secret)
        authenticator.refresh()
        connection.close()

    assert asyncio.run(scenario())


def test_key_looked_up_during_a_refresh_stays(authenticator, alice, research, key, monkeypatch, look_ups):
    _, second = create_key("desktop", research, alice)
    authenticate(authenticator, key[1])
    real = selectors.has_imported_keys

    def look_up_meanwhile() -> bool:
        authenticate(authenticator, second)
        return real()

    monkeypatch.setattr(selectors, "has_imported_keys", look_up_meanwhile)
    authenticator.refresh()
    assert authenticator.cached(key[1])
    assert authenticator.cached(second)


def test_refresh_that_was_overtaken_by_another_does_not_bring_back_the_old_state(authenticator, key, monkeypatch):
    authenticate(authenticator, key[1])
    real = selectors.has_imported_keys

    def be_overtaken() -> bool:
        monkeypatch.setattr(selectors, "has_imported_keys", real)
        revoke_key(key[0])
        authenticator.refresh()
        return real()

    monkeypatch.setattr(selectors, "has_imported_keys", be_overtaken)
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticator.cached(key[1])


def test_calls_and_refreshes_side_by_side_do_not_disturb_each_other(make, alice, research):
    authenticator = make(size=5)
    secrets = [create_key(f"key {number}", research, alice)[1] for number in range(10)]
    ended, failures = threading.Event(), []

    def refresh_again_and_again() -> None:
        try:
            while not ended.wait(0.001):
                authenticator.refresh()
        except Exception as error:
            failures.append(error)
        connection.close()

    async def calls() -> None:
        for _ in range(5):
            answers = await asyncio.gather(*(authenticator.authenticate(secret) for secret in secrets))
            assert [answer.key_label[:5] for answer in answers] == [f"key {number}" for number in range(10)]

    thread = threading.Thread(target=refresh_again_and_again)
    thread.start()
    try:
        asyncio.run(calls())
    finally:
        ended.set()
        thread.join()
    assert failures == []
    assert len(authenticator._known) <= 5


# --- rotation ---------------------------------------------------------------------------------------------------------
def test_both_secrets_work_until_the_overlap_ends_by_the_clock(authenticator, key, clock):
    row, old = key
    authenticate(authenticator, old)
    new = rotate_key(row, timedelta(hours=1))
    with pytest.raises(InvalidKey):
        authenticator.cached(new)
    authenticator.refresh()
    assert authenticator.cached(old) == authenticator.cached(new)

    clock.wall = row.previous_until.timestamp() - 0.001
    assert authenticator.cached(old)
    clock.wall = row.previous_until.timestamp()
    with pytest.raises(InvalidKey):
        authenticator.cached(old)
    assert authenticator.cached(new)


def test_rotation_without_overlap_ends_the_old_secret_at_once(authenticator, key):
    authenticate(authenticator, key[1])
    new = rotate_key(key[0], timedelta(0))
    authenticator.refresh()
    assert authenticator.cached(new)
    with pytest.raises(InvalidKey):
        authenticator.cached(key[1])


def test_overlap_works_across_a_change_of_the_pepper(make, key, settings):
    settings.KEY_PEPPERS = ["n" * 48, *settings.KEY_PEPPERS]
    new = rotate_key(key[0], timedelta(hours=1))
    authenticator = make()
    assert authenticate(authenticator, key[1]) == authenticate(authenticator, new)


# --- keys of replaced systems -----------------------------------------------------------------------------------------
@pytest.fixture
def old_key(alice, research) -> ApiKey:
    until = timezone.now() + timedelta(days=30)
    return import_key(keys.old_key_sha256(OLD_KEY), "old app", research, alice, expires_at=until)


def test_imported_key_works_as_it_was(authenticator, old_key, look_ups):
    assert authenticate(authenticator, OLD_KEY).key_id == old_key.pk
    assert authenticator.cached(OLD_KEY)
    assert look_ups.count == 1


def test_imported_key_works_under_a_newer_pepper(make, old_key, settings):
    settings.KEY_PEPPERS = ["n" * 48, *settings.KEY_PEPPERS]
    authenticator = make()
    assert authenticate(authenticator, OLD_KEY).key_id == old_key.pk
    authenticator.refresh()
    assert authenticator.cached(OLD_KEY)


def test_imported_key_ends_at_its_end_date(authenticator, old_key, clock):
    authenticate(authenticator, OLD_KEY)
    clock.wall = old_key.expires_at.timestamp()
    with pytest.raises(InvalidKey):
        authenticator.cached(OLD_KEY)


@pytest.mark.parametrize("reason", REASONS)
def test_imported_key_is_invalid_for_the_same_reasons(authenticator, old_key, reason):
    authenticate(authenticator, OLD_KEY)
    REASONS[reason](old_key)
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticator.cached(OLD_KEY)


def test_without_imported_keys_nothing_of_another_format_is_looked_up(authenticator, look_ups):
    with pytest.raises(InvalidKey):
        authenticate(authenticator, "one look-up tells that there are none")
    with pytest.raises(InvalidKey):
        authenticate(authenticator, "so this is refused at once")
    assert look_ups.count == 1


def test_first_imported_key_works_from_the_next_refresh_on(authenticator, alice, research):
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticate(authenticator, OLD_KEY)
    until = timezone.now() + timedelta(days=30)
    import_key(keys.old_key_sha256(OLD_KEY), "old app", research, alice, expires_at=until)
    authenticator.refresh()
    assert authenticate(authenticator, OLD_KEY)


def test_unknown_key_of_another_format_is_asked_for_once(authenticator, old_key, look_ups):
    for _ in range(3):
        with pytest.raises(InvalidKey):
            authenticate(authenticator, "another-old-key")
    assert look_ups.count == 1


def test_public_id_of_an_imported_key_lets_nobody_in(authenticator, old_key):
    with pytest.raises(InvalidKey):
        authenticate(authenticator, keys.make_key(old_key.public_id))


def test_rotated_imported_key_works_for_the_overlap_beside_the_new_one(authenticator, old_key, clock):
    authenticate(authenticator, OLD_KEY)
    new = rotate_key(old_key, timedelta(hours=1))
    authenticator.refresh()
    assert authenticator.cached(OLD_KEY)
    assert authenticate(authenticator, new).key_id == old_key.pk

    clock.advance(HOUR + MINUTE)
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticator.cached(OLD_KEY)
    assert authenticator.cached(new)


@pytest.mark.parametrize("overlaps", [[0], [1, 1]])
def test_old_key_ends_with_a_rotation_without_overlap_or_a_second_rotation(authenticator, old_key, overlaps):
    authenticate(authenticator, OLD_KEY)
    for hours in overlaps:
        rotate_key(old_key, timedelta(hours=hours))
    authenticator.refresh()
    with pytest.raises(InvalidKey):
        authenticator.cached(OLD_KEY)


def test_old_key_given_a_secret_without_a_rotation_no_longer_works(authenticator, old_key):
    ApiKey.objects.update(digest="0" * 64)
    with pytest.raises(InvalidKey):
        authenticate(authenticator, OLD_KEY)


# --- from where -----------------------------------------------------------------------------------------------------
def test_key_may_be_used_from_where_team_and_key_both_allow(authenticator, alice, research) -> None:
    research.networks_allowed = ["10.0.0.0/8"]
    research.save()
    _, free = create_key("free", research, alice)
    _, bound = create_key("bound", research, alice, networks=["10.1.0.0/16", "192.0.2.1"])

    assert [authenticate(authenticator, free).admits(ip) for ip in ("10.2.0.1", "192.0.2.1")] == [True, False]
    assert [authenticate(authenticator, bound).admits(ip) for ip in ("10.1.0.1", "10.2.0.1", "192.0.2.1")] == [
        True,
        False,
        False,
    ]


def test_key_without_networks_may_be_used_from_anywhere(authenticator, key) -> None:
    assert authenticate(authenticator, key[1]).admits("")


def test_changed_networks_count_after_a_refresh(authenticator, key) -> None:
    row, secret = key
    assert authenticate(authenticator, secret).admits("192.0.2.1")
    row.networks_allowed = ["10.0.0.0/8"]
    row.save()
    authenticator.refresh()
    assert not authenticate(authenticator, secret).admits("192.0.2.1")


# --- without the cache ----------------------------------------------------------------------------------------------
def test_key_is_checked_by_one_look_up(key, django_assert_num_queries) -> None:
    row, secret = key
    with django_assert_num_queries(1):
        assert authentication.check_now(secret, peppers()).key_id == row.pk


def test_old_key_is_checked_too(alice) -> None:
    imported = import_key(
        keys.old_key_sha256(OLD_KEY), "old", personal_team(alice), alice, expires_at=timezone.now() + timedelta(days=1)
    )
    assert authentication.check_now(OLD_KEY, peppers()).key_id == imported.pk


@pytest.mark.parametrize(
    "change",
    [
        {"disabled": True},
        {"expires_at": timezone.now() - timedelta(seconds=1)},
    ],
    ids=["disabled", "expired"],
)
def test_key_that_is_not_in_force_is_invalid(key, change) -> None:
    row, secret = key
    ApiKey.objects.filter(pk=row.pk).update(**change)
    with pytest.raises(InvalidKey):
        authentication.check_now(secret, peppers())


def test_key_that_is_none_of_ours_is_invalid(key) -> None:
    row, _ = key
    for wrong in ("", "sk-other", "x" * 5000, "schlüssel", keys.make_key(row.public_id), keys.make_key("a" * 12)):
        with pytest.raises(InvalidKey):
            authentication.check_now(wrong, peppers())
