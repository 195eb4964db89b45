"""Short random walks among similar items: to which groups they lead, a handful of them for every item.

Similarity chains together what no single comparison does, such as the views of a thing that turns (label propagation;
Zhou et al., 2004, cut short). N items, R destinations kept for each.
"""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

Integers = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

STEPS = 4
GO_ON = 0.9
SHARPNESS = 8.0
KEPT = 12


def walk(unit: Singles, low: Integers, high: Integers, labels: Integers) -> tuple[Integers, Integers, Singles]:
    """Walk from every item along edges (low, high), the likelier the more alike their unit vectors (N, D).

    Returns item, label and mass of the destinations of most mass, at most 12 an item.
    """
    count = len(unit)
    weights = np.exp(SHARPNESS * (dots(unit, low, high) - 1))
    ends = np.concatenate([low, high]), np.concatenate([high, low])
    steps = csr_array((np.concatenate([weights, weights]), ends), shape=(count, count))
    scale = 1 / np.sqrt(np.maximum(steps.sum(axis=1), 1e-12))
    steps.data *= GO_ON * np.repeat(scale, np.diff(steps.indptr)) * scale[steps.indices]
    stay = csr_array((np.ones(count, np.float32), (np.arange(count), labels)), shape=(count, count))
    reached = stay
    for _ in range(STEPS):
        reached = _most(csr_array(steps @ reached + stay))
    return np.repeat(np.arange(count), np.diff(reached.indptr)), reached.indices.astype(np.int64), reached.data


def dots(vectors: Singles, low: Integers, high: Integers) -> Singles:
    """Inner products (m,) of the vectors of m pairs of items."""
    found = np.empty(len(low), np.float32)
    for start in range(0, len(low), 2**15):
        block = slice(start, start + 2**15)
        found[block] = np.einsum("ij,ij->i", vectors[low[block]], vectors[high[block]])
    return found


def _most(masses: csr_array) -> csr_array:
    lengths = np.diff(masses.indptr)
    rows = np.repeat(np.arange(masses.shape[0]), lengths)
    order = np.lexsort((-masses.data, rows))
    kept = order[np.arange(len(order)) - np.repeat(masses.indptr[:-1], lengths) < KEPT]
    return csr_array((masses.data[kept], (rows[kept], masses.indices[kept])), shape=masses.shape)
