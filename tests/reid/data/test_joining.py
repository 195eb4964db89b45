from pathlib import Path

import pytest

from reid.cli import UsageError
from reid.config import ReidDataOptions
from reid.data.datasets import load_dataset, open_dataset


def test_sets_are_joined_with_identities_and_cameras_apart(write_photos, tmp_path: Path) -> None:
    """The same table twice: who is called alike in two sets is not the same."""
    first, second = (write_photos(tmp_path / name, identities=5) for name in "ab")
    options = {"dataset": "csv", "root": str(first)}
    joined = open_dataset(ReidDataOptions(**options, also=(f"csv={second}", f"csv={first}")))
    alone = load_dataset("csv", first)
    assert (joined.query, joined.gallery) == (alone.query, alone.gallery)
    assert joined.train[: len(alone.train)] == alone.train
    assert joined.counts["train"].images == 3 * len(alone.train)
    assert joined.counts["train"].identities == 3 * alone.counts["train"].identities
    assert joined.counts["train"].cameras == 3 * alone.counts["train"].cameras
    named = {(s.path, joined.identity_name(s.identity), joined.camera_name(s.camera)) for s in joined.train}
    assert (second.parent / "00_1.png", "csv 2: animal-0", "csv 2: c1") in named
    assert (first.parent / "00_1.png", "animal-0", "c1") in named
    tested = {s.identity for s in (*joined.query, *joined.gallery)}
    assert not tested & {s.identity for s in joined.train}
    assert joined.protocol["also"] == "csv (12 images) and csv (12 images)"
    assert open_dataset(ReidDataOptions(**options, also=("csv=gone",)), ("query", "gallery")).train == alone.train


@pytest.mark.parametrize(
    ("also", "error"), [("csv", UsageError), ("csv=", UsageError), ("csv=gone", FileNotFoundError)]
)
def test_what_cannot_be_added_is_told(photos: Path, also: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="data.also has|gone does not exist"):
        open_dataset(ReidDataOptions(dataset="csv", root=str(photos), also=(also,)))
