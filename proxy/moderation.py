"""Asks a provider's moderation endpoint: for the rules of a call, and at once for those that only watch (Celery).

The provider's own credential is used, never a caller's. Whatever goes wrong is a ModerationFailed that says nothing of
the texts; what it was is in the log, because the caller of a blocked call cannot mend it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from policies.errors import ModerationFailed
from policies.moderation import Question, Verdict, body_of, read_verdict, requests_of, unite
from proxy.providers.base import Target, UpstreamRequest
from proxy.providers.openai import OpenAIAdapter
from proxy.snapshot import Holder, build
from proxy.upstream import AiohttpUpstream, Broken, ConnectFailed, TooLarge, Upstream, UpstreamReply
from usage import metrics

logger = logging.getLogger(__name__)

ENDPOINT = "moderations"
# A result is about 2 KB for each input, and a request has some twenty of them.
MAX_REPLY_BYTES = 1024 * 1024
PARALLEL_REQUESTS = 8
# Of Celery: a call has its rule's own limit.
PATIENCE_S = 30.0
PARALLEL_QUESTIONS = 16
USER_AGENT = "gatehouse"


class Moderator:
    """`moderate` is a policies.checks.base.Moderate."""

    def __init__(self, snapshots: Holder, upstream: Upstream) -> None:
        self._snapshots = snapshots
        self._upstream = upstream

    async def moderate(self, provider: str, model: str, texts: list[str]) -> Verdict:
        """One verdict on all the texts. Takes as long as it takes: time limits are the caller's.

        `provider`: its name; "": the only one of kind openai. Raises ModerationFailed.
        """
        counted = provider if provider in self._snapshots.current.providers else ""
        try:
            target = self._target(provider)
            counted = target.provider
            verdict = await self._ask(target, model, texts)
        except ModerationFailed as error:
            metrics.count_moderation(counted, "failed")
            logger.warning("moderation by provider %s failed: %s", provider or counted or "(none)", error)
            raise
        except asyncio.CancelledError:
            metrics.count_moderation(counted, "given_up")
            raise
        metrics.count_moderation(counted, "flagged" if verdict.flagged else "passed")
        return verdict

    def _target(self, name: str) -> Target:
        providers = self._snapshots.current.providers
        target = providers.get(name)
        if not name:
            usual = [one for one in providers.values() if one.kind == "openai"]
            if len(usual) != 1:
                raise ModerationFailed(
                    f"the rule names no provider, and there are {len(usual)} of kind openai: name one in its settings"
                )
            target = usual[0]
        if target is None:
            raise ModerationFailed("there is no such provider, or it is switched off")
        # By type: what speaks a variant of the dialect, such as Azure's, has no such endpoint.
        if type(target.adapter) is not OpenAIAdapter:
            raise ModerationFailed(f"providers of kind {target.kind} have no moderation endpoint")
        return target

    async def _ask(self, target: Target, model: str, texts: list[str]) -> Verdict:
        requests = requests_of(texts)
        if len(requests) == 1:
            return await self._send(target, model, requests[0])
        room = asyncio.Semaphore(PARALLEL_REQUESTS)

        async def send(inputs: list[str]) -> Verdict:
            async with room:
                return await self._send(target, model, inputs)

        try:
            async with asyncio.TaskGroup() as group:  # when one fails, the others are called back
                tasks = [group.create_task(send(inputs)) for inputs in requests]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return unite(task.result() for task in tasks)

    async def _send(self, target: Target, model: str, inputs: list[str]) -> Verdict:
        try:
            reply = await self._reply(_request(target, model, inputs), target)
            try:
                if reply.status != 200:
                    raise ModerationFailed(f"it answered with status {reply.status}")
                body = await reply.read(MAX_REPLY_BYTES, _nothing)
            finally:
                reply.close()
        except TooLarge:
            raise ModerationFailed("its answer is too large") from None
        except (ConnectFailed, Broken) as error:
            raise ModerationFailed(str(error)) from None
        return read_verdict(body, len(inputs))

    async def _reply(self, request: UpstreamRequest, target: Target) -> UpstreamReply:
        try:
            return await self._upstream.send(request, target)
        except Broken as error:
            if not error.unanswered:
                raise
            # A kept connection had died. To ask twice does no harm.
            return await self._upstream.send(request, target)


def _request(target: Target, model: str, inputs: list[str]) -> UpstreamRequest:
    adapter = target.adapter
    assert isinstance(adapter, OpenAIAdapter)
    return UpstreamRequest(
        adapter.url(ENDPOINT, target), adapter.headers(target, target.credential), body_of(model, inputs)
    )


def _nothing() -> None: ...


# --- for Celery -----------------------------------------------------------------------------------------------------


def ask_now(questions: Sequence[Question]) -> list[Verdict | ModerationFailed]:
    """An answer to each question, some of them asked side by side; from a process that has no event loop.

    The same way out as the data plane's: its address rules, its TLS settings, no proxies of the environment. Raises
    what the database raises when the providers cannot be read.
    """
    snapshots = Holder()
    snapshots.current = build()
    return asyncio.run(_ask_each(snapshots, questions))


async def _ask_each(snapshots: Holder, questions: Sequence[Question]) -> list[Verdict | ModerationFailed]:
    upstream = AiohttpUpstream(USER_AGENT)
    moderator = Moderator(snapshots, upstream)
    room = asyncio.Semaphore(PARALLEL_QUESTIONS)

    async def ask(question: Question) -> Verdict | ModerationFailed:
        async with room:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    return await moderator.moderate(*question)
            except ModerationFailed as failed:
                return failed
            except TimeoutError:
                return ModerationFailed("no answer came in time")

    try:
        return list(await asyncio.gather(*map(ask, questions)))
    finally:
        await upstream.close()
