"""What alerts are made of: rules that watch, destinations that hear, alerts that fired, and their deliveries."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.timezone import now

from accounts.encryption import EncryptedField, decrypt, encrypt


class AlertDestination(models.Model):
    """Somewhere that alerts are sent to. Its address is a secret: whoever has the URL of a channel can post there."""

    class Kind(models.TextChoices):
        EMAIL = "email", "E-mail"
        WEBHOOK = "webhook", "Webhook (signed JSON)"
        SLACK = "slack", "Slack"
        TEAMS = "teams", "Microsoft Teams"
        DISCORD = "discord", "Discord"

    name = models.CharField(max_length=100, unique=True, help_text="What you call it, such as “on-call channel”.")
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.EMAIL, help_text="How it is reached.")
    address = EncryptedField(help_text="The URL, or e-mail addresses separated by commas. Kept encrypted.")
    address_shown = models.CharField(
        "address", max_length=300, editable=False, help_text="As much of the address as may be shown."
    )
    secret = EncryptedField(blank=True, help_text="With which a webhook's messages are signed. Kept encrypted.")
    private_network = models.BooleanField(
        "may be in the private network",
        default=False,
        help_text="Allows addresses of this machine and the local network, and http://. Only superusers can set this.",
    )
    enabled = models.BooleanField(default=True, help_text="Nothing is sent to a destination that is switched off.")
    created_at = models.DateTimeField(default=now, editable=False, help_text="When it was made (UTC).")

    class Meta:
        verbose_name = "alert destination"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def set_address(self, clear: str) -> None:
        """Of a URL only the host may be shown."""
        self.address = encrypt(clear)
        if self.kind == self.Kind.EMAIL:
            self.address_shown = clear if len(clear) <= 300 else clear[:299] + "…"
        else:
            self.address_shown = f"{(urlsplit(clear).hostname or '')[:290]}/…"

    def read_address(self) -> str:
        """Raises accounts.encryption.Undecryptable."""
        return decrypt(self.address)

    def set_secret(self, clear: str) -> None:
        self.secret = encrypt(clear)

    def read_secret(self) -> str:
        """Raises accounts.encryption.Undecryptable."""
        return decrypt(self.secret)


class AlertRule(models.Model):
    """What to watch, from when on it is an alert, and who is told. Which numbers count depends on the kind."""

    class Kind(models.TextChoices):
        BUDGET = "budget", "Budget used up to a share"
        ERRORS = "errors", "Error rate"
        LATENCY = "latency", "Latency"
        PROVIDER = "provider", "Provider down, and back"
        BLOCKS = "blocks", "Repeated blocks of a key"
        SIGN_IN = "sign_in", "Failed sign-ins"
        KEY_EXPIRY = "key_expiry", "Keys about to expire"

    name = models.CharField(max_length=100, unique=True, help_text="Shown in the alert, such as “Budgets of research”.")
    kind = models.CharField(max_length=16, choices=Kind, help_text="What is watched.")
    thresholds = models.JSONField(
        "per cent of the budget",
        default=list,
        blank=True,
        help_text="An alert at each of these shares of a budget, once in each of its windows.",
    )
    soft = models.BooleanField("soft limit too", default=True, help_text="Also when a budget's soft limit is reached.")
    percent = models.PositiveSmallIntegerField(
        "per cent",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="From this share of failed calls on.",
    )
    latency_ms = models.PositiveIntegerField(
        "slower than",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Milliseconds that more than one call in twenty takes (the 95th percentile).",
    )
    at_least = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="With fewer there is no alert."
    )
    minutes = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(120)],
        help_text="How far back is looked.",
    )
    days = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(365)], help_text="So long before."
    )
    team = models.ForeignKey(
        "accounts.Team",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
        help_text="Only what belongs to this team. Empty: everyone's.",
    )
    model = models.CharField(max_length=200, blank=True, help_text="Only this model (its public name). Empty: all.")
    provider = models.CharField(max_length=100, blank=True, help_text="Only this provider. Empty: all.")
    destinations: models.ManyToManyField[AlertDestination, models.Model] = models.ManyToManyField(
        AlertDestination,
        blank=True,
        related_name="rules",
        help_text="Who is told. None chosen: every destination, also those that are added later.",
    )
    tell_when_over = models.BooleanField(
        "say when it is over", default=True, help_text="Another message when all is well again."
    )
    enabled = models.BooleanField(default=True, help_text="A rule that is switched off watches nothing.")

    class Meta:
        verbose_name = "alert rule"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """Something that a rule has found, once. It stays open while it goes on; the next time it is a new alert."""

    class Severity(models.TextChoices):
        INFO = "info", "Info"
        WARNING = "warning", "Warning"
        CRITICAL = "critical", "Critical"

    id = models.UUIDField(primary_key=True, help_text="Time-ordered (UUID version 7).")
    fired_at = models.DateTimeField("time", help_text="When it was found (UTC).")
    rule = models.ForeignKey(
        AlertRule, null=True, on_delete=models.SET_NULL, related_name="alerts", help_text="The rule that found it."
    )
    rule_name = models.CharField("rule", max_length=100, help_text="What the rule was called at that time.")
    kind = models.CharField(max_length=16, choices=AlertRule.Kind, help_text="What it is about.")
    subject = models.CharField(max_length=400, help_text="What exactly, such as “provider openai”.")
    number = models.PositiveIntegerField(default=1, help_text="The how manieth time.")
    severity = models.CharField(max_length=8, choices=Severity, help_text="How bad it is.")
    title = models.CharField(max_length=300, help_text="In a line.")
    text = models.TextField(help_text="In a few lines.")
    facts = models.JSONField(default=dict, help_text="The figures, as webhooks get them.")
    well_since = models.DateTimeField(null=True, help_text="All has been well since then (UTC). Empty: it goes on.")
    resolved_at = models.DateTimeField("over", null=True, help_text="When it was over (UTC). Empty: it goes on.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            # What makes it once, however many look at the same time.
            models.UniqueConstraint(fields=["rule", "subject", "number"], name="one_alert_per_occurrence"),
        ]
        indexes = [
            models.Index(fields=["kind", "-id"], name="alert_kind"),
            models.Index(fields=["-id"], name="alert_open", condition=models.Q(resolved_at=None)),
        ]

    def __str__(self) -> str:
        return self.title


class Delivery(models.Model):
    """One message to one destination: tried until it is there, or given up. Made with its alert, in one transaction."""

    class About(models.TextChoices):
        FIRED = "fired", "It happened"
        OVER = "over", "It is over"

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        SENT = "sent", "Sent"
        GIVEN_UP = "given_up", "Given up"

    id = models.UUIDField(primary_key=True, help_text="Time-ordered (UUID version 7). The message's id, at every try.")
    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="deliveries", help_text="The alert.")
    destination = models.ForeignKey(
        AlertDestination, on_delete=models.CASCADE, related_name="deliveries", help_text="Where to."
    )
    about = models.CharField(max_length=8, choices=About, help_text="What it says.")
    state = models.CharField(max_length=8, choices=State, default=State.WAITING, help_text="How far it is.")
    attempts = models.PositiveSmallIntegerField(default=0, help_text="How often it was tried.")
    next_try_at = models.DateTimeField(help_text="Not before (UTC).")
    sent_at = models.DateTimeField(null=True, help_text="When it was taken (UTC).")
    last_error = models.CharField(max_length=400, blank=True, help_text="Why the last try failed.")

    class Meta:
        verbose_name_plural = "deliveries"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["alert", "destination", "about"], name="one_delivery_per_message"),
        ]
        indexes = [
            models.Index(fields=["next_try_at"], name="delivery_due", condition=models.Q(state="waiting")),
            models.Index(fields=["destination", "-id"], name="delivery_destination"),
        ]

    def __str__(self) -> str:
        return f"{self.alert} to {self.destination}"


class SignInFailures(models.Model):
    """How often signing in failed in one minute, from one address, for one account. Kept for two days."""

    minute = models.DateTimeField(help_text="Start of the minute (UTC).")
    client_ip = models.CharField("client IP", max_length=45, blank=True, help_text="From where; empty: not known.")
    # Not what was typed when nobody is called that: it may be a password in the wrong field.
    account = models.CharField(max_length=150, blank=True, help_text="The account; empty: there is none of that name.")
    count = models.PositiveIntegerField(default=1, help_text="How often.")

    class Meta:
        verbose_name = verbose_name_plural = "failed sign-ins"
        constraints = [
            models.UniqueConstraint(fields=["minute", "client_ip", "account"], name="one_row_per_minute_and_account"),
        ]

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M}: {self.count}"
