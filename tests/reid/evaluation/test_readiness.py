"""What cannot be scored is refused from labels alone, in the user's names."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reid.config import EvalOptions
from reid.data.datasets import load_dataset
from reid.evaluation.features import Features, label_rows
from reid.evaluation.readiness import require_scorable
from reid.retrieval.metrics import evaluate_distances


def rows(query: list[tuple[int, int]], gallery: list[tuple[int, int]], **more: object) -> Features:
    (query_ids, query_cameras), (ids, cameras) = (np.array(part, np.int64).T for part in (query, gallery))
    empty = np.empty((len(query), 0)), np.empty((len(gallery), 0))
    return Features(empty[0], query_ids, query_cameras, empty[1], ids, cameras, **more)  # type: ignore[arg-type]


def names(number: int) -> str:
    return f"<{number}>"


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (
            rows([(1, 0)], [(2, 1)]),
            {},
            r"none of 1 query has its identity in the gallery \(queries show <1>; 1 gallery",
        ),
        (
            rows([(1, 4)], [(1, 4)]),
            {},
            "all images are of one camera, <4>, and .*; where a camera says little, use junk=none",
        ),
        (
            rows([(1, 0), (2, 1)], [(1, 0), (2, 1)]),
            {},
            "a query's identity is of its camera, or its own picture; where",
        ),
        (
            rows([(1, 0)], [(1, 1)], query_paths=("a",), gallery_paths=("a",)),
            {"junk": "none"},
            "its own picture is all",
        ),
        (rows([(1, 0)], [(2, 1)]), {"gallery": "redrawn"}, "every identity has one image"),
    ],
)
def test_why_no_query_can_be_scored(features: Features, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_scorable(features, EvalOptions(**options), names, names)  # type: ignore[arg-type]


def test_what_is_refused_is_what_cannot_be_scored() -> None:
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        query, gallery = ([tuple(random.integers(0, 3, 2)) for _ in range(2)] for _ in range(2))
        features = rows(query, gallery)
        labels = (features.query_ids, features.query_cameras, features.gallery_ids, features.gallery_cameras)
        try:
            evaluate_distances(np.zeros((2, 2)), *labels)
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match="no query can be scored"):
                require_scorable(features, EvalOptions())
        else:
            require_scorable(features, EvalOptions())
    assert 20 < refused < 180


def test_a_copy_of_a_query_under_another_name_is_not_found(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder of queries was copied from that of the gallery: leave-one-out by content."""
    for number in range(8):
        for photo in range(4):
            split = "train" if number < 6 else "gallery"
            (tmp_path / "sorted" / split / str(number)).mkdir(parents=True, exist_ok=True)
            shutil.copy(photos.parent / f"{number:02d}_{photo}.png", tmp_path / "sorted" / split / str(number))
    for number in (6, 7):
        (tmp_path / "sorted" / "query" / str(number)).mkdir(parents=True)
        shutil.copy(photos.parent / f"{number:02d}_0.png", tmp_path / "sorted" / "query" / str(number) / "asked.png")
    features = label_rows(load_dataset("folder", tmp_path / "sorted"))
    require_scorable(features, EvalOptions())
    assert "2 queries are in the gallery too: a query's own picture counts as no match" in caplog.text
    groups = features.groups("camera")
    assert groups[0].tolist() == [0, 1]
    assert groups[1].tolist() == [0, -1, -1, -1, 1, -1, -1, -1]
    assert features.camera_names == {}
    features.save(tmp_path / "f.npz")
    assert Features.load(tmp_path / "f.npz").queries_in_gallery() == 2


def test_cameras_are_called_as_the_user_calls_them(photos: Path) -> None:
    features = label_rows(load_dataset("csv", photos))
    assert {features.camera_name(camera) for camera in features.gallery_cameras} == {"c1", "c2", "c3"}
    assert rows([(1, 4)], [(1, 5)]).camera_name(4) == "4"
    published = replace(load_dataset("csv", photos), camera_names={})
    assert {label_rows(published).camera_name(camera) for camera in (0, 1)} == {"1", "2"}
