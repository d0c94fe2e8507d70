"""Word lists as files and as pasted text: bytes and text in, numbered lines out; and entries out as CSV or text.

    text   one entry a line; `!` before it makes it an exception (`\\!` is an entry that begins with `!`)
    CSV    the columns text and allow (yes or no); without a header the first two; `,`, `;` or a tab between them

A cell that a spreadsheet would take for a formula (=, +, -, @) is written with a `'` before it, which reading takes off
again. So what was exported is imported as it was.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_FILE_BYTES = 10 * 1024 * 1024
BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
YES, NO = {"yes", "y", "true", "1", "x"}, {"no", "n", "false", "0", ""}
SEPARATORS = ",;\t"

_LINE_END = re.compile(r"\r\n|\r|\n")
_ESCAPED = re.compile(r"\\+!")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")

NOT_TEXT = "This is no text file. Save the list as text or CSV, in UTF-8, and choose that file."
NOT_UTF8 = (
    "The file is not in UTF-8, so its letters could be mistaken for others. Save it as UTF-8 (in Excel: “CSV UTF-8”) "
    "and choose it again."
)
NOT_CSV = "Line {} of the file is not CSV as it should be: perhaps a quotation mark is missing."
TOO_LARGE = f"The file is larger than {MAX_FILE_BYTES // 1024 // 1024} MB. Split it, or leave out what is not needed."


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it was written. `number`: of its line, from 1. `allow` None: cannot be told."""

    number: int
    text: str
    allow: bool | None = False


# --- reading --------------------------------------------------------------------------------------------------------
def read_file(name: str, content: bytes) -> list[Line]:
    """Lines of an uploaded file; its name says whether it is CSV. Raises ValueError, with a message for whoever chose
    the file."""
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(TOO_LARGE)
    text = decode(content)
    return read_csv(text) if name.lower().endswith((".csv", ".tsv")) else read_text(text)


def decode(content: bytes) -> str:
    """UTF-8, or UTF-16 with its mark. Raises ValueError."""
    encoding = next((found for mark, found in BOMS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(NOT_TEXT if b"\0" in content else NOT_UTF8) from None
    if "\0" in text:
        raise ValueError(NOT_TEXT)
    return text


def read_text(text: str) -> list[Line]:
    """Blank lines are left out, and counted."""
    numbered = ((number, line.strip()) for number, line in enumerate(_LINE_END.split(text), 1))
    return [_line(number, line) for number, line in numbered if line]


def _line(number: int, line: str) -> Line:
    if _ESCAPED.match(line):
        return Line(number, line[1:])
    return Line(number, line[1:].strip(), allow=True) if line.startswith("!") else Line(number, line)


def read_csv(text: str) -> list[Line]:
    """Raises ValueError."""
    text_at, allow_at = 0, 1
    lines: list[Line] = []
    for number, row in _rows(text):
        cells = [cell.strip() for cell in row]
        names = [cell.lower() for cell in cells]
        if number == 1 and "text" in names:
            text_at, allow_at = names.index("text"), names.index("allow") if "allow" in names else -1
        elif found := cells[text_at] if text_at < len(cells) else "":
            lines.append(Line(number, _unguarded(found), _is_allowed(cells, allow_at)))
    return lines


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each with the line on which it begins: a cell may have several."""
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=first.count))
    number = 1
    try:
        for row in reader:
            yield number, row
            number = reader.line_num + 1
    except csv.Error:
        raise ValueError(NOT_CSV.format(number)) from None


def _is_allowed(cells: list[str], at: int) -> bool | None:
    said = cells[at].lower() if 0 <= at < len(cells) else ""
    return True if said in YES else False if said in NO else None


# --- writing --------------------------------------------------------------------------------------------------------
def write_csv(entries: Iterable[tuple[str, bool]]) -> bytes:
    """`entries`: (text, whether it is an exception). With a mark, so that spreadsheets know it for UTF-8."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(("text", "allow"))
    writer.writerows((_guarded(text), "yes" if allow else "no") for text, allow in entries)
    return out.getvalue().encode("utf-8-sig")


def write_text(entries: Iterable[tuple[str, bool]]) -> bytes:
    return "".join(f"{_marked(text, allow)}\n" for text, allow in entries).encode()


def _marked(text: str, allow: bool) -> str:
    if allow:
        return f"!{text}"
    return f"\\{text}" if text.startswith("!") or _ESCAPED.match(text) else text


def _guarded(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def _unguarded(text: str) -> str:
    return text[1:] if _GUARDED.match(text) else text
