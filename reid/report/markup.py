"""The HTML of a report: one page that needs nothing beside itself. All text is escaped here."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from reid.report.strips import LOOKS, Strip, Tile
from reid.report.tables import Cell, Share, as_text


@dataclass(frozen=True)
class Section:
    """A part of the page: its name in links, its heading, and its HTML."""

    name: str
    heading: str
    body: str


def page(title: str, summary: str, sections: Sequence[Section]) -> str:
    """The whole page, from its title and a line below it, as text, and its sections."""
    links = "".join(f'<li><a href="#{section.name}">{escape(section.heading)}</a></li>' for section in sections)
    parts = "".join(
        f'<section id="{section.name}"><h2>{escape(section.heading)}</h2>{section.body}</section>\n'
        for section in sections
    )
    # The policy lets a browser load nothing but what is in the page, whatever a file name may hold.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><p>{escape(summary)}</p><nav aria-label="Contents"><ul>{links}</ul></nav></header>
<main>
{parts}</main>
</body>
</html>
"""


def paragraph(text: str, links: str = "") -> str:
    """Text as a paragraph, with HTML at its end."""
    return f"<p>{escape(text)} {links}</p>"


def headline(values: Iterable[tuple[str, Share | int]]) -> str:
    """Headline numbers: names with their values, set large, and intervals."""
    return (
        f"<dl>{''.join(f'<div><dt>{escape(name)}</dt><dd>{_large(value)}</dd></div>' for name, value in values)}</dl>"
    )


def _large(value: Share | int) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return escape(value.percent) + (f" <small>{escape(value.interval)}</small>" if value.interval else "")


def files(name: str, kinds: Mapping[str, str]) -> str:
    """Links to the files beside the page that hold a part of it, by their suffixes."""
    links = " ".join(
        f'<a href="{name}.{suffix}" aria-label="{escape(name)} as {kind}">{kind}</a>' for suffix, kind in kinds.items()
    )
    return f'<span class="files">{links}</span>'


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Cell]], links: str = "") -> str:
    """A table, whose first column names the rows, with HTML beside its caption."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(as_text(name))}</th>{"".join(map(_cell, cells))}</tr>' for name, *cells in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)} {links}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    whole = ' class="share"' if isinstance(cell, Share) else ""
    return f"<td{whole}>{escape(as_text(cell))}</td>"


def details(summary: str, body: str) -> str:
    """HTML that is folded away under a line of text."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def chart(
    light: bytes, dark: bytes, width: int, alternative: str, caption: str, links: str = "", over: str = ""
) -> str:
    """A figure as two PNGs, for light and for dark pages, at most `width` CSS pixels wide.

    `links` is HTML beside its caption, `over` an SVG as large as it that lies over it.
    """
    return (
        f'<figure style="max-width: {width}px"><div class="drawn"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data(dark, "png")}">'
        f'<img src="{_data(light, "png")}" alt="{escape(alternative)}"></picture>{over}</div>'
        f"<figcaption>{escape(caption)} {links}</figcaption></figure>"
    )


def side_by_side(*charts: str) -> str:
    """Figures beside each other where the page is wide enough."""
    return f'<div class="beside">{"".join(charts)}</div>'


def strips(rows: Sequence[Strip]) -> str:
    """Strips of pictures, as large as the longest allows, which wrap where the page is narrow."""
    most = max(len(strip.tiles) for strip in rows)
    parts = []
    for strip in rows:
        tiles = "".join(_tile(tile) for tile in strip.tiles)
        parts.append(f'<h3>{escape(strip.title)}</h3><ol class="strip" style="--most: {most}">{tiles}</ol>')
    return "".join(parts)


def _tile(tile: Tile) -> str:
    look = LOOKS[tile.kind]
    words = ", ".join([tile.heading, *([tile.kind] if tile.kind != tile.heading else []), *tile.notes])
    notes = "".join(f"<span>{escape(note)}</span>" for note in tile.notes)
    return (
        f'<li class="{tile.kind}" title="{escape(tile.path)}"><b>{escape(f"{look.mark} {tile.heading}".strip())}</b>'
        f'<img src="{jpeg(tile.picture)}" alt="{escape(words)}">{notes}</li>'
    )


def jpeg(picture: Image.Image) -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return _data(buffer.getvalue(), "jpeg")


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


_FRAMES = "\n".join(f".{kind} {{ --kind: {look.colour}; }}" for kind, look in LOOKS.items())

STYLE = (
    """
:root { --ink: #1f2328; --muted: #57606a; --line: #d8dee4; --soft: #f6f8fa; --paper: #fff; --link: #0b62b8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --muted: #a3abb5; --line: #30363d; --soft: #1d2126; --paper: #15181c; --link: #6cb6ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 0.75rem; padding-top: 0.75rem; border-top: 1px solid var(--line); font-size: 1.25rem; }
h3 { margin: 1.25rem 0 0.4rem; font-size: 0.95rem; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: 0.5rem 0; overflow-wrap: anywhere; }
header p, figcaption, caption, dt, .strip span { color: var(--muted); }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 0.75rem 0 0; padding: 0; list-style: none; }
dl { display: flex; flex-wrap: wrap; gap: 0.75rem; margin: 1rem 0; }
dl div { min-width: 6.5rem; padding: 0.6rem 0.9rem; border: 1px solid var(--line); border-radius: 8px;
  background: var(--soft); }
dt { font-size: 0.85rem; }
dd { margin: 0; font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.25; }
dd small { font-size: 0.85rem; font-weight: 400; color: var(--muted); white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.75rem 0; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { padding-bottom: 0.35rem; text-align: left; }
th, td { padding: 0.3rem 1.25rem 0.3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { font-weight: 600; }
.share { white-space: nowrap; }
.files { margin-left: 0.4rem; font-size: 0.85rem; }
summary { cursor: pointer; color: var(--link); }
figure { margin: 1rem 0; }
figure img { display: block; width: 100%; height: auto; }
figcaption { margin-top: 0.3rem; font-size: 0.9rem; max-width: 46rem; }
.drawn { position: relative; }
.drawn svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.drawn circle { fill: transparent; }
.drawn a:hover circle, .drawn a:focus circle { stroke: var(--ink); stroke-width: 20; }
.drawn a:focus { outline: none; }
.map { display: grid; grid-template-columns: minmax(0, 520px) minmax(0, 1fr); gap: 0 2rem; scroll-margin-top: 1rem; }
.photos { margin: 1rem 0; padding: 0; list-style: none; overflow-wrap: anywhere; }
.photos li { display: none; scroll-margin-top: 1rem; }
.photos .hint, .photos li:target { display: block; }
.photos:has(:target) .hint { display: none; }
.photos img { display: block; width: 14rem; max-width: 100%; max-height: 60vh; object-fit: contain;
  object-position: left; margin-bottom: 0.4rem; }
.photos span { display: block; color: var(--muted); font-size: 0.9rem; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; }
.beside figure { flex: 1 1 22rem; }
.beside .scroll { max-width: 100%; }
@media (max-width: 600px) {
  .map { grid-template-columns: minmax(0, 1fr); }
  .photos { order: -1; }
  table { font-size: 0.85rem; }
  th, td { padding-right: 0.6rem; }
  tbody th { min-width: 7rem; overflow-wrap: anywhere; }
  dl { gap: 0.5rem; }
  dl div { min-width: 0; padding: 0.4rem 0.6rem; }
  dd { font-size: 1.25rem; }
}
.strip { display: flex; flex-wrap: wrap; gap: 0.5rem; margin: 0; padding: 0; list-style: none; }
.strip li { flex: 0 0 clamp(5.1rem, (100% - (var(--most) - 1) * 0.5rem) / var(--most), 11rem);
  min-width: 0; font-size: 0.78rem; line-height: 1.35; overflow-wrap: anywhere; }
.strip b { display: block; color: var(--kind); }
.strip img { display: block; max-width: 100%; border: 3px solid var(--kind); border-radius: 3px; }
.strip span { display: block; }
@media (prefers-color-scheme: dark) { .strip b { color: color-mix(in srgb, var(--kind) 60%, white); } }
"""
    + _FRAMES
)
