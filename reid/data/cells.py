"""Cells of the tables that we write: what somebody said there is no formula, whatever spreadsheet opens them."""

import re
from collections.abc import Mapping
from typing import Any

BOM = "\ufeff"  # begins tables for people: without it, Excel takes UTF-8 for the letters of an old Windows

# With what a formula begins, also behind the mark that says it is none, so that all texts come back as they were.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def as_cell(value: Any) -> Any:
    """A value as it is written: a text that a spreadsheet would compute gets a ' in front; numbers stay."""
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def from_cell(cell: str) -> str:
    """The text that `as_cell` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def as_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it is written, by the names of its columns."""
    return {name: as_cell(value) for name, value in row.items()}
