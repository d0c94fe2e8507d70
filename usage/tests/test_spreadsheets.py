"""Tables for spreadsheets: exact, and harmless to open."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from usage.spreadsheets import csv_lines, harmless, xlsx

STARTS = ["=", "+", "-", "@", "\t", "\r", "\n"]
NAMES = ["equals", "plus", "minus", "at", "tab", "return", "newline"]


@pytest.mark.parametrize("start", STARTS, ids=NAMES)
def test_formula_is_shown_not_run(start: str) -> None:
    assert harmless(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


@pytest.mark.parametrize("value", ["gpt-4", "a=b", "", None, -5, Decimal("-0.5")], ids=str)
def test_everything_else_stays_as_it_is(value: object) -> None:
    assert harmless(value) == value


def test_csv_keeps_every_digit() -> None:
    row = ["a,b", None, -3, Decimal("0.000000001"), Decimal("1E+3"), datetime(2026, 11, 1, tzinfo=UTC)]
    assert csv_lines([row]) == b'"a,b",,-3,0.000000001,1000,2026-11-01T00:00:00+00:00\r\n'


def test_workbook_has_numbers_as_numbers_and_text_as_text() -> None:
    book = xlsx("Sheet", ["name", "cost"], [["=1+1", Decimal("12.345678901")], ["007", 3]], [10, 10])
    with zipfile.ZipFile(io.BytesIO(book)) as files:
        sheet = ElementTree.fromstring(files.read("xl/worksheets/sheet1.xml"))
    space = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    cells = [(cell.get("t"), "".join(cell.itertext())) for cell in sheet.findall(".//m:c", space)]
    text, number = "inlineStr", None
    assert cells[2:] == [(text, "'=1+1"), (number, "12.345678901"), (text, "007"), (number, "3")]
    assert sheet.findall(".//m:f", space) == []
