"""Requests and courses in a real browser, with the real server: from asking to a call, from a list to the end of all
keys."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from gateway_project.tests.clients import call
from gateway_project.tests.gateway_process import GatewayProcess

pytestmark = pytest.mark.slow

STUDENTS = 30
PEOPLE = f"""
from accounts.models import ApiKey, Membership, Team, User
from usage.models import Budget
research = Team.objects.get(name="research")
mona = User.objects.create_user("mona", "mona@example.org")
Membership.objects.create(user=mona, team=research, role="manager")
Budget.objects.create(scope="key", key=ApiKey.objects.get(name="alice"), limit=1, per="month")
for number in range({STUDENTS}):
    User.objects.create_user(f"student{{number:02}}", f"student{{number:02}}@example.org")
"""
SESSIONS = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from accounts.models import User
store = import_module(settings.SESSION_ENGINE).SessionStore
for name in %r:
    user, session = User.objects.get(username=name), store()
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session.save()
    print("session", session.session_key)
"""
STUDENT_KEYS = """
from accounts.models import User
from accounts.requests.models import Cohort
from accounts.services import create_key
team = Cohort.objects.get().team
for user in User.objects.filter(username__startswith="student").exclude(username="student00"):
    print("secret", create_key("mine", team, user)[1])
"""


@pytest.fixture(scope="module")
def portal_gateway(make_gateway: Callable[..., Any]) -> Iterator[GatewayProcess]:
    with make_gateway("sqlite", commands=(("collectstatic", "--noinput", "-v", "0"),)) as gateway:
        gateway.manage("shell", "-c", PEOPLE)
        yield gateway


def sessions(gateway: GatewayProcess, *names: str) -> list[str]:
    """How people sign in is other specs' business: these are in already."""
    return re.findall(r"session (\w+)", gateway.manage("shell", "-c", SESSIONS % (names,)))


@contextmanager
def signed_in(browser: Browser, gateway: GatewayProcess, session: str, width: int = 1280) -> Iterator[Page]:
    """A window of somebody's own; fails for anything that the browser complains of."""
    complaints: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        context.add_cookies([{"name": "sessionid", "value": session, "url": gateway.url}])
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        yield page
    assert complaints == []


def within_a_second(is_so: Callable[[], bool]) -> bool:
    """With what a busy machine needs on top."""
    deadline = time.monotonic() + 3
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_from_a_request_over_an_edit_to_a_larger_budget(portal_gateway: GatewayProcess, browser: Browser) -> None:
    gateway = portal_gateway
    assert call(gateway, "echo", key="alice").json()["error"]["code"] == "insufficient_quota"
    alice, mona = sessions(gateway, "alice", "mona")
    with signed_in(browser, gateway, alice) as student, signed_in(browser, gateway, mona) as manager:
        student.goto(f"{gateway.url}/requests/new/?kind=budget")
        student.get_by_label("Which budget").select_option(index=1)
        student.get_by_label("New amount in US dollars").fill("50")
        student.get_by_label("Reason").fill("My thesis")
        student.get_by_role("button", name="Ask for it").click()
        student.get_by_text("Your request is on its way.").wait_for()

        manager.goto(f"{gateway.url}/")
        manager.get_by_text("1 request waits").wait_for()
        manager.get_by_role("link", name="Decide").click()
        manager.get_by_role("link", name="alice: $50.00 a month").click()
        manager.get_by_label("Approve this much, in US dollars").fill("20")
        manager.get_by_label("Note to the requester").fill("20 for now")
        manager.get_by_role("button", name="Approve").click()
        manager.get_by_text("Approved: $50.00 a month").wait_for()
        assert within_a_second(lambda: call(gateway, "echo", key="alice").status_code == 200)

        student.reload()
        student.get_by_text("20 for now").wait_for()
        assert student.get_by_text("$20.00 a month").is_visible()


def test_course_of_thirty_from_a_list_to_its_end(portal_gateway: GatewayProcess, browser: Browser) -> None:
    gateway = portal_gateway
    mona, first = sessions(gateway, "mona", "student00")
    with signed_in(browser, gateway, mona) as teacher, signed_in(browser, gateway, first, width=390) as student:
        _invite_course(teacher, gateway)
        secret = _make_key(student, gateway)
        assert within_a_second(lambda: call(gateway, "echo", key=secret).status_code == 200)
        assert call(gateway, "gpt-test", key=secret).status_code in (403, 404), "not a model of the course"

        others = re.findall(r"secret (\S+)", gateway.manage("shell", "-c", STUDENT_KEYS))
        keys = [secret, *others]
        assert len(keys) == STUDENTS
        assert [call(gateway, "echo", key=key).status_code for key in keys] == [200] * STUDENTS

        teacher.reload()
        assert teacher.get_by_text("Has a key").count() == STUDENTS
        teacher.get_by_role("link", name="Stop now").click()
        teacher.get_by_text("30 keys of students").wait_for()
        teacher.get_by_role("button", name="Stop all keys now").click()
        teacher.get_by_text("Stopped: all keys").wait_for()
        assert within_a_second(lambda: call(gateway, "echo", key=keys[-1]).status_code == 401)
        assert {call(gateway, "echo", key=key).status_code for key in keys} == {401}
        assert call(gateway, "echo", key="bob").status_code == 200, "of the team, but not of the course"


def _invite_course(teacher: Page, gateway: GatewayProcess) -> None:
    teacher.goto(f"{gateway.url}/cohorts/new/")
    teacher.get_by_label("Name of the course").fill("CS 101")
    teacher.get_by_label("Last day").fill(f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}")
    teacher.get_by_label("Budget of each student").fill("2")
    teacher.get_by_label("echo", exact=True).check()
    teacher.get_by_role("button", name="Make the course").click()
    everybody = "\n".join(f"Student {number},student{number:02}@example.org" for number in range(STUDENTS))
    teacher.get_by_label("E-mail addresses or usernames").fill(everybody)
    teacher.get_by_role("button", name="Invite them").click()
    teacher.get_by_text("Done: 30 are in at once").wait_for()


def _make_key(student: Page, gateway: GatewayProcess) -> str:
    student.goto(f"{gateway.url}/cohorts/")
    student.get_by_role("link", name="CS 101").click()
    student.get_by_role("button", name="Make my key").click()
    student.get_by_text("Copy it now").wait_for()
    return student.get_by_label("API key", exact=True).input_value()
