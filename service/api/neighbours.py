"""The route that tells what is nearest to many items at once."""

import numpy as np
from fastapi import APIRouter, Request

from reid.retrieval.calibration import Calibration
from service.api.access import caller_of
from service.api.problems import documented
from service.fields import Filter
from service.gallery.gallery import Gallery
from service.records import NotFound
from service.wire import review_schemas as wire

AT_ONCE = 64  # items that the index is asked about, so that queries go on between


def neighbours(gallery: Gallery, calibration: Calibration | None) -> APIRouter:
    """`/v1/neighbours`."""
    router = APIRouter(tags=["query"])

    @router.post("/v1/neighbours", responses=documented(400, 404, 413, 422, 503))
    def find(wanted: wire.NeighboursForm, request: Request) -> wire.Neighbours:
        """Find the nearest items of each of some items, themselves left out; a filter chooses among whom."""
        gallery.worker.require_model()
        caller = caller_of(request)
        chosen = caller.narrow(Filter() if wanted.filter is None else wanted.filter.chosen())
        there = {item.item_id: item for item in gallery.store.find(wanted.item_ids) if caller.sees(item.details.camera)}
        if missing := [item_id for item_id in wanted.item_ids if item_id not in there]:
            raise NotFound(f"no item {missing[0]!r}")
        rows = {
            row.number: row for row in gallery.store.rows(gallery.model_id, [item.number for item in there.values()])
        }
        asked = [item for item in there.values() if item.number in rows]
        told: dict[str, list[wire.Neighbour]] = {item_id: [] for item_id in there}
        for start in range(0, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            vectors = np.stack([rows[item.number].vector for item in some])
            found = gallery.worker.search_many(vectors, wanted.count + 1, chosen)
            items = gallery.store.get_many({hit.number for one in found for hit in one.hits}, chosen)
            for item, one in zip(some, found, strict=True):
                hits = [hit for hit in one.hits if hit.number != item.number and hit.number in items][: wanted.count]
                scores = [hit.score for hit in hits]
                chances = [None] * len(hits) if calibration is None else calibration.probability(scores).tolist()
                told[item.item_id] = [
                    wire.Neighbour(item_id=items[hit.number].item_id, score=hit.score, probability=chance)
                    for hit, chance in zip(hits, chances, strict=True)
                ]
        nearest = [
            wire.Nearest(item_id=item_id, neighbours=told[item_id]) for item_id in dict.fromkeys(wanted.item_ids)
        ]
        return wire.Neighbours(model_id=gallery.model_id, nearest=nearest)

    return router
