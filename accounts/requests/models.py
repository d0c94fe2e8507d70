"""Requests and the rules for them, courses, terms. Money is integer nano-USD."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone

from accounts.models import NAME, ApiKey, Team, User

PER_CHOICES = [
    ("hour", "hour"),
    ("day", "day"),
    ("week", "week"),
    ("month", "month"),
    ("total", "in total"),
]


def _amount(name: str, help_text: str, **options: Any) -> models.BigIntegerField:
    return models.BigIntegerField(
        name, null=True, blank=True, validators=[MinValueValidator(0)], help_text=help_text, **options
    )


def _per(help_text: str, **options: Any) -> models.CharField:
    return models.CharField(max_length=8, choices=PER_CHOICES, help_text=help_text, **options)


# --- requests --------------------------------------------------------------------------------------------------------
class Outcome(models.TextChoices):
    AUTOMATIC = "automatic", "Granted at once"
    MANAGER = "manager", "A manager of the team decides"
    ADMIN = "admin", "An administrator decides"


class Kind(models.TextChoices):
    JOIN = "join", "Join a team"
    TEAM = "team", "A new team"
    MODEL = "model", "A model"
    BUDGET = "budget", "A larger budget"
    KEY = "key", "An API key"
    COHORT = "cohort", "A course with a team of its own"


class AccessRequest(models.Model):
    """What somebody asks for. Once it is decided it is never changed, but for the key that comes of it."""

    class State(models.TextChoices):
        OPEN = "open", "Waiting"
        APPROVED = "approved", "Approved"
        DECLINED = "declined", "Declined"
        WITHDRAWN = "withdrawn", "Withdrawn"
        EXPIRED = "expired", "Expired"

    class Subject(models.TextChoices):
        ME = "me", "Me"
        TEAM = "team", "A team"
        KEY = "key", "An API key"

    kind = models.CharField(max_length=16, choices=Kind, help_text="What is asked for.")
    state = models.CharField(max_length=16, choices=State, default=State.OPEN, help_text="How it stands.")
    requester = models.ForeignKey(User, on_delete=models.CASCADE, related_name="access_requests", help_text="Who asks.")
    subject = models.CharField(
        "for", max_length=8, choices=Subject, default=Subject.ME, help_text="Whose model or budget it is."
    )
    team = models.ForeignKey(
        Team,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="access_requests",
        help_text="The team it is about. Empty: none, or one that is to be made.",
    )
    key = models.ForeignKey(
        ApiKey,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        verbose_name="API key",
        help_text="The key it is about, or the one that was made.",
    )
    cohort = models.ForeignKey(
        "access.Cohort", null=True, blank=True, on_delete=models.CASCADE, related_name="+", help_text="The course."
    )
    name = models.CharField(
        max_length=100, blank=True, validators=[NAME], help_text="Of the team or key that is to be made."
    )
    model = models.CharField(max_length=200, blank=True, help_text="The model that is asked for.")
    budget_id = models.BigIntegerField(null=True, blank=True, help_text="The budget that is to be larger.")
    amount = _amount("amount", "Asked for: nano-USD in each window.")
    per = _per("The window of the amount.", blank=True)
    once = models.BooleanField("this window only", default=False, help_text="The budget goes back afterwards.")
    expires_at = models.DateTimeField("key expires", null=True, blank=True, help_text="When the key ends.")
    cost_center = models.CharField(
        "cost centre", max_length=64, blank=True, help_text="Where it is charged, as the finance department writes it."
    )
    reason = models.CharField(max_length=1000, help_text="Why it is needed.")
    outcome = models.CharField(
        "who decides", max_length=16, choices=Outcome, default=Outcome.ADMIN, help_text="By the rules of its day."
    )
    granted_amount = _amount("granted", "What was approved: nano-USD in each window.")
    decided_by = models.ForeignKey(
        User,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Who decided. Empty: the rules, or time.",
    )
    decided_at = models.DateTimeField("decided", null=True, blank=True, help_text="When it was decided.")
    decision_reason = models.CharField(max_length=1000, blank=True, help_text="What the requester was told.")
    collected_at = models.DateTimeField(
        "key made", null=True, blank=True, help_text="When the requester made the approved key."
    )
    created_at = models.DateTimeField("asked", default=timezone.now, editable=False, help_text="When it was asked.")

    class Meta:
        verbose_name = "request"
        ordering = ["-id"]
        permissions = [("decide_accessrequest", "Can decide requests")]
        indexes = [
            models.Index(fields=["state", "team"], name="request_state_team"),
            models.Index(fields=["requester", "-id"], name="request_requester"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}, asked by {self.requester}"

    @property
    def is_open(self) -> bool:
        return self.state == self.State.OPEN

    @property
    def key_is_ready(self) -> bool:
        """Approved, and waiting for the requester to make it."""
        return self.kind == Kind.KEY and self.state == self.State.APPROVED and self.collected_at is None


class RequestRule(models.Model):
    """Who decides a kind of request. The first rule that fits counts; without one a manager of the team decides on
    joining it and on its keys, an administrator on all else."""

    position = models.PositiveIntegerField(default=100, help_text="Rules are tried from the lowest number on.")
    kind = models.CharField(max_length=16, choices=Kind, help_text="What is asked for.")
    team = models.ForeignKey(
        Team,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
        help_text="Only requests about this team. Empty: about any, or none.",
    )
    model = models.CharField(max_length=200, blank=True, help_text="Only requests for this model. Empty: any.")
    group = models.CharField(
        max_length=200,
        blank=True,
        help_text="Only people with this affiliation or in this group at the identity provider. Empty: everybody.",
    )
    max_per_month = _amount(
        "up to", "Only amounts up to so many nano-USD a month (other windows are reckoned as a month). Empty: any."
    )
    outcome = models.CharField(
        "then", max_length=16, choices=Outcome, default=Outcome.MANAGER, help_text="Who decides."
    )
    enabled = models.BooleanField(default=True, help_text="A rule that is switched off is passed over.")

    class Meta:
        verbose_name = "rule for requests"
        verbose_name_plural = "rules for requests"
        ordering = ["position", "id"]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.get_outcome_display()}"


class AccessSettings(models.Model):
    """One row: what holds for all requests."""

    key_threshold = _amount(
        "keys are free up to",
        "Who makes a key with a budget above so many nano-USD a month, or without one, has to ask. Empty: nobody.",
    )
    open_days = models.PositiveIntegerField(
        "days a request stays open",
        default=30,
        validators=[MinValueValidator(1)],
        help_text="Then it expires. An approved key that nobody makes lapses after as long.",
    )

    class Meta:
        verbose_name = verbose_name_plural = "settings of requests"

    def __str__(self) -> str:
        return "Settings of requests"


# --- courses ---------------------------------------------------------------------------------------------------------
class Cohort(models.Model):
    """A course: its students have limits of their own in one team, and all their keys end together."""

    name = models.CharField(max_length=100, validators=[NAME], help_text="As the students know it.")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="cohorts", help_text="Where the keys are.")
    own_team = models.BooleanField(default=False, help_text="The team was made for the course, and ends with it.")
    made_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+", help_text="Who invited the course."
    )
    amount = _amount("budget", "Of each student: nano-USD in each window. Empty: only the team's.")
    per = _per("The window of the budget.", default="month")
    requests_per_minute = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Of each student. Empty: no limit."
    )
    models_allowed = models.JSONField(
        "models", null=True, blank=True, help_text="What students may call. Empty: all that the team may."
    )
    ends_at = models.DateTimeField("ends", help_text="All keys of its students end then.")
    stopped_at = models.DateTimeField("stopped", null=True, blank=True, help_text="By hand, before its end.")
    waits = models.BooleanField("waits for approval", default=False, help_text="Until then its keys do not work.")
    closed = models.BooleanField(default=False, editable=False, help_text="Its end has been carried out.")
    group = models.CharField(
        "group at the identity provider",
        max_length=200,
        blank=True,
        help_text="Whoever signs in with this group is in the course.",
    )
    max_students = models.PositiveIntegerField(
        "students at most", default=100, validators=[MinValueValidator(1)], help_text="However they come."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False, help_text="When it was made.")

    class Meta:
        verbose_name = "course"
        ordering = ["-id"]
        constraints = [
            # Which limits would count for a student of two?
            models.UniqueConstraint(
                fields=["team"],
                condition=models.Q(closed=False),
                name="one_course_at_a_time_per_team",
                violation_error_message="The team has a course already.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def is_over(self) -> bool:
        return self.stopped_at is not None or self.ends_at <= timezone.now()

    @property
    def keys_end_at(self) -> Any:
        """From when on no key of its students is taken."""
        return min(self.ends_at, self.stopped_at) if self.stopped_at else self.ends_at


class CohortStudent(models.Model):
    """Somebody in a course, or invited to it. In it from when on `user` is known."""

    class Way(models.TextChoices):
        LIST = "list", "List"
        LINK = "link", "Link"
        GROUP = "group", "Group"

    cohort = models.ForeignKey(Cohort, on_delete=models.CASCADE, related_name="students", help_text="The course.")
    user = models.ForeignKey(
        User,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="cohort_places",
        help_text="Empty: has not come yet.",
    )
    invited = models.CharField(max_length=254, help_text="The username or e-mail address that was invited.")
    way = models.CharField(max_length=8, choices=Way, default=Way.LIST, help_text="How they come.")
    digest = models.CharField(
        max_length=64, blank=True, db_index=True, editable=False, help_text="Of the token in the mail to them."
    )
    joined_membership = models.BooleanField(
        default=False, editable=False, help_text="The course made them a member of the team."
    )
    key = models.OneToOneField(
        ApiKey,
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="cohort_place",
        help_text="Their key in the course.",
    )
    had_key = models.BooleanField(
        default=False, editable=False, help_text="They made their key: there is no second one when it is deleted."
    )
    stopped = models.BooleanField(default=False, help_text="Their key was stopped by hand.")
    joined_at = models.DateTimeField("joined", null=True, blank=True, help_text="When they came.")

    class Meta:
        verbose_name = "student"
        ordering = ["invited", "id"]
        constraints = [
            models.UniqueConstraint(fields=["cohort", "invited"], name="invited_once_per_course"),
            models.UniqueConstraint(fields=["cohort", "user"], name="one_place_per_course"),
        ]

    def __str__(self) -> str:
        return f"{self.invited} in {self.cohort}"

    @property
    def lost_key(self) -> bool:
        """It was deleted, by whatever."""
        return self.had_key and self.key_id is None


class CohortLink(models.Model):
    """An invitation for whoever has it. Only the digest of its token is kept."""

    cohort = models.ForeignKey(Cohort, on_delete=models.CASCADE, related_name="links", help_text="The course.")
    digest = models.CharField(max_length=64, unique=True, editable=False, help_text="SHA-256 of the token, hex.")
    expires_at = models.DateTimeField("expires", help_text="From then on it leads nowhere.")
    max_uses = models.PositiveIntegerField("for", validators=[MinValueValidator(1)], help_text="People at most.")
    uses = models.PositiveIntegerField(default=0, help_text="How many came by it.")
    revoked_at = models.DateTimeField("revoked", null=True, blank=True, help_text="When it was taken back.")
    created_at = models.DateTimeField(default=timezone.now, editable=False, help_text="When it was made.")

    class Meta:
        verbose_name = "invitation link"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"Link to {self.cohort}"

    @property
    def works(self) -> bool:
        return self.revoked_at is None and self.expires_at > timezone.now() and self.uses < self.max_uses


# --- terms -----------------------------------------------------------------------------------------------------------
class TermsVersion(models.Model):
    """What everybody has to agree to, from `published_at` on. A published text is never changed: a new one is."""

    title = models.CharField(max_length=200, default="Terms of use", help_text="Above the text.")
    text = models.TextField(help_text="In plain paragraphs, with an empty line between them.")
    published_at = models.DateTimeField(
        "counts from", null=True, blank=True, db_index=True, help_text="Empty: a draft that nobody sees."
    )
    grace_until = models.DateTimeField(
        "grace until",
        null=True,
        blank=True,
        help_text="Until then, whoever agreed to an earlier version may go on without this one.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False, help_text="When it was written.")

    class Meta:
        verbose_name = "terms"
        verbose_name_plural = "terms"
        ordering = ["-published_at", "-id"]

    def __str__(self) -> str:
        return f"{self.title} ({self.published_at:%Y-%m-%d})" if self.published_at else f"{self.title} (draft)"


class TermsAgreement(models.Model):
    """Somebody agreed to a version."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="terms_agreements", help_text="Who.")
    version = models.ForeignKey(TermsVersion, on_delete=models.PROTECT, related_name="agreements", help_text="To what.")
    at = models.DateTimeField("agreed", default=timezone.now, editable=False, help_text="When.")

    class Meta:
        verbose_name = "agreement"
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["user", "version"], name="agreed_once_per_version")]

    def __str__(self) -> str:
        return f"{self.user}: {self.version}"


# --- mail ------------------------------------------------------------------------------------------------------------
class Notice(models.Model):
    """A mail that is to be sent about a request or an invitation. Written out when it is sent, so no text and no token
    waits here."""

    class About(models.TextChoices):
        ASKED = "asked", "A request waits"
        DECIDED = "decided", "A request is decided"
        INVITED = "invited", "An invitation to a course"

    about = models.CharField(max_length=8, choices=About, help_text="What it says.")
    request = models.ForeignKey(
        AccessRequest, null=True, on_delete=models.CASCADE, related_name="+", help_text="The request."
    )
    student = models.ForeignKey(
        CohortStudent, null=True, on_delete=models.CASCADE, related_name="+", help_text="The invitation."
    )
    recipient = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="+", help_text="To whom.")
    tries = models.PositiveSmallIntegerField(default=0, help_text="How often it was tried.")
    next_try_at = models.DateTimeField(default=timezone.now, help_text="When it is due.")
    created_at = models.DateTimeField(default=timezone.now, editable=False, help_text="When it was put down.")

    class Meta:
        indexes = [models.Index(fields=["next_try_at"], name="notice_due")]

    def __str__(self) -> str:
        return f"{self.get_about_display()} to {self.recipient or self.student}"


NOTICE_PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30))
