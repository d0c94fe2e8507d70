"""What was used: one event a call, rollups over them, and the prices that turn tokens into money.

Events are append-only and time-ordered: the id is a UUID of version 7, so a time window is a range of ids and the
newest page needs neither a count nor a sort. Names are copied in, so that an event outlives what it names; the
person is a severable reference. Money is integer nano-USD.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.core.validators import MinValueValidator
from django.db import models
from django.utils.timezone import now

from usage import pricing


class UsageEvent(models.Model):
    """One call: answered, refused, failed or abandoned. Written by usage.journal only."""

    id = models.UUIDField(primary_key=True, help_text="Time-ordered (UUID version 7).")
    at = models.DateTimeField("time", help_text="When the call came in (UTC).")
    request_id = models.CharField(max_length=128, help_text="x-request-id: the caller's, or made by the gateway.")
    endpoint = models.CharField(max_length=40, help_text="Such as chat/completions.")
    key = models.ForeignKey(
        "accounts.ApiKey",
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name="API key",
        help_text="The key that called. Empty: no valid key.",
    )
    key_label = models.CharField("key", max_length=120, help_text="Name and public id of the key at that time.")
    user = models.ForeignKey(
        "accounts.User",
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="The key's owner.",
    )
    team = models.ForeignKey(
        "accounts.Team",
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="The key's team.",
    )
    model = models.CharField(max_length=200, help_text="The model as the gateway names it.")
    provider = models.CharField(max_length=100, help_text="The provider that answered, or was tried last.")
    upstream_model = models.CharField(max_length=200, help_text="The model as the provider names it.")
    status = models.PositiveSmallIntegerField(
        help_text="HTTP status of the answer; 499: the client left, 0: the gateway died in the middle."
    )
    error_code = models.CharField("error", max_length=64, help_text="Code of the error; empty when answered.")
    streamed = models.BooleanField(help_text="Answered as a stream of events.")
    prompt_tokens = models.BigIntegerField(help_text="Tokens sent, cached ones included.")
    completion_tokens = models.BigIntegerField(help_text="Tokens produced, reasoning included.")
    cached_tokens = models.BigIntegerField(help_text="Prompt tokens that the provider had cached.")
    cache_write_tokens = models.BigIntegerField(help_text="Prompt tokens that the provider wrote to its cache.")
    reasoning_tokens = models.BigIntegerField(help_text="Completion tokens spent on reasoning.")
    estimated = models.BooleanField(help_text="Tokens counted by the gateway: the provider reported none.")
    cost_nano_usd = models.BigIntegerField(
        "cost", null=True, help_text="Nano-USD. Empty: unpriced, the model's price is not known."
    )
    latency_us = models.BigIntegerField("latency", help_text="From request to last byte, microseconds.")
    first_byte_us = models.BigIntegerField(
        "first byte", null=True, help_text="From request to the first byte of the answer, microseconds."
    )
    attempts = models.PositiveSmallIntegerField(help_text="Routes tried; 0: no provider heard of it.")
    failed_tries = models.CharField(
        max_length=300,
        default="",
        db_default="",
        help_text="Providers that failed before the one above was asked, each with its status: azure:503, openai:429.",
    )
    spent_budget_id = models.BigIntegerField(
        null=True, help_text="The budget that had no room for it: it was refused, or went to a cheaper model."
    )
    refused_by = models.CharField(
        max_length=400,
        default="",
        db_default="",
        help_text="The rate limit or budget that refused it, by its name of that time. Empty: none did.",
    )
    end_user = models.CharField(max_length=128, help_text="The body's `user`, as the app sent it.")
    client_ip = models.CharField("client IP", max_length=45, help_text="Caller's address.")
    user_agent = models.CharField(max_length=200, help_text="Caller's program.")
    organization = models.CharField(max_length=100, help_text="The openai-organization header.")
    trace_id = models.CharField("trace id", max_length=100, help_text="x-gatehouse-trace-id or traceparent.")
    above_hold = models.BooleanField(
        default=False, help_text="Cost more than was held for it on its budgets; booked in full all the same."
    )
    units = models.JSONField(
        default=dict,
        help_text="What else is billed: audio_prompt, audio_completion, images, tool calls by name, batch.",
    )
    tags = models.JSONField(help_text="Free tags from the x-gatehouse-tags header.")

    class Meta:
        verbose_name = "usage event"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["key", "-id"], name="event_key"),
            models.Index(fields=["user", "-id"], name="event_user"),
            # With another column at the end: what is filtered by both reads no rows that fit only one of them.
            models.Index(fields=["team", "-id", "model"], name="event_team"),
            models.Index(fields=["model", "-id", "provider"], name="event_model"),
            models.Index(fields=["provider", "-id", "model"], name="event_provider"),
            models.Index(fields=["error_code", "-id"], name="event_error", condition=~models.Q(error_code="")),
            models.Index(fields=["-id"], name="event_failed", condition=~models.Q(error_code="")),
            models.Index(fields=["request_id"], name="event_request"),
            # What alerts look for: next to nothing of all events.
            models.Index(fields=["-id"], name="event_failed_tries", condition=~models.Q(failed_tries="")),
            models.Index(
                fields=["spent_budget_id", "-id"],
                name="event_spent_budget",
                condition=models.Q(spent_budget_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.request_id}"

    @property
    def cost_usd(self) -> Decimal | None:
        return None if self.cost_nano_usd is None else pricing.to_usd(self.cost_nano_usd)


class DirtyHour(models.Model):
    """An hour with events, and how far it has been rolled up. Marked in the transaction that inserts the events.

    Its rollups are out of date while `marks` is above `rolled_up`. The row stays and `marks` only rises: if it began
    again at 1, a roll-up that was overtaken could take a new mark for the one that it has seen.
    """

    hour = models.DateTimeField(primary_key=True, help_text="Start of the hour (UTC).")
    marks = models.BigIntegerField(default=1, help_text="How often events were added.")
    rolled_up = models.BigIntegerField(default=0, help_text="The marks that its rollups include.")

    class Meta:
        verbose_name = "hour to roll up"
        indexes = [
            models.Index(fields=["hour"], name="hour_dirty", condition=models.Q(marks__gt=models.F("rolled_up"))),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}:00"


class DirtyDay(models.Model):
    """A day with hours, and how far it has been summed up. Marked in the transaction that writes an hour's rollups;
    what DirtyHour says of `marks` and `rolled_up` holds here too."""

    day = models.DateTimeField(primary_key=True, help_text="Start of the day (UTC).")
    marks = models.BigIntegerField(default=1, help_text="How often its hours were rolled up.")
    rolled_up = models.BigIntegerField(default=0, help_text="The marks that its rollups include.")
    hours_deleted = models.BooleanField(
        default=False, help_text="Its sums by hour were too old to be kept. Those of the day are complete all the same."
    )

    class Meta:
        verbose_name = "day to roll up"

    def __str__(self) -> str:
        return f"{self.day:%Y-%m-%d}"


class Rollup(models.Model):
    """Sums over the events of one minute, hour or day (UTC). Recomputed whole, so it is right however late events come.

    Hours and days are split by key, user, team, model, provider and outcome; minutes (kept for two days, for the front
    page) by nothing but the outcome. Latencies are a histogram, because percentiles do not add up. Adjustments count in
    the period of their event. What was deleted because of its age goes on counting: its sums are kept as "pruned" (in
    any number of rows for one hour and group), so that an hour is always what is pruned of it and what is left.
    """

    class Grain(models.TextChoices):
        MINUTE = "minute", "Minute"
        HOUR = "hour", "Hour"
        DAY = "day", "Day"
        PRUNED = "pruned", "Of deleted events"

    class Outcome(models.TextChoices):
        OK = "ok", "Answered"
        REFUSED = "refused", "Refused"
        FAILED = "failed", "Failed"
        ABANDONED = "abandoned", "Abandoned"

    grain = models.CharField(max_length=8, choices=Grain, help_text="Length of the period.")
    start = models.DateTimeField(help_text="Start of the period (UTC).")
    key_id = models.BigIntegerField(null=True, help_text="API key.")
    user_id = models.BigIntegerField(null=True, help_text="Owner of the key.")
    team_id = models.BigIntegerField(null=True, help_text="Team of the key.")
    model = models.CharField(max_length=200, blank=True, help_text="Model.")
    provider = models.CharField(max_length=100, blank=True, help_text="Provider.")
    outcome = models.CharField(max_length=16, choices=Outcome, help_text="How the calls ended.")
    calls = models.BigIntegerField(help_text="Number of calls.")
    unpriced_calls = models.BigIntegerField(help_text="Calls whose cost is not known.")
    prompt_tokens = models.BigIntegerField(help_text="Tokens sent.")
    completion_tokens = models.BigIntegerField(help_text="Tokens produced.")
    cost_nano_usd = models.BigIntegerField(help_text="Cost of the priced calls, nano-USD.")
    latency_us = models.BigIntegerField(help_text="Sum of latencies, microseconds.")
    latency_histogram = models.JSONField(help_text="Calls per latency bucket (usage.histogram).")
    first_byte_histogram = models.JSONField(help_text="Calls per bucket of time to first byte.")

    class Meta:
        indexes = [
            models.Index(fields=["grain", "start"], name="rollup_grain_start"),
            # What budgets of one key, user or team have spent.
            models.Index(fields=["key_id", "grain", "start"], name="rollup_key"),
            models.Index(fields=["user_id", "grain", "start"], name="rollup_user"),
            models.Index(fields=["team_id", "grain", "start"], name="rollup_team"),
            # What the dashboard shows of one model or provider.
            models.Index(fields=["model", "grain", "start"], name="rollup_model"),
            models.Index(fields=["provider", "grain", "start"], name="rollup_provider"),
            # There are few providers, so many rollups of each: with all that is added up, they need not be read.
            models.Index(
                fields=[
                    *("provider", "start", "key_id", "user_id", "team_id", "model", "outcome", "calls"),
                    *("unpriced_calls", "prompt_tokens", "completion_tokens", "cost_nano_usd", "id"),
                ],
                condition=models.Q(grain="day"),
                name="rollup_provider_days",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.grain} {self.start:%Y-%m-%d %H:%M}"


class Subtotal(models.Model):
    """The rollups of one hour or day added up by one dimension alone: a row per key, one per user, and so on, and one
    of all calls. Whoever asks for one dimension only reads these: there are few, and they are narrow. Of days there is
    also a row per owner (key, its user and its team), without latencies: who pays is asked by month.

    Written with the rollups that they are sums of, in the same transaction (usage.subtotals), so they always agree.
    """

    class Dimension(models.TextChoices):
        ALL = "all", "All calls"
        KEY = "key", "API key"
        USER = "user", "User"
        TEAM = "team", "Team"
        MODEL = "model", "Model"
        PROVIDER = "provider", "Provider"
        OWNER = "owner", "API key, user and team"

    pk = models.CompositePrimaryKey("grain", "dimension", "start", "member")
    grain = models.CharField(max_length=8, help_text="Length of the period: hour or day.")
    dimension = models.CharField(max_length=8, choices=Dimension, help_text="What it is split by.")
    start = models.DateTimeField(help_text="Start of the period (UTC).")
    member = models.CharField(
        max_length=200, blank=True, help_text="Id or name. Empty: calls that belong to none, or all calls."
    )
    calls = models.BigIntegerField(help_text="Number of calls.")
    refused = models.BigIntegerField(help_text="Of these, refused: the caller's fault.")
    failed = models.BigIntegerField(help_text="Of these, failed: ours or the provider's fault.")
    abandoned = models.BigIntegerField(help_text="Of these, abandoned by the client.")
    unpriced_calls = models.BigIntegerField(help_text="Calls whose cost is not known.")
    prompt_tokens = models.BigIntegerField(help_text="Tokens sent.")
    completion_tokens = models.BigIntegerField(help_text="Tokens produced.")
    cost_nano_usd = models.BigIntegerField(help_text="Cost of the priced calls, nano-USD.")
    # A list of integers as JSON, but as text: as jsonb the two of them are most of the row.
    latency_histogram = models.TextField(help_text="Answered calls per latency bucket (usage.histogram).")
    first_byte_histogram = models.TextField(help_text="Answered calls per bucket of time to first byte.")

    class Meta:
        indexes = [models.Index(fields=["dimension", "member", "grain", "start"], name="subtotal_member")]

    def __str__(self) -> str:
        return f"{self.grain} {self.start:%Y-%m-%d %H:%M}, {self.dimension} {self.member}"


class Rerating(models.Model):
    """One run that priced the events of a time again: by whom, why, and what came of it."""

    at = models.DateTimeField(default=now, editable=False, help_text="When it was run (UTC).")
    start = models.DateTimeField(help_text="Events from then on (UTC).")
    end = models.DateTimeField(help_text="And before then (UTC).")
    model = models.CharField(max_length=200, blank=True, help_text="Only events of this model. Empty: of all.")
    reason = models.CharField(max_length=200, help_text="Why, for whoever reads the books later.")
    by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+", help_text="Who ran it."
    )
    events = models.BigIntegerField(default=0, help_text="Events that were looked at.")
    changed = models.BigIntegerField(default=0, help_text="Events whose cost has changed.")
    delta_nano_usd = models.BigIntegerField(default=0, help_text="Sum of the changes, nano-USD.")
    ended_at = models.DateTimeField(null=True, help_text="When it was done (UTC). Empty: it was cut off, or goes on.")

    class Meta:
        verbose_name = "re-rating"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d} to {self.end:%Y-%m-%d}: {self.reason}"


class Adjustment(models.Model):
    """A later change to the cost of an event, which itself stays as it was written. What an event costs is its own
    figure and its adjustments; in sums an adjustment counts at the time of its event."""

    id = models.UUIDField(primary_key=True, help_text="Time-ordered by the event's time (UUID version 7).")
    event_id = models.UUIDField(db_index=True, help_text="The usage event.")
    at = models.DateTimeField(help_text="Time of the event (UTC).")
    made_at = models.DateTimeField(default=now, help_text="When it was adjusted (UTC).")
    rerating = models.ForeignKey(
        Rerating, null=True, on_delete=models.PROTECT, related_name="adjustments", help_text="The run that made it."
    )
    key_id = models.BigIntegerField(null=True, help_text="As the event has it.")
    user_id = models.BigIntegerField(null=True, help_text="As the event has it.")
    team_id = models.BigIntegerField(null=True, help_text="As the event has it.")
    model = models.CharField(max_length=200, help_text="As the event has it.")
    provider = models.CharField(max_length=100, help_text="As the event has it.")
    status = models.PositiveSmallIntegerField(help_text="As the event has it.")
    delta_nano_usd = models.BigIntegerField("change", help_text="Added to the cost, nano-USD; may be negative.")
    priced_calls = models.SmallIntegerField(
        default=0, help_text="1: the event was unpriced until now; -1: it is from now on."
    )

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.event_id}: {self.delta_nano_usd}"


def _price(name: str, help_text: str, **options: Any) -> models.BigIntegerField:
    return models.BigIntegerField(name, validators=[MinValueValidator(0)], help_text=help_text, **options)


def _optional_price(name: str, help_text: str) -> models.BigIntegerField:
    return _price(name, help_text, null=True, blank=True)


class ModelPrice(models.Model):
    """What a model costs from a day on. The newest row that has begun counts; older ones stay for older calls.
    A team's own price counts before the price for everyone."""

    model = models.CharField(max_length=200, help_text="Public name of the model.")
    team = models.ForeignKey(
        "accounts.Team",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
        help_text="Only calls of this team cost this. Empty: everyone's.",
    )
    valid_from = models.DateTimeField(
        default=now, help_text="From when this price counts (UTC). Calls before keep the price of their time."
    )
    input_nano_usd_per_mtok = _price("input", "Nano-USD per million prompt tokens.")
    output_nano_usd_per_mtok = _price("output", "Nano-USD per million completion tokens.")
    cached_nano_usd_per_mtok = _optional_price(
        "cached input", "Nano-USD per million prompt tokens read from the provider's cache. Empty: as input."
    )
    cache_write_nano_usd_per_mtok = _optional_price(
        "cache write", "Nano-USD per million prompt tokens written to the provider's cache. Empty: as input."
    )
    cache_write_1h_nano_usd_per_mtok = _optional_price(
        "cache write for an hour",
        "Nano-USD per million prompt tokens that the provider's cache keeps for an hour. Empty: as cache write.",
    )
    reasoning_nano_usd_per_mtok = _optional_price(
        "reasoning", "Nano-USD per million completion tokens spent on reasoning. Empty: as output."
    )
    audio_input_nano_usd_per_mtok = _optional_price(
        "audio input", "Nano-USD per million prompt tokens of audio. Empty: as input."
    )
    audio_output_nano_usd_per_mtok = _optional_price(
        "audio output", "Nano-USD per million completion tokens of audio. Empty: as output."
    )
    image_input_nano_usd_per_mtok = _optional_price(
        "image input", "Nano-USD per million prompt tokens of pictures. Empty: as input."
    )
    image_output_nano_usd_per_mtok = _optional_price(
        "image output", "Nano-USD per million completion tokens of pictures. Empty: as output."
    )
    request_nano_usd = _price("request", "Nano-USD a call, on top of its tokens.", default=0)
    image_nano_usd = _optional_price("image", "Nano-USD per image made. Empty: images cost their tokens only.")
    tools_nano_usd = models.JSONField(
        "tools", default=dict, blank=True, help_text="Nano-USD per call of a provider's own tool, such as web_search."
    )
    batch_percent = models.PositiveSmallIntegerField(
        "batch", default=100, help_text="What a call in a batch costs, in per cent of this price. Usually 50."
    )
    tiers = models.JSONField(
        default=list,
        blank=True,
        help_text="Dearer prices of long prompts: from_prompt_tokens, and any of the prices per million; nano-USD.",
    )

    class Meta:
        verbose_name = "model price"
        ordering = ["model", "-valid_from"]
        indexes = [models.Index(fields=["model", "-valid_from"], name="price_model_from")]

    def __str__(self) -> str:
        return f"{self.model} from {self.valid_from:%Y-%m-%d}"


# --- limits ----------------------------------------------------------------------------------------------------------
class Owned(models.Model):
    """Whom a budget or a limit is for. Exactly the field that `scope` names is set, none for the installation and for
    client IPs; `model` narrows it to calls of one model."""

    class Scope(models.TextChoices):
        INSTALLATION = "installation", "The whole installation"
        TEAM = "team", "A team"
        USER = "user", "A user"
        KEY = "key", "An API key"

    scope = models.CharField("for", max_length=16, choices=Scope, help_text="Whose calls count.")
    team = models.ForeignKey(
        "accounts.Team",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="%(class)ss",
        help_text="The team.",
    )
    user = models.ForeignKey(
        "accounts.User",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="%(class)ss",
        help_text="The person, through any key in any team.",
    )
    key = models.ForeignKey(
        "accounts.ApiKey",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="%(class)ss",
        verbose_name="API key",
        help_text="The API key.",
    )
    model = models.CharField(
        max_length=200, blank=True, help_text="Only calls of this model (its public name). Empty: of every model."
    )

    class Meta:
        abstract = True

    @property
    def owner_id(self) -> int | None:
        """The id of the team, user or key. None: the installation's, or every client IP's."""
        owner_id: int | None = getattr(self, f"{self.scope}_id", None)
        return owner_id

    @property
    def owner_name(self) -> str:
        owner = getattr(self, self.scope, None)
        return str(owner) if owner is not None else self.get_scope_display()


class Budget(Owned):
    """How much may be spent in each window, in money or in tokens. Every budget that fits a call must have room."""

    class Unit(models.TextChoices):
        USD = "usd", "US dollars"
        TOKENS = "tokens", "Tokens"

    class Per(models.TextChoices):
        HOUR = "hour", "Hour"
        DAY = "day", "Day"
        WEEK = "week", "Week (from Monday)"
        MONTH = "month", "Calendar month"
        TOTAL = "total", "Total, without an end"

    class OnExhaustion(models.TextChoices):
        REFUSE = "refuse", "Refuse the call"
        FALL_BACK = "fall_back", "Use a cheaper model"

    unit = models.CharField(max_length=8, choices=Unit, default=Unit.USD, help_text="What is counted.")
    limit = models.BigIntegerField(
        validators=[MinValueValidator(0)], help_text="Hard limit of each window: nano-USD or tokens. 0 allows nothing."
    )
    soft = models.BigIntegerField(
        "soft limit",
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="Alerts from here on, refuses nothing: nano-USD or tokens. Empty: none of its own.",
    )
    per = models.CharField(
        max_length=8, choices=Per, default=Per.MONTH, help_text="The window. Nothing is carried over into the next one."
    )
    timezone = models.CharField(
        "time zone",
        max_length=64,
        blank=True,
        help_text="In which days, weeks and months begin, such as Europe/Berlin. Empty: the installation's.",
    )
    counts_from = models.DateTimeField(
        "counts from", default=now, help_text="Calls before then do not count on a total budget (UTC)."
    )
    on_exhaustion = models.CharField(
        "when it is spent", max_length=16, choices=OnExhaustion, default=OnExhaustion.REFUSE, help_text="What happens."
    )
    fallback_model = models.CharField(
        "cheaper model", max_length=200, blank=True, help_text="Public name of the model that calls then go to."
    )
    enabled = models.BooleanField(default=True, help_text="A budget that is switched off limits nobody.")
    created_at = models.DateTimeField(default=now, editable=False, help_text="When it was made.")

    class Meta:
        ordering = ["scope", "id"]
        indexes = [models.Index(fields=["scope", "unit", "per"], name="budget_scope")]

    def __str__(self) -> str:
        model = f", {self.model}" if self.model else ""
        return f"{self.owner_name}{model}: {self.get_unit_display()} per {self.per}"


class TopUp(models.Model):
    """More for one window of a budget, given by an admin. Never changed; a mistake is mended by a negative one."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="top_ups", help_text="The budget.")
    amount = models.BigIntegerField(help_text="Added to the limit of that window: nano-USD or tokens; may be negative.")
    window_start = models.DateTimeField(help_text="Start of the window that it is for (UTC).")
    reason = models.CharField(max_length=200, help_text="Why, for whoever reads the books later.")
    by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+", help_text="Who gave it."
    )
    at = models.DateTimeField(default=now, editable=False, help_text="When it was given (UTC).")

    class Meta:
        verbose_name = "top-up"
        ordering = ["-id"]
        indexes = [models.Index(fields=["window_start"], name="top_up_window")]

    def __str__(self) -> str:
        return f"{self.amount} for {self.budget}"


class Limit(Owned):
    """How fast. Empty fields limit nothing. For client IPs it holds for each address by itself."""

    class Scope(models.TextChoices):
        INSTALLATION = "installation", "The whole installation"
        TEAM = "team", "A team"
        USER = "user", "A user"
        KEY = "key", "An API key"
        CLIENT_IP = "client_ip", "Each client IP"

    scope = models.CharField("for", max_length=16, choices=Scope, help_text="Whose calls count.")
    requests_per_minute = models.PositiveIntegerField(
        null=True, blank=True, help_text="Calls a minute, evenly refilled; a minute's worth may come at once."
    )
    tokens_per_minute = models.PositiveIntegerField(
        null=True, blank=True, help_text="Prompt and completion tokens a minute, evenly refilled."
    )
    max_parallel = models.PositiveIntegerField(
        "parallel calls", null=True, blank=True, help_text="Calls under way at the same time."
    )

    class Meta:
        verbose_name = "rate limit"
        ordering = ["scope", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["scope", "model"],
                condition=models.Q(team=None, user=None, key=None),
                name="one_limit_per_scope_and_model",
            ),
            models.UniqueConstraint(
                fields=["team", "model"], condition=~models.Q(team=None), name="one_limit_per_team_and_model"
            ),
            models.UniqueConstraint(
                fields=["user", "model"], condition=~models.Q(user=None), name="one_limit_per_user_and_model"
            ),
            models.UniqueConstraint(
                fields=["key", "model"], condition=~models.Q(key=None), name="one_limit_per_key_and_model"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.owner_name}{f', {self.model}' if self.model else ''}"


class MoneySettings(models.Model):
    """One row: what holds for all budgets, limits and reports."""

    class WhenAway(models.TextChoices):
        REFUSE = "refuse", "Refuse calls that have a budget"
        SERVE = "serve", "Serve them, and count them when Redis is back"

    timezone = models.CharField(
        "time zone",
        max_length=64,
        default="UTC",
        help_text="In which days, weeks and months of budgets begin, such as Europe/Berlin.",
    )
    when_redis_is_away = models.CharField(
        max_length=8,
        choices=WhenAway,
        default=WhenAway.REFUSE,
        help_text="While Redis cannot be reached. Keys without a budget are always served.",
    )
    default_max_tokens = models.PositiveIntegerField(
        default=4096,
        help_text="Sent to the provider as the longest answer when a call on a budget names none, because nobody could "
        "know what it costs at most. Never more than the model's own maximum.",
    )
    blocks_to_throttle = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="A key that policies block so often within ten minutes has to wait. Empty: never. Mind that a "
        "service's key then waits for what one of its users sends.",
    )
    throttle_s = models.PositiveIntegerField("seconds to wait", default=60, help_text="How long it then has to wait.")
    currency = models.CharField(
        max_length=3, default="USD", help_text="In which amounts are shown, such as EUR. The books stay in US dollars."
    )
    units_per_usd = models.DecimalField(
        "one US dollar is", max_digits=14, decimal_places=6, default=Decimal(1), help_text="In that currency."
    )
    events_kept_days = models.PositiveIntegerField(
        null=True, blank=True, help_text="Usage events older than so many days are deleted. Empty: never."
    )
    rollups_kept_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Sums by hour older than so many days are deleted; those by day stay. Empty: never.",
    )

    class Meta:
        verbose_name = verbose_name_plural = "money & limits"

    def __str__(self) -> str:
        return "Money & limits"


# Alerts are models of this app too; what uses them imports them from where they are.
from usage import alert_models  # noqa: E402, F401
