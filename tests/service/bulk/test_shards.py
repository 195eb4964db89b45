"""A folder of features: what was listed, what was made of it, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from service.bulk.shards import Embedding, FeatureFolder, Shard
from service.bulk.sources import Photo, Source

EMBEDDING = Embedding(
    model_id="m1", dimension=4, description={"features": "sa"}, preprocessing={"image_size": [32, 16]}
)
NAMES = ["a.png", 'quo"te.png', "line\nend.png", "caf\udce9.png", "\N{SNOWMAN}.png"]


def source(root, names=NAMES, cells=None):
    photos = [Photo(Path(root) / name, ascii(name), cells or {}) for name in names]
    return Source(f"folder {root}", Path(root), lambda: photos)


@pytest.fixture
def made(tmp_path):
    """A folder of five photos in shards of two, of which the first is made."""
    folder = FeatureFolder.create(tmp_path / "features", [source("/photos")], EMBEDDING, 2)
    folder.write(0, shard())
    return folder


def shard():
    return Shard(
        np.array([1]), np.full((1, 4), 0.5, np.float32), np.arange(32, dtype=np.uint8)[None], {0: "cut\nshort"}
    )


def test_photos_come_back_as_they_were_listed(tmp_path):
    cells = {"label": "a,\n'b'", "camera": ""}
    sources = [source("/photos"), source("/other", ["/elsewhere/x.png", "y.png"], cells)]
    FeatureFolder.create(tmp_path / "features", sources, EMBEDDING, 3)
    folder = FeatureFolder.open(tmp_path / "features")
    expected = [photo for one in sources for photo in one.photos()]
    assert [folder.size(number) for number in range(len(folder))] == [3, 3, 1]
    assert [photo for number in range(3) for photo in folder.photos(number)] == expected
    moved = folder.photos(1, [Path("/here"), Path("/there")])
    assert [os.fspath(photo.path) for photo in moved] == [
        "/here/caf\udce9.png",
        "/here/\N{SNOWMAN}.png",
        "/elsewhere/x.png",
    ]
    assert (tmp_path / "features" / "00000000.jsonl").read_text().count("\n") == 3


def test_a_shard_comes_back_and_numpy_reads_it(made):
    there, expected = made.read(0), shard()
    for name in ("lines", "features", "sha256"):
        np.testing.assert_array_equal(getattr(there, name), getattr(expected, name))
    assert there.failures == expected.failures
    assert made.read(1) is None
    arrays = load_file(made.folder / "00000000.safetensors")
    assert arrays["features"].dtype == np.float32 and arrays["features"].shape == (1, 4)
    lines = (made.folder / "00000000.jsonl").read_text().splitlines()
    assert json.loads(lines[arrays["lines"][0]])["path"] == NAMES[1]


@pytest.mark.parametrize("place", [0, 9, -1, -20, -40, -100])
def test_a_flipped_bit_anywhere_is_noticed(made, place):
    path = made.folder / "00000000.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="00000000.safetensors: damaged.*; give reid-embed again"):
        made.read(0)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_shard_cut_short_is_noticed(made, kept):
    path = made.folder / "00000000.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="damaged"):
        made.read(0)


def test_a_shard_of_other_photos_is_noticed(made):
    made._file(0).rename(made._file(1))
    with pytest.raises(ValueError, match="00000001.safetensors: damaged, or of other photos"):
        made.read(1)


def test_a_changed_list_is_noticed(made):
    path = made.folder / "00000001.jsonl"
    path.write_text(path.read_text().replace("png", "jpg"))
    with pytest.raises(ValueError, match="00000001.jsonl: damaged"):
        made.photos(1)


def test_another_source_or_model_is_refused(made):
    made.require([source("/photos")], EMBEDDING)
    with pytest.raises(ValueError, match="features: holds features of folder /photos, not of folder /others; give"):
        made.require([source("/others")], EMBEDDING)
    other = EMBEDDING.model_copy(update={"model_id": "m2"})
    with pytest.raises(ValueError, match="features: holds features of model m1, not of model m2; give another"):
        made.require([source("/photos")], other)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds 'thesis.txt' but no manifest.json"):
        FeatureFolder.create(tmp_path, [source("/photos")], EMBEDDING)
    with pytest.raises(FileNotFoundError, match="no features, for there is no manifest.json"):
        FeatureFolder.open(tmp_path)


def test_a_listing_cut_short_begins_anew(tmp_path, made):
    (made.folder / "manifest.json").unlink()
    (made.folder / ".00000002.jsonl.tmp").write_text("cut")
    again = FeatureFolder.create(made.folder, [source("/photos")], EMBEDDING, 2)
    assert again.read(0).failures == shard().failures  # of the same photos and model, so that it stays
    assert len(again) == 3


@pytest.mark.parametrize("text", ["", "{}", '{"format": "2"}', "[1]"])
def test_a_manifest_that_is_none(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="manifest.json: not a manifest of reid-embed"):
        FeatureFolder.open(tmp_path)
