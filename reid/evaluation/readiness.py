"""Whether queries can be scored at all, known from labels alone: before anything is embedded, or trained."""

import logging
from collections.abc import Callable

import numpy as np

from reid.config import EvalOptions
from reid.evaluation.features import Features, Integers
from reid.names import counted
from reid.retrieval.matches import Matches

log = logging.getLogger("reid")

Name = Callable[[int], str]


def require_scorable(features: Features, options: EvalOptions, identity: Name = str, camera: Name = str) -> None:
    """Raise ValueError where no query can be scored, and why; warn of what makes figures better than they are.

    Embeddings are not looked at. `identity` and `camera` give the user's names of numbers.
    """
    if options.gallery == "redrawn":
        pool = np.concatenate([features.query_ids, features.gallery_ids[features.gallery_beside_queries()]])
        if np.unique(pool, return_counts=True)[1].max() < 2:
            raise ValueError("no query can be scored: every identity has one image, which is its gallery image")
        return
    groups = features.groups(options.junk)
    if options.junk != "none" and not any((group >= 0).any() for group in groups):
        log.warning("warning: no %s is known, so junk=%s leaves no image out", options.junk, options.junk)
    if itself := features.queries_in_gallery():
        told = counted(itself, "query is", "queries are")
        log.warning("warning: %s in the gallery too: a query's own picture counts as no match", told)
    matches = Matches(features.query_ids, groups[0], features.gallery_ids, groups[1])
    asked, found = len(features.query_ids), len(features.gallery_ids)
    if not matches.same_identity.any():
        shown, held = _few(features.query_ids, identity), _few(features.gallery_ids, identity)
        raise ValueError(
            f"no query can be scored: none of {counted(asked, 'query', 'queries')} has its identity in the gallery "
            f"(queries show {shown}; {counted(found, 'gallery image')}: {held})"
        )
    if matches.positives.any():
        return
    cameras = np.unique(np.concatenate([features.query_cameras, features.gallery_cameras]))
    if options.junk == "camera" and len(cameras) == 1 and cameras[0] >= 0:
        why = f"all images are of one camera, {camera(int(cameras[0]))}, and images of the query's camera do not count"
    elif options.junk == "none":
        why = "its own picture is all that the gallery has of a query's identity"
    else:
        why = f"all that the gallery has of a query's identity is of its {options.junk}, or its own picture"
    hint = "" if options.junk == "none" else f"; where a {options.junk} says little, use junk=none"
    raise ValueError(f"no query can be scored: {why}{hint}")


def _few(numbers: Integers, name: Name) -> str:
    distinct = np.unique(numbers)
    return ", ".join(name(int(number)) for number in distinct[:3]) + (", ..." if len(distinct) > 3 else "")
