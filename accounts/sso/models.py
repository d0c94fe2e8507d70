"""Who may sign in through which identity provider (IdP), and what its groups give.

An identity is an IdP and the subject that it names (OIDC `sub`, SAML NameID): allauth's SocialAccount holds that pair.
Nobody is ever found by an e-mail address.
"""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone

from accounts.encryption import EncryptedField, decrypt, encrypt
from accounts.models import ApiKey, Membership, Team

SLUG = RegexValidator(r"^[a-z0-9][a-z0-9-]*\Z", "Small letters, digits and hyphens only.")
NAMES = "Names separated by commas; the first that is there counts. Empty: the usual names."


class IdentityProvider(models.Model):
    class Kind(models.TextChoices):
        OIDC = "oidc", "OpenID Connect"
        SAML = "saml", "SAML 2.0"

    class Origin(models.TextChoices):
        ADMIN = "admin", "Here"
        ENVIRONMENT = "environment", "Environment"

    kind = models.CharField(max_length=8, choices=Kind, help_text="Which of the two protocols the IdP speaks.")
    slug = models.CharField(
        "short name",
        max_length=40,
        unique=True,
        validators=[SLUG],
        help_text="Part of the addresses that the IdP must know, and of every identity; it can never be changed.",
    )
    name = models.CharField(max_length=80, help_text="On the button of the sign-in page, such as: University of X.")
    enabled = models.BooleanField(default=True, help_text="Off: nobody signs in through it; its people and keys stay.")
    hidden = models.BooleanField(
        default=False, help_text="No button on the sign-in page. It works through its own address, to be tried out."
    )
    origin = models.CharField(
        max_length=16,
        choices=Origin,
        default=Origin.ADMIN,
        editable=False,
        help_text="Where it is set up: what the environment sets is changed there.",
    )

    discovery_url = models.CharField(
        "discovery URL",
        max_length=500,
        blank=True,
        help_text="OpenID Connect: the issuer's address, with or without /.well-known/openid-configuration.",
    )
    client_id = models.CharField(
        "client ID", max_length=255, blank=True, help_text="OpenID Connect: as the IdP gave it when you registered."
    )
    client_secret = EncryptedField(
        blank=True, help_text="OpenID Connect: the client's secret. Kept encrypted and never shown again."
    )
    scopes = models.CharField(
        max_length=255,
        default="openid profile email",
        blank=True,
        help_text="OpenID Connect: to ask for, separated by blanks; some IdPs give groups for a scope groups only.",
    )
    metadata_url = models.CharField(
        "metadata URL", max_length=500, blank=True, help_text="SAML: where the IdP publishes its metadata."
    )
    metadata_xml = models.TextField(
        "metadata XML", blank=True, help_text="SAML: the metadata itself, where there is no address for it."
    )
    idp_entity_id = models.CharField(
        "entity ID",
        max_length=255,
        blank=True,
        help_text="SAML: which one, where the metadata of a federation names several.",
    )
    allow_idp_initiated = models.BooleanField(
        "may begin at the IdP",
        default=False,
        help_text="SAML: takes sign-ins that were not asked for here. Somebody may then be signed in as another "
        "without noticing; leave it off unless your IdP knows no other way.",
    )
    sp_key = EncryptedField(blank=True, editable=False, help_text="SAML: signs our requests. Kept encrypted.")
    sp_certificate = models.TextField(
        blank=True, editable=False, help_text="SAML: with which the IdP verifies our requests; in our metadata."
    )

    subject_names = models.CharField(
        "subject from",
        max_length=500,
        blank=True,
        help_text="SAML only: the attribute that identifies a person for good, such as "
        "urn:oasis:names:tc:SAML:attribute:subject-id. Empty: the NameID, which must then be persistent.",
    )
    username_names = models.CharField("username from", max_length=500, blank=True, help_text=NAMES)
    email_names = models.CharField("e-mail from", max_length=500, blank=True, help_text=NAMES)
    first_name_names = models.CharField("first name from", max_length=500, blank=True, help_text=NAMES)
    last_name_names = models.CharField("last name from", max_length=500, blank=True, help_text=NAMES)
    affiliation_names = models.CharField(
        "affiliation from",
        max_length=500,
        blank=True,
        help_text="Names separated by commas; all of them count. Empty: eduPersonAffiliation and its like.",
    )
    group_names = models.CharField(
        "groups from",
        max_length=500,
        blank=True,
        help_text="Names separated by commas; all of them count; a dot goes into a claim, as in realm_access.roles. "
        "Empty: groups, roles, isMemberOf, eduPersonEntitlement and their like.",
    )

    affiliations_allowed = models.TextField(
        blank=True,
        help_text="Who may sign in: one affiliation a line, such as staff or student@example.org; * stands for any "
        "text. Empty, with no groups below either: everybody whom the IdP lets in.",
    )
    groups_allowed = models.TextField(
        blank=True, help_text="Who may sign in: one group a line. One affiliation or one group is enough."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False, help_text="When it was set up.")

    class Meta:
        verbose_name = "identity provider"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.kind == self.Kind.OIDC and not (self.discovery_url and self.client_id):
            raise ValidationError("OpenID Connect needs a discovery URL and a client ID.")
        if self.kind == self.Kind.SAML and not (self.metadata_url or self.metadata_xml):
            raise ValidationError("SAML needs a metadata URL or the metadata itself.")

    @property
    def secret(self) -> str:
        """Raises Undecryptable."""
        return decrypt(self.client_secret)

    @property
    def login_path(self) -> str:
        return reverse(f"{'openid_connect' if self.kind == self.Kind.OIDC else 'saml'}_login", args=[self.slug])

    def set_secret(self, text: str) -> None:
        self.client_secret = encrypt(text)


class GroupRule(models.Model):
    """Whoever has it at the IdP has what it gives here, from their next sign-in on; who lost it there loses it here."""

    class Source(models.TextChoices):
        GROUP = "group", "Group"
        AFFILIATION = "affiliation", "Affiliation"

    provider = models.ForeignKey(
        IdentityProvider,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="rules",
        verbose_name="identity provider",
        help_text="Whose groups are meant. Empty: those of every IdP.",
    )
    source = models.CharField(
        "kind", max_length=16, choices=Source, default=Source.GROUP, help_text="Which of the two the value is."
    )
    value = models.CharField(
        max_length=255, help_text="As the IdP writes it, letter by letter; * stands for any text, as in course-*."
    )
    team = models.ForeignKey(
        Team,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="group_rules",
        help_text="Makes them a member of this team.",
    )
    role = models.CharField(
        max_length=16,
        choices=Membership.Role,
        default=Membership.Role.MEMBER,
        help_text="In that team. A manager looks after its keys, budgets and members.",
    )
    group = models.ForeignKey(
        "auth.Group",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
        verbose_name="permissions",
        help_text="Gives them the permissions of this group of the gateway, such as Viewer or Operator.",
    )
    makes_staff = models.BooleanField("staff", default=False, help_text="They may sign in to the admin.")
    makes_superuser = models.BooleanField("superuser", default=False, help_text="They may do everything.")
    enabled = models.BooleanField(default=True, help_text="Off: as if it were not there.")

    class Meta:
        verbose_name = "group rule"
        ordering = ["value", "id"]

    def __str__(self) -> str:
        return f"{self.get_source_display()} {self.value}"

    def clean(self) -> None:
        if not (self.team or self.group or self.makes_staff or self.makes_superuser):
            raise ValidationError("A rule must give something: a team, permissions, staff or superuser.")
        if self.team and self.team.personal_of_id:
            raise ValidationError({"team": "A personal team belongs to one person."})


class SignOn(models.Model):
    """What is known of a person from their last sign-in through an IdP, and what the rules have given them."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sign_on", help_text="The person."
    )
    provider = models.ForeignKey(
        IdentityProvider, null=True, on_delete=models.SET_NULL, related_name="+", help_text="Through which IdP."
    )
    affiliations = models.JSONField(default=list, help_text="At that sign-in.")
    groups = models.JSONField(default=list, help_text="At that sign-in.")
    at = models.DateTimeField("last sign-in", default=timezone.now, db_index=True, help_text="When it was.")
    staff_by_rule = models.BooleanField(default=False, help_text="A rule made them staff, so a rule may end it.")
    superuser_by_rule = models.BooleanField(default=False, help_text="Likewise.")
    groups_by_rule = models.JSONField(default=list, help_text="Ids of the permission groups that rules gave.")

    class Meta:
        verbose_name = "sign-on"

    def __str__(self) -> str:
        return str(self.user)


class RuleMembership(models.Model):
    """A membership that a rule gave. One that somebody gave by hand has none of these, and no rule ends it."""

    membership = models.OneToOneField(
        Membership, on_delete=models.CASCADE, related_name="by_rule", help_text="The membership."
    )

    class Meta:
        verbose_name = "membership by rule"

    def __str__(self) -> str:
        return str(self.membership)


class SsoSession(models.Model):
    """A session of the browser that began at an IdP, so that the IdP can end it."""

    session_key = models.CharField(max_length=40, unique=True, help_text="Of Django's session.")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", help_text="Who is signed in."
    )
    provider = models.ForeignKey(
        IdentityProvider, on_delete=models.CASCADE, related_name="+", help_text="Through which IdP."
    )
    subject = models.CharField(max_length=255, help_text="Who they are at the IdP.")
    idp_session = models.CharField(max_length=255, blank=True, help_text="The IdP's session: sid or SessionIndex.")
    created_at = models.DateTimeField(default=timezone.now, db_index=True, help_text="When they signed in.")

    class Meta:
        verbose_name = "session"
        indexes = [models.Index(fields=["provider", "subject"], name="sso_session_subject")]

    def __str__(self) -> str:
        return f"{self.user} through {self.provider}"


class SpentToken(models.Model):
    """An assertion or a log-out token that was used: it is not taken a second time."""

    digest = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of IdP and token id, hex.")
    expires_at = models.DateTimeField(db_index=True, help_text="From then on it would be refused anyway.")

    class Meta:
        verbose_name = "spent token"

    def __str__(self) -> str:
        return self.digest


class LapsedKey(models.Model):
    """A key that was disabled because its owner had not signed in for too long. Their next sign-in enables it."""

    key = models.OneToOneField(ApiKey, on_delete=models.CASCADE, related_name="lapsed", help_text="The key.")
    at = models.DateTimeField(default=timezone.now, help_text="When it lapsed.")

    class Meta:
        verbose_name = "lapsed key"

    def __str__(self) -> str:
        return str(self.key)
