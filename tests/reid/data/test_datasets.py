import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from reid.data.datasets import DATASETS, load_dataset

PHOTOS = Path(__file__).resolve().parents[3].parent / "shared" / "data"
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photos in {PHOTOS}")


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """Two training images of one identity and an empty test set."""
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / folder).mkdir()
    for name in ("0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / "bounding_box_train" / name)
    return tmp_path


def test_partial_copy_is_loaded_with_warnings(market: Path) -> None:
    dataset = load_dataset("market1501", market)
    assert len(dataset.train) == 2
    assert dataset.warnings == (
        "market1501 train: found 2 images of 1 identities, official 12,936 of 751",
        "market1501 query: found 0 images of 0 identities, official 3,368 of 750",
        "market1501 gallery: found 0 images of 0 identities, official 15,913 of 751",
    )
    assert load_dataset("toy", market).warnings == ("toy query: found no image", "toy gallery: found no image")


def test_partial_copy_is_refused_by_strict_counts(market: Path) -> None:
    with pytest.raises(ValueError, match=r"found 2 images of 1 identities, official 12,936 of 751; .*strict_counts"):
        load_dataset("market1501", market, strict_counts=True)
    assert load_dataset("toy", market, strict_counts=True).train  # no official counts to differ from


def test_dataset_without_any_image_is_refused(market: Path) -> None:
    for image in (market / "bounding_box_train").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match=f"market1501: no image .* with a label in {market}"):
        load_dataset("market1501", market)


def test_unknown_name_gets_the_choices_and_a_near_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'Market-1501' \(did you mean market1501\?\); expected one of .*msmt17.*toy"):
        load_dataset("Market-1501", tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_root_that_does_not_exist_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{name}: the data root {tmp_path / 'gone'} does not exist"):
        load_dataset(name, tmp_path / "gone")


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"csv"}))
def test_root_that_is_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=f"{name}: the data root {tmp_path / 'file'} is a file"):
        load_dataset(name, tmp_path / "file")


def test_options_of_msmt17_are_refused_elsewhere(market: Path) -> None:
    with pytest.raises(ValueError, match=r"market1501: given version=v2, .*only msmt17"):
        load_dataset("market1501", market, version="v2")


def test_labels_are_read_without_torch() -> None:
    code = "import sys, reid.data.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@needs_photos
@pytest.mark.parametrize(
    ("name", "folder", "counts"),
    [
        ("veri776", "nyala", [(1_205, 179), (108, 54), (621, 58)]),
        ("market1501", "eth80", [(1_640, 40), (240, 40), (1_400, 40)]),
    ],
)
def test_photos_are_the_same_by_file_name_and_by_csv(name: str, folder: str, counts: list[tuple[int, int]]) -> None:
    named, table = load_dataset(name, PHOTOS / folder), load_dataset("csv", PHOTOS / folder)
    assert [(c.images, c.identities) for c in named.counts.values()] == counts
    assert table.counts == named.counts
    for split, samples in named.splits.items():
        # The file names count cameras from 1; the CSV keeps the user's number.
        assert {(s.path, s.identity, s.camera + 1) for s in samples} == {
            (s.path, s.identity, s.camera) for s in table.splits[split]
        }
    assert all(sample.extra.keys() == ({"view"} if folder == "nyala" else set()) for sample in table.train)
