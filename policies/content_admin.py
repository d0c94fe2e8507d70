"""Logged requests and replies in the admin. Reading one needs a permission of its own, and every look is recorded."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timeuntil
from unfold.decorators import display
from unfold.views import ChangeList

from accounts.addresses import client_ip
from accounts.admin_pages import RowFilter, change_url, link_to, short_time
from accounts.keyset import KeysetChangeList, RecordList, WindowFilter
from accounts.models import ApiKey, Team, User
from policies import calls, transcript
from policies.content import open_content
from policies.models import ContentView, LoggedContent
from policies.record_pages import Records, as_uuid, event_link
from policies.transcript import Transcript

VIEW = "policies.view_loggedcontent"
NOT_RECORDED = (
    "Your look could not be recorded, so nothing is shown. Try again; if it stays so, the database takes no writes."
)


class ContentWindow(WindowFilter):
    usual = "week"


@admin.register(LoggedContent)
class LoggedContentAdmin(Records):
    """The list holds no texts. Export is not offered."""

    empty_hint = (
        "Texts are kept where a policy says so: switch on “log requests” or “log replies” in it, and publish it. They "
        "are encrypted, and deleted after the days that the policy says."
    )
    list_before_template = "admin/policies/loggedcontent/before.html"
    list_display = ("time", "key_name", "team_name", "model_name", "kept", "deleted_in", "call")
    list_display_links = ("time",)
    list_filter = (
        ContentWindow,
        ("team", RowFilter),
        ("key", RowFilter),
        ("user", RowFilter),
    )
    search_fields = ("request_id",)
    search_help_text = "Request id of a call, or public id of a key"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ContentList

    def get_queryset(self, request: HttpRequest) -> QuerySet[LoggedContent]:
        queryset: QuerySet[LoggedContent] = super().get_queryset(request)
        kept = {"has_request": ~Q(request=""), "has_reply": ~Q(reply="")}
        return queryset.defer("request", "reply").annotate(**kept)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[LoggedContent], search_term: str
    ) -> tuple[QuerySet[LoggedContent], bool]:
        return calls.search(queryset, search_term), False

    # --- who may ---
    def has_view_permission(self, request: HttpRequest, obj: LoggedContent | None = None) -> bool:
        return bool(request.user.has_perm(VIEW))

    def has_delete_permission(self, request: HttpRequest, obj: LoggedContent | None = None) -> bool:
        return self.has_view_permission(request) and super().has_delete_permission(request, obj)

    # --- columns ---
    @display(description="time")
    def time(self, content: LoggedContent) -> str:
        return short_time(content.at)

    @display(description="key", empty_value="-")
    def key_name(self, content: LoggedContent) -> str | None:
        return content.key_label or None

    @display(description="team", empty_value="-")
    def team_name(self, content: Any) -> str | None:
        return content.team_name or None

    @display(description="model", empty_value="-")
    def model_name(self, content: LoggedContent) -> str | None:
        return content.model or None

    @display(description="kept")
    def kept(self, content: Any) -> str:
        names = [name for name, there in (("request", content.has_request), ("reply", content.has_reply)) if there]
        return " and ".join(names) or "nothing"

    @display(description="will be deleted")
    def deleted_in(self, content: LoggedContent) -> str:
        if content.expires_at <= timezone.now():
            return "with the next sweep"
        return f"in {timeuntil(content.expires_at, depth=1)}"

    @display(description="call")
    def call(self, content: Any) -> SafeString | str:
        return event_link(content)

    # --- the page of one: the texts ---
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Not the admin's own, which is one transaction: the look must be on record before anything is decrypted."""
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        event_id = as_uuid(unquote(object_id))
        content = LoggedContent.objects.filter(pk=event_id).first() if event_id else None
        if content is None:
            raise Http404("There is no such logged content; it may have been deleted after its time.")
        context = {
            **self.admin_site.each_context(request),
            "title": "Logged content",
            "opts": self.opts,
            "original": content,
            "facts": facts_of(request, content),
            "may_delete": self.has_delete_permission(request, content),
        }
        try:
            opened = open_content(content, request.user, client_ip(request))  # type: ignore[arg-type]
        except DatabaseError:
            return self._page(request, context | {"problem": NOT_RECORDED}, status=503)
        sides = [
            side("Request", "as it went to the provider", opened.request, transcript.of_request),
            side("Reply", "as the caller got it", opened.reply, transcript.of_reply),
        ]
        return self._page(request, context | {"sides": sides})

    def _page(self, request: HttpRequest, context: dict[str, Any], status: int = 200) -> HttpResponse:
        request.current_app = self.admin_site.name
        response = TemplateResponse(request, "admin/policies/loggedcontent/content.html", context, status=status)
        response["Cache-Control"] = "no-store"
        return response


class ContentList(RecordList):
    """Adds to each row its team's name and the link to its call."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        pks = {row.team_id for row in self.result_list if row.team_id}
        names = dict(Team.objects.filter(pk__in=pks).values_list("pk", "name")) if pks else {}
        for row in self.result_list:
            row.team_name = names.get(row.team_id, f"deleted ({row.team_id})" if row.team_id else "")
            row.event_url = calls.url(request, row.event_id)


def side(title: str, what: str, text: str | None, read: Any) -> dict[str, Any]:
    """`state`: "kept", "not kept" or "unreadable"."""
    told: Transcript | None = read(text) if text else None
    state = "unreadable" if text is None else "kept" if text else "not kept"
    return {"title": title, "what": what, "state": state, "told": told}


def facts_of(request: HttpRequest, content: LoggedContent) -> list[tuple[str, SafeString | str]]:
    url = calls.url(request, content.event_id)
    call = format_html('<a href="{}" class="text-link">{}</a>', url, content.request_id) if url else content.request_id
    return [
        ("Time", date_format(timezone.localtime(content.at), "DATETIME_FORMAT")),
        ("Call", call),
        ("Key", link_to(ApiKey, content.key_id, content.key_label) or "-"),
        ("Team", link_to(Team, content.team_id) or "-"),
        ("Key's owner", link_to(User, content.user_id) or "-"),
        ("Model", content.model or "-"),
        ("Will be deleted", date_format(timezone.localtime(content.expires_at), "DATETIME_FORMAT")),
    ]


# --- on the page of a usage event -----------------------------------------------------------------------------------
def of_call(request: HttpRequest, event_id: UUID) -> str:
    """A link to what was logged of the call, as HTML; "" when nothing was, or for those who may not read it."""
    if not request.user.has_perm(VIEW):
        return ""
    content = LoggedContent.objects.filter(pk=event_id).defer("request", "reply").first()
    if content is None:
        return ""
    return render_to_string("admin/policies/loggedcontent/of_call.html", {"url": change_url(content)})


# --- who has looked -------------------------------------------------------------------------------------------------
class ContentViewList(KeysetChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        for row in self.result_list:
            row.event_url = calls.url(request, row.event_id)


@admin.register(ContentView)
class ContentViewAdmin(Records):
    """Append-only, for everybody."""

    empty_hint = (
        "Whenever somebody opens a logged request or reply, a line appears here. Nobody can change or delete it."
    )
    list_display = ("time", "username", "client_ip", "request_id", "call")
    list_display_links = None
    list_filter = (("user", RowFilter),)
    search_fields = ("username",)
    search_help_text = "User name, or request id of a call"
    fields = ("time", "username", "client_ip", "request_id")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ContentViewList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ContentView], search_term: str
    ) -> tuple[QuerySet[ContentView], bool]:
        term = search_term.strip()
        return (queryset.filter(Q(username=term) | Q(request_id=term)) if term else queryset), False

    def has_delete_permission(self, request: HttpRequest, obj: ContentView | None = None) -> bool:
        return False

    @display(description="time")
    def time(self, look: ContentView) -> str:
        return short_time(look.at)

    @display(description="call")
    def call(self, look: Any) -> SafeString | str:
        return event_link(look)
