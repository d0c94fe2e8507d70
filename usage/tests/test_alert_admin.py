"""The admin's pages for alerts: what fired, rules that are set up, destinations whose addresses never come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from accounts.models import User
from usage.alert_admin import AlertAdmin, words_of
from usage.alert_models import Alert, AlertDestination, AlertRule, Delivery
from usage.alerts import watching
from usage.alerts.conditions import Condition
from usage.alerts.kinds import KINDS
from usage.alerts.sending import sweep
from usage.tests.alert_receiver import Receiver, receiving
from usage.tests.alerts import SECRET, destination, rule
from usage.tests.events import NOON

pytestmark = pytest.mark.django_db

ADD = "admin:usage_alertdestination_add"
URL = "https://93.184.216.34/services/T0/B0/secretsecretsecret"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def staff_client() -> Client:
    """Somebody who may change destinations and is no superuser."""
    user = User.objects.create_user("staff", password="x", is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(content_type__model__startswith="alert"))
    client = Client()
    client.force_login(user)
    return client


def form(kind: str = "webhook", **changed: Any) -> dict[str, Any]:
    fields = {"name": "ops", "kind": kind, "enabled": "on", "new_url": URL}
    fields |= {"new_secret": SECRET} if kind == "webhook" else {}
    fields |= {"emails": "ops@example.org", "new_url": ""} if kind == "email" else {}
    return {name: value for name, value in (fields | changed).items() if value is not None}


def errors(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200
    return dict(answer.context["adminform"].form.errors)


def fire(**changed: Any) -> Alert:
    made = AlertRule.objects.filter(kind="errors").first() or rule("errors")
    one = Condition(**({"subject": "x", "is_bad": True, "title": "12 % of calls fail", "text": "So many."} | changed))
    watching._fire(made, [one], NOON)
    return Alert.objects.get(subject=one.subject)


# --- destinations ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", AlertDestination.Kind.values)
def test_destination_is_added_and_its_secrets_are_kept_encrypted(admin_client: Client, kind: str) -> None:
    assert admin_client.post(reverse(ADD), form(kind)).status_code == 302
    made = AlertDestination.objects.get()
    address = "ops@example.org" if kind == "email" else URL
    assert made.read_address() == address
    assert address not in made.address
    assert made.read_secret() == (SECRET if kind == "webhook" else "")
    assert made.address_shown == (address if kind == "email" else "93.184.216.34/…")


def test_url_and_secret_never_come_back(admin_client: Client) -> None:
    admin_client.post(reverse(ADD), form())
    made = AlertDestination.objects.get()
    change = reverse("admin:usage_alertdestination_change", args=[made.pk])
    pages = [change, reverse("admin:usage_alertdestination_changelist"), f"{change[:-7]}history/"]
    shown = "".join(admin_client.get(page).content.decode() for page in pages)
    shown += admin_client.post(change, form(name="")).content.decode()  # refused, and the form is shown again
    assert "93.184.216.34/…" in shown
    assert "secretsecretsecret" not in shown and SECRET not in shown


def test_what_is_left_empty_stays_as_it_is(admin_client: Client) -> None:
    admin_client.post(reverse(ADD), form())
    made = AlertDestination.objects.get()
    change = reverse("admin:usage_alertdestination_change", args=[made.pk])
    assert admin_client.post(change, form(name="renamed", new_url="", new_secret="")).status_code == 302
    made.refresh_from_db()
    assert (made.name, made.read_address(), made.read_secret()) == ("renamed", URL, SECRET)


@pytest.mark.parametrize(
    ("changed", "field", "because"),
    [
        ({"new_url": ""}, "new_url", "Enter the URL"),
        ({"new_url": "hooks.example.org/x"}, "new_url", "must begin with https://"),
        ({"new_url": "http://93.184.216.34/x"}, "new_url", "must begin with https://"),
        ({"new_url": "https://user:pw@93.184.216.34/x"}, "new_url", "no user name"),
        ({"new_url": "https://93.184.216.34/x y"}, "new_url", "unusual characters"),
        ({"new_url": "https://[::1/x"}, "new_url", "not a URL"),
        ({"new_url": "https://127.0.0.1/x"}, "new_url", "private network"),
        ({"new_url": "https://169.254.169.254/x"}, "new_url", "private network"),
        ({"new_secret": ""}, "new_secret", "without a signature"),
        ({"new_secret": "short"}, "new_secret", "At least 16"),
        ({"kind": "email", "emails": ""}, "emails", "at least one"),
        ({"kind": "email", "emails": "ops@example.org, nonsense"}, "emails", "“nonsense” is no e-mail address"),
        ({"name": ""}, "name", "required"),
    ],
)
def test_destination_that_makes_no_sense_is_refused(
    admin_client: Client, changed: dict[str, str], field: str, because: str
) -> None:
    found = errors(admin_client.post(reverse(ADD), form(**changed)))
    assert because in str(found[field])
    assert not AlertDestination.objects.exists()


def test_other_kind_needs_its_own_address(admin_client: Client) -> None:
    admin_client.post(reverse(ADD), form())
    change = reverse("admin:usage_alertdestination_change", args=[AlertDestination.objects.get().pk])
    assert "new_url" in errors(admin_client.post(change, form("slack", new_url="")))


def test_only_a_superuser_allows_the_private_network(admin_client: Client, staff_client: Client) -> None:
    private = form(new_url="http://127.0.0.1:9/x", private_network="on")
    refused = staff_client.post(reverse(ADD), private | {"new_url": "https://127.0.0.1:9/x"})
    assert "Only a superuser can allow that." in str(errors(refused)["new_url"])
    assert not AlertDestination.objects.exists()
    assert admin_client.post(reverse(ADD), private).status_code == 302
    made = AlertDestination.objects.get()
    change = reverse("admin:usage_alertdestination_change", args=[made.pk])
    found = errors(staff_client.post(change, form(new_url="http://127.0.0.1:9/other")))
    assert "only a superuser can change where it leads" in str(found["new_url"])
    assert staff_client.post(change, form(name="renamed", new_url="")).status_code == 302


def test_stored_http_url_needs_the_private_network(admin_client: Client) -> None:
    admin_client.post(reverse(ADD), form(new_url="http://127.0.0.1:9/x", private_network="on"))
    change = reverse("admin:usage_alertdestination_change", args=[AlertDestination.objects.get().pk])
    assert "private_network" in errors(admin_client.post(change, form(new_url="")))


# --- send a test -----------------------------------------------------------------------------------------------------
def test_test_is_sent_and_says_what_was_answered(admin_client: Client, receiver: Receiver) -> None:
    made = destination("webhook", receiver.url)
    page = admin_client.get(reverse("admin:usage_alertdestination_change", args=[made.pk])).content.decode()
    assert "Send a test" in page
    answer = admin_client.post(reverse("admin:usage_alertdestination_test", args=[made.pk]), follow=True)
    (said,) = [str(message) for message in answer.context["messages"]]
    assert said == "the webhook: The test was sent. It was taken with status 200: ok"
    assert len(receiver.requests) == 1
    assert LogEntry.objects.get().change_message == "Sent a test. It was taken with status 200: ok"


def test_test_that_fails_says_why_without_the_address(admin_client: Client, receiver: Receiver) -> None:
    receiver.status, receiver.answer = 404, b"no_service at secretsecretsecret"
    made = destination("slack", receiver.url)
    answer = admin_client.post(reverse("admin:usage_alertdestination_test", args=[made.pk]), follow=True)
    (said,) = [str(message) for message in answer.context["messages"]]
    assert said == "the slack: The test was not sent. 127.0.0.1 answered 404: no_service at ***"


def test_tests_are_sent_from_the_list_too(admin_client: Client, receiver: Receiver) -> None:
    chosen = [destination("slack", receiver.url, name=name).pk for name in ("a", "b")]
    data = {"action": "test_selected", "_selected_action": chosen}
    admin_client.post(reverse("admin:usage_alertdestination_changelist"), data)
    assert len(receiver.requests) == 2


def test_test_is_nothing_that_a_link_can_do(admin_client: Client, receiver: Receiver) -> None:
    made = destination("webhook", receiver.url)
    url = reverse("admin:usage_alertdestination_test", args=[made.pk])
    assert admin_client.get(url).status_code == 405
    guarded = Client(enforce_csrf_checks=True)
    guarded.force_login(User.objects.get(is_superuser=True))
    assert guarded.post(url).status_code == 403
    assert receiver.requests == []


def test_who_may_only_look_sends_no_test_and_sees_no_field(receiver: Receiver) -> None:
    user = User.objects.create_user("viewer", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_alertdestination"))
    client = Client()
    client.force_login(user)
    made = destination("webhook", receiver.url)
    page = client.get(reverse("admin:usage_alertdestination_change", args=[made.pk])).content.decode()
    assert "Send a test" not in page and 'name="new_url"' not in page
    assert client.post(reverse("admin:usage_alertdestination_test", args=[made.pk])).status_code == 403
    assert receiver.requests == []


def test_destination_that_is_gone_is_not_found(admin_client: Client) -> None:
    assert admin_client.post(reverse("admin:usage_alertdestination_test", args=[99])).status_code == 404


# --- rules -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", AlertRule.Kind.values)
def test_rule_begins_with_what_is_usual_and_keeps_nothing_that_does_not_count(admin_client: Client, kind: str) -> None:
    everything = {"thresholds": "", "percent": "", "at_least": "", "minutes": "", "days": "", "latency_ms": ""}
    fields = {"name": "mine", "kind": kind, "enabled": "on", "soft": "on", "model": "", "provider": "", **everything}
    answer = admin_client.post(reverse("admin:usage_alertrule_add"), fields)
    assert answer.status_code == 302, errors(answer)
    made = AlertRule.objects.get(name="mine")
    for name in ("thresholds", "percent", "at_least", "minutes", "days", "latency_ms"):
        assert getattr(made, name) == KINDS[kind].numbers.get(name, [] if name == "thresholds" else None), name
    assert words_of(made)


def test_shares_of_a_budget_are_read_as_people_write_them(admin_client: Client) -> None:
    made = rule("budget")
    change = reverse("admin:usage_alertrule_change", args=[made.pk])
    assert 'value="50, 80, 100"' in admin_client.get(change).content.decode()
    fields = {"name": "mine", "kind": "budget", "thresholds": "90 %, 75,110"}
    assert admin_client.post(change, fields).status_code == 302
    made.refresh_from_db()
    assert (made.thresholds, made.soft) == ([75, 90, 110], False)


@pytest.mark.parametrize("wrong", ["half", "0", "50; 80", "-5", "2000", "1.5", ",".join(map(str, range(1, 30)))])
def test_shares_that_make_no_sense_are_refused(admin_client: Client, wrong: str) -> None:
    fields = {"name": "mine", "kind": "budget", "thresholds": wrong}
    assert "thresholds" in errors(admin_client.post(reverse("admin:usage_alertrule_add"), fields))


def test_lists_of_rules_and_destinations_ask_the_database_no_more_with_more_rows(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    rule("budget")
    for number in range(5):
        destination("slack", name=f"channel {number}")
    for name in ("alertrule", "alertdestination"):
        with django_assert_max_num_queries(15):
            page = admin_client.get(reverse(f"admin:usage_{name}_changelist")).content.decode()
        assert "every destination" in page or "rules that tell everybody" in page


# --- alerts ----------------------------------------------------------------------------------------------------------
def test_alert_is_to_be_seen_without_any_destination(admin_client: Client) -> None:
    fire()
    page = admin_client.get(reverse("admin:usage_alert_changelist"), {"window": "all"}).content.decode()
    assert "12 % of calls fail" in page
    assert "nobody: no destination" in page
    assert "going on" in page


def test_alert_shows_who_was_told_and_what_went_wrong(admin_client: Client, receiver: Receiver) -> None:
    receiver.status, receiver.answer = 404, b"no_service"
    destination("slack", receiver.url)
    alert = fire()
    Delivery.objects.update(next_try_at=NOON)
    sweep()
    page = admin_client.get(reverse("admin:usage_alert_change", args=[alert.pk])).content.decode()
    assert "127.0.0.1 answered 404: no_service" in page
    assert "Given up" in page
    listed = admin_client.get(reverse("admin:usage_alert_changelist"), {"window": "all"}).content.decode()
    assert "1 not sent" in listed


def test_message_that_waits_says_when_it_is_tried_again(admin_client: Client, receiver: Receiver) -> None:
    receiver.status = 503
    made = destination("slack", receiver.url)
    fire()
    Delivery.objects.update(next_try_at=NOON)
    sweep()
    page = admin_client.get(reverse("admin:usage_alertdestination_change", args=[made.pk])).content.decode()
    assert "Tried 1 of 5 times; the next time at" in page


def test_alerts_are_records(admin_client: Client) -> None:
    alert = fire()
    change = reverse("admin:usage_alert_change", args=[alert.pk])
    assert admin_client.post(change, {"title": "nothing happened"}).status_code == 403
    assert admin_client.get(reverse("admin:usage_alert_add")).status_code == 403
    assert admin_client.post(reverse("admin:usage_alert_delete", args=[alert.pk])).status_code == 403


def test_list_of_alerts_is_paged_and_asks_little(
    admin_client: Client, django_assert_max_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AlertAdmin, "list_per_page", 5)
    made = rule("key_expiry")
    destination("slack")
    for number in range(6):
        watching._fire(made, [Condition(f"{number}", True, title=f"alert {number}")], NOON)
    with django_assert_max_num_queries(15):
        page = admin_client.get(reverse("admin:usage_alert_changelist"), {"window": "all"}).content.decode()
    assert len(set(re.findall(r"alert \d+", page))) == 5


@pytest.mark.parametrize(
    ("filters", "seen"),
    [
        ({"state": "open"}, ["a"]),
        ({"state": "over"}, ["b"]),
        ({"kind": "errors"}, ["a", "b"]),
        ({"kind": "blocks"}, []),
    ],
)
def test_alerts_are_filtered(admin_client: Client, filters: dict[str, str], seen: list[str]) -> None:
    rule("errors")
    for name in ("a", "b"):
        fire(subject=name, title=f"title-{name}")
    Alert.objects.filter(subject="b").update(resolved_at=NOON)
    url = reverse("admin:usage_alert_changelist")
    page = admin_client.get(url, {"window": "all", **filters}).content.decode()
    assert sorted(set(re.findall(r"title-(\w)", page))) == seen


def test_names_in_alerts_are_shown_as_text(admin_client: Client) -> None:
    alert = fire(title="<script>alert(1)</script>", text="<b>x</b>")
    for url in (reverse("admin:usage_alert_changelist"), reverse("admin:usage_alert_change", args=[alert.pk])):
        page = admin_client.get(url, {"window": "all"}).content.decode()
        assert "<script>alert(1)" not in page and "<b>x</b>" not in page
