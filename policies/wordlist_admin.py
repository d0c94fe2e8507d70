"""Word lists in the admin: found in, pasted, imported and exported, and where they are used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import pluralize
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import slugify
from django.utils.timesince import timesince
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.views import ChangeList

from accounts.admin_pages import LiveSoon, change_url, confirm
from accounts.audit import record
from policies import entry_files, intake, services
from policies.entry_files import Line
from policies.intake import Intake
from policies.models import Wordlist, WordlistEntry
from policies.wordlist_forms import REPLACE, SHOWN, EntriesForm, NewWordlistForm, WordlistForm, too_many
from policies.wordlist_uses import Use, uses
from policies.wordlists.matcher import fold_entry
from policies.wordlists.seeds import seed

ENTRIES_A_PAGE = 50
SAVE = "_save"
KINDS = {"": "All", "words": "Words to find", "exceptions": "Exceptions"}


class WordlistList(ChangeList):
    """Adds to each row which policies use it, in two queries for all."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        found = uses()
        for row in self.result_list:
            row.uses = found.get(row.name, [])


@admin.register(Wordlist)
class WordlistAdmin(LiveSoon, ModelAdmin):
    empty_hint = "A list holds words and phrases that rules look for, on the way to the provider and back."
    form = WordlistForm
    list_display = ("name", "description", "entries_text", "used_by", "disguises", "changed")
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("name", "description")
    search_help_text = "Name or description"
    actions = None
    actions_detail = ("import_entries",)
    change_form_outer_after_template = "admin/policies/wordlist/entries.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return WordlistList

    def get_form(self, request: HttpRequest, obj: Wordlist | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = NewWordlistForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Wordlist | None = None) -> Any:
        if obj is None:
            return ((None, {"fields": ("name", "description", "catch_disguises", "entries")}),)
        return ((None, {"fields": ("name", "description", "catch_disguises", "used_by", "entries_text")}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Wordlist | None = None) -> tuple[str, ...]:
        facts = ("used_by", "entries_text")
        # Rules and headers of callers know it by this name.
        return ("name", "description", *facts) if obj is not None and obj.builtin else facts

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Wordlist | None:
        """With what uses it, asked once."""
        wordlist: Any = super().get_object(request, object_id, from_field)
        if wordlist is not None:
            wordlist.uses = uses().get(wordlist.name, [])
        return wordlist  # type: ignore[no-any-return]

    def has_delete_permission(self, request: HttpRequest, obj: Wordlist | None = None) -> bool:
        """One that ships with Gatehouse would be made again by the next release."""
        return super().has_delete_permission(request, obj) and (obj is None or not obj.builtin)

    # --- columns ---
    @display(description="entries", ordering="entry_count")
    def entries_text(self, wordlist: Wordlist) -> str:
        parts = [f"{shipped_count(wordlist):,} built in"] if wordlist.builtin else []
        parts += [f"{wordlist.entry_count:,} of your own"] if wordlist.entry_count else []
        return ", ".join(parts) or "none yet"

    @display(description="used by")
    def used_by(self, wordlist: Any) -> SafeString | str:
        return use_links(wordlist.uses) if wordlist.uses else "no policy"

    @display(description="disguises", ordering="catch_disguises")
    def disguises(self, wordlist: Wordlist) -> str:
        return "also in disguise" if wordlist.catch_disguises else "as written"

    @display(description="changed", ordering="updated_at")
    def changed(self, wordlist: Wordlist) -> str:
        return f"{timesince(wordlist.updated_at, depth=1)} ago"

    # --- saving and deleting ---
    def save_model(self, request: HttpRequest, obj: Wordlist, form: Any, change: bool) -> None:
        services.save_wordlist(obj)
        if not change and form.found.new:
            intake.add(obj, form.found)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except ValidationError as error:
            # The form has judged it already: a policy was published since.
            messages.error(request, f"Nothing was saved. {' '.join(error.messages)}")
            return HttpResponseRedirect(request.get_full_path())

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Wordlist | None = None,
    ) -> HttpResponse:
        if obj is not None:
            context |= {"entries": entries_page(obj, request), "may_change": self.has_change_permission(request, obj)}
        context["show_save_and_add_another"] = False
        return super().render_change_form(request, context, add, change, form_url, obj)  # type: ignore[no-any-return]

    def response_add(self, request: HttpRequest, obj: Wordlist, post_url_continue: str | None = None) -> HttpResponse:
        """To its page, where its entries are."""
        self.message_user(request, f"{obj.name} was added, with {entries_phrase(obj.entry_count)}.", messages.SUCCESS)
        return HttpResponseRedirect(change_url(obj))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        wordlist = self._wordlist(request, object_id)
        if not self.has_delete_permission(request, wordlist):
            raise PermissionDenied
        if "confirmed" not in request.POST:
            return confirm(
                self,
                request,
                [wordlist],
                title="Delete the word list",
                explanation=f"The list goes, with {entries_phrase(wordlist.entry_count)}. Export it first if you may "
                "want it back.",
                button="Delete",
            )
        try:
            with transaction.atomic():
                self.log_deletions(request, Wordlist.objects.filter(pk=wordlist.pk))
                services.delete_wordlist(wordlist)
        except ValidationError as error:
            messages.error(request, f"Nothing was deleted. {' '.join(error.messages)}")
            return HttpResponseRedirect(change_url(wordlist))
        self.message_user(request, f"Deleted {wordlist.name}.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:policies_wordlist_changelist"))

    # --- entries ---
    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        own: list[URLPattern] = [
            path("<path:object_id>/export/list.csv", wrap(self.export_csv), name="policies_wordlist_export_csv"),
            path("<path:object_id>/export/list.txt", wrap(self.export_text), name="policies_wordlist_export_text"),
            path("<path:object_id>/entries/delete-all/", wrap(self.delete_all), name="policies_wordlist_delete_all"),
            path("<path:object_id>/entries/delete/", wrap(self.delete_chosen), name="policies_wordlist_delete_chosen"),
            path("<path:object_id>/entries/exception/", wrap(self.exception), name="policies_wordlist_exception"),
        ]
        return [*own, *super().get_urls()]

    @action(description="Add or import", icon="playlist_add", url_path="import", permissions=["change"])
    @intake.collector_at_rest()
    def import_entries(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Pasted or from a file: judged first, and saved when asked to."""
        wordlist = self._wordlist(request, object_id, change=True)
        form = EntriesForm(request.POST or None, request.FILES or None)
        context: dict[str, Any] = {"form": form, "wordlist": wordlist}
        if request.method == "POST" and form.is_valid():
            found = intake.sort_lines(form.lines, wordlist)
            context |= judged(form, found, wordlist)
            confirmed = not context["asks"] or request.POST.get("confirmed") == context["asks"]
            if SAVE in request.POST and confirmed and context["may_save"]:
                return self._save(request, wordlist, found, form.cleaned_data["how"] == REPLACE)
        return self._page(request, wordlist, "Add or import entries", "import.html", context)

    def _save(self, request: HttpRequest, wordlist: Wordlist, found: Intake, replacing: bool) -> HttpResponse:
        try:
            changed = (intake.replace if replacing else intake.add)(wordlist, found)
        except ValidationError as error:
            messages.error(request, f"Nothing was saved. {' '.join(error.messages)}")
            return HttpResponseRedirect(request.get_full_path())
        known = len(found.known) + len(found.shipped) + len(found.doubles)
        said = [f"Added {entries_phrase(changed.added)}"]
        said += [f"removed {changed.removed:,}"] if changed.removed else []
        said += [f"{known:,} {pluralize(known, 'was,were')} there already"] if known else []
        said += [f"{len(found.refused):,} {pluralize(len(found.refused), 'was,were')} refused"] if found.refused else []
        self._done(request, wordlist, f"{', '.join(said)}.")
        return HttpResponseRedirect(change_url(wordlist))

    def export_csv(self, request: HttpRequest, object_id: str) -> HttpResponse:
        wordlist = self._wordlist(request, object_id)
        return attachment(entry_files.write_csv(own_entries(wordlist)), "text/csv", f"{file_name(wordlist)}.csv")

    def export_text(self, request: HttpRequest, object_id: str) -> HttpResponse:
        wordlist = self._wordlist(request, object_id)
        return attachment(entry_files.write_text(own_entries(wordlist)), "text/plain", f"{file_name(wordlist)}.txt")

    def delete_all(self, request: HttpRequest, object_id: str) -> HttpResponse:
        wordlist = self._wordlist(request, object_id, change=True)
        if "confirmed" not in request.POST:
            are = pluralize(wordlist.entry_count, "is,are")
            return confirm(
                self,
                request,
                [wordlist],
                title="Delete all entries",
                explanation=f"{entries_phrase(wordlist.entry_count).capitalize()} of your own {are} deleted, "
                f"exceptions too.{' What ships with Gatehouse stays.' if wordlist.builtin else ''} Export them first "
                "if you may want them back.",
                button="Delete all",
            )
        removed = services.set_entries(wordlist, []).removed
        self._done(request, wordlist, f"Deleted {entries_phrase(removed)}.")
        return HttpResponseRedirect(change_url(wordlist))

    def delete_chosen(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """POST: those that were ticked."""
        wordlist = self._wordlist(request, object_id, change=True)
        pks = [int(pk) for pk in request.POST.getlist("entry") if pk.isdecimal() and len(pk) < 19]
        chosen = list(wordlist.entries.filter(pk__in=pks[: intake.ASKED_AT_ONCE]).values_list("text", "allow"))
        if not chosen:
            messages.warning(request, "No entry was chosen, so nothing was deleted.")
        else:
            words, exceptions = [t for t, allow in chosen if not allow], [t for t, allow in chosen if allow]
            removed = services.remove_entries(wordlist, words, exceptions).removed
            self._done(request, wordlist, f"Deleted {entries_phrase(removed)}.")
        return HttpResponseRedirect(back_to(wordlist, request))

    def exception(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """POST: `add` or `remove` is the word that is to be an exception, or no longer."""
        wordlist = self._wordlist(request, object_id, change=True)
        word, unwanted = request.POST.get("add", ""), request.POST.get("remove", "")
        try:
            if word:
                self._make_exception(request, wordlist, word)
            elif unwanted:
                services.remove_entries(wordlist, [], [unwanted])
                self._done(request, wordlist, f"“{unwanted}” is found again.")
        except ValidationError as error:
            messages.error(request, f"Nothing was saved. {' '.join(error.messages)}")
        return HttpResponseRedirect(back_to(wordlist, request))

    def _make_exception(self, request: HttpRequest, wordlist: Wordlist, word: str) -> None:
        """Raises ValidationError."""
        found = intake.sort_lines([Line(1, word.strip(), allow=True)], wordlist)
        problem = found.refused[0][1] if found.refused else too_many(len(found.new), wordlist)
        if problem:
            raise ValidationError(problem)
        intake.add(wordlist, found)
        self._done(request, wordlist, f"“{word}” is an exception now: where it stands, no entry counts.")

    def _done(self, request: HttpRequest, wordlist: Wordlist, said: str) -> None:
        self.log_change(request, wordlist, said)
        self.message_user(request, said, messages.SUCCESS)

    def _wordlist(self, request: HttpRequest, object_id: str, change: bool = False) -> Wordlist:
        wordlist: Wordlist | None = self.get_object(request, unquote(object_id))
        if wordlist is None:
            raise Http404("There is no such word list.")
        may = self.has_change_permission if change else self.has_view_permission
        if not may(request, wordlist):
            raise PermissionDenied
        return wordlist

    def _page(
        self, request: HttpRequest, wordlist: Wordlist, title: str, template: str, given: dict[str, Any]
    ) -> TemplateResponse:
        context = {**self.admin_site.each_context(request), "title": title, "opts": self.opts, "original": wordlist}
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"admin/policies/wordlist/{template}", context | given)


# --- where it is used -----------------------------------------------------------------------------------------------
def use_links(found: Iterable[Use]) -> SafeString:
    return format_html_join(
        ", ",
        '<a href="{}" class="text-link" title="{}">{}</a>{}',
        (
            (change_url(use.policy), f"Rules: {', '.join(use.rules)}", use.policy.name, "" if use.in_force else DRAFT)
            for use in found
        ),
    )


DRAFT = format_html(" {}", "(not published)")


def shipped_count(wordlist: Wordlist) -> int:
    entries, allowed = shipped(wordlist)
    return len(entries) + len(allowed)


def shipped(wordlist: Wordlist) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(words, exceptions) that ship with Gatehouse; none when a release has dropped the list."""
    try:
        return seed(wordlist.builtin) if wordlist.builtin else ((), ())
    except LookupError:
        return (), ()


def entries_phrase(count: int) -> str:
    return f"{count:,} entr{pluralize(count, 'y,ies')}" if count else "no entries"


# --- the entries on the page of their list --------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ShippedWord:
    """`is_exception` here, by an entry of the list; `ships_as_exception`: from the start."""

    text: str
    is_exception: bool
    ships_as_exception: bool


@dataclass(frozen=True, slots=True)
class EntriesPage:
    """`rows` of your own, in alphabetical order; `shipped` those that fit the search and ship with Gatehouse.
    `tabs`: (name, URL, whether it is the one shown). `here`: the query that leads back to this page."""

    term: str
    kind: str
    rows: list[WordlistEntry]
    shipped: list[ShippedWord] | None
    tabs: list[tuple[str, str, bool]]
    here: str
    next_url: str
    first_url: str


def entries_page(wordlist: Wordlist, request: HttpRequest) -> EntriesPage:
    """Never counted: one page in the order of an index, from the entry that the last one ended with."""
    term, kind = request.GET.get("q", "").replace("\0", "").strip(), request.GET.get("kind", "")
    after = _number(request.GET.get("after", ""))
    tabs = [*KINDS.items(), *([("shipped", "Built in")] if wordlist.builtin else [])]
    shown = {"q": term, "kind": kind}
    rows: list[WordlistEntry] = []
    words: list[ShippedWord] | None = None
    if kind == "shipped" and wordlist.builtin:
        words, following = _shipped_page(wordlist, term, after or 0)
    else:
        rows, following = _own_page(wordlist, term, kind, after)
    return EntriesPage(
        term=term,
        kind=kind,
        rows=rows,
        shipped=words,
        tabs=[(title, _query(**shown | {"kind": name}), name == kind) for name, title in tabs],
        here=_query(**shown, after=str(after or "")),
        next_url=_query(**shown, after=str(following)) if following else "",
        first_url=_query(**shown) if after else "",
    )


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 19 else None


def _own_page(wordlist: Wordlist, term: str, kind: str, after: int | None) -> tuple[list[WordlistEntry], int | None]:
    """`after`: the entry that the last page ended with, by its key; so is what is returned for the next one."""
    rows = list(_rows(wordlist, term, kind, after)[: ENTRIES_A_PAGE + 1])
    return rows[:ENTRIES_A_PAGE], rows[ENTRIES_A_PAGE - 1].pk if len(rows) > ENTRIES_A_PAGE else None


def _rows(wordlist: Wordlist, term: str, kind: str, after: int | None) -> QuerySet[WordlistEntry]:
    rows = wordlist.entries.order_by("folded", "allow")
    if term:
        wanted = fold_entry(term)
        rows = rows.filter(folded__contains=wanted) if wanted else rows.none()
    if kind in ("words", "exceptions"):
        rows = rows.filter(allow=kind == "exceptions")
    last = wordlist.entries.filter(pk=after).first() if after else None
    if last is not None:
        # The first condition alone would do; the second one lets the index begin there.
        later = Q(folded__gt=last.folded) | Q(folded=last.folded, allow__gt=last.allow)
        rows = rows.filter(later, folded__gte=last.folded)
    return rows


def _shipped_page(wordlist: Wordlist, term: str, after: int) -> tuple[list[ShippedWord], int | None]:
    """`after`: so many are on earlier pages. They are in memory already."""
    words, allowed = shipped(wordlist)
    wanted = fold_entry(term)
    folded = [(fold_entry(text), text, False) for text in words] + [(fold_entry(text), text, True) for text in allowed]
    found = sorted(entry for entry in folded if wanted in entry[0] and bool(wanted) is bool(term))
    page = found[after : after + ENTRIES_A_PAGE]
    own = wordlist.entries.filter(allow=True, folded__in=[key for key, *_ in page])
    exceptions = set(own.values_list("folded", flat=True))
    following = after + ENTRIES_A_PAGE
    return (
        [ShippedWord(text, key in exceptions, ships_as_exception) for key, text, ships_as_exception in page],
        following if following < len(found) else None,
    )


def _query(**parameters: str) -> str:
    return f"?{urlencode({name: value for name, value in parameters.items() if value})}#entries"


def back_to(wordlist: Wordlist, request: HttpRequest) -> str:
    """The same page of entries; `here` comes from the page's own form."""
    here = request.POST.get("here", "")
    return f"{change_url(wordlist)}{here if here.startswith('?') else '#entries'}"


# --- import and export ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ReportPart:
    """`lines`: (number, text, what to say of it); the first few. `kind`: colour of its number."""

    title: str
    kind: str
    count: int
    lines: list[tuple[int, str, str]]

    @property
    def count_text(self) -> str:
        return f"{self.count:,}"

    @property
    def more(self) -> str:
        """ "" for none."""
        return f"{self.count - len(self.lines):,}" if self.count > len(self.lines) else ""


def judged(form: EntriesForm, found: Intake, wordlist: Wordlist) -> dict[str, Any]:
    """What the page says of the lines before they are saved.

    problem   why they cannot be
    asks      what saving would do that one may not expect; it takes a second press
    may_save  whether there is anything to be saved
    """
    replacing = form.cleaned_data["how"] == REPLACE
    kept = len(found.new) + len(found.known)
    removed = max(0, wordlist.entry_count - len(found.known)) if replacing else 0
    asks = [f"{entries_phrase(removed).capitalize()} of your own will be deleted."] if removed else []
    if found.refused:
        asks.append(f"{len(found.refused):,} refused {pluralize(len(found.refused), 'line,lines')} will be left out.")
    problem = too_many(kept - wordlist.entry_count if replacing else len(found.new), wordlist)
    came_as_file = form.cleaned_data["file"] is not None
    if came_as_file:
        form.show_as_pasted()
    return {
        "report": report(found),
        "problem": problem,
        "asks": " ".join(asks),
        "may_save": bool(found.new or removed) and not problem,
        "needs_file": came_as_file and not form.data["entries"],
    }


def report(found: Intake) -> list[ReportPart]:
    """Those that have lines."""
    refused = [(line.number, line.text, reason) for line, reason in found.refused]
    doubles = [(line.number, line.text, f"says the same as line {first.number}, “{first.text}”")
               for line, first in found.doubles]  # fmt: skip
    known = [(line.number, line.text, "" if text == line.text else f"is there as “{text}”")
             for line, text in found.known]  # fmt: skip
    shipped_already = [(line.number, line.text, "ships with Gatehouse") for line in found.shipped]
    new = [(line.number, line.text, "an exception" if line.allow else "") for line in found.new]
    parts = (
        ("Refused", "danger", refused),
        ("New", "success", new),
        ("Twice in what you gave", "warning", doubles),
        ("There already", "info", known),
        ("Built in already", "info", shipped_already),
    )
    return [ReportPart(title, kind, len(lines), lines[:SHOWN]) for title, kind, lines in parts if lines]


def own_entries(wordlist: Wordlist) -> Iterable[tuple[str, bool]]:
    return wordlist.entries.order_by("folded", "allow").values_list("text", "allow").iterator(chunk_size=5000)


def file_name(wordlist: Wordlist) -> str:
    return slugify(wordlist.name) or f"wordlist-{wordlist.pk}"


def attachment(content: bytes, kind: str, name: str) -> HttpResponse:
    record("wordlist.exported", ("policies.wordlist", "", name))
    response = HttpResponse(content, content_type=f"{kind}; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["X-Content-Type-Options"] = "nosniff"
    return response
