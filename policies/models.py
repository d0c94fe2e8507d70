"""Policies, their rules and versions, word lists, and what policies found.

A Policy with its Rule rows is the working copy that admins edit. What is in force is a PolicyVersion: an immutable
document made from them when they are published. Rolling back publishes an earlier document again.
"""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from accounts.encryption import EncryptedRecordField


class Policy(models.Model):
    """A named, ordered list of rules, assigned to everyone, to teams or to keys."""

    class HeaderOverrides(models.TextChoices):
        NEVER = "never", "Ignored"
        TIGHTEN = "tighten", "May only make the policy stricter"
        LOOSEN = "loosen", "May also replace this policy's rules"

    name = models.CharField(max_length=100, unique=True, help_text="Short and telling, such as 'default' or 'exams'.")
    description = models.TextField(blank=True, help_text="What it is for, for your colleagues. Callers never see it.")
    enabled = models.BooleanField(
        default=True, help_text="Switched off, none of its rules apply; its versions and findings stay."
    )
    show_flags = models.BooleanField(
        "show findings to callers",
        default=True,
        help_text="Name the checks that found something in the x-gatehouse-flags header of the reply. Never the text.",
    )
    header_overrides = models.CharField(
        "x-usagepanda-* headers",
        max_length=8,
        choices=HeaderOverrides,
        default=HeaderOverrides.NEVER,
        help_text="Whether a caller may change rules for its call with x-usagepanda-* headers.",
    )
    log_request = models.BooleanField(
        "log requests",
        default=False,
        help_text="Keep the text of requests, encrypted, as it went to the provider: after this policy's redactions.",
    )
    log_reply = models.BooleanField(
        "log replies", default=False, help_text="Keep the text of replies, encrypted, as the caller got it."
    )
    retention_days = models.PositiveSmallIntegerField(
        "keep logged texts for (days)",
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(3650)],
        help_text="Logged texts are deleted after so many days.",
    )
    current = models.ForeignKey(
        "PolicyVersion",
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The version in force. Empty: never published.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False, help_text="When it was made (UTC).")

    class Meta:
        verbose_name_plural = "policies"
        ordering = ["name"]
        permissions = [("publish_policy", "Can publish and roll back policies")]

    def __str__(self) -> str:
        return self.name


class Rule(models.Model):
    """One check with an action: a line of a policy's working copy."""

    class Action(models.TextChoices):
        AUDIT = "audit", "Audit: let it pass and record it"
        REDACT = "redact", "Redact: change it and go on"
        BLOCK = "block", "Block"

    class BlockWith(models.TextChoices):
        ERROR = "error", "An error (400 policy_violation)"
        ANSWER = "answer", "A normal answer with your text"

    class AppliesTo(models.TextChoices):
        REQUEST = "request", "Requests"
        REPLY = "reply", "Replies"
        BOTH = "both", "Requests and replies"

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="rules", help_text="The policy.")
    position = models.PositiveIntegerField(default=0, help_text="Rules run in this order.")
    name = models.CharField(
        max_length=100, blank=True, help_text="How findings name the rule. Empty: the check's own name."
    )
    check_name = models.CharField("check", max_length=50, help_text="What it looks for.")
    action = models.CharField(max_length=8, choices=Action, default=Action.BLOCK, help_text="What is done about it.")
    block_with = models.CharField(
        max_length=8, choices=BlockWith, default=BlockWith.ERROR, help_text="What the caller of a blocked call gets."
    )
    answer = models.TextField(blank=True, help_text="The text of that answer. Empty: the message for the caller.")
    stage = models.CharField(max_length=8, choices=AppliesTo, default=AppliesTo.BOTH, help_text="What it looks at.")
    settings = models.JSONField(default=dict, blank=True, help_text="The check's own settings.")
    message = models.CharField(
        "message for the caller",
        max_length=500,
        blank=True,
        help_text="What a blocked caller reads: say what to do instead. Empty: a general sentence.",
    )
    timeout_ms = models.PositiveIntegerField(
        "time limit (ms)",
        default=1000,
        validators=[MinValueValidator(1), MaxValueValidator(60_000)],
        help_text="A check that takes longer for one look at a text counts as failed.",
    )
    fail_open = models.BooleanField(
        default=False,
        help_text="If the check fails or takes too long, let the call pass without it. Off: the call is blocked.",
    )
    dry_run = models.BooleanField(
        default=False, help_text="Record what the rule would do, and do nothing. For trying it on real traffic."
    )
    enabled = models.BooleanField(default=True, help_text="Switched off, it stays in the policy and does nothing.")

    class Meta:
        ordering = ["position", "pk"]

    def __str__(self) -> str:
        return self.name or self.check_name


class PolicyVersion(models.Model):
    """What a policy said when it was published. Never changed."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="versions", help_text="The policy.")
    number = models.PositiveIntegerField(help_text="Counts up from 1 within the policy.")
    document = models.JSONField(help_text="The policy's settings and its rules, see policies.documents.")
    published_at = models.DateTimeField(default=timezone.now, help_text="Since when (UTC).")
    published_by = models.ForeignKey(
        "accounts.User",
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Who published it. Empty: a command, or a person since deleted.",
    )
    published_as = models.CharField(max_length=200, blank=True, help_text="That person's name, or the command's.")
    note = models.CharField(max_length=300, blank=True, help_text="Why, in a line.")

    class Meta:
        ordering = ["-pk"]
        constraints = [models.UniqueConstraint(fields=["policy", "number"], name="policy_version_number")]

    def __str__(self) -> str:
        return f"{self.policy} v{self.number}"


class Assignment(models.Model):
    """Whom a policy holds for. All assigned policies hold together: nothing below loosens what is set above."""

    class Scope(models.TextChoices):
        EVERYONE = "everyone", "Everyone"
        TEAM = "team", "A team"
        KEY = "key", "An API key"

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="assignments", help_text="The policy.")
    scope = models.CharField(max_length=8, choices=Scope, default=Scope.EVERYONE, help_text="Whom it holds for.")
    team = models.ForeignKey(
        "accounts.Team", null=True, blank=True, on_delete=models.CASCADE, related_name="+", help_text="The team."
    )
    key = models.ForeignKey(
        "accounts.ApiKey", null=True, blank=True, on_delete=models.CASCADE, related_name="+", help_text="The API key."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="assignment_names_its_scope",
                condition=models.Q(scope="everyone", team=None, key=None)
                | models.Q(scope="team", team__isnull=False, key=None)
                | models.Q(scope="key", team=None, key__isnull=False),
            ),
            models.UniqueConstraint(
                fields=["policy"], condition=models.Q(scope="everyone"), name="assignment_everyone_once"
            ),
            models.UniqueConstraint(
                fields=["policy", "team"], condition=models.Q(scope="team"), name="assignment_team_once"
            ),
            models.UniqueConstraint(
                fields=["policy", "key"], condition=models.Q(scope="key"), name="assignment_key_once"
            ),
        ]

    def __str__(self) -> str:
        return {"team": f"team {self.team}", "key": f"key {self.key}"}.get(self.scope, "everyone")


class Wordlist(models.Model):
    """Words and phrases to look for. A list that ships with Gatehouse takes its words from a file, plus your own."""

    name = models.CharField(max_length=100, unique=True, help_text="How rules name it.")
    description = models.TextField(blank=True, help_text="What it holds and why.")
    builtin = models.CharField(
        max_length=50,
        blank=True,
        editable=False,
        help_text="The list that ships with Gatehouse whose words it holds too. Empty: only your own.",
    )
    catch_disguises = models.BooleanField(
        default=True,
        help_text="Also find words in disguise: f.u.d.g.e, fu**ge, fuuudge, fudg3. For lists of words, not of codes.",
    )
    entry_count = models.PositiveIntegerField(default=0, editable=False, help_text="Entries of your own.")
    content_hash = models.CharField(
        max_length=64, blank=True, editable=False, help_text="Of all it matches; what is compiled is kept by it."
    )
    updated_at = models.DateTimeField(default=timezone.now, editable=False, help_text="Last change (UTC).")

    class Meta:
        verbose_name = "word list"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class WordlistEntry(models.Model):
    """A word, a phrase, or either with `*` for any letters: found whole, whatever its case, width or look-alikes."""

    wordlist = models.ForeignKey(
        Wordlist, on_delete=models.CASCADE, related_name="entries", verbose_name="word list", help_text="The list."
    )
    text = models.CharField(max_length=200, help_text="As written.")
    folded = models.CharField(max_length=400, editable=False, help_text="As matched.")
    allow = models.BooleanField(
        default=False, help_text="An exception: where this stands, no entry of the list counts."
    )

    class Meta:
        verbose_name = "word list entry"
        verbose_name_plural = "word list entries"
        ordering = ["folded"]
        constraints = [
            models.UniqueConstraint(fields=["wordlist", "folded", "allow"], name="wordlist_entry_once"),
        ]

    def __str__(self) -> str:
        return self.text


class Finding(models.Model):
    """What a rule found in one call. Never the text. Names are copied in, so that it outlives what it names."""

    id = models.UUIDField(primary_key=True, help_text="Time-ordered (UUID version 7).")
    at = models.DateTimeField("time", help_text="When the call came in (UTC).")
    event_id = models.UUIDField("usage event", help_text="The call it was found in.")
    request_id = models.CharField(max_length=128, help_text="x-request-id of the call.")
    policy = models.CharField(max_length=100, help_text="The policy.")
    version = models.PositiveIntegerField(help_text="Its version.")
    rule = models.CharField(max_length=100, help_text="The rule.")
    check_name = models.CharField("check", max_length=50, help_text="What looked.")
    stage = models.CharField(max_length=8, help_text="Request or reply.")
    action = models.CharField(max_length=8, help_text="What was done; in a dry run, what would have been done.")
    label = models.CharField("found", max_length=100, blank=True, help_text="Of what kind. Never the text itself.")
    count = models.PositiveIntegerField(default=1, help_text="How often in this call.")
    dry_run = models.BooleanField(default=False, help_text="The rule was being tried and changed nothing.")
    failed = models.BooleanField(default=False, help_text="The check itself failed.")
    model = models.CharField(max_length=200, blank=True, help_text="The model asked for.")
    endpoint = models.CharField(max_length=40, help_text="Such as chat/completions.")
    key_label = models.CharField("key", max_length=120, blank=True, help_text="The key that called.")
    key = models.ForeignKey(
        "accounts.ApiKey", null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False,
        related_name="+", verbose_name="API key", help_text="The key that called.",
    )  # fmt: skip
    team = models.ForeignKey(
        "accounts.Team", null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False,
        related_name="+", help_text="The key's team.",
    )  # fmt: skip
    user = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False,
        related_name="+", help_text="The key's owner.",
    )  # fmt: skip

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["event_id"], name="finding_event"),
            # Sums by day, and lists of what is rare, without a look at the table.
            models.Index(fields=["id", "action", "dry_run", "failed", "stage"], name="finding_outcome"),
            models.Index(fields=["rule", "-id"], name="finding_rule"),
            models.Index(fields=["check_name", "-id"], name="finding_check"),
            models.Index(fields=["policy", "-id"], name="finding_policy"),
            models.Index(fields=["team", "-id"], name="finding_team"),
            models.Index(fields=["key", "-id"], name="finding_key"),
        ]

    def __str__(self) -> str:
        return f"{self.rule} {self.request_id}"


class LoggedContent(models.Model):
    """The texts of one call, where a policy says that they are kept. Encrypted; deleted after `expires_at`."""

    event_id = models.UUIDField("usage event", primary_key=True, help_text="The call.")
    at = models.DateTimeField("time", help_text="When the call came in (UTC).")
    expires_at = models.DateTimeField(db_index=True, help_text="When it is deleted (UTC).")
    request_id = models.CharField(max_length=128, help_text="x-request-id of the call.")
    model = models.CharField(max_length=200, blank=True, help_text="The model asked for.")
    key_label = models.CharField("key", max_length=120, blank=True, help_text="The key that called.")
    key = models.ForeignKey(
        "accounts.ApiKey", null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False,
        related_name="+", verbose_name="API key", help_text="The key that called.",
    )  # fmt: skip
    team = models.ForeignKey(
        "accounts.Team", null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False,
        related_name="+", help_text="The key's team.",
    )  # fmt: skip
    user = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False,
        related_name="+", help_text="The key's owner.",
    )  # fmt: skip
    request = EncryptedRecordField(blank=True, help_text="The request as JSON, encrypted.")
    reply = EncryptedRecordField(blank=True, help_text="The reply as JSON, encrypted.")

    class Meta:
        verbose_name = "logged content"
        verbose_name_plural = "logged content"
        ordering = ["-event_id"]
        indexes = [
            models.Index(fields=["team", "-event_id"], name="content_team"),
            models.Index(fields=["key", "-event_id"], name="content_key"),
            models.Index(fields=["user", "-event_id"], name="content_user"),
        ]
        default_permissions = ("delete",)
        permissions = [("view_loggedcontent", "Can read logged requests and replies (every look is recorded)")]

    def __str__(self) -> str:
        return self.request_id


class ContentView(models.Model):
    """Somebody looked at logged content. Append-only."""

    at = models.DateTimeField("time", default=timezone.now, help_text="When (UTC).")
    user = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+", help_text="Who looked."
    )
    username = models.CharField(max_length=150, help_text="That person's name at the time.")
    client_ip = models.CharField("client IP", max_length=45, blank=True, help_text="From where.")
    event_id = models.UUIDField("usage event", help_text="The call whose texts were shown.")
    request_id = models.CharField(max_length=128, help_text="x-request-id of that call.")

    class Meta:
        verbose_name = "look at logged content"
        verbose_name_plural = "looks at logged content"
        ordering = ["-pk"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.username} {self.request_id}"


class PendingModeration(models.Model):
    """Texts that wait for a moderation which only audits. Encrypted; gone when the verdict is in."""

    id = models.UUIDField(primary_key=True, help_text="Time-ordered (UUID version 7).")
    event_id = models.UUIDField("usage event", help_text="The call.")
    next_try_at = models.DateTimeField(db_index=True, help_text="Not before (UTC).")
    tries = models.PositiveSmallIntegerField(default=0, help_text="So many have failed.")
    call = models.JSONField(help_text="What a finding needs to know of the call and the rule; no text.")
    texts = EncryptedRecordField(help_text="The texts as a JSON list, encrypted.")

    class Meta:
        verbose_name = "pending moderation"
        ordering = ["id"]
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.id)
