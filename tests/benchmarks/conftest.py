"""Miniatures of the paper's seven datasets, each in its usual folder below one root; trainings that start quickly."""

import os
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from benchmarks import run_once
from tests.service.starting import Command

TRAINED, TESTED = range(1, 7), range(11, 14)  # identities; of categories the first six, in both splits


def write_image(path: Path, subject: int, random: np.random.Generator) -> str:
    """Noise about a colour of the subject's own; the last 20 of its rows are an aircraft's banner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.random.default_rng(subject).integers(40, 216, 3)
    pixels = np.clip(colour + random.normal(0, 20, (52, 24, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path.name


def write_lines(path: Path, lines: Iterable[object]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def write_named(home: Path, folders: tuple[str, str, str], pattern: str, random: np.random.Generator) -> None:
    """A set that tells identity and camera in its file names: four cameras, the first of which is the query's."""
    train, query, gallery = folders
    for identity in (*TRAINED, *TESTED):
        for camera in range(1, 5):
            folder = train if identity in TRAINED else query if camera == 1 else gallery
            write_image(home / folder / pattern.format(identity=identity, camera=camera), identity, random)


def write_msmt17(home: Path, random: np.random.Generator) -> None:
    lists: dict[str, list[str]] = {f"list_{name}.txt": [] for name in ("train", "val", "query", "gallery")}
    for identities, folder, first, rest in ((TRAINED, "train", "val", "train"), (TESTED, "test", "query", "gallery")):
        for number, identity in enumerate(identities):
            for camera in range(1, 5):
                name = f"{number:04}/{number:04}_{camera:03}_{camera:02}_0303morning_0015_{camera}.jpg"
                write_image(home / folder / name, identity, random)
                lists[f"list_{first if camera == 1 else rest}.txt"].append(f"{name} {number}")
    for name, lines in lists.items():
        write_lines(home / name, lines)


def write_cub(home: Path, random: np.random.Generator) -> None:
    names, labels, split = [], [], []
    for subject in TRAINED:
        for place in range(4):
            names.append(f"{subject:03}.Bird_{subject}/Bird_{place}.jpg")
            labels.append(subject)
            split.append(int(place < 3))
            write_image(home / "images" / names[-1], subject, random)
    tables = {"images": names, "image_class_labels": labels, "train_test_split": split}
    for name, values in tables.items():
        write_lines(home / f"{name}.txt", (f"{number} {value}" for number, value in enumerate(values, 1)))
    write_lines(home / "classes.txt", (f"{subject} {subject:03}.Bird_{subject}" for subject in TRAINED))


def write_cars(home: Path, random: np.random.Generator) -> None:
    rows = []
    for subject in TRAINED:
        for place in range(4):
            name = write_image(home / "car_ims" / f"{subject:03}{place:03}.jpg", subject, random)
            rows.append((f"car_ims/{name}", subject, place == 3))
    annotations = np.array(rows, dtype=[("relative_im_path", "O"), ("class", "O"), ("test", "O")])
    classes = np.array([f"Car {subject}" for subject in TRAINED], dtype=object)
    savemat(home / "cars_annos.mat", {"annotations": annotations, "class_names": classes})


def write_aircraft(home: Path, random: np.random.Generator) -> None:
    splits: dict[str, list[str]] = {"trainval": [], "test": []}
    for subject in TRAINED:
        for place in range(4):
            number = f"{subject:03}{place:04}"
            write_image(home / "images" / f"{number}.jpg", subject, random)
            splits["test" if place == 3 else "trainval"].append(f"{number} Plane {subject}")
    for split, lines in splits.items():
        write_lines(home / f"images_variant_{split}.txt", lines)
    write_lines(home / "variants.txt", (f"Plane {subject}" for subject in TRAINED))


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with tiny copies of all seven sets: six identities or categories to train on, four images each."""
    root = tmp_path_factory.mktemp("miniatures")
    random = np.random.default_rng(0)
    market = ("bounding_box_train", "query", "bounding_box_test")
    write_named(root / "Market-1501-v15.09.15", market, "{identity:04}_c{camera}s1_000151_01.jpg", random)
    write_named(root / "DukeMTMC-reID", market, "{identity:04}_c{camera}_f0046182.jpg", random)
    veri = ("image_train", "image_query", "image_test")
    write_named(root / "VeRi", veri, "{identity:04}_c{camera:03}_00016450_0.jpg", random)
    write_msmt17(root / "MSMT17_V1", random)
    write_cub(root / "CUB_200_2011", random)
    write_cars(root / "stanford_cars", random)
    write_aircraft(root / "fgvc-aircraft-2013b" / "data", random)
    return root


class Training(Command):
    """One that `train_once` starts, given by its command."""

    def __init__(self, words: list[str], **_: object) -> None:
        _python, _m, module, *arguments = words
        super().__init__(module, arguments, os.environ)

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_: object) -> None:
        self.communicate()


@pytest.fixture
def started_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of `train_once` come from a process that has imported torch; its own tests start real ones."""
    monkeypatch.setattr(run_once, "subprocess", SimpleNamespace(Popen=Training, DEVNULL=None, PIPE=None))
