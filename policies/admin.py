"""The admin's pages for policies: made from rules, tried, published, and rolled back."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.cache import never_cache
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display

from accounts.admin_pages import LIVE, LiveSoon, change_url, confirm
from accounts.models import ApiKey, Team
from policies import (
    content_admin,  # noqa: F401 - registers its pages
    documents,
    findings_admin,  # noqa: F401
    services,
    wordlist_admin,  # noqa: F401
)
from policies import display as words
from policies.checks.base import CHECKS
from policies.documents import POLICY_FIELDS, PolicySpec, document_of, specs_of
from policies.forms import PUBLISH, TRY, PolicyForm, RollBackForm, RuleCards, TryForm, VersionedTryForm
from policies.models import Assignment, Policy, PolicyVersion
from policies.selectors import has_unpublished_changes
from policies.starters import STARTERS, starter
from policies.try_it import Trial, attempt

STATE_COLORS = {
    "in force": "success",
    "holds for nobody": "warning",
    "unpublished changes": "info",
    "never published": "warning",
    "switched off": "danger",
}
VERSIONS_A_PAGE = 25
RULES_SHOWN = 3
SAVED_FIELDS = ("name", "description", "enabled", *POLICY_FIELDS)


class StateFilter(DropdownFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("published", "Published"), ("never", "Never published"), ("off", "Switched off")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Policy]) -> QuerySet[Policy]:
        conditions: dict[str, dict[str, Any]] = {
            "published": {"current__isnull": False, "enabled": True},
            "never": {"current__isnull": True},
            "off": {"enabled": False},
        }
        return queryset.filter(**conditions.get(str(self.value()), {}))


@admin.register(Policy)
class PolicyAdmin(LiveSoon, ModelAdmin):
    """What is edited is a working copy. Publishing it makes a version, and puts that in force."""

    empty_hint = (
        "A policy is a list of rules for calls: what to look for in requests and replies, and what to do about it. "
        "Start from a template, or from an empty one."
    )
    list_after_template = "admin/policies/policy/starters.html"
    form = PolicyForm
    change_form_template = "admin/policies/policy/change_form.html"
    list_display = ("name", "whom", "rules_text", "version", "published", "state")
    list_filter = (StateFilter,)
    list_filter_submit = True
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("name", "description")
    search_help_text = "Name or description"
    actions_detail = ("try_page", "versions_page")
    warn_unsaved_form = True
    compressed_fields = True

    # --- who may do what ---
    @staticmethod
    def may_publish(request: HttpRequest) -> bool:
        return bool(request.user.has_perm("policies.publish_policy"))

    def has_delete_permission(self, request: HttpRequest, obj: Policy | None = None) -> bool:
        """What somebody may not put in force, they may not take out of it."""
        allowed = bool(super().has_delete_permission(request, obj))
        return allowed and (obj is None or obj.current_id is None or self.may_publish(request))

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def fixed_fields(self, request: HttpRequest, policy: Policy | None) -> set[str]:
        """What counts at once, without publishing, is for those who may publish; and nobody can search in a list that
        they may not see."""
        if policy is not None and policy.current_id and not self.may_publish(request):
            return {"enabled", "everyone", "teams", "keys"}
        lists = {"teams": Team, "keys": ApiKey}
        site = self.admin_site
        return {name for name, model in lists.items() if not site.get_model_admin(model).has_view_permission(request)}

    # --- the list ---
    def get_queryset(self, request: HttpRequest) -> QuerySet[Policy]:
        assignments = Assignment.objects.select_related("team", "key")
        queryset: QuerySet[Policy] = super().get_queryset(request)
        return queryset.select_related("current").prefetch_related("rules", Prefetch("assignments", assignments))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        page: HttpResponse = super().changelist_view(request, {"starters": STARTERS, **(extra_context or {})})
        return page

    @display(description="holds for", empty_value="nobody yet")
    def whom(self, policy: Policy) -> str | None:
        return words.holds_for(policy.assignments.all()) or None

    @display(description="rules", empty_value="none yet")
    def rules_text(self, policy: Policy) -> SafeString | None:
        rules = [words.rule_words(rule) for rule in specs_of(policy.rules.all())]
        more = f"and {len(rules) - RULES_SHOWN} more" if len(rules) > RULES_SHOWN else ""
        lines = [*rules[:RULES_SHOWN], *([more] if more else [])]
        return _lines(lines) if lines else None

    @display(description="version", empty_value="-")
    def version(self, policy: Policy) -> SafeString | None:
        if policy.current is None:
            return None
        url = reverse("admin:policies_policy_versions_page", args=[policy.pk])
        return format_html('<a href="{}" class="text-link">v{}</a>', url, policy.current.number)

    @display(description="published", empty_value="-")
    def published(self, policy: Policy) -> str | None:
        version = policy.current
        return f"{words.ago(version.published_at)} by {version.published_as}" if version else None

    @display(description="state", label=STATE_COLORS)
    def state(self, policy: Policy) -> str:
        return state_of(policy)

    # --- the page of a policy ---
    def get_fieldsets(self, request: HttpRequest, obj: Policy | None = None) -> Any:
        may_edit = self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj)
        counts = "" if obj is None or obj.current_id is None else " These count as soon as you save, also unpublished."
        return (
            (None, {"fields": ("name", "description", "enabled")}),
            (
                "Whom it holds for",
                {
                    "fields": ("everyone", "teams", "keys") if may_edit else ("whom",),
                    "description": "All policies that hold for a call count together: none loosens another." + counts,
                },
            ),
            (
                "What callers see and may change",
                {"fields": ("show_flags", "header_overrides"), "classes": ("gh-after-rules",)},
            ),
            (
                "Keeping texts",
                {
                    "fields": ("log_request", "log_reply", "retention_days"),
                    "classes": ("gh-after-rules",),
                    "description": "Off unless you need it. Reading kept texts needs a permission of its own, and "
                    "every look is recorded.",
                },
            ),
            *((("Publish", {"fields": ("note",), "classes": ("gh-after-rules",)}),) if may_edit else ()),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Policy | None = None) -> tuple[str, ...]:
        return ("whom",)

    def get_form(self, request: HttpRequest, obj: Policy | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        chosen = starter(request.GET.get("start", "")) if obj is None else None
        given = {"fixed": self.fixed_fields(request, obj), "template": chosen.rules if chosen else ()}
        return type(form.__name__, (form,), given)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        chosen = starter(request.GET.get("start", ""))
        return {"name": chosen.name, "description": chosen.description} if chosen else {}

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Policy | None = None,
    ) -> HttpResponse:
        form: PolicyForm = context["adminform"].form
        may_edit = self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj)
        context |= {
            "may_edit": may_edit,
            "may_publish": self.may_publish(request),
            "cards": form.rules,
            "checks": offered_checks(),
            "starters": STARTERS if add and not form.is_bound and not form.rules.forms else (),
            "published_ago": words.ago(obj.current.published_at) if obj is not None and obj.current else "",
            "unpublished": _unpublished(obj) if obj is not None and not form.is_bound else (),
            "rules_read": [(words.rule_title(spec), words.rule_lines(spec)) for spec in specs_of(obj.rules.all())]
            if obj is not None and not may_edit
            else (),
            "try_form": TryForm(request.POST if TRY in request.POST else None),
        }
        if TRY in request.POST:
            context |= _tried(context["try_form"], form.rules)
        page: HttpResponse = super().render_change_form(request, context, add, change, form_url, obj)
        return page

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            with transaction.atomic():
                if request.method == "POST" and TRY not in request.POST:
                    _await_turn(object_id)
                return super().changeform_view(request, object_id, form_url, extra_context)
        except services.InvalidRules as error:
            # The forms have judged the rules already: something that they need has gone since.
            messages.error(request, f"Nothing was saved. {' '.join(error.messages)}")
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: Policy, form: PolicyForm, change: bool) -> None:
        given = form.cleaned_data
        # Not the version in force: somebody may have published while the page was open.
        obj.save(update_fields=SAVED_FIELDS if change else None)
        services.replace_rules(obj, form.rules.specs())
        services.set_assignments(obj, everyone=given["everyone"], teams=given["teams"], keys=given["keys"])
        request.published = None  # type: ignore[attr-defined]
        if PUBLISH in request.POST:
            request.published = self._publish(request, obj, given["note"])  # type: ignore[attr-defined]

    def _publish(self, request: HttpRequest, policy: Policy, note: str) -> str:
        """What to say of it."""
        if not self.may_publish(request):
            raise PermissionDenied
        before = policy.current_id
        fresh = Policy.objects.get(pk=policy.pk)
        version = services.publish(fresh, request.user, note)  # type: ignore[arg-type]
        policy.current = version
        return f"Published version {version.number}" if version.pk != before else ""

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        said = request.published  # type: ignore[attr-defined]
        note = form.cleaned_data.get("note")
        return (f"{said}: {note}" if note else f"{said}.") if said else "Saved without publishing."

    def response_add(self, request: HttpRequest, obj: Policy, post_url_continue: str | None = None) -> HttpResponse:
        return self.response_change(request, obj)

    def response_change(self, request: HttpRequest, obj: Policy) -> HttpResponse:
        """Back to the policy's page, which says what is in force now."""
        said = request.published  # type: ignore[attr-defined]
        if said:
            self.message_user(request, f"{said} of {obj.name}.", messages.SUCCESS)
        elif said == "":
            version = obj.current.number if obj.current else 0
            messages.info(request, f"Nothing differs from version {version} of {obj.name}, which stays in force.")
        elif obj.current_id:
            messages.info(request, f"Saved. Version {obj.current.number} stays in force until you publish.")  # type: ignore[union-attr]
        else:
            messages.info(request, f"Saved. Nothing of {obj.name} is in force before you publish it.")
        if said is not None:
            self._warn(request, obj)
        return HttpResponseRedirect(change_url(obj))

    def _warn(self, request: HttpRequest, policy: Policy) -> None:
        if not policy.enabled:
            messages.warning(request, "The policy is switched off, so its rules do nothing.")
        elif not Assignment.objects.filter(policy=policy).exists():
            messages.warning(request, "It holds for nobody yet. Choose everyone, teams or keys, and save.")

    # --- pieces that the page asks for ---
    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own = [
            path("card/", wrap(self.card), name="policies_policy_card"),
            path("try/", wrap(self.try_unsaved), name="policies_policy_try"),
            path("<path:object_id>/roll-back/<int:number>/", wrap(self.roll_back), name="policies_policy_roll_back"),
        ]
        return [*own, *super().get_urls()]

    def card(self, request: HttpRequest) -> HttpResponse:
        """An empty card for a check, to be put into the page: ?check=NAME&number=N"""
        if not (self.has_add_permission(request) or self.has_change_permission(request)):
            raise PermissionDenied
        number = request.GET.get("number", "")
        cards = RuleCards()
        cards.next_number = int(number) if number.isdecimal() and len(number) < 5 else 0
        form = cards.add(request.GET.get("check", ""))
        if form is None:
            raise Http404("There is no such check.")
        context = {"card": form, "position": request.GET.get("position", "")}
        return TemplateResponse(request, "admin/policies/policy/card.html", context)

    @method_decorator(never_cache)
    def try_unsaved(self, request: HttpRequest) -> HttpResponse:
        """The rules as they stand on the page, saved or not. POST."""
        if request.method != "POST" or not self.has_view_permission(request):
            raise PermissionDenied
        form = TryForm(request.POST)
        context = {"try_form": form, **_tried(form, RuleCards(data=request.POST))}
        return TemplateResponse(request, "admin/policies/policy/try_result.html", context)

    # --- pages under a policy ---
    @action(description="Try it", icon="science", url_path="try", permissions=["view"])
    @method_decorator(never_cache)
    def try_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        policy = self._policy(request, object_id)
        form = VersionedTryForm(policy, request.POST or None)
        trial: Trial | None = None
        if request.method == "POST" and form.is_valid():
            trial = attempt(_chosen(policy, form.cleaned_data["rules"]), form.conversation)
        context = {"try_form": form, "trial": trial, "policy": policy}
        return self._page(request, policy, "Try it", "try_page.html", context)

    @action(description="Versions", icon="history", url_path="versions", permissions=["view"])
    def versions_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        policy = self._policy(request, object_id)
        versions = policy.versions.order_by("-number")
        before = request.GET.get("before", "")
        if before.isdecimal() and len(before) < 10:
            versions = versions.filter(number__lt=int(before))
        rows = list(versions[: VERSIONS_A_PAGE + 1])
        context = {
            "policy": policy,
            "versions": _with_changes(rows)[:VERSIONS_A_PAGE],
            "next_before": rows[VERSIONS_A_PAGE - 1].number if len(rows) > VERSIONS_A_PAGE else None,
            "may_roll_back": self._may_roll_back(request, policy),
        }
        return self._page(request, policy, "Versions", "versions.html", context)

    def roll_back(self, request: HttpRequest, object_id: str, number: int) -> HttpResponse:
        policy = self._policy(request, object_id)
        if not self._may_roll_back(request, policy):
            raise PermissionDenied
        version = policy.versions.filter(number=number).first()
        if version is None:
            raise Http404("There is no such version.")
        form = RollBackForm(request.POST or None)
        if "confirmed" not in request.POST or not form.is_valid():
            return self._ask_to_roll_back(request, policy, version, form)
        try:
            now = services.roll_back(policy, version, request.user, form.cleaned_data["note"])  # type: ignore[arg-type]
        except ValidationError as error:
            messages.error(request, f"Version {number} cannot be in force again. {' '.join(error.messages)}")
        else:
            self.log_change(request, policy, f"Rolled back to version {number}, as version {now.number}.")
            self._say_rolled_back(request, policy, version, now)
        return HttpResponseRedirect(reverse("admin:policies_policy_versions_page", args=[policy.pk]))

    def _ask_to_roll_back(
        self, request: HttpRequest, policy: Policy, version: PolicyVersion, form: RollBackForm
    ) -> HttpResponse:
        is_current = version.pk == policy.current_id
        explanation = (
            "The working copy becomes what is in force now. Changes that were not published are lost."
            if is_current
            else "What this version said is published again, as a new version, and the working copy becomes the same. "
            "Changes that were not published are lost; all versions stay."
        )
        return confirm(
            self,
            request,
            [version],
            title="Discard unpublished changes" if is_current else f"Roll back to version {version.number}",
            explanation=f"{explanation} {'' if is_current else LIVE}",
            button="Discard" if is_current else "Roll back",
            form=None if is_current else form,
            dangerous=is_current,
        )

    def _say_rolled_back(
        self, request: HttpRequest, policy: Policy, version: PolicyVersion, now: PolicyVersion
    ) -> None:
        if now.pk == version.pk:
            messages.info(request, f"The working copy of {policy.name} is as version {now.number} again.")
        else:
            said = f"{policy.name} is back at what version {version.number} said, as version {now.number}."
            self.message_user(request, said, messages.SUCCESS)
            self._warn(request, policy)

    def _may_roll_back(self, request: HttpRequest, policy: Policy) -> bool:
        return self.may_publish(request) and self.has_change_permission(request, policy)

    def _policy(self, request: HttpRequest, object_id: str) -> Policy:
        policy: Policy | None = self.get_object(request, unquote(object_id))
        if policy is None:
            raise Http404("There is no such policy.")
        if not self.has_view_permission(request, policy):
            raise PermissionDenied
        return policy

    def _page(
        self, request: HttpRequest, policy: Policy, title: str, template: str, given: dict[str, Any]
    ) -> TemplateResponse:
        context = {**self.admin_site.each_context(request), "title": title, "opts": self.opts, "original": policy}
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"admin/policies/policy/{template}", context | given)


def state_of(policy: Policy) -> str:
    """A key of STATE_COLORS. Reads its version, rules and assignments."""
    if not policy.enabled:
        return "switched off"
    if policy.current is None:
        return "never published"
    if has_unpublished_changes(policy):
        return "unpublished changes"
    return "in force" if policy.assignments.all() else "holds for nobody"


def offered_checks() -> list[dict[str, str]]:
    """As values: a template would call a class."""
    checks = sorted(CHECKS.values(), key=lambda check: check.label.lower())
    return [{"name": check.name, "label": check.label, "help": check.help} for check in checks]


def _await_turn(object_id: str | None) -> None:
    """Of two who save at the same moment the second one waits, and is told that its page is out of date."""
    if object_id is not None and object_id.isdecimal():
        list(Policy.objects.select_for_update(of=("self",)).filter(pk=object_id))


def _unpublished(policy: Policy) -> list[words.Change]:
    if policy.current is None:
        return []
    return words.changes(documents.read(policy.current.document), documents.read(document_of(policy)))


def _with_changes(versions: list[PolicyVersion]) -> list[tuple[PolicyVersion, list[words.Change]]]:
    """Each with what it has changed; newest first, and the last one is only there to be compared with."""
    specs = [documents.read(version.document) for version in versions]
    earlier = [*specs, PolicySpec()][1:]
    return [
        (version, words.changes(before, spec)) for version, spec, before in zip(versions, specs, earlier, strict=True)
    ]


def _tried(form: TryForm, cards: RuleCards) -> dict[str, Any]:
    """`trial`, or `wrong`: what has to be corrected before."""
    if not cards.is_valid():
        return {"wrong": cards.wrong() or ["the rules"]}
    if not form.is_valid():
        return {}
    return {"trial": attempt(PolicySpec(name="try it", rules=tuple(cards.specs())), form.conversation)}


def _chosen(policy: Policy, which: str) -> PolicySpec:
    document = policy.current.document if which == VersionedTryForm.IN_FORCE and policy.current else document_of(policy)
    return documents.read(document, policy.name)


def _lines(lines: list[str]) -> SafeString:
    spans = format_html_join("", '<span class="gh-line">{}</span>', ((line,) for line in lines))
    return format_html("<span>{}</span>", spans)
