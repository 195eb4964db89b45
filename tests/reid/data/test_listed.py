import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from reid.data.datasets import load_dataset
from reid.data.samples import Sample

Link = Callable[[Path, Iterable[str]], Path]

MSMT17_FOLDERS = {"v1": ("train", "test"), "v2": ("mask_train_v2", "mask_test_v2")}
MSMT17_LISTS = {
    "list_train.txt": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_15_0303noon_0016_0_ex.jpg 1"],
    "list_val.txt": ["0000/0000_013_04_0303morning_0020_2.jpg 0"],
    "list_query.txt": ["0000/0000_000_02_0303morning_0017_0.jpg 0"],
    "list_gallery.txt": ["0000/0000_001_03_0303morning_0018_1.jpg 0", "0001/0001_002_12_0303morning_0019_1.jpg 1"],
}
VEHICLEID_LISTS = {
    "train_list.txt": ["0000001 7", "0000002 7", "0000003 8"],
    "test_list_800.txt": [f"{20 + n:07} {100 + n // 4}" for n in range(12)],  # three vehicles, four images each
    "test_list_1600.txt": [f"{20 + n:07} {100 + n // 4}" for n in range(16)],
}
VERIWILD_LISTS = {
    "vehicle_info.txt": [
        "id/image;Camera ID;Time;Model;Type;Color",
        "00001/000001;23;2018-03-11 08:57:02;Audi A6;SUV;white",
        "00001/000002;173;2018-03-11 09:57:02;Audi A6;SUV;white",
        "30672/000003;0;2018-03-12 09:57:02;;sedan;",
        "30672/000004;23;2018-03-12 10:57:02;;sedan;",
        "30673/000005;4;2018-03-12 10:57:02;;sedan;",
    ],
    "train_list.txt": ["00001/000001", "00001/000002"],
    "test_3000_query.txt": ["30672/000003"],
    "test_3000.txt": ["30672/000004"],
    "test_5000_query.txt": ["30672/000003"],
    "test_5000.txt": ["30672/000004", "30673/000005"],
}


def write_lists(folder: Path, lists: Mapping[str, list[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))


def build_msmt17(link: Link, root: Path, version: str = "v1") -> Path:
    train, test = MSMT17_FOLDERS[version]
    for name, lines in MSMT17_LISTS.items():
        link(
            root / (train if name in ("list_train.txt", "list_val.txt") else test), (line.split()[0] for line in lines)
        )
    write_lists(root, MSMT17_LISTS)
    return root


def build_vehicleid(link: Link, root: Path) -> Path:
    write_lists(root / "train_test_split", VEHICLEID_LISTS)
    names = {line.split()[0] for lines in VEHICLEID_LISTS.values() for line in lines}
    return link(root, (f"image/{name}.jpg" for name in names))


def build_veriwild(link: Link, root: Path) -> Path:
    write_lists(root / "train_test_split", VERIWILD_LISTS)
    images = (line.split(";")[0] for line in VERIWILD_LISTS["vehicle_info.txt"][1:])
    return link(root, (f"images/{image}.jpg" for image in images))


def labels(samples: Iterable[Sample]) -> list[tuple[str, int, int]]:
    return [(sample.path.name, sample.identity, sample.camera) for sample in samples]


def test_msmt17_reads_its_lists_and_keeps_test_identities_apart(tmp_path: Path, link: Link) -> None:
    root = build_msmt17(link, tmp_path)
    link(root, ["train/0009/0009_000_01_0303morning_0015_0.jpg"])  # in no list
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


def test_msmt17_training_split_without_val_does_not_need_its_list(tmp_path: Path, link: Link) -> None:
    root = build_msmt17(link, tmp_path)
    both = load_dataset("msmt17", root)
    (root / "list_val.txt").unlink()
    alone = load_dataset("msmt17", root, train_split="train")
    assert alone.train == both.train[:2]
    assert alone.gallery == both.gallery
    assert alone.protocol["train_split"] == "train"
    with pytest.raises(FileNotFoundError, match=r"has no list_val\.txt"):
        load_dataset("msmt17", root)


def test_msmt17_version_2(tmp_path: Path, link: Link) -> None:
    root = build_msmt17(link, tmp_path / "MSMT17_V2", "v2")
    dataset = load_dataset("msmt17", tmp_path, version="v2")
    assert dataset.train[0].path == root / "mask_train_v2" / "0000" / "0000_000_01_0303morning_0015_0.jpg"
    assert dataset.protocol["version"] == "v2"


@pytest.mark.parametrize(("asked", "found"), [("v1", "v2"), ("v2", "v1")])
def test_msmt17_of_the_other_version_is_refused(tmp_path: Path, link: Link, asked: str, found: str) -> None:
    home = build_msmt17(link, tmp_path / f"MSMT17_{found.upper()}", found)
    folders = ", ".join(MSMT17_FOLDERS[found])
    message = rf"found version {found} \({folders}\) in {home}, but version={asked} .* use version={found}"
    with pytest.raises(ValueError, match=message):
        load_dataset("msmt17", tmp_path, version=asked)


def test_msmt17_versions_side_by_side_are_told_apart(tmp_path: Path, link: Link) -> None:
    first = build_msmt17(link, tmp_path / "MSMT17_V1")
    second = build_msmt17(link, tmp_path / "MSMT17_V2", "v2")
    assert load_dataset("msmt17", tmp_path, version="v1").root == first
    assert load_dataset("msmt17", tmp_path, version="v2").root == second


def test_msmt17_is_recognised_with_its_version(tmp_path: Path, link: Link) -> None:
    build_msmt17(link, tmp_path, "v2")
    with pytest.raises(FileNotFoundError, match="looks like dataset msmt17, version=v2"):
        load_dataset("market1501", tmp_path)


def test_listed_images_that_do_not_exist_are_left_out_with_a_warning(tmp_path: Path, link: Link) -> None:
    root = build_msmt17(link, tmp_path)
    gone = root / "test" / "0001" / "0001_002_12_0303morning_0019_1.jpg"
    gone.unlink()
    dataset = load_dataset("msmt17", root)
    assert labels(dataset.gallery) == [("0000_001_03_0303morning_0018_1.jpg", 1041, 2)]
    assert f"msmt17: 1 of 2 images in list_gallery.txt do not exist, first {gone}" in dataset.warnings


def test_lists_without_any_existing_image_say_where_they_looked(tmp_path: Path, link: Link) -> None:
    root = build_msmt17(link, tmp_path)
    for folder in ("train", "test"):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    with pytest.raises(
        ValueError, match=r"no image .* 2 of 2 images in list_train\.txt do not exist, first .*/train/0000/"
    ):
        load_dataset("msmt17", root)


def test_vehicleid_draws_one_gallery_image_a_vehicle(tmp_path: Path, link: Link) -> None:
    root = build_vehicleid(link, tmp_path)
    dataset = load_dataset("vehicleid", tmp_path)
    assert labels(dataset.train) == [("0000001.jpg", 7, -1), ("0000002.jpg", 7, -1), ("0000003.jpg", 8, -1)]
    assert dataset.train[0].path == root / "image" / "0000001.jpg"
    assert sorted(sample.identity for sample in dataset.gallery) == [100, 101, 102]
    assert sorted(sample.identity for sample in dataset.query) == sorted(3 * [100, 101, 102])
    test = {line.split()[0] + ".jpg" for line in VEHICLEID_LISTS["test_list_800.txt"]}
    assert {sample.path.name for sample in dataset.query + dataset.gallery} == test
    assert all(sample.camera == -1 for sample in dataset.query + dataset.gallery)
    assert dataset.protocol == {"version": "small"}
    # Computed apart from the code: were the draw to change, figures before and after would not compare.
    assert sorted(sample.path.name for sample in dataset.gallery) == ["0000021.jpg", "0000024.jpg", "0000028.jpg"]


def test_vehicleid_draw_does_not_depend_on_the_order_of_the_list(tmp_path: Path, link: Link) -> None:
    root = build_vehicleid(link, tmp_path)
    before = load_dataset("vehicleid", root)
    lines = list(VEHICLEID_LISTS["test_list_800.txt"])
    random.Random(0).shuffle(lines)
    write_lists(root / "train_test_split", {"test_list_800.txt": lines})
    after = load_dataset("vehicleid", root)
    assert after.query != before.query  # the list's order
    assert set(labels(after.query)) == set(labels(before.query))
    assert after.gallery == before.gallery


def test_vehicleid_versions_and_names_with_extension(tmp_path: Path, link: Link) -> None:
    root = build_vehicleid(link, tmp_path / "VehicleID_V1.0")
    lines = [line.replace(" ", ".jpg ") for line in VEHICLEID_LISTS["test_list_1600.txt"]]
    write_lists(root / "train_test_split", {"test_list_1600.txt": lines})
    dataset = load_dataset("vehicleid", tmp_path, version="medium")
    assert (len(dataset.query), len(dataset.gallery)) == (12, 4)
    assert dataset.protocol == {"version": "medium"}
    with pytest.raises(ValueError, match=r"found version small \(.*test_list_800\.txt\) in .* use version=small"):
        load_dataset("vehicleid", tmp_path, version="large")


def test_veriwild_takes_cameras_from_its_table(tmp_path: Path, link: Link) -> None:
    root = build_veriwild(link, tmp_path)
    dataset = load_dataset("veriwild", root)
    assert labels(dataset.train) == [("000001.jpg", 1, 23), ("000002.jpg", 1, 173)]
    assert labels(dataset.query) == [("000003.jpg", 30_672, 0)]
    assert labels(dataset.gallery) == [("000004.jpg", 30_672, 23)]
    assert dataset.train[0].path == root / "images" / "00001" / "000001.jpg"
    assert dataset.protocol == {"version": "small"}


def test_veriwild_versions(tmp_path: Path, link: Link) -> None:
    build_veriwild(link, tmp_path / "VERI-Wild")
    dataset = load_dataset("veriwild", tmp_path, version="medium")
    assert labels(dataset.gallery) == [("000004.jpg", 30_672, 23), ("000005.jpg", 30_673, 4)]
    with pytest.raises(ValueError, match=r"found version small .*, but version=large was asked for"):
        load_dataset("veriwild", tmp_path, version="large")


def test_lists_are_recognised(tmp_path: Path, link: Link) -> None:
    build_veriwild(link, tmp_path)
    with pytest.raises(FileNotFoundError, match="looks like dataset veriwild, version=small$"):
        load_dataset("vehicleid", tmp_path)


@pytest.mark.parametrize(
    ("name", "list_file", "line"),
    [
        ("msmt17", "list_query.txt", "0000/0000_000_01_0303morning_0015_0.jpg"),
        ("msmt17", "list_query.txt", "0000/0000_000.jpg 0"),
        ("msmt17", "list_query.txt", "0000/0000_000_a_0303.jpg 0"),
        ("vehicleid", "train_test_split/test_list_800.txt", "0000020"),
        ("vehicleid", "train_test_split/test_list_800.txt", "0000020 a"),
        ("vehicleid", "train_test_split/train_list.txt", "0000020 7 1"),
        ("veriwild", "train_test_split/train_list.txt", "00001/000009"),  # has no camera
        ("veriwild", "train_test_split/train_list.txt", "000001"),
        ("veriwild", "train_test_split/vehicle_info.txt", "00001/000009;A;2018"),
    ],
)
def test_broken_line_of_a_list_is_named(tmp_path: Path, link: Link, name: str, list_file: str, line: str) -> None:
    build = {"msmt17": build_msmt17, "vehicleid": build_vehicleid, "veriwild": build_veriwild}[name]
    file = build(link, tmp_path) / list_file
    lines = len(file.read_text().splitlines())
    with file.open("a") as text:
        text.write(f"\n{line}\n")  # a blank line is nothing
    with pytest.raises(ValueError, match=rf"{file} line {lines + 2}: expected .*, found '{line}'"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *(("msmt17", place) for place in ("MSMT17_V1", "MSMT17", "msmt17", "msmt17/MSMT17_V1")),
        *(("vehicleid", place) for place in ("VehicleID_V1.0", "VehicleID", "vehicleid")),
        *(("veriwild", place) for place in ("VERI-Wild", "VeRI-Wild", "veriwild")),
    ],
)
def test_usual_folder_names_are_found(tmp_path: Path, link: Link, name: str, place: str) -> None:
    build = {"msmt17": build_msmt17, "vehicleid": build_vehicleid, "veriwild": build_veriwild}[name]
    home = build(link, tmp_path / place)
    assert load_dataset(name, tmp_path).root == home
