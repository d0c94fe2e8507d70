"""The sheet of a workbook that has thousands of rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from xlsxwriter.format import Format
from xlsxwriter.utility import xl_col_to_name
from xlsxwriter.worksheet import Worksheet

# What XML 1.0 cannot say is written as ECMA-376 (22.9.2.19, ST_Xstring) has it.
_UNSPEAKABLE = {code: f"_x{code:04X}_" for code in (*range(32), 0xFFFE, 0xFFFF) if code not in (9, 10)}
_ESCAPES = str.maketrans({**_UNSPEAKABLE, ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"})
_LOOKS_ESCAPED = re.compile("_(?=x[0-9A-Fa-f]{4}_)")


class Sheet(Worksheet):
    """Writes the rows below the first one itself: the library takes several times as long over them. All else is the
    library's. What is called of it here is pinned with its version, and test_spreadsheets.py reads what comes of it."""

    _below: Iterable[str] = ()

    def add_below(self, rows: Iterable[Sequence[Any]], exact: Format, whole: Format) -> None:
        """Texts, numbers and None, asked for when the book is closed. Decimals look like `exact`, other numbers like
        `whole`."""
        styles = exact._get_xf_index(), whole._get_xf_index()
        self._below = (_row(number, row, *styles) for number, row in enumerate(rows, start=2))

    def _write_sheet_data(self) -> None:
        self._xml_start_tag("sheetData")
        self._write_rows()
        self.fh.writelines(self._below)
        self._xml_end_tag("sheetData")


def _row(number: int, row: Sequence[Any], exact: int, whole: int) -> str:
    return f'<row r="{number}">{"".join(_cells(number, row, exact, whole))}</row>'


def _cells(number: int, row: Sequence[Any], exact: int, whole: int) -> Iterator[str]:
    for column, value in enumerate(row):
        place = f'r="{_name(column)}{number}"'
        if isinstance(value, str):
            yield f'<c {place} t="inlineStr"><is><t xml:space="preserve">{_escaped(value)}</t></is></c>'
        elif value is not None:
            style = exact if isinstance(value, Decimal) else whole
            yield f'<c {place} s="{style}"><v>{value:.16G}</v></c>'


def _escaped(text: str) -> str:
    return _LOOKS_ESCAPED.sub("_x005F_", text).translate(_ESCAPES)


def _name(column: int) -> str:
    return _NAMES[column] if column < len(_NAMES) else str(xl_col_to_name(column))


_NAMES = [str(xl_col_to_name(column)) for column in range(26)]
