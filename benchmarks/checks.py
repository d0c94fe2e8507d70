"""What each check costs on one call: its rule alone, on a prompt of 2 KB and a reply of 1 KB.

In this process, without HTTP: the difference to a call on which no rule looks. Times are CPU time of one core.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks import machine

PROSE = (
    "Please read the report on the harbour extension once more and tell me which of its figures the council has not "
    "seen yet. The engineers wrote about 1,200 tonnes of gravel, two cranes and a delay of three weeks; the budget on "
    "page 14 names a smaller sum than the letter of 4 May does, and nobody could say why. "
)
FOREIGN = (
    "Bitte lies den Bericht über die Erweiterung des Hafens noch einmal; größere Beträge fehlen. Прочитай отчёт о "
    "расширении порта ещё раз. 港の拡張に関する報告書をもう一度読んでください。 Où sont passés les chiffres de l'été ? "
)
INSTRUCTIONS = (
    "You answer questions of council members about public works. Be brief, name the page you rely on, and say plainly "
    "when a document does not tell. Never guess a sum, and pass questions of law on to the clerk's office."
)
PROMPT_CHARS, REPLY_CHARS = 2048, 1024
ROUNDS, CALLS = 9, 60
AT_MOST_US = 50.0

# A rule as somebody would write it. Moderation waits for a provider and has no cost of its own.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "wordlist": {"wordlists": ["bench"]},
    "topics": {"keywords": ["merger", "layoffs"], "patterns": [r"project\s+(?:apollo|zeus)"]},
    "links": {"block_domains": ["example.com", "example.net"]},
    "prompt_reflection": {"delimiter": "||"},
    "prompt_leak": {},
    "unicode": {},
    "allowed_models": {"models": ["bench", "gpt-*"]},
    "disabled_models": {"models": ["o1-pro"]},
    "max_tokens": {"limit": 4000},
    "max_prompt_chars": {"limit": 100_000},
    "require_user": {},
    "canned_reply": {"replies": [{"match": "hello", "reply": "Hello."}]},
    "message_limits": {"max_messages": 100, "max_message_chars": 50_000, "max_body_bytes": 1_000_000},
    "context_window": {},
    "tools": {"allow": ["lookup"]},
    "system_prompt": {"text": "Answer in English.", "where": "prepend"},
    "loop": {},
    "retries": {"count": 2},
    "reply_quality": {},
    "reply_schema": {"schema": {"type": "object"}},
}
ONLY_PROVIDERS_TIME = frozenset({"moderation"})


class Cost(NamedTuple):
    """Microseconds of CPU for one call. `foreign`: the same on a prompt and reply that are not ASCII."""

    check: str
    ascii_us: float
    foreign_us: float


def costs() -> Iterator[Cost]:
    """For every check; raises LookupError for one that has no settings here."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")
    import django

    django.setup()
    from policies import checks  # noqa: F401 - registers them
    from policies.checks.base import CHECKS

    missing = sorted(CHECKS.keys() - SETTINGS.keys() - ONLY_PROVIDERS_TIME)
    if missing:
        raise LookupError(f"no settings to measure {', '.join(missing)} with")
    base = _measured(None, PROSE), _measured(None, FOREIGN)
    for name in sorted(CHECKS.keys() - ONLY_PROVIDERS_TIME):
        yield Cost(name, _measured(name, PROSE) - base[0], _measured(name, FOREIGN) - base[1])


def words(count: int) -> list[str]:
    """That many words that no text of ours holds, some of them phrases."""
    syllables = ["ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "zo"]
    made = []
    for number in range(count):
        word = "x"
        while number:
            number, syllable = divmod(number, len(syllables))
            word += syllables[syllable]
        made.append(word if len(made) % 5 else f"{word} phrase")
    return made


def _measured(name: str | None, text: str) -> float:
    from policies.engine import Chain

    run = _call(Chain([_rule(name)] if name else []), text)
    run()
    machine.pin(os.getpid(), machine.SERVER_CORE)
    return statistics.median(_timed(run) for _ in range(ROUNDS))


def _timed(run: Callable[[], None]) -> float:
    began = time.process_time_ns()
    for _ in range(CALLS):
        run()
    return (time.process_time_ns() - began) / CALLS / 1000


def _rule(name: str) -> Any:
    from policies.checks.base import CHECKS, clean_settings
    from policies.rules import CompiledRule
    from policies.types import Action

    kind = CHECKS[name]
    action = next(action for action in (Action.BLOCK, Action.REDACT, Action.AUDIT) if action in kind.actions)
    check = kind(clean_settings(kind, SETTINGS[name]), _World())
    return CompiledRule("bench", 1, name, check, name, action=action, stages=kind.stages)


class _World:
    def wordlist(self, name: str) -> Any:
        from policies.wordlists import compile_wordlist

        return compile_wordlist(name, words(2000), [], builtin="", catch_disguises=True)


def _call(chain: Any, text: str) -> Callable[[], None]:
    """A call with this chain, as the pipeline makes it."""
    from policies.engine import Review
    from policies.errors import PolicyError
    from policies.types import Exchange

    def sized(size: int) -> str:
        return (text * (size // len(text) + 1))[:size]

    body = {
        "model": "bench",
        "user": "bench",
        "max_tokens": 100,
        "messages": [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": sized(PROMPT_CHARS - 200)},
        ],
    }
    reply = {"choices": [{"index": 0, "message": {"role": "assistant", "content": sized(REPLY_CHARS)}}]}
    loop = asyncio.new_event_loop()
    turns = iter(range(10**9))

    async def once() -> None:
        exchange = Exchange("chat/completions", copy.copy(body), "bench", caller=f"bench-{next(turns)}")
        exchange.context_window = 128_000
        review = Review(chain, exchange)
        with contextlib.suppress(PolicyError):  # prose fits no schema: it is looked at all the same
            await review.request(_nobody)
            await review.reply(reply, _nobody)

    return lambda: loop.run_until_complete(once())


async def _nobody(provider: str, model: str, texts: list[str]) -> Any:
    raise AssertionError("nobody is asked here")
