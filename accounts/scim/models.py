"""Tokens of identity providers, and what they have told of people and groups beyond what a User holds."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from accounts.models import NAME


class ScimToken(models.Model):
    """What is known of a token: everything but the token. See accounts.scim.tokens for the format."""

    name = models.CharField(
        max_length=100, unique=True, validators=[NAME], help_text="Which identity provider has it, such as Entra ID."
    )
    public_id = models.CharField(
        max_length=12, unique=True, editable=False, help_text="The part of the token that may be shown and logged."
    )
    provider = models.ForeignKey(
        "sso.IdentityProvider",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        verbose_name="identity provider",
        help_text="Through which its people sign in: they get the account that was made here for them, and its group "
        "rules count. Empty: the only one there is.",
    )
    digest = models.CharField(max_length=64, editable=False, help_text="HMAC-SHA-256 of the token, hex.")
    pepper = models.CharField(max_length=8, editable=False, help_text="Fingerprint of the digest's pepper.")
    disabled = models.BooleanField(default=False, help_text="A disabled token is refused at once.")
    created_at = models.DateTimeField("created", default=timezone.now, editable=False, help_text="When it was made.")
    last_used_at = models.DateTimeField(
        "last used", null=True, blank=True, editable=False, help_text="To the minute or so."
    )

    class Meta:
        verbose_name = "SCIM token"
        ordering = ["name"]

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"


class ScimPerson(models.Model):
    """What an IdP has said of a person."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="scim", help_text="The person."
    )
    provider = models.ForeignKey(
        "sso.IdentityProvider",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        verbose_name="identity provider",
        help_text="Which of them has told of the person.",
    )
    external_id = models.CharField(
        "external id", max_length=255, blank=True, db_index=True, help_text="What the IdP calls them."
    )
    active = models.BooleanField(
        default=True, help_text="What the IdP says. Somebody who was made inactive here stays so until it changes."
    )
    attributes = models.JSONField(default=dict, help_text="What else it says: department, further addresses and so on.")
    deleted = models.BooleanField(default=False, help_text="The IdP has deleted them. Here they are inactive.")
    changed_at = models.DateTimeField("changed", default=timezone.now, help_text="When the IdP last changed them.")

    class Meta:
        verbose_name = "person by SCIM"
        verbose_name_plural = "people by SCIM"

    def __str__(self) -> str:
        return str(self.user)


class ScimGroup(models.Model):
    """A group at the IdP. What it gives here, group rules say."""

    name = models.CharField(max_length=255, unique=True, help_text="As the IdP shows it.")
    external_id = models.CharField(
        "external id", max_length=255, blank=True, db_index=True, help_text="What the IdP calls it, often a UUID."
    )
    created_at = models.DateTimeField("created", default=timezone.now, editable=False, help_text="When it came.")
    changed_at = models.DateTimeField("changed", default=timezone.now, help_text="When the IdP last changed it.")

    class Meta:
        verbose_name = "group by SCIM"
        verbose_name_plural = "groups by SCIM"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def names(self) -> set[str]:
        """A rule may mean it by either: claims of Entra ID have the external id."""
        return {self.name, self.external_id} - {""}


class ScimMember(models.Model):
    group = models.ForeignKey(ScimGroup, on_delete=models.CASCADE, related_name="members", help_text="The group.")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="scim_members", help_text="Who is in it."
    )

    class Meta:
        verbose_name = "member by SCIM"
        verbose_name_plural = "members by SCIM"
        constraints = [models.UniqueConstraint(fields=["group", "user"], name="one_scim_member_per_group")]

    def __str__(self) -> str:
        return f"{self.user} in {self.group}"
