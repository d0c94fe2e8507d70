"""Word lists in the admin: pasted, imported, exported, searched, and where they are used."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.versions import POLICIES, current
from policies import entry_files, intake, services, wordlist_admin
from policies.documents import RuleSpec
from policies.models import Policy, Wordlist, WordlistEntry
from policies.tests.admin_pages import MAX_QUERIES, said, staff, superuser, text_of

pytestmark = pytest.mark.django_db

LISTS = reverse("admin:policies_wordlist_changelist")
ADD = reverse("admin:policies_wordlist_add")


@pytest.fixture
def admin_client(client: Client) -> Client:
    return superuser(client)


@pytest.fixture
def frogs() -> Wordlist:
    wordlist = Wordlist.objects.create(name="frogs", description="Amphibians.")
    services.set_entries(wordlist, ["Frog", "Straße", "toad"], ["frogman"])
    return wordlist


@pytest.fixture
def sweets(monkeypatch: pytest.MonkeyPatch) -> Wordlist:
    """A list that ships with Gatehouse."""
    for module in (intake, wordlist_admin):
        monkeypatch.setattr(module, "seed", lambda name: (("Fudge", "toffee"), ("fudge cake",)))
    return Wordlist.objects.create(name="sweets", builtin="sweets")


def url(page: str, wordlist: Wordlist) -> str:
    return reverse(f"admin:policies_wordlist_{page}", args=[wordlist.pk])


def paste(client: Client, wordlist: Wordlist, entries: str = "", *, save: bool = True, **given: Any) -> Any:
    data = {"entries": entries, "how": "add", "_save" if save else "_check": "", **given}
    return client.post(url("import_entries", wordlist), data, follow=True)


def upload(client: Client, wordlist: Wordlist, name: str, content: bytes, **given: Any) -> Any:
    return paste(client, wordlist, file=SimpleUploadedFile(name, content), **given)


def entries(wordlist: Wordlist) -> set[str]:
    """As they would be pasted."""
    return {("!" if allow else "") + text for text, allow in wordlist.entries.values_list("text", "allow")}


def shown(client: Client, wordlist: Wordlist, query: str = "") -> list[str]:
    return [entry.text for entry in client.get(url("change", wordlist) + query).context["entries"].rows]


def use(name: str, wordlist: Wordlist, *, publish: bool = True) -> Policy:
    policy = Policy.objects.create(name=name)
    services.replace_rules(
        policy, [RuleSpec(check="wordlist", name="no frogs", settings={"wordlists": [wordlist.name]})]
    )
    if publish:
        services.publish(policy)
    return policy


def insert_many(wordlist: Wordlist, count: int) -> None:
    """`word 100000` and on, made by the database."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count - 1}) SELECT i FROM n"
    word = "'word ' || (100000 + i)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {WordlistEntry._meta.db_table} (wordlist_id, text, folded, allow) "
            f"SELECT {wordlist.pk}, {word}, {word}, {'false' if connection.vendor == 'postgresql' else 0} "
            f"FROM ({numbers}) numbers"
        )


# --- lists ----------------------------------------------------------------------------------------------------------
def test_list_says_how_many_entries_there_are_and_who_uses_it(
    admin_client: Client, frogs: Wordlist, sweets: Wordlist
) -> None:
    policy = use("exams", frogs)
    page = text_of(admin_client.get(LISTS))
    assert "4 of your own" in page
    assert "3 built in" in page
    assert reverse("admin:policies_policy_change", args=[policy.pk]) in page
    assert "no policy" in page


def test_use_by_a_policy_that_is_not_published_is_told_apart(admin_client: Client, frogs: Wordlist) -> None:
    use("draft", frogs, publish=False)
    assert "(not published)" in text_of(admin_client.get(url("change", frogs)))


def test_pages_take_few_queries(admin_client: Client, frogs: Wordlist, django_assert_max_num_queries: Any) -> None:
    for number in range(5):
        use(f"policy {number}", frogs)
        Wordlist.objects.create(name=f"list {number}")
    for page in (LISTS, url("change", frogs), url("import_entries", frogs)):
        with django_assert_max_num_queries(MAX_QUERIES):
            assert admin_client.get(page).status_code == 200


def test_list_is_made_with_its_first_entries(admin_client: Client) -> None:
    data = {
        "name": "codes",
        "description": "",
        "catch_disguises": "",
        "entries": "bluebird\r\n!bluebird day\r\nBLUEBIRD",
    }
    response = admin_client.post(ADD, data, follow=True)
    made = Wordlist.objects.get(name="codes")
    assert entries(made) == {"bluebird", "!bluebird day"}
    assert (made.entry_count, made.catch_disguises) == (2, False)
    assert response.redirect_chain[-1][0] == url("change", made)
    assert "codes was added, with 2 entries. It is live in about a second." in said(response)


def test_first_entries_that_cannot_be_are_told_by_line(admin_client: Client) -> None:
    response = admin_client.post(ADD, {"name": "codes", "entries": "bluebird\n\n*\n" + "x" * 201})
    page = text_of(response)
    assert "Line 3, “*”" in page
    assert "at most 200 characters" in page
    assert not Wordlist.objects.filter(name="codes").exists()


def test_saving_counts_at_once(admin_client: Client, frogs: Wordlist) -> None:
    before = current().get(POLICIES, 0)
    data = {"name": "frogs", "description": "Green.", "catch_disguises": "on"}
    response = admin_client.post(url("change", frogs), data, follow=True)
    assert "It is live in about a second." in said(response)
    assert current()[POLICIES] > before
    assert entries(frogs) == {"Frog", "Straße", "toad", "!frogman"}


def test_list_in_use_keeps_its_name(admin_client: Client, frogs: Wordlist) -> None:
    use("exams", frogs)
    response = admin_client.post(url("change", frogs), {"name": "toads", "description": ""})
    assert "keeps its name while it is used, by exams" in text_of(response)
    frogs.refresh_from_db()
    assert frogs.name == "frogs"


def test_list_that_ships_with_gatehouse_keeps_its_name_and_stays(admin_client: Client, sweets: Wordlist) -> None:
    admin_client.post(url("change", sweets), {"name": "mine", "description": "mine", "catch_disguises": "on"})
    sweets.refresh_from_db()
    assert (sweets.name, sweets.description) == ("sweets", "")
    assert admin_client.post(url("delete", sweets), {"confirmed": "yes"}).status_code == 403


# --- pasting --------------------------------------------------------------------------------------------------------
def test_pasted_entries_are_added(admin_client: Client, frogs: Wordlist) -> None:
    response = paste(admin_client, frogs, "newt\n!newt soup\nSTRASSE\nnewt")
    assert entries(frogs) == {"Frog", "Straße", "toad", "!frogman", "newt", "!newt soup"}
    assert "Added 2 entries, 2 were there already. It is live in about a second." in said(response)
    assert LogEntry.objects.filter(object_id=str(frogs.pk), change_message__contains="Added 2 entries").exists()


def test_check_shows_what_would_happen_and_saves_nothing(admin_client: Client, frogs: Wordlist) -> None:
    page = text_of(paste(admin_client, frogs, "newt\nSTRASSE\nnewt\n*", save=False))
    for words in ("Nothing was saved yet", "is there as “Straße”", "says the same as line 1, “newt”", "line 4"):
        assert words in page
    assert "only stars or punctuation" in page
    assert entries(frogs) == {"Frog", "Straße", "toad", "!frogman"}


def test_refused_lines_are_left_out_only_when_that_was_seen(admin_client: Client, frogs: Wordlist) -> None:
    first = paste(admin_client, frogs, "newt\n*")
    assert "1 refused line will be left out" in text_of(first)
    assert "newt" not in entries(frogs)
    again = paste(admin_client, frogs, "newt\n*", confirmed=first.context["asks"])
    assert "newt" in entries(frogs)
    assert "1 was refused" in said(again)


def test_replacing_asks_before_it_deletes(admin_client: Client, frogs: Wordlist) -> None:
    first = paste(admin_client, frogs, "FROG\nnewt", how="replace")
    assert "3 entries of your own will be deleted" in text_of(first)
    assert len(entries(frogs)) == 4
    paste(admin_client, frogs, "FROG\nnewt", how="replace", confirmed=first.context["asks"])
    assert entries(frogs) == {"Frog", "newt"}


def test_what_was_agreed_to_holds_for_nothing_else(admin_client: Client, frogs: Wordlist) -> None:
    asks = paste(admin_client, frogs, "FROG\ntoad\nnewt", how="replace").context["asks"]
    paste(admin_client, frogs, "newt", how="replace", confirmed=asks)
    assert len(entries(frogs)) == 4


def test_nothing_new_is_nothing_to_save(admin_client: Client, frogs: Wordlist) -> None:
    before = current().get(POLICIES, 0)
    assert "nothing is new" in text_of(paste(admin_client, frogs, "FROG"))
    assert current().get(POLICIES, 0) == before


def test_what_ships_with_the_list_is_there_already(admin_client: Client, sweets: Wordlist) -> None:
    assert "ships with Gatehouse" in text_of(paste(admin_client, sweets, "FUDGE\nnougat", save=False))
    paste(admin_client, sweets, "FUDGE\nnougat")
    assert entries(sweets) == {"nougat"}


@pytest.mark.parametrize("how", ["add", "replace"])
def test_list_that_would_be_too_long_is_refused(
    admin_client: Client, frogs: Wordlist, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(intake, "MAX_ENTRIES", 5)
    pasted = "\n".join(f"newt {number}" for number in range(6))
    for confirmed in ("", "4 entries of your own will be deleted."):
        response = paste(admin_client, frogs, pasted, how=how, confirmed=confirmed)
        assert "at most 5 entries" in text_of(response)
    assert len(entries(frogs)) == 4


# --- files ----------------------------------------------------------------------------------------------------------
def test_csv_file_is_imported(admin_client: Client, frogs: Wordlist) -> None:
    response = upload(admin_client, frogs, "more.csv", b"text,allow\nnewt,no\nnewt soup,yes\n")
    assert "Added 2 entries" in said(response)
    assert {"newt", "!newt soup"} <= entries(frogs)


def test_checked_file_is_in_the_box_to_be_corrected_and_saved(admin_client: Client, frogs: Wordlist) -> None:
    response = upload(admin_client, frogs, "more.csv", b"text,allow\nnewt,no\nsoup,yes\n*,no\n", save=False)
    assert response.context["form"]["entries"].value() == "newt\n!soup\n*\n"
    assert len(entries(frogs)) == 4


def test_checked_file_that_is_too_long_for_the_box_has_to_be_chosen_again(
    admin_client: Client, frogs: Wordlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.wordlist_forms.MAX_PASTED_CHARS", 10)
    response = upload(admin_client, frogs, "more.txt", b"newt\nsalamander\n", save=False)
    assert "choose it again to save it" in text_of(response)


def test_what_was_exported_is_there_already_when_imported(admin_client: Client, frogs: Wordlist) -> None:
    services.add_entries(frogs, ["=1+1", "+49 30"])
    for page, name in (("export_csv", "frogs.csv"), ("export_text", "frogs.txt")):
        exported = admin_client.get(url(page, frogs))
        assert exported["Content-Disposition"] == f'attachment; filename="{name}"'
        response = upload(admin_client, frogs, name, exported.content, save=False)
        assert [(part.title, part.count) for part in response.context["report"]] == [("There already", 6)]


def test_export_holds_what_is_ones_own(admin_client: Client, sweets: Wordlist) -> None:
    services.set_entries(sweets, ["nougat"], ["toffee"])
    assert admin_client.get(url("export_text", sweets)).content.decode() == "nougat\n!toffee\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", "Straße".encode("latin-1"), "not in UTF-8"),
        ("excel.csv", "text\nStraße".encode("cp1252"), "not in UTF-8"),
        ("utf16.txt", "Straße".encode("utf-16-le"), "no text file"),
        ("list.xlsx", b"PK\x03\x04\x14\0\x06\0", "no text file"),
        ("picture.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no text file"),
        ("every-byte.txt", bytes(range(256)) * 10, "no text file"),
        ("broken.csv", b'text\n"' + b"x" * 200_000, "is not CSV"),
        ("empty.txt", b"", "that has some"),
        ("blank.csv", b"text,allow\n", "that has some"),
        ("\u202etxt.exe", b"\0", "no text file"),
    ],
)
def test_file_that_cannot_be_read_is_refused_with_what_to_do(
    admin_client: Client, frogs: Wordlist, name: str, content: bytes, message: str
) -> None:
    response = upload(admin_client, frogs, name, content)
    assert response.status_code == 200
    assert message in text_of(response)
    assert len(entries(frogs)) == 4


def test_file_that_is_too_large_is_refused_unread(
    admin_client: Client, frogs: Wordlist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_files, "MAX_FILE_BYTES", 10)
    assert "The file is larger than" in text_of(upload(admin_client, frogs, "long.txt", b"x" * 11))


def test_long_line_in_a_file_is_refused_by_its_number(admin_client: Client, frogs: Wordlist) -> None:
    response = upload(admin_client, frogs, "one-line.txt", b"newt\n" + b"x" * 500_000)
    page = text_of(response)
    assert "line 2" in page
    assert "at most 200 characters" in page


def test_too_much_to_paste_is_refused_with_what_to_do(admin_client: Client, frogs: Wordlist) -> None:
    assert "Put it into a file" in text_of(paste(admin_client, frogs, "newt\n" * 200_001))


def test_paste_and_file_together_are_refused(admin_client: Client, frogs: Wordlist) -> None:
    response = upload(admin_client, frogs, "more.txt", b"newt", entries="salamander")
    assert "not both" in text_of(response)


@pytest.mark.parametrize("pasted", ["", "\n \n", "\0", "newt\0"])
def test_nothing_or_nonsense_is_refused(admin_client: Client, frogs: Wordlist, pasted: str) -> None:
    response = paste(admin_client, frogs, pasted)
    assert response.status_code == 200
    assert len(entries(frogs)) == 4


# --- entries on the page of their list ------------------------------------------------------------------------------
def test_entries_stand_in_alphabetical_order(admin_client: Client, frogs: Wordlist) -> None:
    assert shown(admin_client, frogs) == ["Frog", "frogman", "Straße", "toad"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?q=FROG", ["Frog", "frogman"]),
        ("?q=strasse", ["Straße"]),
        ("?q=ROGM", ["frogman"]),
        ("?q=newt", []),
        ("?q=%25", []),
        ("?q=%00", ["Frog", "frogman", "Straße", "toad"]),
        ("?kind=words", ["Frog", "Straße", "toad"]),
        ("?kind=exceptions", ["frogman"]),
        ("?kind=shipped", ["Frog", "frogman", "Straße", "toad"]),
        ("?q=frog&kind=exceptions", ["frogman"]),
        ("?after=nonsense", ["Frog", "frogman", "Straße", "toad"]),
        ("?after=99999999999999999999", ["Frog", "frogman", "Straße", "toad"]),
        ("?after=4711", ["Frog", "frogman", "Straße", "toad"]),
    ],
)
def test_entries_are_found(admin_client: Client, frogs: Wordlist, query: str, found: list[str]) -> None:
    assert shown(admin_client, frogs, query) == found


def test_pages_of_entries_follow_each_other(admin_client: Client, frogs: Wordlist) -> None:
    services.set_entries(frogs, [f"word {n:03}" for n in range(120)], [f"word {n:03}" for n in range(0, 120, 7)])
    seen: list[tuple[str, bool]] = []
    query = "?q=WORD"
    while query:
        page = admin_client.get(url("change", frogs) + query.partition("#")[0]).context["entries"]
        seen += [(entry.text, entry.allow) for entry in page.rows]
        query = page.next_url
    assert seen == sorted(frogs.entries.values_list("text", "allow"))


def test_page_of_a_list_of_100000_is_cheap(admin_client: Client, frogs: Wordlist) -> None:
    """Neither counted nor skipped through: a tenth of a second or less, on SQLite and on PostgreSQL."""
    insert_many(frogs, 100_000)
    near_end = frogs.entries.get(folded="word 199000").pk
    for query in ("", "?q=word", "?q=nothing", "?q=199999", "?kind=exceptions", f"?after={near_end}"):
        with CaptureQueriesContext(connection) as asked:
            began = time.perf_counter()
            assert admin_client.get(url("change", frogs) + query).status_code == 200
            took = time.perf_counter() - began
        assert len(asked) <= MAX_QUERIES, query
        assert not [entry for entry in asked if "COUNT(" in entry["sql"].upper()], query
        assert took < 2, query  # a guard against scans, not a measurement: machines are shared


def test_chosen_entries_are_deleted_and_one_comes_back_to_the_same_page(admin_client: Client, frogs: Wordlist) -> None:
    chosen = [frogs.entries.get(text=text).pk for text in ("Frog", "frogman")]
    response = admin_client.post(url("delete_chosen", frogs), {"entry": chosen, "here": "?q=frog#entries"}, follow=True)
    assert entries(frogs) == {"Straße", "toad"}
    assert response.redirect_chain[0][0] == url("change", frogs) + "?q=frog#entries"
    assert "Deleted 2 entries" in said(response)


@pytest.mark.parametrize("chosen", [[], ["nonsense"], ["99999999999999999999"], ["4711"]])
def test_nothing_chosen_deletes_nothing(admin_client: Client, frogs: Wordlist, chosen: list[str]) -> None:
    response = admin_client.post(url("delete_chosen", frogs), {"entry": chosen}, follow=True)
    assert "No entry was chosen" in said(response)
    assert len(entries(frogs)) == 4


def test_entries_of_another_list_are_not_deleted(admin_client: Client, frogs: Wordlist) -> None:
    other = Wordlist.objects.create(name="other")
    services.set_entries(other, ["frog"])
    admin_client.post(url("delete_chosen", frogs), {"entry": [other.entries.get().pk]})
    assert entries(other) == {"frog"}


@pytest.mark.parametrize("here", ["//evil.example", "https://evil.example", "javascript:alert(1)"])
def test_way_back_leads_nowhere_else(admin_client: Client, frogs: Wordlist, here: str) -> None:
    response = admin_client.post(url("delete_chosen", frogs), {"here": here})
    assert response["Location"] == url("change", frogs) + "#entries"


def test_all_entries_are_deleted_only_when_asked_twice(admin_client: Client, frogs: Wordlist) -> None:
    page = text_of(admin_client.post(url("delete_all", frogs)))
    assert "4 entries of your own are deleted" in page
    assert len(entries(frogs)) == 4
    response = admin_client.post(url("delete_all", frogs), {"confirmed": "yes"}, follow=True)
    assert entries(frogs) == set()
    assert "Deleted 4 entries. It is live in about a second." in said(response)


def test_entries_are_shown_as_text(admin_client: Client, frogs: Wordlist) -> None:
    services.add_entries(frogs, ["<script>alert(1)</script>"])
    page = text_of(admin_client.get(url("change", frogs)))
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "No entries yet, so nothing is found."),
        ("?kind=exceptions", "No exceptions."),
        ("?q=x", "Nothing here has"),
    ],
)
def test_empty_list_says_what_to_do(admin_client: Client, query: str, words: str) -> None:
    empty = Wordlist.objects.create(name="empty")
    assert words in text_of(admin_client.get(url("change", empty) + query))


# --- what ships with Gatehouse --------------------------------------------------------------------------------------
def shipped(client: Client, wordlist: Wordlist, term: str = "") -> list[tuple[str, bool, bool]]:
    page = client.get(url("change", wordlist), {"kind": "shipped", "q": term}).context["entries"]
    return [(word.text, word.is_exception, word.ships_as_exception) for word in page.shipped]


def test_built_in_words_can_be_read_and_searched(admin_client: Client, sweets: Wordlist) -> None:
    assert shipped(admin_client, sweets) == [
        ("Fudge", False, False),
        ("fudge cake", False, True),
        ("toffee", False, False),
    ]
    assert [word for word, *_ in shipped(admin_client, sweets, "FUDGE")] == ["Fudge", "fudge cake"]


def test_built_in_word_is_made_an_exception_with_one_click_and_found_again_with_another(
    admin_client: Client, sweets: Wordlist
) -> None:
    response = admin_client.post(
        url("exception", sweets), {"add": "Fudge", "here": "?kind=shipped#entries"}, follow=True
    )
    assert entries(sweets) == {"!Fudge"}
    assert "is an exception now" in said(response)
    assert shipped(admin_client, sweets, "fudge")[0] == ("Fudge", True, False)
    admin_client.post(url("exception", sweets), {"remove": "Fudge"})
    assert entries(sweets) == set()


def test_built_in_words_come_in_pages(admin_client: Client, sweets: Wordlist, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tuple(f"sweet {number:03}" for number in range(120))
    monkeypatch.setattr(wordlist_admin, "seed", lambda name: (words, ()))
    seen: list[str] = []
    query = "?kind=shipped&q=sweet"
    while query:
        page = admin_client.get(url("change", sweets) + query.partition("#")[0]).context["entries"]
        seen += [word.text for word in page.shipped]
        query = page.next_url
    assert seen == list(words)


@pytest.mark.parametrize("word", ["*", "fud\0ge", "x" * 201])
def test_exception_that_cannot_be_is_refused(admin_client: Client, sweets: Wordlist, word: str) -> None:
    response = admin_client.post(url("exception", sweets), {"add": word}, follow=True)
    assert "Nothing was saved" in said(response)
    assert entries(sweets) == set()


def test_list_that_no_release_ships_any_more_still_has_its_own(admin_client: Client) -> None:
    gone = Wordlist.objects.create(name="gone", builtin="gone")
    services.set_entries(gone, ["newt"])
    assert admin_client.get(LISTS).status_code == 200
    assert shown(admin_client, gone) == ["newt"]
    assert "ships no such list any more" in text_of(admin_client.get(url("change", gone), {"kind": "shipped"}))


# --- deleting a list ------------------------------------------------------------------------------------------------
def test_list_is_deleted_only_when_asked_twice(admin_client: Client, frogs: Wordlist) -> None:
    page = text_of(admin_client.post(url("delete", frogs)))
    assert "The list goes, with 4 entries" in page
    response = admin_client.post(url("delete", frogs), {"confirmed": "yes"}, follow=True)
    assert not Wordlist.objects.filter(name="frogs").exists()
    assert "Deleted frogs. It is live in about a second." in said(response)
    assert LogEntry.objects.filter(object_repr="frogs").exists()


def test_list_in_use_is_not_deleted(admin_client: Client, frogs: Wordlist) -> None:
    use("exams", frogs)
    response = admin_client.post(url("delete", frogs), {"confirmed": "yes"}, follow=True)
    assert "Nothing was deleted. frogs is used by the policy exams." in said(response)
    assert Wordlist.objects.filter(name="frogs").exists()


def test_lists_are_not_deleted_several_at_once(admin_client: Client, frogs: Wordlist) -> None:
    admin_client.post(LISTS, {"action": "delete_selected", "_selected_action": [frogs.pk], "post": "yes"})
    assert Wordlist.objects.filter(name="frogs").exists()


# --- who may --------------------------------------------------------------------------------------------------------
CHANGES = ("import_entries", "delete_all", "delete_chosen", "exception")


def test_those_who_may_look_read_and_export_but_change_nothing(client: Client, frogs: Wordlist) -> None:
    reader = staff(client, "policies.view_wordlist")
    page = text_of(reader.get(url("change", frogs)))
    assert "frogman" in page
    assert "Delete the chosen ones" not in page
    assert "Add or import" not in page
    assert reader.get(url("export_csv", frogs)).status_code == 200
    for change in CHANGES:
        assert reader.post(url(change, frogs), {"confirmed": "yes", "entries": "newt", "add": "x"}).status_code == 403
    assert len(entries(frogs)) == 4


def test_others_may_not_even_look(client: Client, frogs: Wordlist) -> None:
    somebody = staff(client, "policies.view_finding")
    for page in ("change", "export_csv", "export_text", "import_entries", "delete", *CHANGES):
        assert somebody.get(url(page, frogs)).status_code == 403, page
    assert somebody.get(LISTS).status_code == 403


@pytest.mark.parametrize("page", ["export_csv", "export_text", "delete", *CHANGES])
def test_page_of_a_list_that_is_not_there_is_not_found(admin_client: Client, page: str) -> None:
    assert admin_client.get(reverse(f"admin:policies_wordlist_{page}", args=["4711"])).status_code == 404
    assert admin_client.get(reverse(f"admin:policies_wordlist_{page}", args=["x"])).status_code == 404
