import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fgvc.datasets import AIRCRAFT, DATASETS, LEVELS, load_dataset
from reid.data.folders import Patterns
from reid.data.images import read_image

CUB = {
    "images.txt": "1 001.Black_footed_Albatross/a.jpg\n2 001.Black_footed_Albatross/b.jpg\n"
    "3 002.Laysan_Albatross/c.jpg\n4 002.Laysan_Albatross/d.jpg\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n",
    "train_test_split.txt": "1 0\n2 1\n3 1\n4 0\n",
    "classes.txt": "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n",
}
CAR_CLASSES = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
AIRCRAFT_NAMES = {
    "variant": ["707-320", "A340-300"],
    "family": ["Boeing 707", "A340"],
    "manufacturer": ["Boeing", "Airbus"],
}
LABELS = "image_class_labels__txt"


def cub(root: Path, link, **changes: str) -> Path:
    files = {**CUB, **{name.replace("__", "."): text for name, text in changes.items()}}
    link(root / "images", [line.split()[1] for line in CUB["images.txt"].splitlines()])
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def structs(rows: list[dict[str, object]]) -> np.ndarray:
    """Rows as Matlab's array of structs."""
    array = np.empty(len(rows), dtype=[(name, object) for name in rows[0]])
    for place, row in enumerate(rows):
        array[place] = tuple(row.values())
    return array


def cars_in_folders(root: Path, link, *, labels: str = ".", first_class: int = 1) -> Path:
    link(root, ["cars_train/00001.jpg", "cars_train/00002.jpg", "cars_test/00001.jpg"])
    (root / "devkit").mkdir()
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array(CAR_CLASSES, dtype=object)})
    box = {"bbox_x1": 1, "bbox_y1": 1, "bbox_x2": 3, "bbox_y2": 3}
    train = [
        {**box, "class": first_class, "fname": "00001.jpg"},
        {**box, "class": 2, "fname": "00002.jpg"},
    ]
    savemat(root / "devkit" / "cars_train_annos.mat", {"annotations": structs(train)})
    test = structs([{**box, "class": 2, "fname": "00001.jpg"}])  # a single one: Matlab's arrays of one are no arrays
    savemat(root / labels / "cars_test_annos_withlabels.mat", {"annotations": test})
    return root


def cars_together(root: Path, link) -> Path:
    link(root, ["car_ims/000001.jpg", "car_ims/000002.jpg", "car_ims/000003.jpg"])
    rows = [
        {"relative_im_path": "car_ims/000001.jpg", "class": 1, "test": 0},
        {"relative_im_path": "car_ims/000002.jpg", "class": 2, "test": 0},
        {"relative_im_path": "car_ims/000003.jpg", "class": 2, "test": 1},
    ]
    savemat(
        root / "cars_annos.mat",
        {"annotations": structs(rows), "class_names": np.array(CAR_CLASSES, dtype=object)},
    )
    return root


def aircraft(root: Path, size: tuple[int, int] = (30, 60)) -> Path:
    (root / "images").mkdir(parents=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[-20:] = 255  # the banner
    for number in ("0034309", "1025794", "0056978"):
        Image.fromarray(pixels).save(root / "images" / f"{number}.jpg")
    for level, names in AIRCRAFT_NAMES.items():
        (root / LEVELS[level][0]).write_text("\n".join(names) + "\n")
        (root / f"images_{level}_trainval.txt").write_text(f"0034309 {names[1]}\n1025794 {names[0]}\n")
        (root / f"images_{level}_test.txt").write_text(f"0056978 {names[0]}\n")
    return root


def found(samples) -> list[tuple[str, int]]:
    return [(f"{sample.path.parent.name}/{sample.path.name}", sample.identity) for sample in samples]


def test_cub_is_read_by_its_lists(tmp_path, link):
    dataset = load_dataset("cub", cub(tmp_path, link))
    assert dataset.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert found(dataset.train) == [("001.Black_footed_Albatross/b.jpg", 0), ("002.Laysan_Albatross/c.jpg", 1)]
    assert found(dataset.test) == [("001.Black_footed_Albatross/a.jpg", 0), ("002.Laysan_Albatross/d.jpg", 1)]
    assert dataset.warnings == (
        "cub train: found 2 images of 2 classes, official 5,994 of 200",
        "cub test: found 2 images of 2 classes, official 5,794 of 200",
    )
    with pytest.raises(ValueError, match=r"official 5,994 of 200.*official 5,794 of 200 \(refused by strict_counts\)"):
        load_dataset("cub", tmp_path, strict_counts=True)


@pytest.mark.parametrize("folder", ["CUB_200_2011", "cub"])
def test_cub_is_found_from_the_folder_above(tmp_path, link, folder):
    cub(tmp_path / folder, link)
    assert load_dataset("cub", tmp_path).root == tmp_path / folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({LABELS: "1 1\n2 1\n3 7\n4 2\n"}, "labels.txt: image 3 has class 7, expected one of the 2 in .*classes.txt"),
        ({LABELS: "1 1\n2 1\n4 2\n"}, "image_class_labels.txt: no line for image 3 of images.txt"),
        ({"train_test_split__txt": "1 0\n2 1\n3 2\n4 0\n"}, "train_test_split.txt: image 3 has split '2', expected 1"),
        ({"images__txt": "1 a.jpg\nb.jpg\n"}, "images.txt line 2: expected 'NUMBER VALUE', found 'b.jpg'"),
        ({"images__txt": "1 a.jpg\n1 b.jpg\n"}, "images.txt line 2: 1 stands there twice"),
        ({"classes__txt": CUB["classes.txt"] + "3 003.Sooty\n"}, "1 class \\('003.Sooty'\\) without a training image"),
    ],
)
def test_broken_lists_of_cub_are_named(tmp_path, link, changes, message):
    with pytest.raises(ValueError, match=message):
        load_dataset("cub", cub(tmp_path, link, **changes))


def test_a_missing_list_is_named_with_the_places_looked_at(tmp_path, link):
    cub(tmp_path / "CUB_200_2011", link)
    (tmp_path / "CUB_200_2011" / "classes.txt").unlink()
    where = re.escape(str(tmp_path))
    with pytest.raises(
        FileNotFoundError,
        match=rf"cub: expected images, .*classes.txt in one folder; looked in {where}, "
        rf"{where}/CUB_200_2011 \(has no classes.txt\), ",
    ):
        load_dataset("cub", tmp_path)


def test_listed_images_that_do_not_exist_are_left_out_with_a_warning(tmp_path, link):
    cub(tmp_path, link)
    (tmp_path / "images" / "001.Black_footed_Albatross" / "a.jpg").unlink()
    dataset = load_dataset("cub", tmp_path)
    assert len(dataset.test) == 1
    assert "cub: 1 of 2 images in images.txt do not exist, first" in dataset.warnings[0]
    assert dataset.warnings[-1] == "cub: 1 class ('001.Black_footed_Albatross') without a test image"


@pytest.mark.parametrize("labels", [".", "devkit"])
def test_cars_in_two_folders(tmp_path, link, labels):
    dataset = load_dataset("cars", cars_in_folders(tmp_path / "stanford_cars", link, labels=labels).parent)
    assert dataset.classes == tuple(CAR_CLASSES)
    assert found(dataset.train) == [("cars_train/00001.jpg", 0), ("cars_train/00002.jpg", 1)]
    assert found(dataset.test) == [("cars_test/00001.jpg", 1)]


def test_cars_as_unpacked_into_folders_of_the_archives_names(tmp_path, link):
    root = cars_in_folders(tmp_path / "stanford-cars-dataset", link)
    for name in ("cars_train", "cars_test", "devkit"):
        (root / name).rename(root / "inner")
        (root / ("car_devkit" if name == "devkit" else name)).mkdir()
        (root / "inner").rename(root / ("car_devkit" if name == "devkit" else name) / name)
    dataset = load_dataset("cars", tmp_path)
    assert found(dataset.train) == [("cars_train/00001.jpg", 0), ("cars_train/00002.jpg", 1)]
    assert found(dataset.test) == [("cars_test/00001.jpg", 1)]


@pytest.mark.parametrize("name", ["cars", "aircraft"])
def test_a_set_sorted_into_a_folder_a_class_is_told_how_to_be_read(tmp_path, link, name):
    link(tmp_path / "car_data" / "car_data", ["train/Acura/1.jpg", "test/Acura/2.jpg"])
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset(name, tmp_path)
    where = tmp_path / "car_data" / "car_data"
    said = f"; {where} has one folder a class in train and test: use --dataset folder --data-root {where}"
    assert str(caught.value).endswith(said)
    assert len(load_dataset("folder", where).train) == 1


def test_what_is_missing_of_cars_is_told_once_and_of_the_nearest(tmp_path, monkeypatch):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "cars_train").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "lost+found")
    listed = Path.iterdir

    def listing(path):
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", listing)
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset("cars", tmp_path)
    lists = "devkit/cars_meta.mat, devkit/cars_train_annos.mat, cars_test_annos_withlabels.mat"
    assert str(caught.value).startswith(
        f"cars: expected cars_train, cars_test, {lists} or car_ims, cars_annos.mat in one folder; looked in {tmp_path} "
        f"(has no cars_test, {lists}), {tmp_path}/stanford_cars, "
    )


def test_cars_in_one_folder(tmp_path, link):
    dataset = load_dataset("cars", cars_together(tmp_path, link))
    assert dataset.classes == tuple(CAR_CLASSES)
    assert found(dataset.train) == [("car_ims/000001.jpg", 0), ("car_ims/000002.jpg", 1)]
    assert found(dataset.test) == [("car_ims/000003.jpg", 1)]


def test_broken_files_of_cars_are_named(tmp_path, link):
    root = cars_in_folders(tmp_path / "a", link, first_class=3)
    with pytest.raises(ValueError, match=r"cars_train_annos.mat: image 00001.jpg has class 3, expected 1 to 2"):
        load_dataset("cars", root)
    savemat(root / "devkit" / "cars_train_annos.mat", {"annotations": structs([{"fname": "00001.jpg"}])})
    with pytest.raises(ValueError, match=r"cars_train_annos.mat: 'annotations' has no field class"):
        load_dataset("cars", root)
    savemat(root / "devkit" / "cars_train_annos.mat", {"other": 1})
    with pytest.raises(ValueError, match=r"cars_train_annos.mat: no variable 'annotations' in it"):
        load_dataset("cars", root)
    (root / "devkit" / "cars_train_annos.mat").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"cars_train_annos.mat: cannot be read as a Matlab file"):
        load_dataset("cars", root)
    (root / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"or car_ims, cars_annos.mat in one folder; looked in .*/a \(has no cars_test_annos_withlabels.mat\), ",
    ):
        load_dataset("cars", root)


@pytest.mark.parametrize("level", list(LEVELS))
def test_aircraft_has_three_levels_and_names_with_spaces(tmp_path, level):
    aircraft(tmp_path / "fgvc-aircraft-2013b" / "data")
    dataset = load_dataset("aircraft", tmp_path, level=level)
    assert dataset.classes == tuple(AIRCRAFT_NAMES[level])
    assert found(dataset.train) == [("images/0034309.jpg", 1), ("images/1025794.jpg", 0)]
    assert found(dataset.test) == [("images/0056978.jpg", 0)]
    assert dataset.protocol == {"level": level}
    assert f"official 6,667 of {LEVELS[level][1]}" in dataset.warnings[0]


def test_aircraft_is_seen_without_its_banner(tmp_path):
    dataset = load_dataset("aircraft", aircraft(tmp_path))
    assert dataset.protocol == {"level": "variant"}
    for sample in (*dataset.train, *dataset.test):
        seen = read_image(sample.path, sample.box)
        assert seen.size == (30, 40)
        assert np.asarray(seen)[:32].max() < 60  # jpeg smears a block's width


def test_broken_files_of_aircraft_are_named(tmp_path):
    aircraft(tmp_path)
    (tmp_path / "images_family_test.txt").write_text("0056978 Boeing 747\n")
    expected = r"images_family_test.txt: image 0056978 has family 'Boeing 747', which is not in .*families.txt"
    with pytest.raises(ValueError, match=expected):
        load_dataset("aircraft", tmp_path, level="family")
    (tmp_path / "images" / "1025794.jpg").write_bytes(b"cut")
    unread = load_dataset("aircraft", tmp_path).train[1]
    with pytest.raises(ValueError, match=r"1025794.jpg: the file is no JPEG.* image"):
        read_image(unread.path, unread.box)


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "validation"])
def test_folder_has_a_folder_a_class(tmp_path, link, held_out):
    link(tmp_path, ["train/b/2.jpg", "train/a/x/1.jpg", "train/a/.hidden.jpg", f"{held_out}/a/3.jpg"])
    dataset = load_dataset("folder", tmp_path)
    assert dataset.classes == ("a", "b")
    assert found(dataset.train) == [("x/1.jpg", 0), ("b/2.jpg", 1)]
    assert found(dataset.test) == [("a/3.jpg", 0)]
    assert dataset.protocol == {"split": held_out}
    told = ("folder: 1 file left out: 1 hidden", "folder: 1 class ('b') without a test image")
    assert dataset.warnings == told


def test_a_class_of_which_no_file_is_wanted_is_none(tmp_path, link):
    link(
        tmp_path, ["train/auk/1.jpg", "train/auk/1_small.jpg", "train/gull/2.jpg", "test/auk/3.jpg", "test/gull/4.jpg"]
    )
    dataset = load_dataset("folder", tmp_path, wanted=Patterns(exclude=("gull", "*_small.*")))
    assert dataset.classes == ("auk",)
    assert found(dataset.train) == [("auk/1.jpg", 0)] and found(dataset.test) == [("auk/3.jpg", 0)]
    assert dataset.warnings == ("folder: 3 files left out: 3 by --exclude",)
    with pytest.raises(
        ValueError, match="cub: given patterns, without gull, which choose among the files of dataset f"
    ):
        load_dataset("cub", tmp_path, wanted=Patterns(exclude=("gull",)))


def test_a_test_folder_wins_over_val_and_may_stand_alone(tmp_path, link):
    link(tmp_path, ["val/a/1.jpg", "test/a/2.jpg", "test/b/3.jpg"])
    dataset = load_dataset("folder", tmp_path)
    assert dataset.train == ()
    assert found(dataset.test) == [("a/2.jpg", 0), ("b/3.jpg", 1)]


def test_a_root_without_splits_is_refused_before_it_is_walked(tmp_path, link, monkeypatch):
    link(tmp_path, ["photos/a/1.jpg"])

    def walked(*arguments):
        raise AssertionError("the whole root was read")

    monkeypatch.setattr("fgvc.datasets.images_by_folder", walked)
    with pytest.raises(FileNotFoundError, match="has none of the folders train, test, val, valid, validation"):
        load_dataset("folder", tmp_path)


def test_broken_folders_are_named(tmp_path, link):
    with pytest.raises(
        FileNotFoundError,
        match=r"has none of the folders train, test, val, valid, validation; expected train/CLASS/\*.jpg",
    ):
        load_dataset("folder", tmp_path)
    link(tmp_path, ["train/a/1.jpg", "test/c/2.jpg"])
    with pytest.raises(ValueError, match=r"test has 1 class that .*train has not, first 'c'"):
        load_dataset("folder", tmp_path)
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "train" / "b").mkdir()
    with pytest.raises(ValueError, match=r"folder: 1 class \('b'\) without a training image"):
        load_dataset("folder", tmp_path)
    (tmp_path / "train" / "a" / "1.jpg").unlink()
    with pytest.raises(ValueError, match=r"folder: no image \(.jpg, .*\) with a label"):
        load_dataset("folder", tmp_path)


def test_wrong_names_roots_and_levels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown dataset 'car' \(did you mean cars\?\); expected one of cub, cars"):
        load_dataset("car", tmp_path)
    with pytest.raises(ValueError, match="cub: given level=family, but only aircraft has levels"):
        load_dataset("cub", tmp_path, level="family")
    with pytest.raises(FileNotFoundError, match="cub: the data root .*absent does not exist"):
        load_dataset("cub", tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="cub: the data root .*file is a file, expected a folder"):
        load_dataset("cub", tmp_path / "file")


def test_real_birds_are_read(real_photos):
    dataset = load_dataset("cub", real_photos / "cub30")
    assert (len(dataset.train), len(dataset.test), len(dataset.classes)) == (900, 801, 30)
    for sample in (*dataset.train, *dataset.test):
        assert sample.path.parent.name == dataset.classes[sample.identity]


@pytest.mark.slow
def test_complete_copies_have_the_official_counts(tmp_path, link):
    """Generated names in the numbers of the papers: no warning, and strict counts pass."""
    root = tmp_path / "cub"
    names = [f"{n:03d}.Class/{i}.jpg" for n in range(1, 201) for i in range(59 if n <= 188 else 58)]
    assert len(names) == 11_788
    link(root / "images", names)
    split = [1] * 5_994 + [0] * 5_794
    np.random.default_rng(0).shuffle(split)
    (root / "classes.txt").write_text("".join(f"{n} {n:03d}.Class\n" for n in range(1, 201)))
    (root / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    (root / "image_class_labels.txt").write_text("".join(f"{i} {int(n[:3])}\n" for i, n in enumerate(names, 1)))
    (root / "train_test_split.txt").write_text("".join(f"{i} {part}\n" for i, part in enumerate(split, 1)))
    assert load_dataset("cub", root, strict_counts=True).warnings == ()

    root = tmp_path / "cars"
    rows = [
        {"relative_im_path": f"car_ims/{i:06d}.jpg", "class": i % 196 + 1, "test": int(i >= 8_144)}
        for i in range(16_185)
    ]
    link(root, [str(row["relative_im_path"]) for row in rows])
    classes = np.array([f"Car {n}" for n in range(196)], dtype=object)
    savemat(root / "cars_annos.mat", {"annotations": structs(rows), "class_names": classes})
    assert load_dataset("cars", root, strict_counts=True).warnings == ()

    root = tmp_path / "aircraft"
    numbers = [f"{n:07d}" for n in range(10_000)]
    link(root, [f"images/{number}.jpg" for number in numbers])
    for level, (file, count) in LEVELS.items():
        (root / file).write_text("".join(f"Name {n}\n" for n in range(count)))
        lines = [f"{number} Name {int(number) % count}\n" for number in numbers]
        (root / f"images_{level}_trainval.txt").write_text("".join(lines[:6_667]))
        (root / f"images_{level}_test.txt").write_text("".join(lines[6_667:]))
        assert load_dataset("aircraft", root, level=level, strict_counts=True).warnings == ()


def test_every_dataset_has_a_recipe_or_is_the_users_own():
    recipes = Path(__file__).resolve().parents[2] / "configs" / "fgvc"
    assert {path.stem for path in recipes.glob("*.yaml")} == set(DATASETS) - {"folder"}
    assert set(AIRCRAFT) == set(LEVELS)
