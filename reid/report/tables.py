"""Tables of a report as text, CSV and LaTeX: values with their intervals, written the same way everywhere."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from reid.data.cells import as_cell


@dataclass(frozen=True)
class Share:
    """A fraction in [0, 1] with the ends of its interval where that is known; shown in percent."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def between(cls, value: float, low: float, high: float) -> Self:
        """A share with the interval of a bootstrap.

        That has no width where all or none of the queries succeed, and is NaN where unknown: then it says nothing.
        """
        return cls(value, low, high) if low < high else cls(value)

    def __str__(self) -> str:
        return f"{self.percent}{f' {self.interval}' if self.interval else ''}"

    @property
    def percent(self) -> str:
        """The value without its interval."""
        return f"{100 * self.value:.1f} %"

    @property
    def interval(self) -> str:
        """The interval in percent, in brackets; empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Points(Share):
    """A difference of two shares, in [-1, 1], with the ends of its interval; shown in percentage points."""

    @property
    def percent(self) -> str:
        return f"{100 * self.value:+.1f}"

    @property
    def interval(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


Cell = str | int | float | Share | None
"""None is an empty cell; a float is shown with four digits."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column names the rows."""

    caption: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]


def as_text(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def as_csv(table: Table) -> str:
    """For programs: numbers as they are, shares as fractions, their intervals in two columns beside them."""
    wide = _with_intervals(table)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header: list[str] = []
    for column, name in enumerate(table.header):
        header += [name, f"{name} low", f"{name} high"] if column in wide else [name]
    writer.writerow([as_cell(name) for name in header])
    for row in table.rows:
        writer.writerow([value for column, cell in enumerate(row) for value in _values(cell, column in wide)])
    return buffer.getvalue()


def as_latex(name: str, table: Table) -> str:
    """For papers: a table of the package booktabs; shares in percent, their intervals in brackets."""
    numbers = [
        any(isinstance(row[column], int | float | Share) for row in table.rows) for column in range(len(table.header))
    ]
    columns = "".join("r" if number else "l" for number in numbers)
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{escape_latex(table.caption)}}}",
        f"  \\label{{tab:{name.replace('_', '-')}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        "    \\toprule",
        f"    {' & '.join(map(escape_latex, table.header))} \\\\",
        "    \\midrule",
        *(f"    {' & '.join(escape_latex(as_text(cell)) for cell in row)} \\\\" for row in table.rows),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


_SPECIAL = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    # Two rows below each other, the second beginning with a bracket, would read it as the first one's spacing.
    "[": "{[}",
    "]": "{]}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return "".join(_SPECIAL.get(letter, letter) for letter in " ".join(text.split()))


def _with_intervals(table: Table) -> set[int]:
    """The columns that have an interval somewhere."""
    return {
        column
        for row in table.rows
        for column, cell in enumerate(row)
        if isinstance(cell, Share) and cell.low is not None
    }


def _values(cell: Cell, wide: bool) -> Iterator[str | int | float | None]:
    if isinstance(cell, Share):
        yield cell.value
        yield from (cell.low, cell.high) if wide else ()
    else:
        yield as_cell(cell)
        yield from (None, None) if wide else ()
