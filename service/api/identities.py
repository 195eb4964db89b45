"""Routes over identities: listed, named, merged, split, and all of it undone."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from service.api.access import caller_of, cause_of
from service.api.problems import Forbidden, documented
from service.api.proxies import root_of
from service.api.review import cursors_of_decisions, dispute, step
from service.api.seen import as_seen
from service.fields import Filter
from service.gallery.gallery import Gallery
from service.records import Caller, NotFound
from service.review.catalogue import Catalogue, Entry
from service.storage.identities import Identities
from service.wire import review_schemas as wire
from service.wire.schemas import Item

IdentityId = Annotated[str, Path(max_length=200)]


def identities_router(gallery: Gallery) -> APIRouter:
    """`/v1/identities`."""
    router = APIRouter(prefix="/v1/identities", tags=["identities"])
    identities, catalogue = Identities(gallery.database), Catalogue(gallery.database)
    cursors = cursors_of_decisions(gallery)

    def require_all(caller: Caller, *identity_ids: str) -> None:
        """Raise NotFound or Forbidden unless the caller sees all items of some identities."""
        seen = caller.narrow(Filter())
        for identity_id in identity_ids:
            catalogue.get(identity_id, seen)
            if not catalogue.sees_all(identity_id, seen):
                raise Forbidden(f"this key may not change identity {identity_id}, which has items of other cameras")

    def require_items(caller: Caller, item_ids: list[str]) -> None:
        there = [item for item in gallery.store.find(item_ids) if caller.sees(item.details.camera)]
        if missing := sorted(set(item_ids) - {item.item_id for item in there}):
            raise NotFound(f"no item {missing[0]!r}")
        if caller.cameras is not None:
            require_all(caller, *{item.identity_id for item in there if item.identity_id is not None})

    def similar(name: str | None) -> list[str]:
        return [] if name is None else [identity_id for identity_id, _ in identities.similar(name)]

    @router.get("", responses=documented(422, 503))
    def page(wanted: Annotated[wire.IdentityQuery, Query()], request: Request) -> wire.IdentityPage:
        """List identities, each with a cover and with what its photos tell."""
        seen = caller_of(request).narrow(Filter())
        found, total = catalogue.page(seen, wanted.q, wanted.sort, wanted.cursor, wanted.limit, empty=wanted.empty)
        more = wanted.cursor + len(found) < total
        return wire.IdentityPage(
            identities=[_identity(one, root_of(request)) for one in found],
            total=total,
            next_cursor=wanted.cursor + len(found) if more and found else None,
        )

    @router.get("/{identity_id}", responses=documented(404, 422, 503))
    def get(identity_id: IdentityId, request: Request) -> wire.IdentityDetail:
        """One identity with its items, the decisions about them, and its conflicts."""
        caller = caller_of(request)
        seen = caller.narrow(Filter())
        entry = catalogue.get(identity_id, seen)
        items = catalogue.items(identity_id, seen)
        ids = {item.item_id for item in items}
        told = [one for one in catalogue.decisions(ids) if caller.cameras is None or {one.a, one.b} <= ids]
        disputes = [one for one in catalogue.disputes(identity_id) if caller.cameras is None or {one.a, one.b} <= ids]
        return wire.IdentityDetail(
            **dict(_identity(entry, root_of(request))),
            merged=[
                wire.Merged(identity_id=one, name=name)
                for one, name in (identities.merged_into(identity_id) if caller.cameras is None else ())
            ],
            items=[Item.of(item, root_of(request)) for item in as_seen(gallery.store, items, caller)],
            decisions=[wire.Decision.of(one, cursors.written(one.number, caller)) for one in told],
            conflicts=[dispute(one) for one in disputes],
            similar=similar(entry.identity.name) if caller.cameras is None else [],
        )

    @router.post("", status_code=201, responses=documented(400, 403, 404, 409, 413, 422, 503))
    def create(wanted: wire.IdentityForm, request: Request) -> wire.Step:
        """Make an identity of some items, or of none; groups that they are in come along."""
        require_items(caller_of(request), wanted.item_ids)
        done = identities.create(wanted.name, wanted.item_ids, cause_of(request), wanted.dry_run)
        gallery.worker.publish()
        return step(gallery, caller_of(request), done, wanted.dry_run, similar(wanted.name))

    @router.patch("/{identity_id}", responses=documented(400, 403, 404, 409, 413, 422, 503))
    def edit(identity_id: IdentityId, wanted: wire.IdentityChanges, request: Request) -> wire.Identity:
        """Rename an identity, and so all its items, or change its aliases, notes and attributes."""
        caller = caller_of(request)
        require_all(caller, identity_id)
        identities.edit(identity_id, wanted.changes(), cause_of(request))
        gallery.worker.publish()
        return _identity(catalogue.get(identity_id, caller.narrow(Filter())), root_of(request))

    @router.post("/{identity_id}/merge", status_code=201, responses=documented(400, 403, 404, 409, 413, 422, 503))
    def merge(identity_id: IdentityId, wanted: wire.MergeForm, request: Request) -> wire.Step:
        """Give all items of an identity to another, which gets its names as aliases."""
        require_all(caller_of(request), identity_id, wanted.into)
        done = identities.merge_step(identity_id, wanted.into, cause_of(request), wanted.dry_run)
        gallery.worker.publish()
        return step(gallery, caller_of(request), done, wanted.dry_run)

    @router.post("/{identity_id}/unmerge", status_code=201, responses=documented(400, 403, 404, 409, 413, 422, 503))
    def unmerge(identity_id: IdentityId, wanted: wire.UnmergeForm, request: Request) -> wire.Step:
        """Give an identity that was merged its items back."""
        require_all(caller_of(request), identities.get(identity_id).merged_into or identity_id)
        done = identities.unmerge(identity_id, cause_of(request), wanted.dry_run)
        gallery.worker.publish()
        return step(gallery, caller_of(request), done, wanted.dry_run)

    @router.post("/{identity_id}/split", status_code=201, responses=documented(400, 403, 404, 409, 413, 422, 503))
    def split(identity_id: IdentityId, wanted: wire.SplitForm, request: Request) -> wire.Step:
        """Take items out of an identity, together; other items of their photos stay as they are."""
        require_all(caller_of(request), identity_id)
        done = identities.split(identity_id, wanted.item_ids, wanted.name, cause_of(request), wanted.dry_run)
        gallery.worker.publish()
        return step(gallery, caller_of(request), done, wanted.dry_run, similar(wanted.name))

    return router


def _identity(entry: Entry, root: str) -> wire.Identity:
    one = entry.identity
    return wire.Identity(
        identity_id=one.identity_id,
        name=one.name,
        aliases=list(one.aliases),
        notes=one.notes,
        attributes=dict(one.attributes),
        merged_into=one.merged_into,
        photos=entry.photos,
        cover=entry.cover,
        cover_url=None if entry.cover is None else f"{root}/v1/items/{entry.cover}/thumbnail",
        first_seen=entry.first_seen,
        last_seen=entry.last_seen,
        cameras=list(entry.cameras),
        sites=list(entry.sites),
    )
