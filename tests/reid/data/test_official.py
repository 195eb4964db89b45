import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from reid.data.datasets import load_dataset
from reid.data.samples import Sample

LinkAll = Callable[[Path, list[str]], None]
LINKS_PER_FILE = 60_000  # ext4 allows a file 65,000 names

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.jpg", "0007_c3s3_077419_03.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "0003_c6s1_012776_00.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000401_03.jpg",
        "-1_c6s4_002501_01.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c2s1_000976_04.jpg",
        "0003_c5s1_012701_01.jpg",
    ],
}
DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0002_c8_f0051241.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0003_c1_f0044158.jpg", "0005_c5_f0051341.jpg"],
}
VERI = {
    "image_train": ["0001_c001_00016450_0.jpg", "0776_c020_00084270_0.jpg"],
    "image_query": ["0002_c002_00030600_0.jpg"],
    "image_test": ["0002_c002_00030600_0.jpg", "0002_c013_00030640_1.jpg"],
}
MSMT17_LISTS = {
    "list_train.txt": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_15_0303noon_0016_0_ex.jpg 1"],
    "list_val.txt": ["0000/0000_013_04_0303morning_0020_2.jpg 0"],
    "list_query.txt": ["0000/0000_000_02_0303morning_0017_0.jpg 0"],
    "list_gallery.txt": ["0000/0000_001_03_0303morning_0018_1.jpg 0", "0001/0001_002_12_0303morning_0019_1.jpg 1"],
}


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "4x4.jpg"
    Image.new("RGB", (4, 4), "red").save(path)
    return path


def link(picture: Path, root: Path, files: Iterable[str]) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        os.link(picture, root / file)


def build(picture: Path, root: Path, folders: dict[str, list[str]]) -> Path:
    for folder, files in folders.items():
        (root / folder).mkdir(parents=True)
        link(picture, root / folder, files)
    return root


def build_msmt17(picture: Path, root: Path, train_folder: str = "train", test_folder: str = "test") -> Path:
    for name, lines in MSMT17_LISTS.items():
        folder = root / (train_folder if name in ("list_train.txt", "list_val.txt") else test_folder)
        link(picture, folder, (line.split()[0] for line in lines))
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    return root


def labels(samples: Iterable[Sample]) -> list[tuple[str, int, int]]:
    return [(sample.path.name, sample.identity, sample.camera) for sample in samples]


def test_market1501_drops_junk_and_keeps_distractors(tmp_path: Path, picture: Path) -> None:
    root = build(picture, tmp_path, MARKET)
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
    assert not any("left out" in warning for warning in dataset.warnings)
    assert dataset.gallery[0].path == root / "bounding_box_test" / "0000_c1s1_000151_01.jpg"


def test_dukemtmc_names(tmp_path: Path, picture: Path) -> None:
    dataset = load_dataset("dukemtmc", build(picture, tmp_path, DUKE))
    assert labels(dataset.train) == [("0001_c2_f0046182.jpg", 1, 1), ("0002_c8_f0051241.jpg", 2, 7)]
    assert labels(dataset.query) == [("0005_c2_f0046985.jpg", 5, 1)]
    assert labels(dataset.gallery) == [("0003_c1_f0044158.jpg", 3, 0), ("0005_c5_f0051341.jpg", 5, 4)]


def test_veri776_cameras_have_three_digits(tmp_path: Path, picture: Path) -> None:
    dataset = load_dataset("veri776", build(picture, tmp_path, VERI))
    assert labels(dataset.train) == [("0001_c001_00016450_0.jpg", 1, 0), ("0776_c020_00084270_0.jpg", 776, 19)]
    assert labels(dataset.query) == [("0002_c002_00030600_0.jpg", 2, 1)]
    assert labels(dataset.gallery) == [("0002_c002_00030600_0.jpg", 2, 1), ("0002_c013_00030640_1.jpg", 2, 12)]


def test_msmt17_reads_its_lists_and_keeps_test_identities_apart(tmp_path: Path, picture: Path) -> None:
    root = build_msmt17(picture, tmp_path)
    link(picture, root, ["train/0009/0009_000_01_0303morning_0015_0.jpg"])  # in no list
    dataset = load_dataset("msmt17", root)
    assert labels(dataset.train) == [
        ("0000_000_01_0303morning_0015_0.jpg", 0, 0),
        ("0001_000_15_0303noon_0016_0_ex.jpg", 1, 14),
        ("0000_013_04_0303morning_0020_2.jpg", 0, 3),
    ]
    assert labels(dataset.query) == [("0000_000_02_0303morning_0017_0.jpg", 1041, 1)]
    assert labels(dataset.gallery) == [
        ("0000_001_03_0303morning_0018_1.jpg", 1041, 2),
        ("0001_002_12_0303morning_0019_1.jpg", 1042, 11),
    ]
    assert dataset.query[0].path == root / "test" / "0000" / "0000_000_02_0303morning_0017_0.jpg"
    assert dataset.protocol == {"version": "v1", "train_split": "train+val"}


def test_msmt17_training_split_without_val_does_not_need_its_list(tmp_path: Path, picture: Path) -> None:
    root = build_msmt17(picture, tmp_path)
    both = load_dataset("msmt17", root)
    (root / "list_val.txt").unlink()
    alone = load_dataset("msmt17", root, train_split="train")
    assert alone.train == both.train[:2]
    assert alone.gallery == both.gallery
    assert alone.protocol["train_split"] == "train"
    with pytest.raises(FileNotFoundError, match=r"has no list_val\.txt"):
        load_dataset("msmt17", root)


def test_msmt17_version_2(tmp_path: Path, picture: Path) -> None:
    root = build_msmt17(picture, tmp_path / "MSMT17_V2", "mask_train_v2", "mask_test_v2")
    dataset = load_dataset("msmt17", tmp_path, version="v2")
    assert dataset.train[0].path == root / "mask_train_v2" / "0000" / "0000_000_01_0303morning_0015_0.jpg"
    assert dataset.protocol["version"] == "v2"


@pytest.mark.parametrize(("asked", "found"), [("v1", "v2"), ("v2", "v1")])
def test_msmt17_of_the_other_version_is_refused(tmp_path: Path, picture: Path, asked: str, found: str) -> None:
    folders = {"v1": ("train", "test"), "v2": ("mask_train_v2", "mask_test_v2")}[found]
    home = build_msmt17(picture, tmp_path / f"MSMT17_{found.upper()}", *folders)
    message = rf"found version {found} \({', '.join(folders)}\) in {home}, but version={asked} .* use version={found}"
    with pytest.raises(ValueError, match=message):
        load_dataset("msmt17", tmp_path, version=asked)


def test_msmt17_versions_side_by_side_are_told_apart(tmp_path: Path, picture: Path) -> None:
    first = build_msmt17(picture, tmp_path / "MSMT17_V1")
    second = build_msmt17(picture, tmp_path / "MSMT17_V2", "mask_train_v2", "mask_test_v2")
    assert load_dataset("msmt17", tmp_path, version="v1").root == first
    assert load_dataset("msmt17", tmp_path, version="v2").root == second


def test_msmt17_listed_images_that_do_not_exist_are_left_out_with_a_warning(tmp_path: Path, picture: Path) -> None:
    root = build_msmt17(picture, tmp_path)
    gone = root / "test" / "0001" / "0001_002_12_0303morning_0019_1.jpg"
    gone.unlink()
    dataset = load_dataset("msmt17", root)
    assert labels(dataset.gallery) == [("0000_001_03_0303morning_0018_1.jpg", 1041, 2)]
    assert f"msmt17: 1 of 2 images in list_gallery.txt do not exist, first {gone}" in dataset.warnings


def test_msmt17_without_any_listed_image_says_where_it_looked(tmp_path: Path, picture: Path) -> None:
    root = build_msmt17(picture, tmp_path)
    for folder in ("train", "test"):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    with pytest.raises(
        ValueError, match=r"no image .* 2 of 2 images in list_train\.txt do not exist, first .*/train/0000/"
    ):
        load_dataset("msmt17", root)


@pytest.mark.parametrize(
    "line", ["0000/0000_000_01_0303morning_0015_0.jpg", "0000/0000_000.jpg 0", "0000/0000_000_a_0303.jpg 0"]
)
def test_msmt17_broken_list_line_is_named(tmp_path: Path, picture: Path, line: str) -> None:
    root = build_msmt17(picture, tmp_path)
    with (root / "list_query.txt").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(ValueError, match=rf"list_query\.txt line 3: expected .*, found '{line}'"):
        load_dataset("msmt17", root)


def test_msmt17_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown version 'v3'; expected v1 or v2"):
        load_dataset("msmt17", tmp_path, version="v3")
    with pytest.raises(ValueError, match=r"unknown train_split 'val'; expected train or train\+val"):
        load_dataset("msmt17", tmp_path, train_split="val")


@pytest.mark.parametrize(
    ("name", "layout", "place"),
    [
        ("market1501", MARKET, "Market-1501-v15.09.15"),
        ("market1501", MARKET, "Market-1501"),
        ("market1501", MARKET, "market1501"),
        ("market1501", MARKET, "market1501/Market-1501-v15.09.15"),
        ("dukemtmc", DUKE, "DukeMTMC-reID"),
        ("dukemtmc", DUKE, "dukemtmcreid"),
        ("dukemtmc", DUKE, "dukemtmc-reid/DukeMTMC-reID"),
        ("veri776", VERI, "VeRi"),
    ],
)
def test_usual_folder_names_are_found(
    tmp_path: Path, picture: Path, name: str, layout: dict[str, list[str]], place: str
) -> None:
    home = build(picture, tmp_path / place, layout)
    assert load_dataset(name, tmp_path).root == home


@pytest.mark.parametrize("place", ["MSMT17_V1", "MSMT17", "msmt17", "msmt17/MSMT17_V1"])
def test_usual_msmt17_folder_names_are_found(tmp_path: Path, picture: Path, place: str) -> None:
    home = build_msmt17(picture, tmp_path / place)
    assert load_dataset("msmt17", tmp_path).root == home


def test_missing_folder_names_every_place_looked_at(tmp_path: Path, picture: Path) -> None:
    root = build(picture, tmp_path, MARKET)
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


def test_images_named_like_another_dataset_are_refused(tmp_path: Path, picture: Path) -> None:
    root = build(picture, tmp_path, DUKE)
    with pytest.raises(
        ValueError, match=r"Market-1501-style .* found 0001_c2_f0046182\.jpg: DukeMTMC-reID-style names"
    ):
        load_dataset("market1501", root)
    shutil.rmtree(root / "query")
    with pytest.raises(FileNotFoundError, match="has no query"):
        load_dataset("dukemtmc", root)


@pytest.mark.parametrize(
    ("asked", "found", "layout"), [("veri776", "market1501", MARKET), ("dukemtmc", "veri776", VERI)]
)
def test_folders_of_another_dataset_are_recognised(
    tmp_path: Path, picture: Path, asked: str, found: str, layout: dict[str, list[str]]
) -> None:
    build(picture, tmp_path, layout)
    with pytest.raises(FileNotFoundError, match=f"{asked}: expected .*; found what looks like dataset {found}"):
        load_dataset(asked, tmp_path)


def test_msmt17_is_recognised_with_its_version(tmp_path: Path, picture: Path) -> None:
    build_msmt17(picture, tmp_path, "mask_train_v2", "mask_test_v2")
    with pytest.raises(FileNotFoundError, match="looks like dataset msmt17, version=v2"):
        load_dataset("market1501", tmp_path)


def test_a_few_images_of_other_names_are_left_out_with_a_warning(tmp_path: Path, picture: Path) -> None:
    root = build(picture, tmp_path, MARKET)
    link(picture, root / "query", ["overview.jpg"])
    dataset = load_dataset("market1501", root)
    assert len(dataset.query) == 2
    assert any("left out 1 of 3 images" in warning and "overview.jpg" in warning for warning in dataset.warnings)


def test_toy_is_read_as_market1501_without_official_counts(tmp_path: Path, picture: Path) -> None:
    root = build(picture, tmp_path, MARKET)
    toy, market = load_dataset("toy", root), load_dataset("market1501", root)
    assert (toy.name, toy.warnings) == ("toy", ())
    assert toy.splits == market.splits


def spread(images: int, identities: Iterable[int], cameras: int) -> Iterator[tuple[int, int, int]]:
    """(identity, camera from 1, serial number) of `images` images, dealt to the identities in turn."""
    deal = itertools.cycle(identities)
    return ((next(deal), 1 + serial % cameras, serial) for serial in range(images))


@pytest.fixture
def link_all(tmp_path: Path) -> Iterator[LinkAll]:
    """A function that makes any number of image files; they are removed after the test, not kept as pytest would."""
    made = itertools.count()

    def create(root: Path, files: list[str]) -> None:
        for folder in {(root / file).parent for file in files}:
            folder.mkdir(parents=True, exist_ok=True)
        for batch in range(0, len(files), LINKS_PER_FILE):
            source = tmp_path / f"source{next(made)}.jpg"
            Image.new("RGB", (4, 4), "blue").save(source)
            for file in files[batch : batch + LINKS_PER_FILE]:
                os.link(source, root / file)

    yield create
    shutil.rmtree(tmp_path)


def named_files(pattern: str, images: int, identities: Iterable[int], cameras: int) -> list[str]:
    return [pattern.format(i=i, c=c, n=n) for i, c, n in spread(images, identities, cameras)]


def assert_complete(name: str, root: Path, counts: dict[str, tuple[int, int]], cameras: int, **options: str) -> None:
    dataset = load_dataset(name, root, strict_counts=True, **options)
    assert {split: (c.images, c.identities) for split, c in dataset.counts.items()} == counts
    assert max(sample.camera for sample in dataset.train + dataset.query + dataset.gallery) == cameras - 1
    assert dataset.warnings == ()


@pytest.mark.slow
def test_complete_market1501(tmp_path: Path, link_all: LinkAll) -> None:
    pattern = "{i:04}_c{c}s1_{n:06}_00.jpg"
    train, test = range(2, 2 + 751), range(800, 800 + 750)
    link_all(tmp_path / "bounding_box_train", named_files(pattern, 12_936, train, 6))
    link_all(tmp_path / "query", named_files(pattern, 3_368, test, 6))
    gallery = named_files(pattern, 13_115, test, 6) + named_files(pattern, 2_798, [0], 6)
    gallery += named_files("-1_c{c}s1_{n:06}_00.jpg", 3_819, [-1], 6)
    assert len(gallery) == 19_732
    link_all(tmp_path / "bounding_box_test", gallery)
    counts = {"train": (12_936, 751), "query": (3_368, 750), "gallery": (15_913, 751)}
    assert_complete("market1501", tmp_path, counts, cameras=6)


@pytest.mark.slow
def test_complete_dukemtmc(tmp_path: Path, link_all: LinkAll) -> None:
    pattern = "{i:04}_c{c}_f{n:07}.jpg"
    train, test, distractors = range(1, 1 + 702), range(1_000, 1_000 + 702), range(3_000, 3_000 + 408)
    link_all(tmp_path / "bounding_box_train", named_files(pattern, 16_522, train, 8))
    link_all(tmp_path / "query", named_files(pattern, 2_228, test, 8))
    gallery = named_files(pattern, 17_661 - 3_463, test, 8) + named_files(pattern, 3_463, distractors, 8)
    link_all(tmp_path / "bounding_box_test", gallery)
    counts = {"train": (16_522, 702), "query": (2_228, 702), "gallery": (17_661, 1_110)}
    assert_complete("dukemtmc", tmp_path, counts, cameras=8)


@pytest.mark.slow
def test_complete_veri776(tmp_path: Path, link_all: LinkAll) -> None:
    pattern = "{i:04}_c{c:03}_{n:08}_0.jpg"
    train, test = range(201, 201 + 576), range(1, 1 + 200)
    link_all(tmp_path / "image_train", named_files(pattern, 37_778, train, 20))
    gallery = named_files(pattern, 11_579, test, 20)
    link_all(tmp_path / "image_test", gallery)
    link_all(tmp_path / "image_query", gallery[:1_678])
    counts = {"train": (37_778, 576), "query": (1_678, 200), "gallery": (11_579, 200)}
    assert_complete("veri776", tmp_path, counts, cameras=20)


@pytest.mark.slow
def test_complete_msmt17(tmp_path: Path, link_all: LinkAll) -> None:
    sizes = {"train": (30_248, 1_041), "val": (2_373, 1_041), "query": (11_659, 3_060), "gallery": (82_161, 3_060)}
    for name, (images, identities) in sizes.items():
        pattern = "{i:04}/{i:04}_" + name + "_{c:02}_0303morning_{n:06}_0.jpg"
        files = named_files(pattern, images, range(identities), 15)
        link_all(tmp_path / ("train" if name in ("train", "val") else "test"), files)
        (tmp_path / f"list_{name}.txt").write_text("".join(f"{file} {int(file[:4])}\n" for file in files))
    test = {"query": (11_659, 3_060), "gallery": (82_161, 3_060)}
    assert_complete("msmt17", tmp_path, {"train": (32_621, 1_041), **test}, cameras=15)
    assert_complete("msmt17", tmp_path, {"train": (30_248, 1_041), **test}, cameras=15, train_split="train")
