"""What happened (AuditEvent, never changed), and what is personal in it (AuditDetail, of which parts can be erased).

See accounts.audit.chain for how the rows hold each other.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import models
from django.utils import timezone

from accounts.encryption import EncryptedField
from accounts.time_ids import EPOCH


def unix_us(event_id: UUID) -> int:
    """The moment that an id of accounts.time_ids tells."""
    ms, fraction = event_id.int >> 80, (event_id.int >> 64) & 0xFFF
    return ms * 1000 - (-fraction * 1000 // 4096)


class AuditEvent(models.Model):
    id = models.UUIDField(primary_key=True, editable=False, help_text="Rises with time: tells the moment.")
    number = models.BigIntegerField(unique=True, editable=False, help_text="Its place in the chain, from 1.")
    channel = models.CharField(
        max_length=16, editable=False, help_text="Through what it was done: admin, portal, api, command, scim, sso."
    )
    action = models.CharField(
        max_length=64, db_index=True, editable=False, help_text="What was done, such as apikey.created."
    )
    target_type = models.CharField(
        max_length=64, blank=True, editable=False, help_text="What it was done to, such as accounts.apikey."
    )
    target_id = models.CharField(max_length=64, blank=True, editable=False, help_text="Its id.")
    request_id = models.CharField(
        max_length=100, blank=True, editable=False, help_text="Of the request it was part of."
    )
    commitments = models.TextField(
        editable=False, help_text="JSON: for each part of the detail, a salted digest of it (SHA-256, hex)."
    )
    key = models.CharField(max_length=16, editable=False, help_text="Fingerprint of the key of the digest.")
    digest = models.CharField(
        max_length=64, editable=False, help_text="HMAC-SHA-256, hex, of this row and the digest of the one before."
    )

    detail: AuditDetail

    class Meta:
        verbose_name = "audit event"
        ordering = ["-id"]
        default_permissions = ("view",)
        indexes = [
            models.Index(fields=["target_type", "target_id", "id"], name="audit_event_target"),
            models.Index(fields=["request_id"], name="audit_event_request"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target_name}".strip()

    @property
    def at(self) -> datetime:
        return EPOCH + timedelta(microseconds=unix_us(self.id))

    @property
    def user_id(self) -> int | None:
        return self.detail.user_id

    @property
    def user_name(self) -> str:
        return self.detail.user_name

    @property
    def ip(self) -> str:
        return self.detail.ip

    @property
    def target_name(self) -> str:
        return self.detail.target_name

    @property
    def before(self) -> dict[str, Any]:
        return dict(json.loads(self.detail.before))

    @property
    def after(self) -> dict[str, Any]:
        return dict(json.loads(self.detail.after))

    @property
    def details(self) -> dict[str, Any]:
        return dict(json.loads(self.detail.details))


class AuditDetail(models.Model):
    """Of an event. A part that was erased is empty, and `erased` proves that it was us."""

    event = models.OneToOneField(
        AuditEvent,
        primary_key=True,
        editable=False,
        on_delete=models.CASCADE,
        related_name="detail",
        help_text="The event.",
    )
    # No foreign key: the trail outlives the person.
    user_id = models.BigIntegerField("user", null=True, editable=False, help_text="Id of who did it, if known.")
    user_name = models.CharField(max_length=200, blank=True, editable=False, help_text="Who did it, as shown then.")
    ip = models.CharField("address", max_length=64, blank=True, editable=False, help_text="Address it came from.")
    target_name = models.CharField(
        max_length=250, blank=True, editable=False, help_text="What it was done to, as shown then."
    )
    before = models.TextField(default="{}", editable=False, help_text="JSON: the changed fields as they were.")
    after = models.TextField(default="{}", editable=False, help_text="JSON: the changed fields as they are now.")
    details = models.TextField(default="{}", editable=False, help_text="JSON: what else there is to say.")
    salts = models.TextField(editable=False, help_text="JSON: the salt of each part's digest, hex.")
    erased = models.TextField(
        default="{}", editable=False, help_text="JSON: of each part that was erased, a keyed digest that proves it."
    )

    class Meta:
        verbose_name = "detail of an audit event"
        default_permissions = ()
        indexes = [
            models.Index(fields=["user_id", "event"], name="audit_detail_user"),
            models.Index(fields=["user_name", "event"], name="audit_detail_user_name"),
            models.Index(fields=["target_name", "event"], name="audit_detail_target"),
        ]

    def __str__(self) -> str:
        return f"detail of {self.event_id}"


class AuditHead(models.Model):
    """The end of the chain: one row. Who writes an event locks it until their transaction ends."""

    id = models.SmallIntegerField(primary_key=True, default=1, editable=False, help_text="Always 1.")
    number = models.BigIntegerField(default=0, help_text="Of the newest event; 0: there was none.")
    digest = models.CharField(max_length=64, blank=True, help_text="Of the newest event.")
    last_id = models.UUIDField(null=True, help_text="Id of the newest event.")
    key = models.CharField(max_length=16, blank=True, help_text="Fingerprint of the key of `signature`.")
    signature = models.CharField(max_length=64, blank=True, help_text="HMAC-SHA-256, hex, of this row.")

    class Meta:
        verbose_name = "end of the audit trail"
        default_permissions = ()

    def __str__(self) -> str:
        return f"event {self.number}"


class AuditCheckpoint(models.Model):
    """Old events were deleted: where the chain begins since then."""

    number = models.BigIntegerField(unique=True, help_text="Of the newest event that was deleted.")
    digest = models.CharField(max_length=64, help_text="Of that event.")
    events = models.BigIntegerField(help_text="How many were deleted since the checkpoint before.")
    made_at = models.DateTimeField(default=timezone.now, help_text="When.")
    key = models.CharField(max_length=16, help_text="Fingerprint of the key of `signature`.")
    signature = models.CharField(max_length=64, help_text="HMAC-SHA-256, hex, of this row.")

    class Meta:
        verbose_name = "checkpoint of the audit trail"
        default_permissions = ()

    def __str__(self) -> str:
        return f"after event {self.number}"


class AuditKey(models.Model):
    """A key under which events were signed. Derived from ENCRYPTION_KEYS, and kept here (encrypted with them), so that
    old events can still be verified when the key that it was derived from is no longer in use."""

    fingerprint = models.CharField(primary_key=True, max_length=16, help_text="What events call it.")
    secret = EncryptedField(help_text="The key, hex, encrypted.")
    made_at = models.DateTimeField(default=timezone.now, help_text="When it was written down.")

    class Meta:
        verbose_name = "key of the audit trail"
        default_permissions = ()

    def __str__(self) -> str:
        return self.fingerprint
