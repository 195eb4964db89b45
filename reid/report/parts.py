"""Parts of a report that are also files beside its page, or that all reports have."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reid.files import write_text, write_whole
from reid.report import figures, markup
from reid.report.strips import Strip
from reid.report.tables import Table, as_csv, as_latex


def today() -> str:
    """The date of a report."""
    return datetime.date.today().isoformat()


def prepare(folder: Path, names: Iterable[str]) -> None:
    """Make the folder of a report and clear the files of these names: an earlier report may have had more.

    Raises NotADirectoryError if `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"report {folder} is a file, expected a folder or a new name")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for kind in ("png", "svg", "csv", "tex"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)


def chart(
    folder: Path,
    name: str,
    draw: figures.Draw,
    alternative: str,
    caption: str,
    size: tuple[float, float] = figures.SIZE,
    over: str = "",
) -> str:
    """Write a figure as NAME.png and NAME.svg, and return the HTML that shows it, with an SVG `over` it."""
    light, dark = figures.png(draw, size, figures.LIGHT), figures.png(draw, size, figures.DARK)
    _write(folder / f"{name}.png", light)
    _write(folder / f"{name}.svg", figures.svg(draw, size))
    links = markup.files(name, {"svg": "SVG", "png": "PNG"})
    return markup.chart(light, dark, round(100 * size[0]), alternative, caption, links, over)


def table(folder: Path, name: str, content: Table) -> str:
    """Write a table as NAME.csv and NAME.tex, and return the HTML that shows it."""
    write_text(folder / f"{name}.csv", as_csv(content))
    write_text(folder / f"{name}.tex", as_latex(name, content))
    links = markup.files(name, {"csv": "CSV", "tex": "LaTeX"})
    return markup.table(content.caption, content.header, content.rows, links)


def strips(folder: Path, name: str, rows: Sequence[Strip]) -> str:
    """Write strips as NAME.png and NAME.svg, and return the HTML that shows them."""
    draw, size = partial(figures.draw_strips, strips=rows), figures.strips_size(rows)
    _write(folder / f"{name}.png", figures.png(draw, size, dots_per_inch=100))
    _write(folder / f"{name}.svg", figures.svg(draw, size, dots_per_inch=100))
    return markup.strips(rows) + markup.files(name, {"svg": "SVG", "png": "PNG"})


def protocol_table(protocol: Mapping[str, Any], meanings: Mapping[str, str]) -> str:
    """Every choice of a protocol with its value and what it means."""
    rows = [(name.replace("_", " "), _text(value), meanings.get(name, "")) for name, value in protocol.items()]
    return markup.table("Protocol and settings", ("choice", "value", "meaning"), rows)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _write(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_whole(path, write)
