"""A person who is erased is nowhere in the database: in no column of any table, encrypted ones included.

Rows are made for every model that can belong to a person, so a new one that keeps something fails here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection, models
from django.test import Client

from accounts import services
from accounts.audit import personal, record
from accounts.audit.models import AuditDetail, AuditEvent
from accounts.audit.people import erase_person, export_person
from accounts.audit.personal import Person
from accounts.audit.verify import verify
from accounts.encryption import EncryptedField, Undecryptable, decrypt, encrypt
from accounts.models import ApiKey, Membership, Team, User
from policies.models import PolicyVersion
from usage.models import UsageEvent

pytestmark = pytest.mark.django_db

# Texts that are about the person and about nobody else.
CANARIES = ("zora.zander", "zora@example.org", "Zora Zaphira", "Zaphira", "canary-key", "canary-text", "198.51.100.77")


@pytest.fixture(autouse=True)
def no_anchors(settings: Any) -> None:
    settings.AUDIT_ANCHOR_FILE = ""


@pytest.fixture
def zora(research: Team) -> User:
    """With a key, a session, a past, and rows in every table that can be about her."""
    root = User.objects.create_superuser("root")
    client = Client()
    client.force_login(root)
    user = services.create_user("zora.before", email="zora@example.org", password="canary-text 1")
    user.username, user.first_name, user.last_name = "zora.zander", "Zora", "Zaphira"
    user.is_staff = True
    user.save()
    Membership.objects.create(user=user, team=research)
    key, _ = services.create_key("canary-key", research, user, networks=["198.51.100.77"])
    services.create_key("canary-key of her own", services.personal_team(user), user)
    services.rotate_key(key, services.timedelta(hours=1))
    own = Client(REMOTE_ADDR="198.51.100.77")
    own.force_login(user)
    own.post("/admin/login/", {"username": "zora.zander", "password": "canary-text"})
    client.post(f"/admin/accounts/apikey/{key.pk}/revoke/", {"confirmed": "yes"})
    record("usage.exported", ("usage.download", "", "calls of zora.zander, May"), details={"for": ["Zora Zaphira"]})
    _mention_her(root, user)
    for model in personal.others():
        if personal.owner_fields(model) and model not in (LogEntry, Membership):
            make(model, user, key)
    return user


def _mention_her(root: User, user: User) -> None:
    """In what is not hers."""
    words = "for zora.zander (zora@example.org), Zora Zaphira"
    kind = ContentType.objects.get_for_model(User)
    LogEntry.objects.create(user=root, content_type=kind, object_id=str(user.pk), object_repr=words, action_flag=2)
    LogEntry.objects.create(user=root, object_repr="research", action_flag=2, change_message=json.dumps([words]))


_number = iter(range(1000, 1_000_000))


def make(model: type[models.Model], user: User, key: ApiKey) -> models.Model:
    """A row with a canary in each of its texts. Past `save`, as nothing of it has to make sense."""
    values: dict[str, Any] = {}
    blanked = personal.rules().blanked.get(model)
    is_hers = model not in personal.rules().kept and any(
        field.related_model is not Team for field in personal.owner_fields(model)
    )
    for field in model._meta.concrete_fields:
        if isinstance(field, models.ForeignKey):
            values[field.attname] = _refer(field, user, key)
        elif field.primary_key and field.get_internal_type().endswith("AutoField"):
            continue
        else:
            marked = is_hers if blanked is None else field.name in blanked
            values[field.attname] = _value(field, marked)
    row = model(**values)
    if model.__name__ in ("Budget", "Limit"):  # held by a constraint
        row.scope, row.team_id, row.key_id = "user", None, None  # type: ignore[attr-defined]
    if model.__name__ == "Assignment":
        row.scope, row.team_id = "key", None  # type: ignore[attr-defined]
    made: models.Model = model._base_manager.bulk_create([row])[0]
    return made


def _refer(field: Any, user: User, key: ApiKey) -> Any:
    known = {User: user, ApiKey: key, Team: key.team}
    if field.related_model in known:
        return known[field.related_model].pk
    if field.null:
        return None
    there = field.related_model._base_manager.order_by("-pk").first()
    return (there or make(field.related_model, user, key)).pk


def _value(field: Any, marked: bool) -> Any:
    """Something of the field's kind."""
    number = next(_number)
    if isinstance(field, EncryptedField):
        return encrypt("canary-text zora.zander" if marked else "")
    if isinstance(field, models.JSONField):
        return {"canary-text": ["zora@example.org"]} if marked else {}
    if isinstance(field, models.CharField | models.TextField):
        if field.choices:
            return field.choices[0][0]
        fits = (field.max_length or 99) > 15
        return f"{number} canary-text"[: field.max_length] if marked and fits else str(number)[:4]
    if isinstance(field, models.UUIDField):
        return uuid4()
    if isinstance(field, models.DateTimeField):
        return datetime(2026, 1, 1, tzinfo=UTC)
    if isinstance(field, models.DateField):
        return datetime(2026, 1, 1, tzinfo=UTC).date()
    if isinstance(field, models.BooleanField):
        return False
    if isinstance(field, models.BinaryField):
        return b"canary-text"
    return field.get_default() if field.has_default() else None if field.null else number % 30000


def everything() -> Iterator[tuple[str, str]]:
    """Each table, and each value in it as text; what is encrypted, decrypted."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            for value in (value for row in cursor.fetchall() for value in row):
                text = bytes(value).decode(errors="replace") if isinstance(value, bytes | memoryview) else str(value)
                yield table, text
                if text.startswith("gAAAA"):
                    try:
                        yield table, decrypt(text)
                    except Undecryptable:
                        continue


def found(canaries: tuple[str, ...]) -> set[tuple[str, str]]:
    return {(table, canary) for table, text in everything() for canary in canaries if canary.lower() in text.lower()}


def test_nothing_of_an_erased_person_is_left_anywhere(zora: User) -> None:
    before = found((*CANARIES, "zora.before"))
    assert {canary for _, canary in before} == {*CANARIES, "zora.before"}
    assert len({table for table, _ in before}) > 10
    erase_person(zora)
    assert found((*CANARIES, "zora.before")) == set()


def test_chain_holds_after_the_erasure(zora: User) -> None:
    events = AuditEvent.objects.count()
    erase_person(zora)
    report = verify()
    assert report.findings == []
    assert report.erased > 10
    assert AuditEvent.objects.count() == events + 1


def test_tampering_is_still_found_after_the_erasure(zora: User) -> None:
    erase_person(zora)
    AuditDetail.objects.filter(event__action="team.created", target_name="research").update(target_name="other")
    assert any("was altered: target" in finding for finding in verify().findings)


def test_erasure_is_one_event_that_names_nobody(zora: User) -> None:
    erase_person(zora)
    last = AuditEvent.objects.select_related("detail").latest("number")
    assert (last.action, last.target_id, last.target_name) == ("person.erased", str(zora.pk), f"erased-{zora.pk}")


def test_what_others_did_stays(zora: User) -> None:
    erase_person(zora)
    event = AuditEvent.objects.select_related("detail").get(action="team.created", detail__target_name="research")
    assert event.after["cost_center"] == "4711"
    revoked = AuditEvent.objects.select_related("detail").filter(channel="admin", action="apikey.changed").latest("id")
    assert revoked.user_name == "root"


def test_keys_of_an_erased_person_work_no_more(zora: User) -> None:
    erase_person(zora)
    keys = ApiKey.objects.filter(user=zora)
    assert [(key.disabled, key.digest, key.previous_digest) for key in keys] == [(True, "", "")] * len(keys)
    zora.refresh_from_db()
    assert (zora.is_active, zora.is_staff, zora.has_usable_password()) == (False, False, False)


def test_what_they_spent_stays(zora: User) -> None:
    spent = list(UsageEvent.objects.values_list("user_id", "cost_nano_usd"))
    assert spent
    erase_person(zora)
    assert list(UsageEvent.objects.values_list("user_id", "cost_nano_usd")) == spent


def test_policies_in_force_are_not_rewritten(zora: User) -> None:
    version = make(PolicyVersion, zora, ApiKey.objects.filter(user=zora)[0])
    rules = {"rules": [{"words": ["zora@example.org"]}]}
    PolicyVersion.objects.filter(pk=version.pk).update(document=rules)
    erase_person(zora)
    assert PolicyVersion.objects.get(pk=version.pk).document == rules


def test_erasing_twice_changes_nothing_more(zora: User) -> None:
    erase_person(zora)
    zora.refresh_from_db()
    erase_person(zora)
    assert verify().findings == []


def test_longer_name_with_the_same_beginning_stays(zora: User) -> None:
    record("note.made", ("note", "1", "zora.zander.jr"))
    erase_person(zora)
    assert AuditEvent.objects.select_related("detail").get(action="note.made").target_name == "zora.zander.jr"


def test_export_has_what_is_kept_on_the_person_and_no_secrets(zora: User) -> None:
    told = export_person(zora)
    text = json.dumps(told)
    tables = {model._meta.label_lower for model in personal.others() if _counts(model, zora)}
    assert tables <= set(told)
    assert told["accounts.user"][0]["email"] == "zora@example.org"
    assert "canary-text zora.zander" in json.dumps(told["policies.loggedcontent"])
    assert {"session.signed_in", "apikey.created"} <= {event["action"] for event in told["audit"]}
    key = ApiKey.objects.filter(user=zora).latest("id")
    assert key.digest not in text
    assert zora.password not in text


def _counts(model: type[models.Model], user: User) -> bool:
    rows = personal.rows_of(model, Person.of(user))
    return rows is not None and rows.exists()


def test_commands_export_and_erase(zora: User, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("export_person", "zora.zander")
    assert json.loads(capsys.readouterr().out)["accounts.user"][0]["username"] == "zora.zander"
    call_command("erase_person", "zora.zander", yes=True)
    assert f"The person is now erased-{zora.pk}." in capsys.readouterr().out


# --- by the management API ------------------------------------------------------------------------------------------
def test_api_exports_and_erases(zora: User) -> None:
    root = Client()
    root.force_login(User.objects.get(username="root"))
    told = root.post(f"/api/v1/users/{zora.pk}/personal-data")
    assert told.status_code == 200, told.content
    assert told.json()["tables"]["accounts.user"][0]["email"] == "zora@example.org"
    erased = root.post(f"/api/v1/users/{zora.pk}/erase")
    assert (erased.status_code, erased.json()["username"]) == (200, f"erased-{zora.pk}")
    assert found(CANARIES) == set()


def test_api_lets_nobody_erase_themselves_or_without_the_permission(research: Team, alice: User) -> None:
    helper = User.objects.create_user("helper", is_staff=True)
    helper.user_permissions.add(*Permission.objects.filter(codename__in=["view_user", "change_user"]))
    client = Client()
    client.force_login(helper)
    for page in ("erase", "personal-data"):
        assert client.post(f"/api/v1/users/{alice.pk}/{page}").status_code == 403
    root = User.objects.create_superuser("root")
    client.force_login(root)
    assert client.post(f"/api/v1/users/{root.pk}/erase").status_code == 403
    assert set(User.objects.values_list("username", flat=True)) == {"alice", "helper", "root"}
