"""Routes of shortlists: items put together, in an order, with notes, and given to others as a table or a page."""

import base64
import csv
import html
import io
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, Path, Request, Response

from reid.data.cells import BOM, as_cells
from service.api.access import caller_of, cause_of
from service.api.problems import Forbidden, documented
from service.api.proxies import root_of
from service.api.seen import as_seen
from service.api.uploads import QUERYING, apart
from service.gallery.gallery import Gallery
from service.records import Caller, Item, NotFound
from service.storage.shortlists import Entry, Shortlist, Shortlists
from service.wire import schemas, work_schemas

ShortlistId = Annotated[str, Path(max_length=200)]
COLUMNS = ("position", "item_id", "source", "label", "camera", "site", "captured_at", "note")
Listed = list[tuple[Item, str]]  # with what is said of each

_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "li{display:flex;gap:1rem;margin:0 0 1rem;break-inside:avoid}img{width:256px;height:256px;object-fit:contain}"
    "p{margin:.2rem 0;white-space:pre-wrap}"
)


def shortlists(gallery: Gallery) -> APIRouter:
    """`/v1/shortlists`."""
    router = APIRouter(prefix="/v1/shortlists", tags=["shortlists"])
    kept = Shortlists(gallery.database)

    def visible(shortlist_id: str, caller: Caller) -> Shortlist:
        """A shortlist whose maker sees no more than the caller."""
        found = kept.get(shortlist_id)
        if not caller.covers(found.cameras):
            raise NotFound(f"no shortlist {shortlist_id!r}")
        return found

    def listed(one: Shortlist, caller: Caller) -> Listed:
        found = gallery.store.find([entry.item_id for entry in one.entries])
        there = {item.item_id: item for item in as_seen(gallery.store, found, caller)}
        return [
            (item, entry.note)
            for entry in one.entries
            if (item := there.get(entry.item_id)) is not None and caller.sees(item.details.camera)
        ]

    def told(one: Shortlist, request: Request) -> work_schemas.Shortlist:
        items = listed(one, caller_of(request))
        entries = [
            work_schemas.ShortlistedItem(item=schemas.Item.of(item, root_of(request)), note=note)
            for item, note in items
        ]
        return work_schemas.Shortlist(**_head(one, len(items)), entries=entries)

    def require_items(item_ids: list[str], caller: Caller) -> None:
        seen = {item.item_id for item in gallery.store.find(item_ids) if caller.sees(item.details.camera)}
        if missing := [item_id for item_id in item_ids if item_id not in seen]:
            raise NotFound(f"no item {missing[0]!r}")

    @router.get("", responses=documented(503))
    def page(request: Request) -> work_schemas.ShortlistHeads:
        """List the shortlists, the one that was changed last first."""
        caller = caller_of(request)
        seen = [one for one in kept.list() if caller.covers(one.cameras)]
        heads = [work_schemas.ShortlistHead(**_head(one, len(listed(one, caller)))) for one in seen]
        return work_schemas.ShortlistHeads(shortlists=heads)

    @router.post("", status_code=201, responses=documented(400, 404, 413, 422, 503))
    def create(wanted: work_schemas.ShortlistForm, request: Request) -> work_schemas.Shortlist:
        """Make a shortlist; it is there for every key that sees all cameras that the key of its maker sees."""
        caller = caller_of(request)
        require_items(wanted.item_ids, caller)
        made = kept.create(wanted.name, wanted.notes, wanted.item_ids, caller.cameras, cause_of(request))
        return told(made, request)

    @router.get("/{shortlist_id}", responses=documented(404, 422, 503))
    def get(shortlist_id: ShortlistId, request: Request) -> work_schemas.Shortlist:
        """One shortlist with its items, in its order."""
        return told(visible(shortlist_id, caller_of(request)), request)

    @router.patch("/{shortlist_id}", responses=documented(400, 403, 404, 413, 422, 503))
    def edit(
        shortlist_id: ShortlistId, wanted: work_schemas.ShortlistChanges, request: Request
    ) -> work_schemas.Shortlist:
        """Change the name, the notes, or the items of a shortlist with their order and notes."""
        caller = caller_of(request)
        before = visible(shortlist_id, caller)
        entries = None
        if wanted.entries is not None:
            if len(listed(before, caller)) < len(gallery.store.find([entry.item_id for entry in before.entries])):
                raise Forbidden("this key does not see all items of the shortlist, and may not give it others")
            require_items([entry.item_id for entry in wanted.entries], caller)
            entries = [Entry(entry.item_id, entry.note) for entry in wanted.entries]
        after = kept.edit(shortlist_id, cause_of(request), name=wanted.name, notes=wanted.notes, entries=entries)
        return told(after, request)

    @router.post("/{shortlist_id}/items", responses=documented(400, 404, 413, 422, 503))
    def add(
        shortlist_id: ShortlistId, wanted: work_schemas.ShortlistAddition, request: Request
    ) -> work_schemas.Shortlist:
        """Put items at the end of a shortlist, but for those that are in it."""
        caller = caller_of(request)
        visible(shortlist_id, caller)
        require_items(wanted.item_ids, caller)
        return told(kept.add(shortlist_id, wanted.item_ids, cause_of(request)), request)

    @router.delete("/{shortlist_id}", status_code=204, responses=documented(404, 422, 503))
    def delete(shortlist_id: ShortlistId, request: Request) -> None:
        """Remove a shortlist, and none of its items."""
        visible(shortlist_id, caller_of(request))
        kept.delete(shortlist_id, cause_of(request))

    def file(text: str, media_type: str, name: str) -> Response:
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        return Response(text, media_type=media_type, headers=headers)

    @router.get(
        "/{shortlist_id}/table",
        response_class=Response,
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, **documented(404, 422, 503)},
    )
    def table(shortlist_id: ShortlistId, request: Request) -> Response:
        """A shortlist as a table in CSV."""
        caller = caller_of(request)
        return file(_csv(listed(visible(shortlist_id, caller), caller)), "text/csv; charset=utf-8", "shortlist.csv")

    @router.get(
        "/{shortlist_id}/report",
        response_class=Response,
        responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}, **documented(404, 422, 503)},
    )
    @apart(CapacityLimiter(QUERYING))
    def report(shortlist_id: ShortlistId, request: Request) -> Response:
        """A shortlist as one HTML file with its pictures in it, to print or to pass on."""
        caller, cause = caller_of(request), cause_of(request)
        one = visible(shortlist_id, caller)
        entries = []
        for item, note in listed(one, caller):
            try:
                picture = base64.b64encode(gallery.thumbnail(item, cause)).decode()
            except NotFound:  # its copy is lost
                picture = ""
            entries.append(_entry(item, note, picture))
        return file(_page(one, entries), "text/html; charset=utf-8", "shortlist.html")

    return router


def _head(one: Shortlist, items: int) -> dict[str, object]:
    names = ("shortlist_id", "name", "notes", "created_at", "changed_at")
    return {**{name: getattr(one, name) for name in names}, "items": items}


def _row(item: Item) -> dict[str, str]:
    details, time = item.details, item.details.captured_at
    return {
        "item_id": item.item_id,
        "source": item.medium.source,
        "label": details.label or "",
        "camera": details.camera or "",
        "site": details.site or "",
        "captured_at": "" if time is None else time.isoformat(),
    }


def _csv(listed: Listed) -> str:
    written = io.StringIO()
    written.write(BOM)
    table = csv.DictWriter(written, COLUMNS)
    table.writeheader()
    for position, (item, note) in enumerate(listed, 1):
        table.writerow(as_cells({"position": position, **_row(item), "note": note}))
    return written.getvalue()


def _entry(item: Item, note: str, picture: str) -> str:
    told = {name: text for name, text in _row(item).items() if text}
    lines = "".join(f"<p>{html.escape(text)}</p>" for name, text in told.items() if name != "item_id")
    said = f"<p><b>{html.escape(note)}</b></p>" if note else ""
    return (
        f'<li><img alt="{html.escape(told.get("label", "photo"))}" src="data:image/jpeg;base64,{picture}">'
        f"<div>{said}{lines}<p><code>{item.item_id}</code></p></div></li>"
    )


def _page(one: Shortlist, entries: list[str]) -> str:
    name, notes = html.escape(one.name), html.escape(one.notes)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{_STYLE}</style>'
        f"<h1>{name}</h1><p>{notes}</p><p>{len(entries)} photos, {one.changed_at:%Y-%m-%d %H:%M} UTC</p>"
        f"<ol>{''.join(entries)}</ol></html>\n"
    )
