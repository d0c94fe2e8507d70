"""What was used: one event a call, rollups over them, and the prices that turn tokens into money.

Events are append-only and time-ordered: the id is a UUID of version 7, so a time window is a range of ids and the
newest page needs neither a count nor a sort. Names are copied in, so that an event outlives what it names; the
person is a severable reference. Money is integer nano-USD.
"""

from __future__ import annotations

from decimal import Decimal

from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone

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
    end_user = models.CharField(max_length=128, help_text="The body's `user`, as the app sent it.")
    client_ip = models.CharField("client IP", max_length=45, help_text="Caller's address.")
    user_agent = models.CharField(max_length=200, help_text="Caller's program.")
    organization = models.CharField(max_length=100, help_text="The openai-organization header.")
    trace_id = models.CharField("trace id", max_length=100, help_text="x-gatehouse-trace-id or traceparent.")
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


class Rollup(models.Model):
    """Sums over the events of one minute or hour. Recomputed whole, so it is right however late events come.

    Hours are split by key, user, team, model, provider and outcome; minutes (kept for two days, for the front page)
    by nothing but the outcome. Latencies are a histogram, because percentiles do not add up.
    """

    class Grain(models.TextChoices):
        MINUTE = "minute", "Minute"
        HOUR = "hour", "Hour"

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
        indexes = [models.Index(fields=["grain", "start"], name="rollup_grain_start")]

    def __str__(self) -> str:
        return f"{self.grain} {self.start:%Y-%m-%d %H:%M}"


class ModelPrice(models.Model):
    """What a model costs from a day on. The newest row that has begun counts; older ones stay for older calls."""

    model = models.CharField(max_length=200, help_text="Public name of the model.")
    valid_from = models.DateTimeField(
        default=timezone.now, help_text="From when this price counts (UTC). Calls before keep the price of their time."
    )
    input_nano_usd_per_mtok = models.BigIntegerField(
        "input", validators=[MinValueValidator(0)], help_text="Nano-USD per million prompt tokens."
    )
    output_nano_usd_per_mtok = models.BigIntegerField(
        "output", validators=[MinValueValidator(0)], help_text="Nano-USD per million completion tokens."
    )
    cached_nano_usd_per_mtok = models.BigIntegerField(
        "cached input",
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="Nano-USD per million prompt tokens read from the provider's cache. Empty: as input.",
    )
    cache_write_nano_usd_per_mtok = models.BigIntegerField(
        "cache write",
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="Nano-USD per million prompt tokens written to the provider's cache. Empty: as input.",
    )

    class Meta:
        verbose_name = "model price"
        ordering = ["model", "-valid_from"]
        indexes = [models.Index(fields=["model", "-valid_from"], name="price_model_from")]

    def __str__(self) -> str:
        return f"{self.model} from {self.valid_from:%Y-%m-%d}"
