"""Who may call: users, teams, their members, and API keys.

One installation is one organisation. The team is the boundary of isolation; every person has a personal team. A key
belongs to a person in a team, or to the team itself (a service key).
Allowed models: null = every enabled model, [] = none. In effect: the intersection of team, user and key.
"""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

NAME = RegexValidator(r"^[^\x00-\x1f\x7f]+\Z", "Control characters are not allowed in a name.")


class User(AbstractUser):
    """A person. Signs in through the identity provider or with a local account."""

    models_allowed = models.JSONField(
        "models allowed",
        null=True,
        blank=True,
        help_text="Models this person may call, through any key. Empty: every model the team may call.",
    )

    class Meta:
        verbose_name = "user"


class Team(models.Model):
    name = models.CharField(
        max_length=100, unique=True, validators=[NAME], help_text="Shown in usage and reports. Must be unique."
    )
    cost_center = models.CharField(
        "cost centre",
        max_length=64,
        blank=True,
        help_text="Where this team's spend is charged, as your finance department writes it.",
    )
    models_allowed = models.JSONField(
        "models allowed",
        null=True,
        blank=True,
        help_text="Models this team's keys may call. Empty: every enabled model.",
    )
    disabled = models.BooleanField(
        default=False, help_text="Switches off every key of this team at once, within about a second."
    )
    networks_allowed = models.JSONField(
        "networks allowed",
        null=True,
        blank=True,
        help_text="Addresses from which this team's keys may be used, such as 192.0.2.0/24. Empty: from anywhere.",
    )
    personal_of = models.OneToOneField(
        "User",
        null=True,
        blank=True,
        editable=False,
        on_delete=models.CASCADE,
        related_name="personal_team",
        help_text="Set on the team that every person has for themselves.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False, help_text="When the team was made.")
    members: models.ManyToManyField[User, Membership] = models.ManyToManyField(
        "User", through="Membership", related_name="teams", help_text="Its people."
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    class Role(models.TextChoices):
        MEMBER = "member", "Member"
        MANAGER = "manager", "Manager"

    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="memberships", help_text="The person in the team."
    )
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships", help_text="The team.")
    role = models.CharField(
        max_length=16,
        choices=Role,
        default=Role.MEMBER,
        help_text="A member uses the team's models; a manager also looks after its keys, budgets and members.",
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "team"], name="one_membership_per_user_and_team")]

    def __str__(self) -> str:
        return f"{self.user} in {self.team}"


class ApiKey(models.Model):
    """What is known of a key: everything but the key. See accounts.keys for the format."""

    public_id = models.CharField(
        max_length=12, unique=True, editable=False, help_text="The part of the key that may be shown and logged."
    )
    name = models.CharField(
        max_length=100, validators=[NAME], help_text="What the key is for, such as the app that uses it."
    )
    user = models.ForeignKey(
        User,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="api_keys",
        verbose_name="owner",
        help_text="Whose key it is. Empty: a service key that belongs to the team itself.",
    )
    team = models.ForeignKey(
        Team, on_delete=models.CASCADE, related_name="api_keys", help_text="The team whose limits and models apply."
    )
    digest = models.CharField(max_length=64, blank=True, editable=False, help_text="HMAC-SHA-256 of the key, hex.")
    pepper = models.CharField(max_length=8, blank=True, editable=False, help_text="Fingerprint of the digest's pepper.")
    previous_digest = models.CharField(
        max_length=64, blank=True, editable=False, help_text="Digest of the secret before the last rotation."
    )
    previous_pepper = models.CharField(max_length=8, blank=True, editable=False, help_text="And its pepper.")
    previous_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Until when the secret before the rotation still works."
    )
    imported_digest = models.CharField(
        max_length=64,
        unique=True,
        null=True,
        blank=True,
        editable=False,
        help_text="Digest of a key of a replaced system, by which alone it is found.",
    )
    endpoints_allowed = models.JSONField(
        "endpoints allowed",
        null=True,
        blank=True,
        help_text="Endpoints this key may call, such as chat/completions. Empty: all.",
    )
    models_allowed = models.JSONField(
        "models allowed",
        null=True,
        blank=True,
        help_text="Models this key may call. Empty: every model its team and owner may call.",
    )
    networks_allowed = models.JSONField(
        "networks allowed",
        null=True,
        blank=True,
        help_text="Addresses from which this key may be used, such as 192.0.2.0/24. Empty: from anywhere its team may.",
    )
    expires_at = models.DateTimeField(
        "expires", null=True, blank=True, help_text="From then on the key is refused. Empty: never."
    )
    disabled = models.BooleanField(
        default=False, help_text="A disabled key is refused within about a second; it can be enabled again."
    )
    last_used_at = models.DateTimeField(
        "last used", null=True, blank=True, editable=False, help_text="To the minute or so."
    )
    created_at = models.DateTimeField("created", default=timezone.now, editable=False, help_text="When it was made.")

    class Meta:
        verbose_name = "API key"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["team", "user", "name"], name="one_key_name_per_owner"),
            # A second one, because a null is distinct from every null (and SQLite knows no other way).
            models.UniqueConstraint(
                fields=["team", "name"],
                condition=models.Q(user=None),
                name="one_service_key_name_per_team",
                violation_error_message="The team already has a service key with this name.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"

    def clean(self) -> None:
        if self.imported_digest and not self.digest and self.expires_at is None:
            raise ValidationError({"expires_at": "A key of a replaced system needs an end date."})


class ConfigVersion(models.Model):
    """A counter for each part of the configuration. Every change of that part raises it in the same transaction;
    the data plane watches the counters and reads again what has changed."""

    part = models.CharField(max_length=16, primary_key=True, help_text="identity, catalogue, policies or limits.")
    number = models.BigIntegerField(default=0, help_text="Raised by every change.")

    class Meta:
        verbose_name = "configuration version"

    def __str__(self) -> str:
        return f"{self.part} {self.number}"
