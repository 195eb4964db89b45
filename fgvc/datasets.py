"""Fine-grained categories: the published sets and a user's own folders, by name. C classes."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reid.cli import UsageError
from reid.config import FgvcDataOptions
from reid.data.custom import images_by_folder
from reid.data.folders import EVERYTHING, LeftOut, Patterns, is_clutter
from reid.data.images import upright_size
from reid.data.layout import Layout, locate_any, require_folder
from reid.data.listed import keep_existing, read_lines
from reid.data.opening import make_usable
from reid.data.overlap import describe_shared_pictures
from reid.data.samples import IMAGE_SUFFIXES, LabelledDataset, Sample
from reid.names import counted

LEVELS: Mapping[str, tuple[str, int]] = {  # of aircraft: the file that names the classes, and how many there are
    "variant": ("variants.txt", 100),
    "family": ("families.txt", 70),
    "manufacturer": ("manufacturers.txt", 30),
}
HELD_OUT = ("test", "val", "valid", "validation")  # how the folder of test images is called, the first one found
BANNER = 20  # pixels at the bottom of an aircraft image that name its photographer
# Images by split, and classes, of a complete copy, by name and level.
OFFICIAL_COUNTS: Mapping[tuple[str, str | None], tuple[Mapping[str, int], int]] = {
    ("cub", None): ({"train": 5_994, "test": 5_794}, 200),
    ("cars", None): ({"train": 8_144, "test": 8_041}, 196),
    **{("aircraft", level): ({"train": 6_667, "test": 3_333}, classes) for level, (_, classes) in LEVELS.items()},
}

CUB = Layout(
    (".", "CUB_200_2011", "CUB_200_2011/CUB_200_2011", "CUB-200-2011", "cub", "CUB"),
    ("images", "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"),
)
_CARS_PLACES = (".", "stanford_cars", "stanford-cars-dataset", "StanfordCars", "stanford-cars", "cars", "Cars")
# The release in two folders, whose labels of the test images came later, and the one in a single folder. Where archives
# were unpacked into folders of their name, as on Kaggle, images and lists lie one deeper.
CARS_FOLDERS = tuple(
    Layout(_CARS_PLACES, (train, test, f"{lists}/cars_meta.mat", f"{lists}/cars_train_annos.mat", labels))
    for train, test in (("cars_train/cars_train", "cars_test/cars_test"), ("cars_train", "cars_test"))
    for lists in ("devkit", "car_devkit/devkit")
    for labels in ("cars_test_annos_withlabels.mat", f"{lists}/cars_test_annos_withlabels.mat")
)
CARS_TOGETHER = Layout(_CARS_PLACES, ("car_ims", "cars_annos.mat"))
AIRCRAFT = {
    level: Layout(
        (
            ".",
            "data",
            "fgvc-aircraft-2013b/data",
            "fgvc-aircraft-2013b/fgvc-aircraft-2013b/data",
            "fgvc-aircraft-2013b",
            "aircraft",
            "aircraft/data",
        ),
        ("images", names, f"images_{level}_trainval.txt", f"images_{level}_test.txt"),
    )
    for level, (names, _) in LEVELS.items()
}


@dataclass(frozen=True)
class FgvcDataset(LabelledDataset):
    """Training and test images of categories; `Sample.identity` is the category's place in `classes` (C names)."""

    unit = ("class", "classes")

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    classes: tuple[str, ...]

    @property
    def splits(self) -> dict[str, tuple[Sample, ...]]:
        """The samples by split name."""
        return {"train": self.train, "test": self.test}


def read_cub(root: Path) -> FgvcDataset:
    """Read CUB-200-2011 by its list files; listed images that do not exist are left out with a warning, as in all sets.

    Raises FileNotFoundError where it is not found, ValueError naming the file and line of what is wrong.
    """
    _, home = locate_any("cub", [CUB], root, hint=partial(_by_class, root))
    folder, *files = (home / entry for entry in CUB.needed)
    images, labels, split, classes = (_read_table(file) for file in files)
    label = {number: place for place, number in enumerate(classes)}
    samples: dict[str, list[Sample]] = {"1": [], "0": []}
    for number, path in images.items():
        its_class, part = _entry(labels, number, files[1], files[0]), _entry(split, number, files[2], files[0])
        if its_class not in label:
            raise ValueError(
                f"{files[1]}: image {number} has class {its_class}, expected one of the {len(classes)} in {files[3]}"
            )
        if part not in samples:
            raise ValueError(f"{files[2]}: image {number} has split {part!r}, expected 1 (train) or 0 (test)")
        samples[part].append(Sample(folder / path, identity=label[its_class]))
    warnings: list[str] = []
    train, test = (keep_existing("cub", samples[part], files[0], warnings) for part in ("1", "0"))
    return FgvcDataset("cub", home, tuple(train), tuple(test), tuple(classes.values()), warnings=tuple(warnings))


def read_cars(root: Path) -> FgvcDataset:
    """Read Stanford Cars in either of its layouts: cars_train and cars_test, or car_ims with cars_annos.mat.

    Raises FileNotFoundError where it is not found, ValueError naming the file and the image of what is wrong.
    """
    layout, home = locate_any("cars", [*CARS_FOLDERS, CARS_TOGETHER], root, hint=partial(_by_class, root))
    if layout == CARS_TOGETHER:
        folder, file = (home / entry for entry in layout.needed)
        lists = [(file, home, "relative_im_path")]
        classes = _read_mat(file, "class_names")
    else:
        train_folder, test_folder, meta, train_file, test_file = (home / entry for entry in layout.needed)
        lists = [(train_file, train_folder, "fname"), (test_file, test_folder, "fname")]
        classes = _read_mat(meta, "class_names")
    samples: dict[str, list[Sample]] = {"train": [], "test": []}
    warnings: list[str] = []
    for file, folder, name in lists:
        annotations = _read_mat(file, "annotations", name, "class", *(["test"] if layout == CARS_TOGETHER else []))
        found: dict[str, list[Sample]] = {"train": [], "test": []}
        for row in annotations:
            number = int(row["class"])
            if not 1 <= number <= len(classes):
                raise ValueError(f"{file}: image {row[name]} has class {number}, expected 1 to {len(classes)}")
            tested = bool(row["test"]) if layout == CARS_TOGETHER else folder.name == "cars_test"
            found["test" if tested else "train"].append(Sample(folder / str(row[name]), identity=number - 1))
        for split, listed in found.items():
            samples[split] += keep_existing("cars", listed, file, warnings)
    return FgvcDataset(
        "cars",
        home,
        tuple(samples["train"]),
        tuple(samples["test"]),
        tuple(str(name) for name in classes),
        warnings=tuple(warnings),
    )


def _by_class(root: Path) -> str:
    """What to say where a set was sorted into one folder a class, as some offer it."""
    below = [place for place in sorted(root.iterdir()) if place.is_dir() and os.access(place, os.R_OK | os.X_OK)]
    inside = [place for outer in below for place in sorted(outer.iterdir()) if place.is_dir()]
    for place in (root, *below, *inside):
        if not os.access(place, os.X_OK):
            continue
        tests = [name for name in HELD_OUT if (place / name).is_dir()]
        if tests and (place / "train").is_dir():
            return f"; {place} has one folder a class in train and {tests[0]}: use --dataset folder --data-root {place}"
    return ""


def read_aircraft(root: Path, *, level: str) -> FgvcDataset:
    """Read FGVC-Aircraft, trained on trainval as in the papers; images without the banner of 20 pixels at their bottom.

    `level` says what a class is: a `variant`, `family` or `manufacturer`. The header of each image is read for its
    size. Raises FileNotFoundError where it is not found, ValueError naming the file and line of what is wrong.
    """
    layout = AIRCRAFT[level]
    _, home = locate_any("aircraft", [layout], root, hint=partial(_by_class, root))
    folder, names, *lists = (home / entry for entry in layout.needed)
    classes = tuple(line for line in read_lines(names) if line)
    label = {name: place for place, name in enumerate(classes)}
    splits = []
    warnings: list[str] = []
    for file in lists:
        samples = []
        for number, name in _read_table(file).items():
            if name not in label:
                raise ValueError(f"{file}: image {number} has {level} {name!r}, which is not in {names}")
            samples.append(Sample(folder / f"{number}.jpg", identity=label[name]))
        splits.append(keep_existing("aircraft", samples, file, warnings))
    with ThreadPoolExecutor() as pool:
        train, test = (tuple(pool.map(_without_banner, samples)) for samples in splits)
    return FgvcDataset("aircraft", home, train, test, classes, protocol={"level": level}, warnings=tuple(warnings))


def read_folder(root: Path, *, wanted: Patterns = EVERYTHING) -> FgvcDataset:
    """Read `root`/{train,test}/CLASS/*.jpg; `val`, `valid` or `validation` is the test set where there is no `test`.

    Images may lie in further folders below CLASS, and only those `wanted` by their paths below `root` are taken. Either
    split may be absent; classes are the folders of train, or of test where there is no train. Raises FileNotFoundError
    where all are absent, ValueError for a test class that is not trained on.
    """
    held_out = next((name for name in HELD_OUT if (root / name).is_dir()), "test")
    folders = {split: root / split for split in ("train", held_out)}
    there = [split for split, folder in folders.items() if folder.is_dir()]
    if not there:
        below = sum(path.is_dir() and not is_clutter(path.name) for path in root.iterdir())
        moved = "; if its folders are classes, move them into train, and some images of each into test"
        raise FileNotFoundError(
            f"folder: {root} has none of the folders train, {', '.join(HELD_OUT)}; expected train/CLASS/*.jpg and "
            f"test/CLASS/*.jpg{moved if below > 1 else ''}"
        )
    left_out = LeftOut()
    present = images_by_folder(root, left_out, there, wanted)
    classes = sorted(path.name for path in folders[there[0]].iterdir() if path.is_dir() and not is_clutter(path.name))
    if wanted != EVERYTHING:  # a class of which nothing is wanted is none
        classes = [name for name in classes if name in present[there[0]]]
    label = {name: place for place, name in enumerate(classes)}
    unknown = sorted(name for images in present.values() for name in images if name not in label)
    if unknown:
        raise ValueError(
            f"folder: {root / held_out} has {counted(len(unknown), 'class', 'classes')} that {root / 'train'} has not, "
            f"first {unknown[0]!r}"
        )
    train, test = (
        tuple(Sample(path, label[name]) for name, paths in sorted(present.get(split, {}).items()) for path in paths)
        for split in folders
    )
    warnings = (f"folder: {left_out}",) if left_out else ()
    return FgvcDataset("folder", root, train, test, tuple(classes), protocol={"split": held_out}, warnings=warnings)


DATASETS: Mapping[str, Callable[..., FgvcDataset]] = {
    "cub": read_cub,
    "cars": read_cars,
    "aircraft": read_aircraft,
    "folder": read_folder,
}


def open_dataset(options: FgvcDataOptions, splits: Collection[str] | None = None) -> FgvcDataset:
    """Load the dataset that the options name; log its counts and warnings, and look at the images of the `splits`.

    Raises what `load_dataset` raises, UsageError for a dataset that is given no root, and ValueError for images that
    cannot be read, unless the options leave them out.
    """
    if options.root is None and options.dataset in DATASETS:
        raise UsageError(f"dataset {options.dataset!r} needs --data-root, the folder that holds it")
    root = Path(options.root or "")
    wanted = Patterns(options.include, options.exclude)
    dataset = load_dataset(
        options.dataset, root, level=options.level, strict_counts=options.strict_counts, wanted=wanted
    )
    if splits is None:
        shared = describe_shared_pictures(dataset.name, dataset.train, dataset.test)
        dataset = replace(dataset, warnings=(*dataset.warnings, *shared))
    return make_usable(dataset, options, splits)


def load_dataset(
    name: str,
    root: Path,
    *,
    level: str | None = None,
    strict_counts: bool = False,
    wanted: Patterns = EVERYTHING,
) -> FgvcDataset:
    """Read the labels of a dataset. `root` is its folder or one above it; `wanted` chooses among the files of `folder`.

    `level` is for aircraft alone; None is variant. A copy that differs from the official counts gets a warning, or is
    refused with `strict_counts`.

    Raises FileNotFoundError where the dataset is not found and ValueError for an unknown name or level, labels that
    cannot be read or are out of range, a class without training images, and counts refused.
    """
    if name not in DATASETS:
        near = get_close_matches(name.lower(), DATASETS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown dataset {name!r}{hint}; expected one of {', '.join(DATASETS)}")
    if level is not None and name != "aircraft":
        raise ValueError(f"{name}: given level={level}, but only aircraft has levels")
    require_folder(name, root)
    if wanted != EVERYTHING and name != "folder":
        raise ValueError(f"{name}: given patterns{wanted}, which choose among the files of dataset folder alone")
    choice: dict[str, Any] = {"level": level or "variant"} if name == "aircraft" else {}
    dataset = DATASETS[name](root, **choice, **({"wanted": wanted} if wanted != EVERYTHING else {}))
    if not dataset.train and not dataset.test:
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ValueError("; ".join([f"{name}: no image ({kinds}) with a label in {dataset.root}", *dataset.warnings]))
    if dataset.train:
        without = _classes_without_images(dataset, dataset.train)
        if without:
            raise ValueError(
                "; ".join([f"{name}: {_few(without)} without a training image in {dataset.root}", *dataset.warnings])
            )
    differences = _count_differences(dataset)
    if differences and strict_counts:
        raise ValueError(f"{'; '.join(differences)} (refused by strict_counts)")
    warnings = [*dataset.warnings, *differences]
    untested = _classes_without_images(dataset, dataset.test)
    if dataset.test and untested:
        warnings.append(f"{name}: {_few(untested)} without a test image")
    return replace(dataset, warnings=tuple(warnings))


def _classes_without_images(dataset: FgvcDataset, samples: Iterable[Sample]) -> list[str]:
    present = {sample.identity for sample in samples}
    return [name for label, name in enumerate(dataset.classes) if label not in present]


def _few(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return f"{counted(len(names), 'class', 'classes')} ({shown})"


def official_counts(dataset: FgvcDataset) -> dict[str, tuple[int, int]]:
    """(images, classes) of a complete copy by split; empty where nobody counted."""
    images, classes = OFFICIAL_COUNTS.get((dataset.name, dataset.protocol.get("level")), ({}, 0))
    return {split: (count, classes) for split, count in images.items()}


def _count_differences(dataset: FgvcDataset) -> list[str]:
    return [
        f"{dataset.name} {split}: found {counted(len(dataset.splits[split]), 'image')} of "
        f"{counted(len(dataset.classes), *dataset.unit)}, "
        f"official {images:,} of {classes:,}"
        for split, (images, classes) in official_counts(dataset).items()
        if (len(dataset.splits[split]), len(dataset.classes)) != (images, classes)
    ]


def _read_table(file: Path) -> dict[str, str]:
    """Lines `NUMBER VALUE`, whose value may hold spaces, as a mapping; raises ValueError for a line of another form."""
    table: dict[str, str] = {}
    for place, line in enumerate(read_lines(file), start=1):
        if not line:
            continue
        number, _, value = line.partition(" ")
        if not number.isdecimal() or not value.strip():
            raise ValueError(f"{file} line {place}: expected 'NUMBER VALUE', found {line!r}")
        if number in table:
            raise ValueError(f"{file} line {place}: {number} stands there twice")
        table[number] = value.strip()
    return table


def _entry(table: Mapping[str, str], number: str, file: Path, images: Path) -> str:
    if number not in table:
        raise ValueError(f"{file}: no line for image {number} of {images.name}")
    return table[number]


def _read_mat(file: Path, name: str, *fields: str) -> np.ndarray[Any, Any]:
    """A variable of a Matlab file, one-dimensional, with these fields; raises ValueError naming what is missing."""
    from scipy.io import loadmat  # slow to import, for one dataset

    try:
        values = loadmat(str(file), squeeze_me=True)
    except Exception as error:  # scipy raises many kinds for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file}: cannot be read as a Matlab file ({reason})") from error
    if name not in values:
        raise ValueError(f"{file}: no variable {name!r} in it")
    variable: np.ndarray[Any, Any] = np.atleast_1d(values[name])
    missing = [field for field in fields if field not in (variable.dtype.names or ())]
    if missing:
        raise ValueError(f"{file}: {name!r} has no field {', '.join(missing)}")
    return variable


def _without_banner(sample: Sample) -> Sample:
    """The sample with a box that leaves the banner out; as it is where its image cannot be read, told later."""
    try:
        width, height = upright_size(sample.path)
    except (OSError, ValueError):
        return sample
    return replace(sample, box=(0, 0, width, height - BANNER))
