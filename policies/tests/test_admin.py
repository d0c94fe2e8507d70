"""The admin's pages for policies, as those who use them meet them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts import versions as versions_of_configuration
from accounts.models import ApiKey, Team, User
from accounts.services import create_key
from policies import services
from policies.documents import RuleSpec, specs_of
from policies.models import Assignment, Policy, PolicyVersion, Wordlist
from policies.starters import STARTERS
from policies.tests.pages import form_of

pytestmark = pytest.mark.django_db

LIST = reverse("admin:policies_policy_changelist")
ADD = reverse("admin:policies_policy_add")
CARD = reverse("admin:policies_policy_card")
TRY = reverse("admin:policies_policy_try")
PROMPT_CHARS = RuleSpec(check="max_prompt_chars", stage="request", settings={"limit": 20}, message="Write less.")
TOKENS = RuleSpec(check="max_tokens", action="redact", stage="request", settings={"limit": 50, "missing_counts": False})
USER = RuleSpec(check="require_user", stage="request")
EVIL = "<script>alert('x')</script>"
MAX_QUERIES = 15


@pytest.fixture
def admin_user(db: None) -> User:
    """Without a password: to hash one takes longer than any page."""
    return User.objects.create(username="admin", is_staff=True, is_superuser=True)


@pytest.fixture
def admin_client(client: Client, admin_user: User) -> Client:
    client.force_login(admin_user)
    return client


@pytest.fixture
def policy(db: None) -> Policy:
    """With two rules, never published."""
    policy = Policy.objects.create(name="default")
    services.replace_rules(policy, [PROMPT_CHARS, TOKENS])
    return policy


@pytest.fixture
def published(policy: Policy, admin_user: User) -> Policy:
    services.assign(policy)
    services.publish(policy, admin_user, "to begin with")
    return policy


@pytest.fixture
def key(research: Team, alice: User) -> ApiKey:
    return create_key("laptop", research, alice)[0]


def staff(client: Client, *permissions: str) -> Client:
    """Signed in as somebody with these rights and no others."""
    user = User.objects.create(username="staff", is_staff=True)
    for permission in permissions:
        user.user_permissions.add(Permission.objects.get(content_type__app_label="policies", codename=permission))
    client.force_login(user)
    return client


def page_of(policy: Policy, page: str = "change") -> str:
    return reverse(f"admin:policies_policy_{page}", args=[policy.pk])


def get(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def answer(client: Client, url: str, button: str = "_save", **changed: Any) -> Any:
    """Fill in the policy's page, and press a button. None: leave the field out."""
    data = {**form_of(get(client, url), "policy_form"), button: "1", **changed}
    return client.post(url, {name: value for name, value in data.items() if value is not None})


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def rules_of(policy: Policy) -> list[RuleSpec]:
    return specs_of(Policy.objects.get(pk=policy.pk).rules.all())


def queries(action: Callable[[], Any]) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        action()
    return len(captured)


# --- the list -------------------------------------------------------------------------------------------------------
def test_empty_list_says_what_a_policy_is_and_offers_templates(admin_client: Client) -> None:
    page = get(admin_client, LIST)
    assert "A policy is a list of rules for calls" in page
    for starter in STARTERS:
        assert f'href="{ADD}?start={starter.slug}"' in page


def test_list_tells_rules_whom_they_hold_for_and_what_is_in_force(
    admin_client: Client, published: Policy, research: Team
) -> None:
    services.set_assignments(published, teams=[research])
    page = get(admin_client, LIST)
    for text in ("Max prompt characters: block", "Max tokens: clamp", "team research", ">v1<", "by admin", "in force"):
        assert text in page


def make_state(policy: Policy, state: str) -> None:
    if state == "never published":
        return
    services.assign(policy)
    services.publish(policy)
    if state == "switched off":
        Policy.objects.update(enabled=False)
    elif state == "holds for nobody":
        Assignment.objects.all().delete()
    elif state == "unpublished changes":
        services.replace_rules(policy, [USER])


@pytest.mark.parametrize(
    "state", ["never published", "in force", "unpublished changes", "holds for nobody", "switched off"]
)
def test_list_tells_the_state_of_a_policy(admin_client: Client, policy: Policy, state: str) -> None:
    make_state(policy, state)
    assert state in get(admin_client, LIST)


def test_list_asks_the_database_no_more_for_many_policies(admin_client: Client, key: ApiKey, research: Team) -> None:
    for number in range(12):
        policy = Policy.objects.create(name=f"policy {number}")
        services.replace_rules(policy, [PROMPT_CHARS, TOKENS, USER])
        services.set_assignments(policy, everyone=True, teams=[research], keys=[key])
        services.publish(policy)
    assert queries(lambda: get(admin_client, LIST)) <= MAX_QUERIES


# --- a new policy ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("starter", STARTERS, ids=lambda starter: starter.slug)
def test_template_becomes_a_policy_once_it_is_saved(admin_client: Client, starter: Any) -> None:
    url = f"{ADD}?start={starter.slug}"
    get(admin_client, url)
    assert not Policy.objects.exists()
    answer(admin_client, url)
    policy = Policy.objects.get()
    assert (policy.name, policy.current) == (starter.name, None)
    assert [(rule.check, rule.action, rule.name) for rule in rules_of(policy)] == [
        (rule.check, rule.action, rule.name) for rule in starter.rules
    ]
    assert services.publish(policy).number == 1


def test_new_policy_is_published_with_one_button(admin_client: Client) -> None:
    response = answer(admin_client, f"{ADD}?start=limits", "_publish", everyone="on", note="first try")
    policy = Policy.objects.get()
    version = PolicyVersion.objects.get()
    assert policy.current == version
    assert (version.number, version.published_as, version.note) == (1, "admin", "first try")
    assert response.headers["location"] == page_of(policy)
    assert messages_of(response) == ["Published version 1 of limits. It is live in about a second."]


def test_name_that_is_taken_is_refused_at_the_field_and_nothing_is_lost(admin_client: Client, policy: Policy) -> None:
    response = answer(admin_client, f"{ADD}?start=limits", name="default", description="mine")
    page = response.content.decode()
    assert "There is already a policy of this name." in page
    assert "mine" in page
    assert form_of(page, "policy_form")["rules-0-settings-limit"] == ["4096"]


# --- editing --------------------------------------------------------------------------------------------------------
def test_page_that_is_saved_unchanged_changes_nothing(admin_client: Client, published: Policy) -> None:
    before = rules_of(published)
    response = answer(admin_client, page_of(published), "_publish")
    assert rules_of(published) == before
    assert published.versions.count() == 1
    assert messages_of(response) == ["Nothing differs from version 1 of default, which stays in force."]


def test_saving_without_publishing_leaves_in_force_what_was(admin_client: Client, published: Policy) -> None:
    response = answer(admin_client, page_of(published), **{"rules-0-settings-limit": "9"})
    assert messages_of(response) == ["Saved. Version 1 stays in force until you publish."]
    assert rules_of(published)[0].settings == {"limit": 9}
    assert published.versions.count() == 1
    page = get(admin_client, page_of(published))
    assert "Unpublished changes." in page
    assert re.search(r"<del[^>]*>.*20.*</del>.*<ins[^>]*>.*9.*</ins>", page, re.DOTALL)


def test_publishing_says_the_number_of_the_version(admin_client: Client, published: Policy) -> None:
    response = answer(admin_client, page_of(published), "_publish", **{"rules-0-settings-limit": "9"})
    assert messages_of(response) == ["Published version 2 of default. It is live in about a second."]
    published.refresh_from_db()
    assert published.current is not None
    assert published.current.document["rules"][0]["settings"] == {"limit": 9}


def test_publishing_what_holds_for_nobody_warns(admin_client: Client, policy: Policy) -> None:
    said = messages_of(answer(admin_client, page_of(policy), "_publish"))
    assert said[1:] == ["It holds for nobody yet. Choose everyone, teams or keys, and save."]


def test_rules_are_put_in_the_order_of_their_positions(admin_client: Client, policy: Policy) -> None:
    answer(admin_client, page_of(policy), **{"rules-0-position": "2", "rules-1-position": "1"})
    assert [rule.check for rule in rules_of(policy)] == ["max_tokens", "max_prompt_chars"]


def test_rule_is_removed_also_when_it_is_wrong(admin_client: Client, policy: Policy) -> None:
    answer(admin_client, page_of(policy), **{"rules-0-remove": "on", "rules-0-settings-limit": "no number"})
    assert [rule.check for rule in rules_of(policy)] == ["max_tokens"]


def test_card_for_a_new_rule_is_saved_with_the_page(admin_client: Client, policy: Policy) -> None:
    card = get(admin_client, f"{CARD}?check=require_user&number=2&position=3")
    new = form_of(f'<form id="card">{card}</form>', "card")
    assert new["rules-2-check"] == ["require_user"]
    answer(admin_client, page_of(policy), **{"rules-next": "3", **new})
    assert rules_of(policy) == [PROMPT_CHARS, TOKENS, replace(rules_of(policy)[2], check="require_user")]


def test_card_of_no_check_is_not_found(admin_client: Client) -> None:
    assert admin_client.get(f"{CARD}?check=nonsense&number=0").status_code == 404


def test_without_javascript_the_page_comes_back_with_another_card(admin_client: Client, policy: Policy) -> None:
    changed = {"_add_rule": "require_user", "name": "", "rules-0-settings-limit": "half typed"}
    response = answer(admin_client, page_of(policy), "_ignored", **changed)
    page = response.content.decode()
    fields = form_of(page, "policy_form")
    assert fields["rules-2-check"] == ["require_user"]
    assert fields["rules-next"] == ["3"]
    assert fields["rules-0-settings-limit"] == ["half typed"]
    assert "Please correct" not in page
    assert len(rules_of(policy)) == 2


def test_wrong_setting_is_told_at_its_field_and_nothing_is_lost(admin_client: Client, published: Policy) -> None:
    changed = {"rules-0-settings-limit": "twelve", "rules-1-message": "Ask for less.", "description": "half done"}
    page = answer(admin_client, page_of(published), "_publish", **changed).content.decode()
    assert 'id="id_rules-0-settings-limit_error"' in page
    assert "Enter a whole number." in page
    assert "Please correct rule 1 (Max prompt characters)." in page
    fields = form_of(page, "policy_form")
    assert fields["rules-0-settings-limit"] == ["twelve"]
    assert fields["rules-1-message"] == ["Ask for less."]
    assert published.versions.count() == 1


def test_word_list_that_is_gone_is_told_at_the_rule(admin_client: Client, policy: Policy) -> None:
    words = RuleSpec(check="wordlist", settings={"wordlists": ["bygone"]})
    services.replace_rules(policy, [words])
    page = answer(admin_client, page_of(policy)).content.decode()
    assert "bygone (no longer there)" in page
    assert "there is no word list bygone" in page


def test_word_lists_are_offered_by_name(admin_client: Client, policy: Policy) -> None:
    Wordlist.objects.create(name="custom", builtin="")
    services.replace_rules(policy, [RuleSpec(check="wordlist", settings={"wordlists": ["custom"]})])
    assert form_of(get(admin_client, page_of(policy)), "policy_form")["rules-0-settings-wordlists"] == ["custom"]
    answer(admin_client, page_of(policy), **{"rules-0-settings-wordlists": ["custom", "profanity"]})
    assert rules_of(policy)[0].settings["wordlists"] == ["custom", "profanity"]


def test_rule_whose_check_is_gone_can_only_be_removed(admin_client: Client, policy: Policy) -> None:
    services.replace_rules(policy, [RuleSpec(check="bygone", settings={"a": 1}), USER])
    page = answer(admin_client, page_of(policy)).content.decode()
    assert "Gatehouse no longer has this check. Remove the rule." in page
    answer(admin_client, page_of(policy), **{"rules-0-remove": "on"})
    assert [rule.check for rule in rules_of(policy)] == ["require_user"]


def test_answer_that_was_cut_off_loses_no_rules(admin_client: Client, policy: Policy) -> None:
    page = answer(admin_client, page_of(policy), **{"rules-next": None}).content.decode()
    assert "nothing was saved" in page
    assert len(rules_of(policy)) == 2


def test_page_that_somebody_else_has_saved_meanwhile_is_not_overwritten_unasked(
    admin_client: Client, policy: Policy
) -> None:
    fields = form_of(get(admin_client, page_of(policy)), "policy_form")
    services.replace_rules(policy, [USER])
    page = admin_client.post(page_of(policy), {**fields, "_save": "1"}).content.decode()
    assert "Somebody else has saved this policy since you opened the page." in page
    assert [rule.check for rule in rules_of(policy)] == ["require_user"]
    admin_client.post(page_of(policy), {**form_of(page, "policy_form"), "_save": "1"})
    assert [rule.check for rule in rules_of(policy)] == ["max_prompt_chars", "max_tokens"]


def test_whom_a_policy_holds_for_is_chosen_on_its_page(
    admin_client: Client, policy: Policy, research: Team, key: ApiKey
) -> None:
    answer(admin_client, page_of(policy), everyone="on", teams=[research.pk], keys=[key.pk])
    assert {str(row) for row in policy.assignments.all()} == {"everyone", "team research", f"key {key}"}
    answer(admin_client, page_of(policy), everyone=None)
    assert {row.scope for row in policy.assignments.all()} == {"team", "key"}


def test_page_asks_the_database_no_more_for_many_rules(admin_client: Client, published: Policy) -> None:
    services.replace_rules(published, [PROMPT_CHARS, TOKENS, USER] * 10)
    assert queries(lambda: get(admin_client, page_of(published))) <= MAX_QUERIES


def test_policy_with_many_rules_can_be_saved(admin_client: Client, policy: Policy) -> None:
    services.replace_rules(policy, [TOKENS] * 100)
    assert answer(admin_client, page_of(policy), **{"rules-99-settings-limit": "7"}).status_code == 302
    assert rules_of(policy)[99].settings["limit"] == 7


# --- who may --------------------------------------------------------------------------------------------------------
def test_publishing_needs_a_permission_of_its_own(client: Client, policy: Policy) -> None:
    editor = staff(client, "view_policy", "change_policy")
    assert "_publish" not in get(editor, page_of(policy))
    assert answer(editor, page_of(policy)).status_code == 302
    assert answer(editor, page_of(policy), "_publish").status_code == 403
    assert not PolicyVersion.objects.exists()


def test_who_may_not_publish_cannot_take_out_of_force_either(client: Client, published: Policy) -> None:
    editor = staff(client, "view_policy", "change_policy", "delete_policy")
    answer(editor, page_of(published), everyone=None, enabled=None, description="mine")
    published.refresh_from_db()
    assert (published.enabled, published.description) == (True, "mine")
    assert published.assignments.get().scope == "everyone"
    assert editor.post(page_of(published, "delete"), {"post": "yes"}).status_code == 403
    assert editor.post(f"{page_of(published)}roll-back/1/", {"confirmed": "yes"}).status_code in (403, 404)


def test_who_may_only_look_sees_rules_and_no_buttons(client: Client, published: Policy) -> None:
    page = get(staff(client, "view_policy"), page_of(published))
    for text in ("Max prompt characters", "Write less.", "everyone"):
        assert text in page
    for button in ("_publish", "_save", "_add_rule"):
        assert f'name="{button}"' not in page
    assert "Try it" in page


def test_pages_are_closed_to_others(client: Client, published: Policy) -> None:
    other = staff(client)
    for url in (LIST, ADD, page_of(published), page_of(published, "try_page"), page_of(published, "versions_page")):
        assert other.get(url).status_code == 403, url
    assert other.post(TRY, {"rules-next": "0", "try-text": "hello"}).status_code == 403
    assert other.get(f"{CARD}?check=require_user&number=0").status_code == 403


def test_what_is_done_stands_in_the_history(admin_client: Client, published: Policy) -> None:
    answer(admin_client, page_of(published), "_publish", note="tighter", **{"rules-0-settings-limit": "9"})
    answer(admin_client, page_of(published), **{"rules-0-settings-limit": "8"})
    admin_client.post(reverse("admin:policies_policy_roll_back", args=[published.pk, 1]), {"confirmed": "yes"})
    assert [str(entry) for entry in LogEntry.objects.order_by("pk").values_list("change_message", flat=True)] == [
        "Published version 2: tighter",
        "Saved without publishing.",
        "Rolled back to version 1, as version 3.",
    ]


# --- versions -------------------------------------------------------------------------------------------------------
@pytest.fixture
def versions(published: Policy, admin_user: User) -> Policy:
    """Three of them."""
    services.replace_rules(published, [replace(PROMPT_CHARS, settings={"limit": 30}), TOKENS])
    services.publish(published, admin_user, "more room")
    services.replace_rules(published, [TOKENS, USER])
    services.publish(published, admin_user)
    return published


def test_versions_tell_who_when_why_and_what_changed(admin_client: Client, versions: Policy) -> None:
    page = get(admin_client, page_of(versions, "versions_page"))
    assert page.index("Version 3") < page.index("Version 2") < page.index("Version 1")
    for text in ("by admin", "more room", "to begin with", "in force", "removed", "added", "changed"):
        assert text in page
    assert "Roll back to version 3" not in page


def test_rolling_back_asks_first(admin_client: Client, versions: Policy) -> None:
    url = reverse("admin:policies_policy_roll_back", args=[versions.pk, 1])
    assert "published again, as a new version" in get(admin_client, url)
    assert versions.versions.count() == 3


def test_rolling_back_puts_an_earlier_version_in_force_again(admin_client: Client, versions: Policy) -> None:
    url = reverse("admin:policies_policy_roll_back", args=[versions.pk, 1])
    response = admin_client.post(url, {"confirmed": "yes", "note": "too strict"})
    versions.refresh_from_db()
    assert versions.current is not None
    assert (versions.current.number, versions.current.note) == (4, "too strict")
    assert rules_of(versions) == [PROMPT_CHARS, TOKENS]
    assert messages_of(response) == [
        "default is back at what version 1 said, as version 4. It is live in about a second."
    ]


def test_unpublished_changes_are_discarded_with_one_click(admin_client: Client, published: Policy) -> None:
    services.replace_rules(published, [USER])
    url = reverse("admin:policies_policy_roll_back", args=[published.pk, 1])
    assert url in get(admin_client, page_of(published))
    response = admin_client.post(url, {"confirmed": "yes"})
    assert rules_of(published) == [PROMPT_CHARS, TOKENS]
    assert published.versions.count() == 1
    assert messages_of(response) == ["The working copy of default is as version 1 again."]


def test_version_that_cannot_work_any_more_is_not_put_in_force(admin_client: Client, policy: Policy) -> None:
    Wordlist.objects.create(name="custom")
    services.replace_rules(policy, [RuleSpec(check="wordlist", settings={"wordlists": ["custom"]})])
    services.publish(policy)
    services.replace_rules(policy, [USER])
    services.publish(policy)
    Wordlist.objects.get(name="custom").delete()
    url = reverse("admin:policies_policy_roll_back", args=[policy.pk, 1])
    [said] = messages_of(admin_client.post(url, {"confirmed": "yes"}))
    assert said.startswith("Version 1 cannot be in force again.")
    assert "there is no word list custom" in said
    assert [rule.check for rule in rules_of(policy)] == ["require_user"]


def test_many_versions_come_in_pages(admin_client: Client, published: Policy) -> None:
    for limit in range(30, 60):
        services.replace_rules(published, [replace(PROMPT_CHARS, settings={"limit": limit})])
        services.publish(published)
    url = page_of(published, "versions_page")
    assert queries(lambda: get(admin_client, url)) <= MAX_QUERIES
    first = get(admin_client, url)
    assert re.findall(r'id="v(\d+)"', first) == [str(number) for number in range(31, 6, -1)]
    assert re.findall(r'id="v(\d+)"', get(admin_client, f"{url}?before=7")) == ["6", "5", "4", "3", "2", "1"]


def test_policy_without_versions_says_what_to_do(admin_client: Client, policy: Policy) -> None:
    assert "There is no version yet" in get(admin_client, page_of(policy, "versions_page"))


# --- try it ---------------------------------------------------------------------------------------------------------
def test_rules_are_tried_as_they_stand_on_the_page(admin_client: Client, published: Policy) -> None:
    """Also unsaved: the limit of 20 characters becomes one of 5."""
    fields = form_of(get(admin_client, page_of(published)), "policy_form")
    data = {**fields, "rules-0-settings-limit": "5", "try-text": "seven words"}
    page = admin_client.post(TRY, data).content.decode()
    assert "The request is blocked." in page
    assert "Write less." in page
    assert rules_of(published) == [PROMPT_CHARS, TOKENS]


def test_trying_tells_which_rules_need_a_correction_first(admin_client: Client, policy: Policy) -> None:
    fields = form_of(get(admin_client, page_of(policy)), "policy_form")
    page = admin_client.post(TRY, {**fields, "rules-0-settings-limit": "x", "try-text": "hello"}).content.decode()
    assert "Please correct rule 1 (Max prompt characters) first." in page


def test_trying_nothing_says_so(admin_client: Client) -> None:
    page = admin_client.post(TRY, {"rules-next": "0", "try-text": ""}).content.decode()
    assert "Request: This field is required." in page


def test_without_javascript_the_page_comes_back_with_what_was_tried(admin_client: Client, policy: Policy) -> None:
    changed = {"try-text": "a text that is too long", "description": "half done"}
    response = answer(admin_client, page_of(policy), "_try", **changed)
    page = response.content.decode()
    assert "The request is blocked." in page
    fields = form_of(page, "policy_form")
    assert fields["try-text"] == ["a text that is too long"]
    assert fields["description"] == ["half done"]
    assert Policy.objects.get().description == ""


def test_version_in_force_and_working_copy_are_tried_on_a_page_of_their_own(
    admin_client: Client, published: Policy
) -> None:
    services.replace_rules(published, [])
    url = page_of(published, "try_page")
    text = {"try-text": "a text that is too long"}
    assert "The request is blocked." in admin_client.post(url, {**text, "try-rules": "current"}).content.decode()
    assert "The request passes as it is." in admin_client.post(url, {**text, "try-rules": "working"}).content.decode()


def test_who_may_only_look_may_try(client: Client, published: Policy) -> None:
    viewer = staff(client, "view_policy")
    data = {"try-text": "a text that is too long", "try-rules": "current"}
    assert "The request is blocked." in viewer.post(page_of(published, "try_page"), data).content.decode()


def test_what_is_tried_needs_the_token_of_the_page_and_is_kept_by_nobody(admin_user: User, published: Policy) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_user)
    assert strict.post(TRY, {"rules-next": "0", "try-text": "secret"}).status_code == 403
    assert strict.post(page_of(published, "try_page"), {"try-text": "secret"}).status_code == 403


def test_what_is_tried_is_neither_stored_nor_logged(
    admin_client: Client, published: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    with CaptureQueriesContext(connection) as captured, caplog.at_level("DEBUG", logger="policies"):
        response = admin_client.post(TRY, {"rules-next": "0", "try-text": "my own secret"})
    assert "no-store" in response.headers["cache-control"]
    assert not [query for query in captured.captured_queries if not query["sql"].startswith(("SELECT", "PRAGMA"))]
    assert "my own secret" not in caplog.text


# --- what people write ----------------------------------------------------------------------------------------------
def test_nothing_that_people_write_becomes_markup(admin_client: Client, research: Team) -> None:
    Team.objects.update(name=f"team {EVIL}")
    Wordlist.objects.create(name=EVIL)
    policy = Policy.objects.create(name=EVIL, description=EVIL)
    rule = RuleSpec(check="wordlist", name=EVIL, message=EVIL, answer=EVIL, settings={"wordlists": [EVIL]})
    gone = RuleSpec(check=f"gone {EVIL}", settings={EVIL: EVIL})
    services.set_assignments(policy, teams=[Team.objects.get(pk=research.pk)])
    services.replace_rules(policy, [rule])
    services.publish(policy, note=EVIL, published_as=EVIL)
    services.replace_rules(policy, [rule, gone, replace(TOKENS, name=EVIL)])
    tried = {"try-text": EVIL, "try-reply": EVIL, "try-model": EVIL, "try-rules": "current"}
    pages = [
        get(admin_client, LIST),
        get(admin_client, page_of(policy)),
        get(admin_client, page_of(policy, "versions_page")),
        get(admin_client, reverse("admin:policies_policy_roll_back", args=[policy.pk, 1])),
        answer(admin_client, page_of(policy), name=EVIL * 9, **{"rules-2-settings-limit": EVIL}).content.decode(),
        admin_client.post(page_of(policy, "try_page"), tried).content.decode(),
        admin_client.post(TRY, {"rules-next": "1", "rules-0-check": EVIL, **tried}).content.decode(),
        admin_client.get(f"{CARD}?check=require_user&number=0&position={EVIL}").content.decode(),
    ]
    for page in pages:
        assert "alert(" in page
        assert EVIL not in page


def test_deleting_a_policy_asks_first_and_tells_the_gateway(admin_client: Client, published: Policy) -> None:
    url = page_of(published, "delete")
    assert "Are you sure" in get(admin_client, url)
    heard = versions_of_configuration.current()[versions_of_configuration.POLICIES]
    response = admin_client.post(url, {"post": "yes"})
    assert not Policy.objects.exists()
    assert versions_of_configuration.current()[versions_of_configuration.POLICIES] > heard
    assert messages_of(response)[0].endswith("It is live in about a second.")
