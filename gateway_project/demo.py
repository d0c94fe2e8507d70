"""A month in the life of an invented company, for `manage.py seed_demo`: its people, models and calls, and what its
policies (gateway_project.demo_policies) found in them. What they may spend: gateway_project.demo_limits.

Everything that chance decides comes from one `random.Random`, so a seed and an end give the same month again; only the
keys' secrets are really random, and nobody ever sees them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any

from django.db import transaction

from accounts.models import ApiKey, Membership, Team, User
from accounts.services import create_key, create_user, touch_keys
from accounts.time_ids import to_unix_us
from gateway_project import demo_limits, demo_policies
from policies import recording
from policies.models import Policy
from proxy.models import Model, Provider, Route
from usage.models import ModelPrice
from usage.price_list import price_of
from usage.pricing import Price, TokenUsage, cost
from usage.rollups import roll_up_all
from usage.services import EVENT_COLUMNS, Row, insert_events, new_event_id, set_price

HOUR = timedelta(hours=1)
BATCH_ROWS = 500


# --- who and what there is ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class DemoModel:
    """Prices in US dollars per million tokens; None: nobody knows. `first_token_s` and `tokens_per_s` are typical."""

    name: str
    provider: str
    usd: tuple[str, str, str] | None  # input, output, cached input
    first_token_s: float
    tokens_per_s: float
    reasons: bool = False
    endpoint: str = "chat/completions"


@dataclass(frozen=True, slots=True)
class DemoKey:
    """`owner` "" makes a service key. `share` of all calls; `models` by how often; `prompt` and `answer`: typical
    tokens. Machines call day and night, people in office hours."""

    team: str
    owner: str
    name: str
    share: int
    models: dict[str, int]
    prompt: int
    answer: int
    streams: float
    program: str


PROVIDERS = {"demo-openai": "openai", "demo-anthropic": "anthropic", "demo-own-gpus": "vllm"}
MODELS = {
    model.name: model
    for model in (
        DemoModel("gpt-5.4-mini", "demo-openai", ("0.75", "4.50", "0.075"), 0.45, 120),
        DemoModel("gpt-5.5", "demo-openai", ("5", "30", "0.5"), 1.4, 65, reasons=True),
        DemoModel("text-embedding-3-small", "demo-openai", ("0.02", "0", "0.02"), 0.12, 1, endpoint="embeddings"),
        DemoModel("claude-sonnet-5", "demo-anthropic", ("3", "15", "0.3"), 0.9, 80),
        DemoModel("claude-haiku-4-5", "demo-anthropic", ("1", "5", "0.1"), 0.5, 140),
        DemoModel("llama-3.3-70b", "demo-own-gpus", None, 0.6, 45),
    )
}
TEAMS = {
    "Customer support": "4100",
    "Engineering": "4200",
    "Data science": "4310",
    "Marketing": "4400",
    "Legal": "4520",
}
_SDK, _NODE, _CURL, _CHAT = "OpenAI/Python 3.52.0", "OpenAI/JS 7.4.0", "curl/8.5.0", "Mozilla/5.0 (chat)"
_GPT, _MINI, _SONNET, _HAIKU, _LLAMA = "gpt-5.5", "gpt-5.4-mini", "claude-sonnet-5", "claude-haiku-4-5", "llama-3.3-70b"
KEYS = (
    DemoKey("Customer support", "", "helpdesk-bot", 30, {_MINI: 8, _HAIKU: 2}, 1400, 220, 0.9, _NODE),
    DemoKey("Customer support", "maria.santos", "reply-drafts", 6, {_HAIKU: 1}, 900, 300, 0.6, _CHAT),
    DemoKey("Engineering", "", "code-review", 14, {_SONNET: 6, _GPT: 2}, 6500, 900, 0.2, _SDK),
    DemoKey("Engineering", "jonas.weber", "editor", 12, {_SONNET: 5, _MINI: 3}, 3800, 420, 0.95, _NODE),
    DemoKey("Engineering", "priya.nair", "laptop", 7, {_GPT: 2, _SONNET: 4}, 2600, 650, 0.8, _SDK),
    DemoKey("Engineering", "tom.okafor", "experiments", 3, {_LLAMA: 3, _MINI: 1}, 700, 350, 0.3, _CURL),
    DemoKey("Data science", "", "search-index", 12, {"text-embedding-3-small": 1}, 420, 0, 0.0, _SDK),
    DemoKey("Data science", "lena.fischer", "notebook", 5, {_GPT: 3, _LLAMA: 2}, 1800, 800, 0.4, _SDK),
    DemoKey("Data science", "kenji.mori", "labelling", 6, {_LLAMA: 4, _HAIKU: 1}, 600, 60, 0.0, _SDK),
    DemoKey("Marketing", "sofia.rossi", "campaigns", 4, {_MINI: 3, _SONNET: 1}, 500, 700, 0.9, _CHAT),
    DemoKey("Legal", "anna.lindqvist", "contracts", 2, {_SONNET: 3, _GPT: 1}, 14000, 1100, 0.7, _CHAT),
)  # fmt: skip

# Calls per hour of the day, Monday to Sunday.
_OFFICE = (0, 0, 0, 0, 0, 0, 1, 4, 10, 16, 18, 17, 11, 14, 18, 17, 14, 9, 4, 2, 1, 1, 0, 0)
_ALWAYS = (5, 4, 4, 4, 4, 5, 6, 8, 11, 13, 14, 14, 12, 13, 14, 13, 12, 11, 9, 8, 8, 7, 6, 5)
_OFFICE_DAYS = (1.0, 1.1, 1.1, 1.05, 0.85, 0.08, 0.06)
_ALWAYS_DAYS = (1.0, 1.0, 1.0, 1.0, 0.95, 0.6, 0.55)

# (share in a thousand calls, status, code): what goes wrong on an ordinary day. The rest is answered.
_TROUBLES = (
    (9, 499, "client_left"),
    (8, 429, "rate_limit_exceeded"),
    (5, 400, ""),
    (4, 400, "policy_violation"),
    (4, 404, "model_not_found"),
    (3, 401, "invalid_api_key"),
    (3, 502, "upstream_unavailable"),
    (3, 504, "upstream_timeout"),
)
_OUTAGE_SHARE = 0.7  # of the calls to the provider that has its bad hours
_REFUSED_BY_US = frozenset({400, 401, 404})


@dataclass(frozen=True, slots=True)
class Made:
    """What a run has added, for the command to print. The rows of a run before are used again and not counted."""

    teams: int
    users: int
    keys: int
    providers: int
    models: int
    policies: int
    calls: int
    cost_nano_usd: int


def seed(rng: random.Random, end: datetime, days: int, calls: int) -> Made:
    """Add the company, if it is not there yet, and `calls` calls in the `days` before `end`. Rolls them up."""
    start = (end - timedelta(days=days)).astimezone(UTC)
    before = _counts()
    with transaction.atomic():
        prices = _make_models(start)
        keys = [(key, _make_key(key, start)) for key in KEYS]
        demo_limits.make([row for _, row in keys], start)
        found = demo_policies.make(sorted({row.team for _, row in keys}, key=str), start)
    total = 0
    batch: list[Row] = []
    findings: list[dict[str, Any]] = []
    last_used: dict[int, datetime] = {}
    for event in _traffic(rng, keys, prices, start, end.astimezone(UTC), calls):
        total += event["cost_nano_usd"] or 0
        if event["key_id"]:
            last_used[event["key_id"]] = _moment(event["at"])
        batch.append(tuple(event[name] for name in EVENT_COLUMNS))
        findings += found.in_call(rng, event)
        if len(batch) == BATCH_ROWS:
            insert_events(batch)
            batch.clear()
    insert_events(batch)
    recording.record(findings)
    touch_keys(last_used)
    roll_up_all()
    added = {kind: count - before[kind] for kind, count in _counts().items()}
    return Made(added[Team], added[User], added[ApiKey], added[Provider], added[Model], added[Policy], calls, total)


def _counts() -> dict[type, int]:
    """A person's own team does not count: it comes with them."""
    counts: dict[type, int] = {kind: kind.objects.count() for kind in (User, ApiKey, Provider, Model, Policy)}
    return counts | {Team: Team.objects.filter(personal_of=None).count()}


def _make_models(start: datetime) -> dict[str, Price | None]:
    """Providers without credentials and switched off, and models switched off: nothing here is ever called. Returns
    what each model costs. A model that is there already is left as it is."""
    providers = {
        name: Provider.objects.get_or_create(name=name, defaults={"kind": kind, "enabled": False, **_address(kind)})[0]
        for name, kind in PROVIDERS.items()
    }
    for model in MODELS.values():
        row, made = Model.objects.get_or_create(
            name=model.name, defaults={"enabled": False, "description": "For the demo."}
        )
        if made:
            Route.objects.create(model=row, provider=providers[model.provider])
            if model.usd:
                _set_price(model, start)
    return {name: _price(name) for name in MODELS}


def _address(kind: str) -> dict[str, str]:
    return {"base_url": "http://gpus.example.org:8000/v1"} if kind == "vllm" else {}


def _set_price(model: DemoModel, start: datetime) -> None:
    given, answered, cached = (Decimal(usd) for usd in model.usd or ())
    set_price(
        model.name,
        input_usd_per_mtok=given,
        output_usd_per_mtok=answered,
        cached_usd_per_mtok=cached,
        valid_from=start,
    )


def _price(model: str) -> Price | None:
    row = ModelPrice.objects.filter(model=model).order_by("valid_from", "id").last()
    return price_of(row) if row else None


def _make_key(wanted: DemoKey, start: datetime) -> ApiKey:
    """The key with its team and owner, as old as the traffic. Its secret is thrown away: nobody can call with it."""
    team, _ = Team.objects.get_or_create(
        name=wanted.team, defaults={"cost_center": TEAMS[wanted.team], "created_at": start}
    )
    user = _make_person(wanted.owner, team) if wanted.owner else None
    found = ApiKey.objects.filter(team=team, user=user, name=wanted.name).first()
    if found:
        return found
    key, _ = create_key(wanted.name, team, user)
    key.created_at = start
    key.save(update_fields=["created_at"])
    return key


def _make_person(username: str, team: Team) -> User:
    """Without a password: nobody can sign in as them."""
    user = User.objects.filter(username=username).first()
    user = user or create_user(username, email=f"{username}@example.org")
    Membership.objects.get_or_create(user=user, team=team)
    return user


# --- what they do ---------------------------------------------------------------------------------------------------
def _traffic(
    rng: random.Random,
    keys: list[tuple[DemoKey, ApiKey]],
    prices: dict[str, Price | None],
    start: datetime,
    end: datetime,
    calls: int,
) -> Iterator[dict[str, Any]]:
    """Usage events, oldest first."""
    hours = [start + number * HOUR for number in range(max((end - start) // HOUR, 1))]
    office = list(accumulate(_OFFICE[hour.hour] * _OFFICE_DAYS[hour.weekday()] + 0.01 for hour in hours))
    always = list(accumulate(_ALWAYS[hour.hour] * _ALWAYS_DAYS[hour.weekday()] for hour in hours))
    outage = rng.choice(hours[len(hours) // 2 :])
    callers = rng.choices(keys, weights=[key.share for key, _ in keys], k=calls)
    moments = [
        rng.choices(hours, cum_weights=office if key.owner else always)[0] + rng.random() * HOUR for key, _ in callers
    ]
    for at, number in sorted((at, number) for number, at in enumerate(moments)):
        key, row = callers[number]
        in_outage = outage <= at < outage + 2 * HOUR
        yield _event(rng, to_unix_us(at), key, row, prices, "demo-anthropic" if in_outage else "")


def _event(
    rng: random.Random, at_us: int, key: DemoKey, row: ApiKey, prices: dict[str, Price | None], broken_provider: str
) -> dict[str, Any]:
    model = MODELS[rng.choices(list(key.models), weights=list(key.models.values()))[0]]
    status, code = _trouble(rng, broken=model.provider == broken_provider)
    streamed = model.endpoint != "embeddings" and rng.random() < key.streams
    reached = status not in _REFUSED_BY_US
    usage = _usage(rng, key, model, status)
    first_byte_s = model.first_token_s * rng.lognormvariate(0, 0.45)
    seconds = first_byte_s + usage.completion / model.tokens_per_s * rng.lognormvariate(0, 0.2)
    if status == 504:
        seconds = 60 + rng.random()
    elif not reached:
        seconds = rng.uniform(0.0008, 0.004)
    identifier = new_event_id(at_us)
    price = prices[model.name]
    event = {
        "id": identifier,
        "at": at_us,
        "request_id": f"req_{identifier}",
        "endpoint": model.endpoint,
        "key_id": row.pk,
        "key_label": str(row),
        "user_id": row.user_id,
        "team_id": row.team_id,
        "model": model.name,
        "provider": model.provider if reached else "",
        "upstream_model": model.name if reached else "",
        "status": status,
        "error_code": code,
        "streamed": streamed and status in (200, 499),
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "cached_tokens": usage.cached,
        "cache_write_tokens": 0,
        "reasoning_tokens": usage.reasoning,
        "estimated": usage.estimated,
        "cost_nano_usd": cost(usage, price) if price else (None if usage.prompt else 0),
        "latency_us": int(seconds * 1e6),
        "first_byte_us": int((first_byte_s if streamed else seconds) * 1e6) if status == 200 else None,
        "attempts": _attempts(rng, status) if reached else 0,
        "end_user": f"customer-{rng.randrange(400)}" if key.name == "helpdesk-bot" else key.owner,
        "client_ip": f"10.{list(TEAMS).index(key.team) + 20}.{rng.randrange(4)}.{rng.randrange(2, 250)}",
        "user_agent": key.program,
        "organization": "",
        "trace_id": f"{rng.getrandbits(128):032x}" if not key.owner else "",
        "above_hold": False,
        "failed_tries": "",
        "spent_budget_id": None,
        "refused_by": "",
        "units": {},
        "tags": {"app": key.name} if not key.owner else {},
    }
    return event | (_NOBODY if status == 401 else {})


_NOBODY: dict[str, Any] = {
    "key_id": None,
    "key_label": "",
    "user_id": None,
    "team_id": None,
    "model": "",
    "end_user": "",
    "tags": {},
}


def _trouble(rng: random.Random, *, broken: bool) -> tuple[int, str]:
    """Status and error code of a call. `broken`: its provider has bad hours."""
    if broken and rng.random() < _OUTAGE_SHARE:
        return 502, "upstream_unavailable"
    dice = rng.random() * 1000
    for share, status, code in _TROUBLES:
        dice -= share
        if dice < 0:
            return status, code
    return 200, ""


def _usage(rng: random.Random, key: DemoKey, model: DemoModel, status: int) -> TokenUsage:
    if status not in (200, 499):
        return TokenUsage()
    prompt = 1 + int(key.prompt * rng.lognormvariate(0, 0.6))
    if model.endpoint == "embeddings":
        return TokenUsage(prompt)
    completion = 1 + int(key.answer * rng.lognormvariate(0, 0.7))
    if status == 499:
        return TokenUsage(prompt, completion // 3, estimated=True)
    reasoning = int(completion * rng.uniform(0.5, 2.5)) if model.reasons else 0
    cached = prompt // 128 * 128 * 3 // 4 if prompt > 1024 and rng.random() < 0.35 else 0
    return TokenUsage(prompt, completion + reasoning, cached=cached, reasoning=reasoning)


def _attempts(rng: random.Random, status: int) -> int:
    return 2 if status >= 500 or rng.random() < 0.01 else 1


def _moment(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1e6, UTC)
