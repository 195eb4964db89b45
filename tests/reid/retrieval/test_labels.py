import numpy as np
import pytest
from numpy.dtypes import StringDType

from reid.retrieval.labels import number_groups, number_identities
from reid.retrieval.metrics import evaluate_features

NAN = float("nan")


class Missing:
    """As pandas' NA is: equal to nothing, also not to itself, and neither true nor false."""

    def __ne__(self, other):
        return self

    __hash__ = object.__hash__

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


def array(*values, kind=object):
    return np.array(values, dtype=kind)


@pytest.mark.parametrize(
    ("query", "gallery", "same"),
    [
        (array(7, 9, kind=int), array(9, 7, 8, kind=int), {(0, 1), (1, 0)}),
        (array(7.0, NAN, kind=float), array(NAN, 7.0, 8.0, kind=float), {(0, 1)}),
        (array(7.0, 9.0), array(9, 7, None), {(0, 1), (1, 0)}),
        (array("rex", "ida", kind=str), array("ida", "", "rex", kind=str), {(0, 2), (1, 0)}),
        (array("rex", None), array("ida", NAN, "rex"), {(0, 2)}),
        (array(b"rex", kind="S3"), array(b"ida", b"rex", kind="S3"), {(0, 1)}),
        (array("rex", Missing()), array("ida", Missing(), "rex"), {(0, 2)}),
        (array(7, Missing()), array(7, Missing(), np.datetime64("NaT")), {(0, 0)}),
        (array("rex", "", kind=StringDType()), array("ida", "", "rex"), {(0, 2)}),
        (array("rex", None, kind=StringDType(na_object=None)), array("ida", "rex", kind=str), {(0, 1)}),
        (array(None, None), array(None, "", "rex"), set()),
        (array(2**60 + 1, 2**60 + 2), array(2**60 + 2, None, 2**60 + 1), {(0, 2), (1, 0)}),  # no floats are so exact
        (array(2**60 + 1, 2**60 + 2, kind=np.uint64), array(2**60 + 2, 7, kind=np.int64), {(1, 0)}),
    ],
)
def test_labels_mean_the_same_in_every_form(query, gallery, same):
    ids, found = number_identities(query, gallery)
    assert {(a, b) for a in range(len(query)) for b in range(len(gallery)) if ids[a] == found[b]} == same
    assert len(set(ids.tolist())) == len(ids)
    groups, others = number_groups(query, gallery)
    equal = {(a, b) for a in range(len(query)) for b in range(len(gallery)) if groups[a] == others[b] != -1}
    assert equal == same


def test_whole_numbers_keep_their_value():
    assert [part.tolist() for part in number_identities(array(5.0, kind=float), array(3, kind=int))] == [[5], [3]]
    assert [part.tolist() for part in number_groups(array(-1, 4, kind=int), array(NAN, kind=float))] == [[-1, 4], [-1]]


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (array(0.5, kind=float), array(1, kind=int), "ids: found 0.5, expected whole numbers or text"),
        (array("rex", 1), array(2), "ids: found int and str, expected whole numbers or text, not both"),
        (
            array("1", kind=str),
            array(1, kind=int),
            "ids are of type <U1 and int64; expected whole numbers or text in both",
        ),
        (array(True, kind=bool), array(False, kind=bool), "ids are of type bool; expected whole numbers or text"),
        (array(np.inf, kind=float), array(1, kind=int), "ids: found inf, expected whole numbers or text"),
        (array(1, 2.5), array(1), "ids: found 2.5, expected whole numbers or text"),
        (array(1, 2**70), array(1), f"ids: found {2**70}, expected whole numbers of 64 bits, or text"),
        (array("2026-05-03", kind="M8[D]"), array(1, kind=int), r"ids are of type datetime64\[D\]; expected whole"),
        (array([1], kind=object), array("a"), "ids: found list and str|expected whole"),
    ],
)
def test_other_labels_are_refused(query, gallery, message):
    with pytest.raises(ValueError, match=message):
        number_identities(query.ravel(), gallery)


def test_metrics_of_text_are_those_of_numbers():
    random = np.random.default_rng(0)
    query, gallery = random.normal(size=(20, 8)), random.normal(size=(60, 8))
    ids, cameras = [random.integers(0, 5, n) for n in (20, 60)], [random.integers(0, 3, n) for n in (20, 60)]
    words = [np.array([f"animal {n}" for n in part], dtype=object) for part in ids]
    places = [["north", "south", "east"][n] for n in cameras[0]], [["north", "south", "east"][n] for n in cameras[1]]
    numbers = evaluate_features(query, ids[0], cameras[0], gallery, ids[1], cameras[1])
    assert evaluate_features(query, words[0], places[0], gallery, words[1], places[1]).mAP == numbers.mAP
    unknown = evaluate_features(query, words[0], None, gallery, words[1], None)
    assert unknown.mAP == evaluate_features(query, ids[0], cameras[0], gallery, ids[1], cameras[1], junk="none").mAP
