import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid.data.synthetic import generate

small_set = partial(generate, identities=6, cameras=3, images_per_camera=2, size=32)
MARKET_NAME = re.compile(r"(-1|\d{4})_c(\d)s\d_\d{6}_\d{2}\.jpg")


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def labels(paths: Iterable[Path]) -> list[tuple[int, int]]:
    """Identity and camera of every image."""
    matches = [MARKET_NAME.fullmatch(path.name) for path in paths]
    return [(int(match[1]), int(match[2])) for match in matches if match]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_set(tmp_path_factory.mktemp("data") / "toy")


def test_market_layout(toy: Path) -> None:
    assert {path.name for path in toy.iterdir()} == {"bounding_box_train", "query", "bounding_box_test", "toy.json"}
    images = list(toy.glob("*/*"))
    assert len(images) == 6 * 3 * 2 + 3 * (8 + 4)
    for path in images:
        assert MARKET_NAME.fullmatch(path.name), path.name
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))


def test_splits(toy: Path) -> None:
    train, query, gallery = (
        labels((toy / folder).iterdir()) for folder in ("bounding_box_train", "query", "bounding_box_test")
    )
    cameras = (1, 2, 3)
    assert Counter(train) == {(identity, camera): 2 for identity in (1, 2, 3, 4) for camera in cameras}
    assert Counter(query) == {(identity, camera): 1 for identity in (5, 6) for camera in cameras}
    distractors_and_junk = {(identity, camera): n for identity, n in ((0, 8), (-1, 4)) for camera in cameras}
    assert Counter(gallery) == Counter(query) + Counter(distractors_and_junk)


def test_every_query_has_a_match_from_another_camera(tmp_path: Path) -> None:
    root = generate(tmp_path / "toy", identities=3, cameras=2, images_per_camera=2, size=32)
    gallery = labels((root / "bounding_box_test").iterdir())
    queries = labels((root / "query").iterdir())
    assert queries
    for identity, camera in queries:
        assert any(other == identity and seen_by != camera for other, seen_by in gallery)


def test_two_generations_are_identical(toy: Path, tmp_path: Path) -> None:
    assert contents(small_set(tmp_path / "again")) == contents(toy)


def test_an_image_depends_on_no_other(toy: Path, tmp_path: Path) -> None:
    larger = generate(tmp_path / "larger", identities=9, cameras=4, images_per_camera=3, size=32)
    by_name = {path.name: path.read_bytes() for path in larger.glob("*/*.jpg")}
    assert all(by_name[path.name] == path.read_bytes() for path in toy.glob("*/*.jpg"))


def test_no_two_images_are_the_same(toy: Path, tmp_path: Path) -> None:
    other_seed = small_set(tmp_path / "other", seed=1)
    images = [path.read_bytes() for root in (toy, other_seed) for path in root.glob("*/*.jpg")]
    assert len(set(images)) == len(images)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    root = small_set(tmp_path / "toy", progress=lambda done, total: calls.append((done, total)))
    total = len(list(root.glob("*/*.jpg")))
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_a_complete_set_is_reused(tmp_path: Path) -> None:
    root = small_set(tmp_path / "toy")
    marked = next(root.glob("query/*.jpg"))
    marked.write_bytes(b"kept")
    assert small_set(root) == root
    assert marked.read_bytes() == b"kept"


def test_an_empty_folder_is_filled(toy: Path, tmp_path: Path) -> None:
    assert contents(small_set(tmp_path)) == contents(toy)


def incomplete(root: Path) -> None:
    small_set(root)
    (root / "query" / "0005_c1s1_000000_01.jpg").unlink()


def other_seed(root: Path) -> None:
    small_set(root, seed=7)


def older_format(root: Path) -> None:
    small_set(root)
    recipe = json.loads((root / "toy.json").read_text())
    (root / "toy.json").write_text(json.dumps(recipe | {"format": 0}))


def photos(root: Path) -> None:
    root.mkdir()
    (root / "holiday.jpg").write_bytes(b"photo")


def a_file(root: Path) -> None:
    root.write_text("text")


def binary_recipe(root: Path) -> None:
    root.mkdir()
    (root / "toy.json").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("occupy", "message"),
    [
        (incomplete, "lacks 1 image of its toy set, first query/0005_c1s1_000000_01.jpg"),
        (other_seed, "'seed': 7"),
        (older_format, "'format': 0"),
        (photos, "no toy set"),
        (a_file, "no toy set"),
        (binary_recipe, "no toy set"),
    ],
)
def test_anything_else_is_refused_and_left_alone(occupy: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    root = tmp_path / "taken"
    occupy(root)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=re.escape(message)) as error:
        small_set(root)
    assert str(error.value).startswith(str(root)) and "\n" not in str(error.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_an_interrupted_generation_leaves_nothing(failure: type[BaseException], tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert not (tmp_path / "toy").exists()
        if done == total // 2:
            raise failure

    with pytest.raises(failure):
        small_set(tmp_path / "toy", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("identities", 2, "from 3 to 9999"),
        ("cameras", 10, "from 2 to 9"),
        ("images_per_camera", 1, "from 2 to"),
        ("size", 8, "from 32 to"),
        ("seed", -1, "0 or more"),
    ],
)
def test_impossible_parameters(name: str, value: int, limits: str, tmp_path: Path) -> None:
    parameters: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be {limits}.*, not {value}"):
        generate(tmp_path / "toy", **parameters)
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class HeldOut:
    pixels: np.ndarray  # (n, 3 * 32 * 32), centred, unit length; the queries come first
    identities: np.ndarray
    cameras: np.ndarray
    queries: int


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    root = generate(tmp_path_factory.mktemp("data") / "toy", identities=36, cameras=3, images_per_camera=3, size=32)
    query, gallery = (sorted((root / name).glob("[0-9]*.jpg")) for name in ("query", "bounding_box_test"))
    pixels = np.stack([np.asarray(Image.open(path), dtype=np.float64).ravel() for path in query + gallery])
    pixels -= pixels.mean(axis=0)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    identities, cameras = np.array(labels(query + gallery)).T
    return HeldOut(pixels, identities, cameras, len(query))


def test_raw_pixels_hardly_find_a_vehicle_in_another_camera(held_out: HeldOut) -> None:
    precisions, chances = [], []
    for query in range(held_out.queries):
        same_identity = held_out.identities == held_out.identities[query]
        valid = ~(same_identity & (held_out.cameras == held_out.cameras[query]))
        valid[: held_out.queries] = False
        order = np.argsort(-(held_out.pixels[valid] @ held_out.pixels[query]))
        hits = same_identity[valid][order]
        precisions.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
        chances.append(hits.mean())
    assert np.mean(precisions) < 2 * np.mean(chances)


def test_a_vehicle_resembles_itself_more_than_others_seen_by_its_camera(held_out: HeldOut) -> None:
    similarity = held_out.pixels @ held_out.pixels.T
    vehicle = held_out.identities > 0
    pairs = np.triu(np.outer(vehicle, vehicle) & np.equal.outer(held_out.cameras, held_out.cameras), k=1)
    same = np.equal.outer(held_out.identities, held_out.identities)
    assert similarity[pairs & same].mean() > similarity[pairs & ~same].mean() + 0.03
