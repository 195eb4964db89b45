import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from reid.data.datasets import DATASETS, choose_protocol, load_dataset

PHOTOS = Path(__file__).resolve().parents[3].parent / "shared" / "data"
LinkAll = Callable[[Path, list[str]], None]
LINKS_PER_FILE = 60_000  # ext4 allows a file 65,000 names
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
        "market1501 train: found 2 images of 1 identity, official 12,936 of 751",
        "market1501 query: found 0 images of 0 identities, official 3,368 of 750",
        "market1501 gallery: found 0 images of 0 identities, official 15,913 of 751",
    )
    assert load_dataset("toy", market).warnings == ("toy query: found no image", "toy gallery: found no image")


def test_partial_copy_is_refused_by_strict_counts(market: Path) -> None:
    with pytest.raises(ValueError, match=r"found 2 images of 1 identity, official 12,936 of 751; .*strict_counts"):
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
    (tmp_path / "all.zip").write_bytes(b"PK\3\4")
    with pytest.raises(
        NotADirectoryError, match=f"{name}: the data root {tmp_path / 'all.zip'} is a ZIP archive: unpack"
    ):
        load_dataset(name, tmp_path / "all.zip")
    with pytest.raises(NotADirectoryError, match=f"{name}: the data root {tmp_path / 'file'} is a file"):
        load_dataset(name, tmp_path / "file")


def test_protocol_is_the_default_or_what_is_given() -> None:
    assert choose_protocol("msmt17") == {"version": "v1", "train_split": "train+val"}
    assert choose_protocol("msmt17", version="v2", train_split="train") == {"version": "v2", "train_split": "train"}
    assert choose_protocol("cuhk03") == {"version": "detected"}
    assert choose_protocol("vehicleid", version="large") == {"version": "large"}
    assert choose_protocol("csv") == {}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("msmt17", {"version": "v3"}, "msmt17: unknown version 'v3'; expected v1 or v2"),
        ("msmt17", {"train_split": "val"}, r"msmt17: unknown train_split 'val'; expected train\+val or train"),
        ("veriwild", {"version": "3000"}, "veriwild: unknown version '3000'; expected small or medium or large"),
        (
            "market1501",
            {"version": "v1"},
            r"market1501: given version=v1, but only .* cuhk03 \(detected, labeled\), ms",
        ),
        ("cuhk03", {"train_split": "train"}, r"given train_split=train, but only these have a train_split: msmt17 \("),
        ("csv", {"train_split": "train"}, r"csv: given train_split=train, but only these"),
    ],
)
def test_choices_that_a_dataset_does_not_have_are_refused(
    tmp_path: Path, name: str, given: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(name, tmp_path, **given)


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


def assert_complete(
    name: str, root: Path, counts: dict[str, tuple[int, int]], last_camera: int, **options: str
) -> None:
    dataset = load_dataset(name, root, strict_counts=True, **options)
    assert {split: (c.images, c.identities) for split, c in dataset.counts.items()} == counts
    assert max(sample.camera for sample in dataset.train + dataset.query + dataset.gallery) == last_camera
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
    assert_complete("market1501", tmp_path, counts, last_camera=5)


@pytest.mark.slow
def test_complete_dukemtmc(tmp_path: Path, link_all: LinkAll) -> None:
    pattern = "{i:04}_c{c}_f{n:07}.jpg"
    train, test, distractors = range(1, 1 + 702), range(1_000, 1_000 + 702), range(3_000, 3_000 + 408)
    link_all(tmp_path / "bounding_box_train", named_files(pattern, 16_522, train, 8))
    link_all(tmp_path / "query", named_files(pattern, 2_228, test, 8))
    gallery = named_files(pattern, 17_661 - 3_463, test, 8) + named_files(pattern, 3_463, distractors, 8)
    link_all(tmp_path / "bounding_box_test", gallery)
    counts = {"train": (16_522, 702), "query": (2_228, 702), "gallery": (17_661, 1_110)}
    assert_complete("dukemtmc", tmp_path, counts, last_camera=7)


@pytest.mark.slow
def test_complete_occludedduke(tmp_path: Path, link_all: LinkAll) -> None:
    pattern = "{i:04}_c{c}_f{n:07}.jpg"
    train, test = range(1, 1 + 702), range(1_000, 1_000 + 1_110)
    link_all(tmp_path / "bounding_box_train", named_files(pattern, 15_618, train, 8))
    link_all(tmp_path / "query", named_files(pattern, 2_210, test[:519], 8))
    link_all(tmp_path / "bounding_box_test", named_files(pattern, 17_661, test, 8))
    counts = {"train": (15_618, 702), "query": (2_210, 519), "gallery": (17_661, 1_110)}
    assert_complete("occludedduke", tmp_path, counts, last_camera=7)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "train", "gallery"), [("detected", 7_365, 5_332), ("labeled", 7_368, 5_328)])
def test_complete_cuhk03(tmp_path: Path, link_all: LinkAll, version: str, train: int, gallery: int) -> None:
    pattern, home = "{i:04}_c{c}_{n}.png", tmp_path / "cuhk03-np" / version
    link_all(home / "bounding_box_train", named_files(pattern, train, range(1, 1 + 767), 2))
    link_all(home / "query", named_files(pattern, 1_400, range(768, 768 + 700), 2))
    link_all(home / "bounding_box_test", named_files(pattern, gallery, range(768, 768 + 700), 2))
    counts = {"train": (train, 767), "query": (1_400, 700), "gallery": (gallery, 700)}
    assert_complete("cuhk03", tmp_path, counts, last_camera=1, version=version)


@pytest.mark.slow
def test_complete_veri776(tmp_path: Path, link_all: LinkAll) -> None:
    pattern = "{i:04}_c{c:03}_{n:08}_0.jpg"
    train, test = range(201, 201 + 576), range(1, 1 + 200)
    link_all(tmp_path / "image_train", named_files(pattern, 37_778, train, 20))
    gallery = named_files(pattern, 11_579, test, 20)
    link_all(tmp_path / "image_test", gallery)
    link_all(tmp_path / "image_query", gallery[:1_678])
    counts = {"train": (37_778, 576), "query": (1_678, 200), "gallery": (11_579, 200)}
    assert_complete("veri776", tmp_path, counts, last_camera=19)


@pytest.mark.slow
def test_complete_msmt17(tmp_path: Path, link_all: LinkAll) -> None:
    sizes = {"train": (30_248, 1_041), "val": (2_373, 1_041), "query": (11_659, 3_060), "gallery": (82_161, 3_060)}
    for name, (images, identities) in sizes.items():
        pattern = "{i:04}/{i:04}_" + name + "_{c:02}_0303morning_{n:06}_0.jpg"
        files = named_files(pattern, images, range(identities), 15)
        link_all(tmp_path / ("train" if name in ("train", "val") else "test"), files)
        (tmp_path / f"list_{name}.txt").write_text("".join(f"{file} {int(file[:4])}\n" for file in files))
    test = {"query": (11_659, 3_060), "gallery": (82_161, 3_060)}
    assert_complete("msmt17", tmp_path, {"train": (32_621, 1_041), **test}, last_camera=14)
    assert_complete("msmt17", tmp_path, {"train": (30_248, 1_041), **test}, last_camera=14, train_split="train")


@pytest.mark.slow
def test_complete_vehicleid(tmp_path: Path, link_all: LinkAll) -> None:
    sizes = {
        "train_list": (113_346, 13_164),
        "test_list_800": (6_493, 800),
        "test_list_1600": (13_377, 1_600),
        "test_list_2400": (19_777, 2_400),
    }
    (tmp_path / "train_test_split").mkdir()
    for name, (images, identities) in sizes.items():
        # The test lists share images here, as they do in the original.
        first = (0, 20_000) if name == "train_list" else (1_000_000, 50_000)
        dealt = spread(images, range(first[1], first[1] + identities), 1)
        lines = [f"{first[0] + serial:07} {identity}\n" for identity, _, serial in dealt]
        (tmp_path / "train_test_split" / f"{name}.txt").write_text("".join(lines))
        if name in ("train_list", "test_list_2400"):
            link_all(tmp_path / "image", [f"{line.split()[0]}.jpg" for line in lines])
    for version, size, queries in (("small", 800, 5_693), ("medium", 1_600, 11_777), ("large", 2_400, 17_377)):
        counts = {"train": (113_346, 13_164), "query": (queries, size), "gallery": (size, size)}
        assert_complete("vehicleid", tmp_path, counts, last_camera=-1, version=version)


@pytest.mark.slow
def test_complete_veriwild(tmp_path: Path, link_all: LinkAll) -> None:
    sizes = {"train_list": (277_797, 30_671), "test_3000_query": (3_000, 3_000), "test_3000": (38_861, 3_000)}
    (tmp_path / "train_test_split").mkdir()
    info = ["id/image;Camera ID;Time;Model;Type;Color\n"]
    for name, (images, identities) in sizes.items():
        first = 1 if name == "train_list" else 30_672
        dealt = spread(images, range(first, first + identities), 174)
        cameras = {f"{i:05}/{'q' * (name == 'test_3000_query')}{n:06}": c for i, c, n in dealt}
        info += [f"{image};{camera};2018-03-11 08:57:02;Audi A6;SUV;white\n" for image, camera in cameras.items()]
        (tmp_path / "train_test_split" / f"{name}.txt").write_text("".join(f"{image}\n" for image in cameras))
        link_all(tmp_path / "images", [f"{image}.jpg" for image in cameras])
    (tmp_path / "train_test_split" / "vehicle_info.txt").write_text("".join(info))
    counts = {"train": (277_797, 30_671), "query": (3_000, 3_000), "gallery": (38_861, 3_000)}
    assert_complete("veriwild", tmp_path, counts, last_camera=174)
