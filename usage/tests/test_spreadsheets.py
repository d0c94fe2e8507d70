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


def test_text_that_xml_cannot_say_is_kept() -> None:
    book = xlsx("Sheet", ["name"], [["a\x07<b> & \r _x0041_ "]], [10])
    with zipfile.ZipFile(io.BytesIO(book)) as files:
        sheet = ElementTree.fromstring(files.read("xl/worksheets/sheet1.xml"))
    # What a spreadsheet reads as the character of that number.
    assert "".join(sheet.itertext()).endswith("a_x0007_<b> & _x000D_ _x005F_x0041_ ")


def test_workbook_says_how_numbers_look_and_the_header_stays_in_sight() -> None:
    book = xlsx("Sheet", ["name", "calls", "cost"], [["a", 3, Decimal("0.5")], ["b", None, None]], [30, 10, 10])
    space = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    with zipfile.ZipFile(io.BytesIO(book)) as files:
        sheet = ElementTree.fromstring(files.read("xl/worksheets/sheet1.xml"))
        styles = ElementTree.fromstring(files.read("xl/styles.xml"))
    formats = {each.get("numFmtId"): each.get("formatCode") for each in styles.findall(".//m:numFmt", space)}
    kinds = [each.get("numFmtId") for each in styles.findall(".//m:cellXfs/m:xf", space)]
    looks = {cell.get("r"): kinds[int(cell.get("s") or 0)] for cell in sheet.findall(".//m:c", space)}
    assert set(looks) == {"A1", "B1", "C1", "A2", "B2", "C2", "A3"}
    assert (formats[looks["B2"]], formats[looks["C2"]]) == ("#,##0", "#,##0.00#######")
    assert sheet.find(".//m:pane[@state='frozen']", space) is not None
