"""Where calls go: providers, the models callers ask for, and the routes between them."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from accounts.encryption import EncryptedField, decrypt, decrypt_json, encrypt, encrypt_json
from proxy.ssrf import RefusedUrl, split_url

PROVIDER_NAME = RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", "Letters, digits, dot, dash and underscore only.")
MODEL_NAME = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*\Z", "Letters, digits and . _ : / @ + - only, beginning with a letter or digit."
)


def check_base_url(url: str) -> None:
    """Raises ValidationError. Whether the address may be reached is another question: see proxy.ssrf.check_url."""
    try:
        split_url(url)
    except RefusedUrl as error:
        raise ValidationError(str(error)) from None


class Provider(models.Model):
    """Somebody who answers calls, and how to reach them."""

    class Origin(models.TextChoices):
        ADMIN = "admin", "Set up here"
        ENVIRONMENT = "environment", "From the environment"

    name = models.CharField(
        max_length=100,
        unique=True,
        validators=[PROVIDER_NAME],
        help_text="Your name for it; callers see it in x-gatehouse-provider.",
    )
    kind = models.CharField(max_length=40, help_text="What it speaks. Fills in the usual base URL when that is empty.")
    base_url = models.CharField(
        "base URL",
        max_length=500,
        blank=True,
        validators=[check_base_url],  # Django's own URL field takes no host without a dot
        help_text="Up to and including the version, such as https://api.openai.com/v1. Empty: the kind's usual one.",
    )
    credential = EncryptedField(
        "API key", blank=True, help_text="The provider's key. Kept encrypted and never shown again."
    )
    extra_headers = EncryptedField(
        blank=True, help_text="Headers sent with every call, one `Name: value` a line. Kept encrypted."
    )
    api_version = models.CharField(
        "API version", max_length=40, blank=True, help_text="For Azure and Anthropic. Empty: the one we tested with."
    )
    connect_timeout_s = models.FloatField(
        "connect timeout",
        default=5,
        validators=[MinValueValidator(0.1), MaxValueValidator(120)],
        help_text="Seconds to reach it, before the next route is tried.",
    )
    first_byte_timeout_s = models.FloatField(
        "first-byte timeout",
        default=300,
        validators=[MinValueValidator(0.1), MaxValueValidator(3600)],
        help_text="Seconds until the answer, or the first event of a stream, must begin.",
    )
    idle_timeout_s = models.FloatField(
        "idle timeout",
        default=60,
        validators=[MinValueValidator(0.1), MaxValueValidator(3600)],
        help_text="Seconds of silence in the middle of an answer, after which it counts as broken.",
    )
    tls_verify = models.BooleanField(
        "verify TLS", default=True, help_text="Switch off only for a test machine: then anybody can pose as it."
    )
    tls_ca = models.TextField(
        "TLS authority", blank=True, help_text="Certificates (PEM) of your own authority. Empty: the usual public ones."
    )
    private_network = models.BooleanField(
        "may be in the private network",
        default=False,
        help_text="Allows addresses of this machine and the local network. Only superusers can set this.",
    )
    caller_key = models.BooleanField(
        "callers may bring their own key",
        default=False,
        help_text="A call may carry its own provider key in x-gatehouse-provider-key; it is used instead of ours.",
    )
    enabled = models.BooleanField(default=True, help_text="A disabled provider is skipped within about a second.")
    origin = models.CharField(
        max_length=16, choices=Origin, default=Origin.ADMIN, editable=False, help_text="Who set it up."
    )

    class Meta:
        ordering = ["name"]
        permissions = [("set_provider_secrets", "Can set the API keys and extra headers of providers")]

    def __str__(self) -> str:
        return self.name

    def set_credential(self, clear: str) -> None:
        self.credential = encrypt(clear)

    def read_credential(self) -> str:
        """Raises accounts.encryption.Undecryptable."""
        return decrypt(self.credential)

    def set_extra_headers(self, headers: dict[str, str]) -> None:
        self.extra_headers = encrypt_json(headers)

    def read_extra_headers(self) -> dict[str, str]:
        return decrypt_json(self.extra_headers)


class Model(models.Model):
    """What callers ask for by name."""

    name = models.CharField(
        max_length=200, unique=True, validators=[MODEL_NAME], help_text="What callers put in the `model` field."
    )
    aliases = models.JSONField(
        default=list, blank=True, help_text="Other names for the same model, so that clients need no change."
    )
    description = models.CharField(max_length=200, blank=True, help_text="Shown to people who choose a model.")
    context_window = models.PositiveIntegerField(
        null=True, blank=True, help_text="Tokens of prompt and answer together. Empty: not known."
    )
    max_output_tokens = models.PositiveIntegerField(
        null=True, blank=True, help_text="The most tokens one answer can have. Empty: not known."
    )
    time_budget_s = models.FloatField(
        "time budget",
        default=600,
        validators=[MinValueValidator(0.1), MaxValueValidator(7200)],
        help_text="Seconds for all routes together, until the answer begins.",
    )
    enabled = models.BooleanField(default=True, help_text="A disabled model is unknown to callers.")
    created_at = models.DateTimeField(default=timezone.now, editable=False, help_text="When it was set up.")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Route(models.Model):
    """One way to answer for a model. Tried in order; routes of the same order share the calls by weight."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="routes", help_text="What is asked for.")
    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="routes", help_text="Who answers it.")
    upstream_model = models.CharField(
        max_length=200, blank=True, help_text="The provider's name for the model (Azure: deployment). Empty: the same."
    )
    order = models.PositiveSmallIntegerField(default=0, help_text="Lower is tried first.")
    weight = models.PositiveSmallIntegerField(
        default=1, help_text="Share of the calls among routes of the same order; 0 only when the others fail."
    )
    enabled = models.BooleanField(default=True, help_text="A disabled route is skipped.")

    class Meta:
        ordering = ["order", "id"]
        constraints = [
            models.UniqueConstraint(fields=["model", "provider", "upstream_model"], name="one_route_per_target")
        ]

    def __str__(self) -> str:
        return f"{self.model} -> {self.provider}"
