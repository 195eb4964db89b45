import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from reid.data.datasets import CHOICES, load_dataset
from reid.data.official import LAYOUTS, OFFICIAL_COUNTS
from reid.data.samples import Sample

Link = Callable[[Path, Iterable[str]], Path]

MARKET = (
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "bounding_box_train/0002_c2s1_000301_01.jpg",
    "bounding_box_train/0007_c3s3_077419_03.jpg",
    "query/0001_c1s1_001051_00.jpg",
    "query/0003_c6s1_012776_00.jpg",
    "bounding_box_test/-1_c1s1_000401_03.jpg",
    "bounding_box_test/-1_c6s4_002501_01.jpg",
    "bounding_box_test/0000_c1s1_000151_01.jpg",
    "bounding_box_test/0001_c2s1_000976_04.jpg",
    "bounding_box_test/0003_c5s1_012701_01.jpg",
)
DUKE = (
    "bounding_box_train/0001_c2_f0046182.jpg",
    "bounding_box_train/0002_c8_f0051241.jpg",
    "query/0005_c2_f0046985.jpg",
    "bounding_box_test/0003_c1_f0044158.jpg",
    "bounding_box_test/0005_c5_f0051341.jpg",
)
CUHK03 = (
    "bounding_box_train/0001_c1_1.png",
    "bounding_box_train/0001_c2_10.png",
    "query/0003_c1_21.png",
    "bounding_box_test/0003_c2_22.png",
)
VERI = (
    "image_train/0001_c001_00016450_0.jpg",
    "image_train/0776_c020_00084270_0.jpg",
    "image_query/0002_c002_00030600_0.jpg",
    "image_test/0002_c002_00030600_0.jpg",
    "image_test/0002_c013_00030640_1.jpg",
)


def labels(samples: Iterable[Sample]) -> list[tuple[str, int, int]]:
    return [(sample.path.name, sample.identity, sample.camera) for sample in samples]


def test_market1501_drops_junk_and_keeps_distractors(tmp_path: Path, link: Link) -> None:
    root = link(tmp_path, MARKET)
    (root / "bounding_box_train" / "Thumbs.db").touch()
    (root / "bounding_box_train" / "._0002_c1s1_000451_03.jpg").touch()
    dataset = load_dataset("market1501", root)
    assert labels(dataset.train) == [
        ("0002_c1s1_000451_03.jpg", 2, 0),
        ("0002_c2s1_000301_01.jpg", 2, 1),
        ("0007_c3s3_077419_03.jpg", 7, 2),
    ]
    assert labels(dataset.query) == [("0001_c1s1_001051_00.jpg", 1, 0), ("0003_c6s1_012776_00.jpg", 3, 5)]
    assert labels(dataset.gallery) == [
        ("0000_c1s1_000151_01.jpg", 0, 0),
        ("0001_c2s1_000976_04.jpg", 1, 1),
        ("0003_c5s1_012701_01.jpg", 3, 4),
    ]
    assert dataset.root == root
    assert dataset.protocol == {}
    assert not any("left out" in warning for warning in dataset.warnings)
    assert dataset.gallery[0].path == root / "bounding_box_test" / "0000_c1s1_000151_01.jpg"


def test_sequences_of_different_cameras_are_different(tmp_path: Path, link: Link) -> None:
    market = load_dataset("market1501", link(tmp_path / "market", MARKET))
    assert [sample.extra for sample in market.train] == [{"sequence": "1-1"}, {"sequence": "2-1"}, {"sequence": "3-3"}]
    duke = load_dataset("dukemtmc", link(tmp_path / "duke", DUKE))
    assert all(sample.extra == {} for sample in duke.train)  # its names tell none


@pytest.mark.parametrize("name", ["dukemtmc", "occludedduke"])
def test_duke_names(tmp_path: Path, link: Link, name: str) -> None:
    dataset = load_dataset(name, link(tmp_path, DUKE))
    assert labels(dataset.train) == [("0001_c2_f0046182.jpg", 1, 1), ("0002_c8_f0051241.jpg", 2, 7)]
    assert labels(dataset.query) == [("0005_c2_f0046985.jpg", 5, 1)]
    assert labels(dataset.gallery) == [("0003_c1_f0044158.jpg", 3, 0), ("0005_c5_f0051341.jpg", 5, 4)]


def test_veri776_cameras_have_three_digits(tmp_path: Path, link: Link) -> None:
    dataset = load_dataset("veri776", link(tmp_path, VERI))
    assert labels(dataset.train) == [("0001_c001_00016450_0.jpg", 1, 0), ("0776_c020_00084270_0.jpg", 776, 19)]
    assert labels(dataset.query) == [("0002_c002_00030600_0.jpg", 2, 1)]
    assert labels(dataset.gallery) == [("0002_c002_00030600_0.jpg", 2, 1), ("0002_c013_00030640_1.jpg", 2, 12)]


def test_cuhk03_is_detected_unless_labeled_is_asked_for(tmp_path: Path, link: Link) -> None:
    detected = link(tmp_path / "cuhk03-np" / "detected", CUHK03)
    labeled = link(tmp_path / "cuhk03-np" / "labeled", CUHK03)
    dataset = load_dataset("cuhk03", tmp_path)
    assert (dataset.root, dataset.protocol) == (detected, {"version": "detected"})
    assert labels(dataset.train) == [("0001_c1_1.png", 1, 0), ("0001_c2_10.png", 1, 1)]
    assert labels(dataset.query) == [("0003_c1_21.png", 3, 0)]
    assert labels(dataset.gallery) == [("0003_c2_22.png", 3, 1)]
    dataset = load_dataset("cuhk03", tmp_path, version="labeled")
    assert (dataset.root, dataset.protocol) == (labeled, {"version": "labeled"})


def test_cuhk03_in_the_folder_of_a_version_is_that_version(tmp_path: Path, link: Link) -> None:
    labeled = link(tmp_path / "labeled", CUHK03)
    assert load_dataset("cuhk03", labeled, version="labeled").root == labeled
    with pytest.raises(FileNotFoundError, match="cuhk03: expected bounding_box_train, .* looked in .*/detected"):
        load_dataset("cuhk03", labeled)
    with pytest.raises(ValueError, match=rf"found version labeled .* in {labeled}, but version=detected was asked for"):
        load_dataset("cuhk03", tmp_path)


def test_cuhk03_in_a_folder_that_joins_its_name_and_version(tmp_path: Path, link: Link) -> None:
    home = link(tmp_path / "cuhk03_np_detected", CUHK03)
    assert load_dataset("cuhk03", tmp_path).root == home
    assert load_dataset("cuhk03", home).root == home
    with pytest.raises(ValueError, match="found version detected"):
        load_dataset("cuhk03", tmp_path, version="labeled")


@pytest.mark.parametrize("place", ["", "cuhk03_release", "cuhk03/cuhk03_release"])
def test_raw_cuhk03_is_refused(tmp_path: Path, place: str) -> None:
    raw = tmp_path / place / "cuhk-03.mat"
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.touch()
    with pytest.raises(ValueError, match=f"{raw} is the raw release; expected .* cuhk03-np/labeled/{{bounding_box_tr"):
        load_dataset("cuhk03", tmp_path, version="labeled")


@pytest.mark.parametrize(
    ("name", "files", "place"),
    [
        ("market1501", MARKET, "Market-1501-v15.09.15"),
        ("market1501", MARKET, "Market-1501"),
        ("market1501", MARKET, "market1501"),
        ("market1501", MARKET, "market1501/Market-1501-v15.09.15"),
        ("dukemtmc", DUKE, "DukeMTMC-reID"),
        ("dukemtmc", DUKE, "dukemtmcreid"),
        ("dukemtmc", DUKE, "dukemtmc-reid/DukeMTMC-reID"),
        ("occludedduke", DUKE, "Occluded_Duke"),
        ("occludedduke", DUKE, "Occluded-DukeMTMC"),
        ("occludedduke", DUKE, "occluded_duke"),
        ("occludedduke", DUKE, "Occluded-DukeMTMC-Dataset/Occluded_Duke"),
        ("cuhk03", CUHK03, "detected"),
        ("cuhk03", CUHK03, "CUHK03-NP/detected"),
        ("cuhk03", CUHK03, "cuhk03/detected"),
        ("veri776", VERI, "VeRi"),
    ],
)
def test_usual_folder_names_are_found(
    tmp_path: Path, link: Link, name: str, files: tuple[str, ...], place: str
) -> None:
    home = link(tmp_path / place, files)
    assert load_dataset(name, tmp_path).root == home


def test_duke_and_occluded_duke_side_by_side_are_told_apart(tmp_path: Path, link: Link) -> None:
    duke, occluded = link(tmp_path / "DukeMTMC-reID", DUKE), link(tmp_path / "Occluded_Duke", DUKE)
    assert load_dataset("dukemtmc", tmp_path).root == duke
    assert load_dataset("occludedduke", tmp_path).root == occluded


def test_missing_folder_names_every_place_looked_at(tmp_path: Path, link: Link) -> None:
    root = link(tmp_path, MARKET)
    shutil.rmtree(root / "query")
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset("market1501", root)
    message = str(caught.value)
    assert message.startswith(
        "market1501: expected bounding_box_train, query, bounding_box_test in one folder; looked in "
    )
    assert f"{root} (has no query)" in message
    for place in ("Market-1501-v15.09.15", "Market-1501", "market1501"):
        assert str(root / place) in message
    assert "\n" not in message


def test_images_named_like_another_dataset_are_refused(tmp_path: Path, link: Link) -> None:
    root = link(tmp_path, DUKE)
    with pytest.raises(
        ValueError, match=r"Market-1501-style .* found 0001_c2_f0046182\.jpg: DukeMTMC-reID-style names"
    ):
        load_dataset("market1501", root)
    shutil.rmtree(root / "query")
    with pytest.raises(FileNotFoundError, match="has no query"):
        load_dataset("dukemtmc", root)


@pytest.mark.parametrize(
    ("asked", "found", "files"),
    [
        ("veri776", "market1501", MARKET),
        ("dukemtmc", "veri776", VERI),
        ("veri776", "dukemtmc or occludedduke", DUKE),  # nothing but the folder's name tells these two apart
    ],
)
def test_folders_of_another_dataset_are_recognised(
    tmp_path: Path, link: Link, asked: str, found: str, files: tuple[str, ...]
) -> None:
    link(tmp_path, files)
    with pytest.raises(FileNotFoundError, match=f"{asked}: expected .*; found what looks like dataset {found}$"):
        load_dataset(asked, tmp_path)


def test_version_is_recognised(tmp_path: Path, link: Link) -> None:
    link(tmp_path / "cuhk03-np" / "labeled", CUHK03)
    with pytest.raises(FileNotFoundError, match="looks like dataset cuhk03, version=labeled$"):
        load_dataset("market1501", tmp_path)


def test_a_few_images_of_other_names_are_left_out_with_a_warning(tmp_path: Path, link: Link) -> None:
    root = link(tmp_path, (*MARKET, "query/overview.jpg"))
    dataset = load_dataset("market1501", root)
    assert len(dataset.query) == 2
    assert any("left out 1 of 3 images" in warning and "overview.jpg" in warning for warning in dataset.warnings)


def test_toy_is_read_as_market1501_without_official_counts(tmp_path: Path, link: Link) -> None:
    root = link(tmp_path, MARKET)
    toy, market = load_dataset("toy", root), load_dataset("market1501", root)
    assert (toy.name, toy.warnings) == ("toy", ())
    assert toy.splits == market.splits


def test_every_version_has_a_layout_and_official_counts() -> None:
    versions = {(name, version) for name, choices in CHOICES.items() for version in choices["version"]}
    assert {key for key in LAYOUTS if key[1]} == versions
    assert OFFICIAL_COUNTS.keys() == LAYOUTS.keys()
