"""Word lists as files: what is read from any bytes, and that what was exported comes back as it was."""

from __future__ import annotations

import csv
import io

import pytest

from policies import entry_files
from policies.entry_files import Line, decode, read_csv, read_file, read_text, write_csv, write_text

ENTRIES = [
    ("secret project", False),
    ("frogman", True),
    ("=cmd()", False),
    ("+49 30", False),
    ("-minus", True),
    ("@alice", False),
    ("'=quoted", False),
    ("'plain", False),
    ("!important", False),
    ("!bang", True),
    ("\\!escaped", False),
    ("\\back", False),
    ('say "hi", bob', False),
    ("a;b", False),
    ("Straße", False),
    ("مرحبا", False),
]


@pytest.mark.parametrize(("write", "name"), [(write_csv, "list.csv"), (write_text, "list.txt")])
def test_what_is_exported_is_imported_as_it_was(write: object, name: str) -> None:
    content = write(ENTRIES)  # type: ignore[operator]
    assert [(line.text, line.allow) for line in read_file(name, content)] == ENTRIES


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "'=1"])
def test_spreadsheet_takes_no_exported_cell_for_a_formula(text: str) -> None:
    rows = list(csv.reader(io.StringIO(write_csv([(text, False)]).decode("utf-8-sig"))))
    assert rows[1][0] == f"'{text}"


def test_exported_csv_is_known_for_utf8_by_spreadsheets() -> None:
    assert write_csv([]).startswith(b"\xef\xbb\xbf")


# --- text -----------------------------------------------------------------------------------------------------------
def test_text_has_one_entry_a_line_and_lines_are_numbered() -> None:
    assert read_text("frog\r\n\r\n  toad  \rnewt") == [Line(1, "frog"), Line(3, "toad"), Line(4, "newt")]


def test_line_separators_of_unicode_end_no_line() -> None:
    assert [line.text for line in read_text("one\u2028two\x0bthree")] == ["one\u2028two\x0bthree"]


@pytest.mark.parametrize(
    ("line", "text", "allow"),
    [
        ("!frogman", "frogman", True),
        ("! frogman", "frogman", True),
        ("\\!frog", "!frog", False),
        ("frog!", "frog!", False),
    ],
)
def test_exclamation_mark_makes_an_exception(line: str, text: str, allow: bool) -> None:
    assert read_text(line) == [Line(1, text, allow)]


# --- CSV ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "content",
    [
        "text,allow\nfrog,no\nfrogman,yes\n",
        "text;allow\nfrog;no\nfrogman;yes\n",
        "text\tallow\nfrog\tno\nfrogman\tyes\n",
        "allow,comment,text\n,green,frog\nx,diver,frogman\n",
        "Text,Allow\nfrog,FALSE\nfrogman,TRUE\n",
        "frog,no\nfrogman,1\n",
        '"text","allow"\r\n"frog",""\r\n"frogman","true"\r\n',
    ],
)
def test_csv_is_read_however_spreadsheets_write_it(content: str) -> None:
    assert [(line.text, line.allow) for line in read_csv(content)] == [("frog", False), ("frogman", True)]


def test_csv_of_one_column_needs_no_header() -> None:
    assert [line.text for line in read_csv("frog\ntoad\n")] == ["frog", "toad"]


def test_lines_of_csv_are_numbered_as_in_the_file() -> None:
    assert [line.number for line in read_csv('text\nfrog\n\n"two\nlines"\ntoad\n')] == [2, 4, 6]


def test_allow_that_says_neither_yes_nor_no_is_told() -> None:
    assert read_csv("text,allow\nfrog,perhaps\n") == [Line(2, "frog", None)]


def test_missing_quotation_mark_is_told_with_its_line() -> None:
    with pytest.raises(ValueError, match="Line 2 of the file is not CSV"):
        read_csv('text\n"frog\n' + "x" * 200_000)


# --- bytes ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_say_what_they_are_are_read(encoding: str) -> None:
    assert decode("Straße\n".encode(encoding)) == "Straße\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Straße".encode("latin-1"), "not in UTF-8"),
        ("frog".encode("utf-16-le"), "no text file"),
        ("frog".encode("utf-32"), "no text file"),
        (b"\xff\xfef", "not in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no text file"),
        (b"PK\x03\x04\x14\0\x06\0", "no text file"),
        (bytes(range(256)), "no text file"),
        (b"\0", "no text file"),
        (b"\xed\xa0\x80", "not in UTF-8"),
    ],
)
def test_other_bytes_are_refused_with_what_to_do(content: bytes, message: str) -> None:
    for name in ("list.txt", "list.csv", "", "list.xlsx"):
        with pytest.raises(ValueError, match=message):
            read_file(name, content)


def test_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_files, "MAX_FILE_BYTES", 10)
    assert read_file("list.txt", b"x" * 10)
    with pytest.raises(ValueError, match="larger than"):
        read_file("list.txt", b"x" * 11)
