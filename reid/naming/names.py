"""What names tell: two groups that people called differently are two individuals, unless somebody says otherwise.

N items, V names, P pairs of groups by their labels. The name (N,) of an item is a number from 0, -1 for none; names
that may be one, such as two spellings, have one number. A group bears the names of all its items.
"""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


def bearing(names: Integers, labels: Integers) -> Booleans:
    """Which groups, by their label (N,), bear a name."""
    found = np.zeros(len(names), bool)
    found[labels[names >= 0]] = True
    return found


def apart(names: Integers, labels: Integers, left: Integers, right: Integers) -> Booleans:
    """Which pairs (P,) of groups bear names and none in common."""
    named = bearing(names, labels)
    found: Booleans = named[left] & named[right]
    both = np.nonzero(found)[0]
    if len(both):
        borne = _borne(names, labels)
        found[both] = borne[left[both]].multiply(borne[right[both]]).sum(axis=1) == 0
    return found


def at_least(names: Integers, labels: Integers) -> int:
    """How many individuals there are at least: as many as names, but for those that one group has together."""
    named = np.nonzero(names >= 0)[0]
    count = len(names)
    both = _components(labels[named], count + names[named], count + int(names.max(initial=-1)) + 1)
    return len(np.unique(both[labels[named]]))


def agreeing(names: Integers, labels: Integers, a: Integers, b: Integers) -> Booleans:
    """Which joins of items a and b (m,) would, all together, put no different names into one group.

    Of joins that connect different names none is among them, since nobody can tell which of them is wrong.
    """
    named = np.nonzero(names >= 0)[0]
    joined = _components(labels[a], labels[b], len(names))
    several = np.zeros(len(names), np.int64)
    borne = np.unique(np.stack([joined[labels[named]], names[named]], axis=1), axis=0)
    np.add.at(several, borne[:, 0], 1)
    found: Booleans = several[joined[labels[a]]] < 2
    return found


def _borne(names: Integers, labels: Integers) -> csr_array:
    named = np.nonzero(names >= 0)[0]
    shape = len(names), int(names.max(initial=-1)) + 1
    return csr_array((np.ones(len(named)), (labels[named], names[named])), shape=shape)


def _components(one: Integers, other: Integers, count: int) -> Integers:
    """The component of each of so many nodes that edges (m,) connect."""
    graph = csr_array((np.ones(len(one)), (one, other)), shape=(count, count))
    components: Integers = connected_components(graph, directed=False)[1].astype(np.int64)
    return components
