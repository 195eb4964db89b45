"""Parts of a report that are also files beside its page, or that all reports have."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reid.files import write_whole
from reid.report import figures, markup
from reid.report.strips import Strip


def prepare(folder: Path, names: Iterable[str]) -> None:
    """Make the folder of a report and clear the figures of these names: an earlier report may have had more.

    Raises NotADirectoryError if `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"report {folder} is a file, expected a folder or a new name")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.png").unlink(missing_ok=True)


def chart(
    folder: Path,
    name: str,
    draw: figures.Draw,
    alternative: str,
    caption: str,
    size: tuple[float, float] = figures.SIZE,
) -> str:
    """Write a figure as NAME.png, and return the HTML that shows it."""
    light, dark = figures.png(draw, size, figures.LIGHT), figures.png(draw, size, figures.DARK)
    _write_png(folder / f"{name}.png", light)
    return markup.chart(light, dark, round(100 * size[0]), alternative, caption)


def strips(folder: Path, name: str, rows: Sequence[Strip]) -> str:
    """Write strips as NAME.png, and return the HTML that shows them."""
    draw = partial(figures.draw_strips, strips=rows)
    picture = figures.png(draw, figures.strips_size(rows), dots_per_inch=100)
    _write_png(folder / f"{name}.png", picture)
    return markup.strips(rows)


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


def _write_png(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_whole(path, write)
