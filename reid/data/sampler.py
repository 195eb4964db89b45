"""Batches of an epoch: P identities with K images each, or all images shuffled."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from reid.names import counted


class PKSampler:
    """An epoch of batches of P identities x K images, from (seed, epoch) alone.

    Each epoch, every identity's images are shuffled and cut into groups of K. An identity whose last group is short
    fills it with other images of its own, drawn without repetition where it has K images and with repetition where it
    has fewer. So before the remainder is left out every image is drawn at least once and an identity repeats at most
    K - 1 draws.

    The groups are dealt into the largest number of full batches in which all P identities differ; this length is exact
    and the same in every epoch. What does not fit (fewer than P groups, and groups of an identity that has more groups
    than there are batches) is left out, chosen anew at random in every epoch.
    """

    def __init__(self, identities: Sequence[int], *, p: int, k: int, seed: int = 0) -> None:
        """`identities` names the identity of each image, by position; raises ValueError for fewer than P identities."""
        members: dict[int, list[int]] = defaultdict(list)
        for index, identity in enumerate(identities):
            members[identity].append(index)
        if p < 2 or k < 1:
            raise ValueError(f"a batch of P={p} identities x K={k} images cannot be used; expected P >= 2 and K >= 1")
        if len(members) < p:
            found = counted(len(members), "identity", "identities")
            raise ValueError(
                f"the training split has {found}, fewer than the P={p} of a batch; "
                "lower batch_size or raise images_per_identity (triplets need at least 2 identities)"
            )
        self._members = [np.array(members[identity]) for identity in sorted(members)]
        self._groups = np.array([-(-len(indices) // k) for indices in self._members])
        self.p, self.k, self.seed = p, k, seed
        self._length = self._full_batches()

    def _full_batches(self) -> int:
        """The largest t for which sum(min(groups, t)) >= t P, i.e. t batches of P different identities exist."""
        low, high = 1, int(self._groups.sum()) // self.p
        while low < high:
            middle = (low + high + 1) // 2
            if np.minimum(self._groups, middle).sum() >= middle * self.p:
                low = middle
            else:
                high = middle - 1
        return low

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._length

    def epoch(self, epoch: int) -> Iterator[list[int]]:
        """Yield the epoch's batches, each a list of P x K image positions, the K of an identity side by side."""
        random = np.random.default_rng([self.seed, epoch])
        groups: list[np.ndarray] = []
        for identity in random.permutation(len(self._members)):
            own = self._cut(self._members[identity], random)
            groups += [own[i] for i in random.permutation(len(own))[: self._length]]
        surplus = len(groups) - self._length * self.p
        left_out = set(random.choice(len(groups), surplus, replace=False).tolist())
        kept = [group for i, group in enumerate(groups) if i not in left_out]
        # Dealt like cards: an identity's groups are neighbours and at most as many as the batches, so they part.
        for batch in random.permutation(self._length):
            yield np.concatenate(kept[batch :: self._length]).tolist()

    def _cut(self, indices: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
        shuffled = random.permutation(indices)
        short = -len(shuffled) % self.k
        if short:
            whole = len(shuffled) - len(shuffled) % self.k
            others = shuffled[:whole] if whole else shuffled
            shuffled = np.concatenate([shuffled, random.choice(others, short, replace=len(others) < short)])
        return np.split(shuffled, len(shuffled) // self.k)


class ShuffledSampler:
    """An epoch of shuffled batches, each image at most once, from (seed, epoch) alone.

    The images that do not fill the last batch are left out, others in every epoch: the images of a batch are each
    other's partners, of which there must be as many in every step.
    """

    def __init__(self, images: int, *, batch_size: int, seed: int = 0) -> None:
        """`images` is their number; raises ValueError where they do not fill one batch."""
        if images < batch_size:
            raise ValueError(
                f"the training split has {counted(images, 'image')}, fewer than a batch of {batch_size}; "
                "lower batch_size"
            )
        self.images, self.batch_size, self.seed = images, batch_size, seed

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.images // self.batch_size

    def epoch(self, epoch: int) -> Iterator[list[int]]:
        """Yield the epoch's batches, each a list of image positions."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.images)
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()
