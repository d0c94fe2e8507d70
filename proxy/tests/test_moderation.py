"""Who is asked for a verdict, with what, and that nothing which goes wrong there ever passes for a clean one."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.utils.module_loading import import_string
from prometheus_client import REGISTRY

from gateway_project.tests.services import free_port
from gateway_project.tests.upstream import Upstream
from policies.errors import ModerationFailed
from policies.moderation import PIECE_CHARS, REQUEST_CHARS, Question, TextsTooLong, Verdict
from proxy import moderation
from proxy.models import Provider
from proxy.moderation import Moderator, ask_now
from proxy.services import save_provider
from proxy.snapshot import EMPTY, Holder
from proxy.tests.recorded import target_of
from proxy.upstream import AiohttpUpstream

SECRET = "words that nobody else may read"
KEY = "sk-moderation-1"


@pytest.fixture
async def client() -> AsyncIterator[AiohttpUpstream]:
    client = AiohttpUpstream(user_agent="gatehouse/1")
    yield client
    await client.close()


def holding(*targets: Any) -> Holder:
    holder = Holder()
    holder.current = dataclasses.replace(EMPTY, providers={target.provider: target for target in targets})
    return holder


def here(upstream: Upstream, name: str = "judge", kind: str = "openai", **fields: Any) -> Any:
    usual = {"base_url": upstream.url, "credential": KEY, "private_network": True, "connect_timeout_s": 2}
    return target_of(kind, **{"provider": name, **usual, **fields})


@pytest.fixture
def moderator(client: AiohttpUpstream, upstream: Upstream) -> Moderator:
    return Moderator(holding(here(upstream), here(upstream, "another")), client)


def counted(provider: str, outcome: str) -> float:
    return REGISTRY.get_sample_value("gatehouse_moderations_total", {"provider": provider, "outcome": outcome}) or 0.0


async def fails(moderator: Moderator, provider: str = "judge", model: str = "mod", *texts: str) -> str:
    """Asks, and gives the reason of the failure."""
    with pytest.raises(ModerationFailed) as failed:
        await moderator.moderate(provider, model, list(texts) or [SECRET])
    return str(failed.value)


# --- the question ---------------------------------------------------------------------------------------------------


async def test_provider_is_asked_at_its_moderation_endpoint_with_its_own_key(
    moderator: Moderator, upstream: Upstream
) -> None:
    await moderator.moderate("judge", "omni-moderation-latest", ["Be kind.", "Who are you?"])
    call = upstream.last
    assert (call.method, call.path) == ("POST", "/v1/moderations")
    assert call.header("authorization") == f"Bearer {KEY}"
    assert call.json == {"model": "omni-moderation-latest", "input": ["Be kind.\nWho are you?"]}


async def test_headers_that_the_provider_row_sets_go_along(client: AiohttpUpstream, upstream: Upstream) -> None:
    target = here(upstream, extra_headers={"OpenAI-Organization": "org-1"})
    await Moderator(holding(target), client).moderate("judge", "mod", ["text"])
    assert upstream.last.header("openai-organization") == "org-1"


async def test_verdict_is_what_the_provider_says(moderator: Moderator) -> None:
    verdict = await moderator.moderate("judge", "mod", ["flag:violence score:hate=0.4"])
    assert verdict.flagged == {"violence"}
    assert (verdict.scores["violence"], verdict.scores["hate"], verdict.scores["sexual"]) == (0.97, 0.4, 0.01)


async def test_one_verdict_unites_what_takes_several_requests(moderator: Moderator, upstream: Upstream) -> None:
    long = "x" * REQUEST_CHARS
    verdict = await moderator.moderate("judge", "mod", ["flag:hate", long, "flag:violence", long, "score:sexual=0.5"])
    assert verdict.flagged == {"hate", "violence"}
    assert verdict.scores["sexual"] == 0.5
    assert upstream.received > 1
    inputs = [text for call in upstream.calls for text in call.json["input"]]
    assert max(map(len, inputs)) == PIECE_CHARS
    assert max(sum(map(len, call.json["input"])) for call in upstream.calls) <= REQUEST_CHARS


async def test_requests_of_one_question_run_side_by_side(moderator: Moderator, upstream: Upstream) -> None:
    question = moderator.moderate("judge", "mod:slow-first-byte?delay_ms=300", ["x" * 3 * REQUEST_CHARS])
    async with asyncio.timeout(1):
        await question
    assert upstream.received == 4


async def test_texts_that_are_too_long_are_not_half_asked_about(moderator: Moderator, upstream: Upstream) -> None:
    with pytest.raises(TextsTooLong):
        await moderator.moderate("judge", "mod", ["x" * REQUEST_CHARS] * 100)
    assert upstream.received == 0


# --- who is asked ---------------------------------------------------------------------------------------------------


async def test_without_a_name_the_only_provider_of_kind_openai_is_asked(
    client: AiohttpUpstream, upstream: Upstream
) -> None:
    moderator = Moderator(holding(here(upstream, "own", "litellm"), here(upstream, "the-one")), client)
    before = counted("the-one", "passed")
    await moderator.moderate("", "mod", ["text"])
    assert counted("the-one", "passed") == before + 1


@pytest.mark.parametrize(("names", "said"), [([], "there are 0"), (["a", "b"], "there are 2")])
async def test_without_a_name_nobody_is_asked_when_it_is_not_plain_whom(
    client: AiohttpUpstream, upstream: Upstream, names: list[str], said: str
) -> None:
    moderator = Moderator(holding(*(here(upstream, name) for name in names)), client)
    assert said in await fails(moderator, "")
    assert upstream.received == 0


async def test_provider_that_is_gone_or_switched_off_is_not_replaced_by_another(
    moderator: Moderator, upstream: Upstream
) -> None:
    assert await fails(moderator, "gone") == "there is no such provider, or it is switched off"
    assert upstream.received == 0


@pytest.mark.parametrize("kind", ["echo", "anthropic", "azure_openai"])
async def test_kind_without_a_moderation_endpoint_is_a_failure_that_says_so_in_the_log(
    client: AiohttpUpstream, upstream: Upstream, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    moderator = Moderator(holding(here(upstream, kind, kind)), client)
    assert await fails(moderator, kind) == f"providers of kind {kind} have no moderation endpoint"
    assert f"moderation by provider {kind} failed: providers of kind {kind} have no" in caplog.text


@pytest.mark.parametrize("kind", ["litellm", "mistral", "vllm"])
async def test_any_provider_that_speaks_openais_dialect_can_be_asked(
    client: AiohttpUpstream, upstream: Upstream, kind: str
) -> None:
    moderator = Moderator(holding(here(upstream, kind, kind)), client)
    assert (await moderator.moderate(kind, "mod", ["flag:hate"])).flagged == {"hate"}


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("500", "it answered with status 500"),
        ("401", "it answered with status 401"),
        ("429", "it answered with status 429"),
        ("redirect", "it answered with status 302"),
        ("html?status=200", "its answer is not JSON"),
        ("garbage", "its answer is not JSON"),
        ("empty", "its answer is not JSON"),
        ("deep-json", "its answer is not JSON"),
        ("json?body=[]", "its answer has not one result for each text"),
        ('json?body={"results":[]}', "its answer has not one result for each text"),
        ('json?body={"results":[{"flagged":false}]}', "a result has no categories"),
        ("error-in-200", "its answer has not one result for each text"),
        ("huge-body?mb=2", "its answer is too large"),
        ("gzip-bomb?mb=2", "its answer is too large"),
        ("gzip-lie", "the answer broke off"),
        ("close-before-head", "no answer came"),
        ("close-midway", "the answer broke off"),
        ("reset-midway", "the answer broke off"),
        ("bad-status-line", "what came is not HTTP"),
        ("end-midway", "its answer is not JSON"),
    ],
)
async def test_endpoint_that_misbehaves_is_a_failure_that_names_no_text(
    moderator: Moderator, upstream: Upstream, behaviour: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted("judge", "failed")
    assert await fails(moderator, "judge", f"mod:{behaviour}") == said
    assert f"moderation by provider judge failed: {said}" in caplog.text
    assert SECRET not in caplog.text
    assert counted("judge", "failed") == before + 1
    assert upstream.received == 1


async def test_endpoint_that_cannot_be_reached_is_a_failure(client: AiohttpUpstream, upstream: Upstream) -> None:
    target = here(upstream, base_url=f"http://127.0.0.1:{free_port()}/v1")
    assert await fails(Moderator(holding(target), client)) == "the address cannot be reached"


async def test_one_failing_request_fails_the_question_and_calls_the_others_back(
    moderator: Moderator, upstream: Upstream
) -> None:
    upstream.next("500")
    upstream.next("hang", times=2)
    assert await fails(moderator, "judge", "mod", "x" * 2 * REQUEST_CHARS) == "it answered with status 500"
    await asyncio.to_thread(upstream.wait_until_idle)


async def test_name_that_leads_into_the_private_network_is_not_followed(
    client: AiohttpUpstream, upstream: Upstream
) -> None:
    url = upstream.url.replace("127.0.0.1", "localhost")
    moderator = Moderator(holding(here(upstream, base_url=url, private_network=False)), client)
    assert await fails(moderator) == "its name cannot be resolved to an address that is allowed"
    assert upstream.received == 0


async def test_silent_endpoint_is_given_up_when_whoever_asks_has_waited_enough(
    moderator: Moderator, upstream: Upstream
) -> None:
    before = counted("judge", "given_up")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await moderator.moderate("judge", "mod:hang", [SECRET])
    await asyncio.to_thread(upstream.wait_for_end, upstream.last)
    assert counted("judge", "given_up") == before + 1


async def test_kept_connection_that_died_costs_no_verdict(moderator: Moderator, upstream: Upstream) -> None:
    await moderator.moderate("judge", "mod:dies-on-reuse", ["text"])
    assert (await moderator.moderate("judge", "mod", ["flag:hate"])).flagged == {"hate"}
    assert upstream.books.dropped == 1


async def test_slow_but_good_endpoint_is_waited_for(moderator: Moderator) -> None:
    assert (await moderator.moderate("judge", "mod:slow-first-event?delay_ms=200", ["flag:hate"])).flagged


@pytest.mark.parametrize(("text", "outcome"), [("flag:hate", "flagged"), ("fine", "passed")])
async def test_moderations_are_counted_by_provider_and_outcome(moderator: Moderator, text: str, outcome: str) -> None:
    before = counted("judge", outcome)
    await moderator.moderate("judge", "mod", [text])
    assert counted("judge", outcome) == before + 1


async def test_metric_names_no_provider_that_there_is_not(moderator: Moderator) -> None:
    before = counted("", "failed")
    await fails(moderator, "made-up")
    assert (counted("", "failed"), counted("made-up", "failed")) == (before + 1, 0)


# --- at once, for Celery ---------------------------------------------------------------------------------------------


@pytest.fixture
def judge(db: None, upstream: Upstream) -> Iterator[Provider]:
    row = Provider(name="judge", kind="openai", base_url=upstream.url, private_network=True)
    save_provider(row, credential=KEY)
    yield row


def test_celery_finds_it_where_the_settings_say() -> None:
    assert import_string(settings.MODERATION_CLIENT) is ask_now


def test_celery_asks_the_provider_as_its_row_says(judge: Provider, upstream: Upstream) -> None:
    (verdict,) = ask_now([Question("judge", "mod", ["flag:violence"])])
    assert isinstance(verdict, Verdict)
    assert verdict.flagged == {"violence"}
    assert upstream.last.header("authorization") == f"Bearer {KEY}"


def test_celery_gets_an_answer_to_each_question_in_order(judge: Provider) -> None:
    questions = [
        Question("judge", "mod", ["flag:hate"]),
        Question("judge", "mod:500", ["flag:hate"]),
        Question("nobody", "mod", ["flag:hate"]),
        Question("judge", "mod", ["fine"]),
    ]
    first, failed, nobody, last = ask_now(questions)
    assert isinstance(first, Verdict)
    assert isinstance(last, Verdict)
    assert first.flagged == {"hate"}
    assert not last.flagged
    assert isinstance(failed, ModerationFailed)
    assert isinstance(nobody, ModerationFailed)


def test_celery_asks_several_questions_side_by_side_but_not_all_at_once(judge: Provider, upstream: Upstream) -> None:
    questions = [Question("judge", "mod:slow-first-byte?delay_ms=150", [f"text {number}"]) for number in range(40)]
    most = 0

    def watch() -> None:
        nonlocal most
        while upstream.books.ended.total() < len(questions):
            most = max(most, upstream.received - upstream.books.ended.total())
            threading.Event().wait(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert all(isinstance(one, Verdict) for one in ask_now(questions))
    watcher.join(10)
    assert 1 < most <= moderation.PARALLEL_QUESTIONS


def test_celery_does_not_wait_for_ever(judge: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moderation, "PATIENCE_S", 0.1)
    (late,) = ask_now([Question("judge", "mod:hang", [SECRET])])
    assert isinstance(late, ModerationFailed)
    assert str(late) == "no answer came in time"


def test_celery_asks_no_provider_that_is_switched_off(judge: Provider, upstream: Upstream) -> None:
    judge.enabled = False
    judge.save()
    (failed,) = ask_now([Question("judge", "mod", ["text"])])
    assert isinstance(failed, ModerationFailed)
    assert upstream.received == 0
