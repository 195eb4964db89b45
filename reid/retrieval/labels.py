"""Labels of query and gallery rows, as people have them, to integers: whole numbers, text, pandas' mixtures of both."""

from typing import Any

import numpy as np
import numpy.typing as npt

from reid.retrieval.matches import UNKNOWN, Integers

Values = npt.NDArray[Any]


def number_identities(query: Values, gallery: Values, name: str = "ids") -> tuple[Integers, Integers]:
    """Number identities (Q,) and (G,); whole numbers keep their value.

    Who is unknown, None, NaN or empty text, is nobody else: each such row has a number of its own. Raises ValueError
    for labels that are neither whole numbers nor text.
    """
    numbers, unknown = _number(_joined(query, gallery, name), name)
    free = 1 + int(numbers.max(initial=-1))
    numbers[unknown] = np.arange(free, free + np.count_nonzero(unknown))
    return numbers[: len(query)], numbers[len(query) :]


def number_groups(query: Values, gallery: Values, name: str = "groups") -> tuple[Integers, Integers]:
    """Number groups, such as cameras, as `number_identities` does; what is unknown is -1, which is no other's."""
    numbers, unknown = _number(_joined(query, gallery, name), name)
    numbers[unknown] = UNKNOWN
    return numbers[: len(query)], numbers[len(query) :]


def _joined(query: Values, gallery: Values, name: str) -> Values:
    query, gallery = (labels.astype(object) if labels.dtype.kind == "T" else labels for labels in (query, gallery))
    for labels in (query, gallery):
        if labels.dtype.kind not in "iufUSO":
            raise ValueError(f"{name} are of type {labels.dtype}; expected whole numbers or text")
    text = [labels.dtype.kind in "US" for labels in (query, gallery) if labels.dtype.kind != "O"]
    if len(set(text)) > 1:  # numpy would make text of the numbers
        raise ValueError(
            f"{name} are of type {query.dtype} and {gallery.dtype}; expected whole numbers or text in both"
        )
    if all(labels.dtype.kind in "iu" for labels in (query, gallery)):  # of both kinds numpy would make floats
        query, gallery = query.astype(np.int64), gallery.astype(np.int64)
    return np.concatenate([query, gallery])


def _number(labels: Values, name: str) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Numbers of labels (n,), and which of them are unknown, whose numbers mean nothing."""
    if labels.dtype.kind == "O":
        return _number_objects(labels, name)
    if labels.dtype.kind == "f":
        unknown = np.isnan(labels)
        whole = np.where(unknown, 0, labels)
        odd = np.flatnonzero(~np.isfinite(whole) | (whole != np.rint(whole)))
        if len(odd):
            raise ValueError(f"{name}: found {labels[odd[0]]:g}, expected whole numbers or text")
        return whole.astype(np.int64), unknown
    if labels.dtype.kind in "US":
        text = labels.astype(str)
        return np.unique(text, return_inverse=True)[1].astype(np.int64), text == ""
    return labels.astype(np.int64), np.zeros(len(labels), np.bool_)


def _number_objects(labels: Values, name: str) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """The same of Python objects; whole numbers go through no floats, which hold none of more than 53 bits."""
    unknown = np.array([_is_missing(value) for value in labels], bool)
    known = labels[~unknown].tolist()
    kinds = {str if isinstance(value, str) else int if _is_number(value) else type(value) for value in known}
    if kinds <= {str}:
        text = np.full(len(labels), "", object)
        text[~unknown] = known
        return _number(text.astype(str), name)
    if kinds != {int}:
        found = " and ".join(sorted({type(value).__name__ for value in known}))
        raise ValueError(f"{name}: found {found}, expected whole numbers or text, not both")
    numbers = np.zeros(len(labels), np.int64)
    try:
        numbers[~unknown] = [int(value) for value in known]
    except OverflowError:
        raise ValueError(f"{name}: found {max(known, key=abs)}, expected whole numbers of 64 bits, or text") from None
    odd = [value for value, number in zip(known, numbers[~unknown].tolist(), strict=True) if value != number]
    if odd:
        raise ValueError(f"{name}: found {odd[0]:g}, expected whole numbers or text")
    return numbers, unknown


def _is_missing(value: object) -> bool:
    try:
        return value is None or bool(value != value)  # NaN and pandas' NaT
    except TypeError:  # pandas' NA, of which nothing is true
        return True
    except ValueError:  # an array, which is no label
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
