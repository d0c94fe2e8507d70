"""Whatever anybody sends to the management API: no 500, and every reply is one that the schema describes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import Failure, FailureGroup, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from accounts.models import Membership, Team, User
from accounts.requests.models import AccessRequest
from accounts.services import create_key
from accounts.tokens.services import create_token
from gateway_project.api.urls import RESOURCES
from policies.models import Policy, Wordlist
from policies.services import add_entries, publish
from proxy.models import Model, Provider, Route
from usage.budgets import top_up
from usage.models import Budget, Limit, ModelPrice

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

# All but "what fits the schema is accepted": a name that is taken fits it, too.
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance, negative_data_rejection, unsupported_method, ignored_auth,
]  # fmt: skip
EXAMPLES = {GenerationMode.POSITIVE: 2, GenerationMode.NEGATIVE: 2}


@pytest.fixture
def world(admin_user: User, alice: User, research: Team) -> dict[str, Any]:
    """One of everything: resource -> id."""
    key, _ = create_key("laptop", research, alice)
    token, secret = create_token("fuzzer", admin_user, ["*"])
    provider = Provider.objects.create(name="echo", kind="echo")
    model = Model.objects.create(name="gpt")
    Route.objects.create(model=model, provider=provider)
    budget = Budget.objects.create(scope="team", team=research, limit=10**9)
    top_up(budget, 10**9, "a conference", alice)
    wordlist = Wordlist.objects.create(name="custom")
    add_entries(wordlist, ["secret project"])
    policy = Policy.objects.create(name="default")
    publish(policy, alice)
    return {
        "secret": secret, "users": alice.pk, "teams": research.pk, "keys": key.pk, "tokens": token.pk,
        "memberships": Membership.objects.get(user=alice, team=research).pk, "groups": 1, "providers": provider.pk,
        "models": model.pk, "policies": policy.pk, "wordlists": wordlist.pk, "budgets": budget.pk,
        "limits": Limit.objects.create(scope="team", team=research, requests_per_minute=5).pk,
        "prices": ModelPrice.objects.create(
            model="gpt", input_nano_usd_per_mtok=1, output_nano_usd_per_mtok=1, valid_from="2026-01-01T00:00Z"
        ).pk,
        "requests": AccessRequest.objects.create(kind="join", requester=alice, team=research, reason="To join").pk,
        "usage": uuid.uuid4(), "audit": uuid.uuid4(),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """As Django's own test client has it: the connection with the test's transaction outlives a request."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def operations() -> Any:
    schema = schemathesis.openapi.from_wsgi("/api/v1/schema/", get_wsgi_application())
    return [result.ok() for result in schema.get_all_operations()]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fits", "does not fit"])
def test_every_operation_answers_as_described(world: dict[str, Any], mode: GenerationMode) -> None:
    wrong = {}
    for operation in operations():
        try:
            check_operation(operation, mode, world)
        except (FailureGroup, Failure, Exception) as error:
            wrong[operation.label] = str(error)
    assert wrong == {}, "\n\n".join(f"{label}: {said}" for label, said in wrong.items())


def check_operation(operation: Any, mode: GenerationMode, world: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {world['secret']}"}
    row = world.get(operation.path.removeprefix("/api/v1/").split("/")[0], 1)

    @settings(
        max_examples=EXAMPLES[mode],
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        if "id" in (case.path_parameters or {}) and mode == GenerationMode.POSITIVE:
            case.path_parameters["id"] = row
        with transaction.atomic():
            case.call_and_validate(headers=headers, checks=CHECKS)
            transaction.set_rollback(True)

    answers()


def test_every_resource_is_in_the_world(world: dict[str, Any]) -> None:
    assert {name.split("/")[0] for name in RESOURCES} <= world.keys()
