"""Identities that are held out of training, to choose among its epochs by."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np

from reid.data.samples import Sample

LEAST = 5  # identities: what fewer say of an epoch is chance


def hold_out(
    samples: Sequence[Sample], share: float, seed: int, junk: Literal["camera", "sequence", "none"]
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The samples to train on and those of the identities that are held out, a `share` of all in [0, 1).

    These are drawn by the `seed` from the identities that can be found among their own images by the rule of `junk`.
    Nobody is held out where they would be fewer than five.
    """
    own = defaultdict(list)
    for sample in samples:
        own[sample.identity].append(sample)
    findable = [identity for identity in sorted(own) if _can_be_found(own[identity], junk)]
    number = min(round(share * len(own)), len(findable))
    if number < LEAST:
        return tuple(samples), ()
    held = set(np.random.default_rng(seed).choice(findable, number, replace=False).tolist())
    kept = tuple(sample for sample in samples if sample.identity not in held)
    return kept, tuple(sample for sample in samples if sample.identity in held)


def _can_be_found(samples: Sequence[Sample], junk: Literal["camera", "sequence", "none"]) -> bool:
    """Whether one of an identity's images has another that counts as its match."""
    if len(samples) < 2 or junk == "none":
        return len(samples) > 1
    places = [s.camera if junk == "camera" else s.extra.get("sequence", -1) for s in samples]
    return -1 in places or len(set(places)) > 1
