"""Tables for spreadsheets: CSV and XLSX. What comes from callers never becomes a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from usage.currency import EXACT

# A cell that begins with one of these is a formula to a spreadsheet, and a key's name or a user agent can begin so.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
CSV_TYPE = "text/csv; charset=utf-8"

Row = Sequence[Any]


def harmless(value: Any) -> Any:
    """The value as a cell: a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def csv_lines(rows: Iterable[Row]) -> bytes:
    """UTF-8. None is an empty cell; a time is written as ISO 8601, a Decimal with all its digits and no exponent."""
    text = io.StringIO()
    csv.writer(text).writerows([_csv_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def plain(amount: Decimal) -> str:
    """All its digits, and no zeros after them."""
    return f"{amount.normalize(EXACT):f}"


def xlsx(title: str, header: Row, rows: Iterable[Row], widths: Sequence[int]) -> bytes:
    """A workbook of one sheet. Rows are written as they come and not kept. A Decimal becomes a number: a spreadsheet
    has 15 digits of it. `widths`: of the columns, in characters."""
    # Here: it takes a tenth of the start of every process, and few ever write a workbook.
    import xlsxwriter

    from usage.workbook import Sheet

    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {"in_memory": True}) as workbook:
        sheet = workbook.add_worksheet(title, Sheet)
        for column, width in enumerate(widths):
            sheet.set_column(column, column, width)
        sheet.freeze_panes(1, 0)
        bold = workbook.add_format({"bold": True})
        for column, name in enumerate(header):
            sheet.write_string(0, column, harmless(name), bold)
        exact = workbook.add_format({"num_format": "#,##0.00#######"})
        whole = workbook.add_format({"num_format": "#,##0"})
        sheet.add_below(([harmless(value) for value in row] for row in rows), exact, whole)
    return file.getvalue()
