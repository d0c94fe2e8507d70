"""Mail about requests and invitations."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.utils import timezone

from accounts.models import Team, User
from accounts.requests import enrolment, notices, services
from accounts.requests.models import CohortStudent, Notice
from accounts.requests.tests.stage import USD, admin, budget_of, course, key_request, larger_budget, manager_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _mail_is_set_up(settings: Any) -> None:
    settings.EMAIL_IS_SET_UP = True
    settings.PUBLIC_URL = "https://gateway.example.org"


def sent() -> list[EmailMessage]:
    notices.sweep()
    found = list(mail.outbox)
    mail.outbox.clear()
    return found


def test_managers_are_told_what_waits(alice: User, research: Team) -> None:
    manager_of(research)
    admin()
    asked = key_request(alice, research, cost_center="4711")
    message = sent()[0]
    assert message.to == ["mona@example.org"]
    assert message.subject == "alice asks for: a key bot with $50.00 a month in the team research"
    for words in ("a bot", "4711", f"https://gateway.example.org/requests/decide/{asked.pk}/"):
        assert words in message.body


def test_administrators_are_told_where_no_manager_may_decide(alice: User, research: Team) -> None:
    manager_of(research)
    admin()
    services.ask(larger_budget(alice, budget_of(research), 20))
    assert [message.to for message in sent()] == [["root@example.org"]]


def test_administrators_are_told_where_the_team_has_no_other_manager(research: Team) -> None:
    admin()
    key_request(manager_of(research), research)
    assert [message.to for message in sent()] == [["root@example.org"]]


def test_requester_is_told_what_was_decided_and_why(alice: User, research: Team) -> None:
    asked = key_request(alice, research)
    services.approve(asked.pk, manager_of(research), 40 * USD, "40 will do")
    message = sent()[-1]
    assert message.to == ["alice@example.org"]
    assert message.subject.startswith("Approved: ")
    for words in ("$40.00 a month", "40 will do", f"https://gateway.example.org/requests/{asked.pk}/"):
        assert words in message.body


def test_no_key_is_in_any_mail(alice: User, research: Team) -> None:
    asked = key_request(alice, research)
    services.approve(asked.pk, manager_of(research))
    services.collect(asked.pk, alice)
    assert not any("sk-gh-" in message.body for message in sent())


def test_decided_request_waits_for_nobody(alice: User, research: Team) -> None:
    manager = manager_of(research)
    services.approve(key_request(alice, research).pk, manager)
    assert [message.to for message in sent()] == [["alice@example.org"]]


def test_mail_server_that_is_away_delays_mail_and_nothing_else(
    alice: User, research: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager_of(research)

    def refuse(self: EmailMessage, **kwargs: Any) -> int:
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(EmailMessage, "send", refuse)
        key_request(alice, research)
        assert sent() == []
    assert sent() == []  # not yet again
    Notice.objects.update(next_try_at=timezone.now())
    assert len(sent()) == 1
    assert not Notice.objects.exists()


def test_mail_is_given_up_in_the_end(alice: User, research: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    manager_of(research)
    key_request(alice, research)
    monkeypatch.setattr(EmailMessage, "send", lambda self: 1 / 0)
    for _ in range(4):
        Notice.objects.update(next_try_at=timezone.now() - timedelta(seconds=1))
        notices.sweep()
    assert not Notice.objects.exists()


def test_without_a_mail_server_requests_work_all_the_same(alice: User, research: Team, settings: Any) -> None:
    settings.EMAIL_IS_SET_UP = False
    manager_of(research)
    assert key_request(alice, research).is_open
    assert sent() == []
    assert not Notice.objects.exists()


def test_subject_is_one_line_whatever_people_write(alice: User, research: Team) -> None:
    alice.first_name = "Alice\r\nBcc: everybody@example.org"
    alice.save()
    manager_of(research)
    key_request(alice, research)
    message = sent()[0]
    assert "\n" not in message.subject
    assert message.recipients() == ["mona@example.org"]


def test_invitation_has_a_link_of_its_own_that_works_once(research: Team, charlie: User, bob: User) -> None:
    cohort = course(manager_of(research), research)
    enrolment.invite(cohort, ["new@x.org", "other@x.org"])
    invitations = {message.to[0]: str(message.body) for message in sent()}
    found = re.search(r"https://gateway\.example\.org/cohorts/join/([\w-]+)/", invitations["new@x.org"])
    assert found
    token = found.group(1)
    assert token not in invitations["other@x.org"]
    assert enrolment.join(token, charlie) == cohort
    place = CohortStudent.objects.get(user=charlie)
    assert (place.invited, place.digest) == ("new@x.org", "")
    with pytest.raises(enrolment.NoSuchInvitation):
        enrolment.join(token, bob)
