"""Management tokens, replies that a repeated request gets again, and API keys that live for hours."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from accounts.encryption import EncryptedRecordField
from accounts.models import NAME


class ManagementToken(models.Model):
    """What is known of a token: everything but the token. See accounts.tokens.services for the format."""

    public_id = models.CharField(
        max_length=12, unique=True, editable=False, help_text="The part of the token that may be shown and logged."
    )
    name = models.CharField(
        max_length=100, validators=[NAME], help_text="What it is for, such as the program that uses it."
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="management_tokens",
        verbose_name="owner",
        help_text="Who answers for it. It can never do more than this person may at that moment.",
    )
    scopes = models.JSONField(default=list, help_text="What it may be used for, such as keys:read. * is everything.")
    networks_allowed = models.JSONField(
        "networks allowed",
        null=True,
        blank=True,
        help_text="Addresses from which it may be used, such as 192.0.2.0/24. Empty: from anywhere.",
    )
    expires_at = models.DateTimeField("expires", help_text="From then on it is refused. At most a year away.")
    revoked_at = models.DateTimeField(
        "revoked",
        null=True,
        blank=True,
        editable=False,
        help_text="Since when it is refused. Empty: it is not.",
    )
    digest = models.CharField(max_length=64, editable=False, help_text="HMAC-SHA-256 of the token, hex.")
    pepper = models.CharField(max_length=8, editable=False, help_text="Fingerprint of the digest's pepper.")
    last_used_at = models.DateTimeField(
        "last used", null=True, blank=True, editable=False, help_text="To the minute or so."
    )
    created_at = models.DateTimeField("created", default=timezone.now, editable=False, help_text="When it was made.")

    class Meta:
        verbose_name = "management token"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"

    @property
    def state(self) -> str:
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at <= timezone.now():
            return "expired"
        return "active" if self.user.is_active else "owner inactive"


class StoredReply(models.Model):
    """The reply to a request with an Idempotency-Key: whoever sends the request again gets this one again. Without a
    status the request is still under way."""

    caller = models.CharField(max_length=40, help_text="Whose key it is: a management token, or a signed-in person.")
    key_digest = models.CharField(max_length=64, help_text="SHA-256 of the Idempotency-Key, hex.")
    request_digest = models.CharField(max_length=64, help_text="SHA-256 of method, address and body, hex.")
    attempt = models.CharField(max_length=32, help_text="Of the process that answers it.")
    status = models.PositiveSmallIntegerField(null=True, help_text="HTTP status. Empty: still under way.")
    headers = models.JSONField(default=dict, help_text="Headers of the reply.")
    # Encrypted, because the reply to "make a key" has the key in it.
    body = EncryptedRecordField(blank=True, help_text="The reply, encrypted.")
    at = models.DateTimeField(default=timezone.now, help_text="When the request came (UTC).")

    class Meta:
        verbose_name = "stored reply"
        verbose_name_plural = "stored replies"
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["caller", "key_digest"], name="one_reply_per_idempotency_key")]
        indexes = [models.Index(fields=["at"], name="stored_reply_at")]

    def __str__(self) -> str:
        return f"{self.caller} at {self.at:%Y-%m-%d %H:%M}"


class ShortLivedKey(models.Model):
    """An API key that was made in exchange for a token of the IdP. It is deleted some time after its end."""

    key = models.OneToOneField(
        "accounts.ApiKey", on_delete=models.CASCADE, related_name="short_lived", help_text="The key."
    )
    issuer = models.CharField(max_length=500, help_text="The IdP that vouched for the person.")
    subject = models.CharField(max_length=255, help_text="What that IdP calls the person.")

    class Meta:
        verbose_name = "short-lived key"
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.key)
