from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from reid.evaluation.features import Features


def some(queries=2, gallery=3, **more):
    random = np.random.default_rng(0)
    labels = [np.arange(queries), np.zeros(queries, int), np.arange(gallery), np.ones(gallery, int)]
    return Features(
        random.normal(size=(queries, 4)).astype(np.float32),
        *labels[:2],
        random.normal(size=(gallery, 4)).astype(np.float32),
        *labels[2:],
        **more,
    )


def test_everything_comes_back_from_the_file(tmp_path):
    features = some(
        query_paths=("a.jpg", "b.jpg"),
        gallery_paths=("c.jpg", "d.jpg", "e.jpg"),
        query_sequences=np.array([1, -1]),
        gallery_sequences=np.array([1, 2, 3]),
        query_boxes=np.array([[0, 0, 2, 2], [-1] * 4]),
        gallery_boxes=np.full((3, 4), 5),
    )
    features.save(tmp_path / "f.npz")
    again = Features.load(tmp_path / "f.npz")
    for name in vars(features):
        np.testing.assert_array_equal(getattr(again, name), getattr(features, name), err_msg=name)


def test_a_folder_of_arrays_stays_on_disk(tmp_path):
    features = some()
    for split in ("query", "gallery"):
        np.save(tmp_path / f"{split}_features.npy", getattr(features, split).astype(np.float16))
        np.save(tmp_path / f"{split}_ids.npy", getattr(features, f"{split}_ids"))
    again = Features.load(tmp_path)
    assert isinstance(again.gallery, np.memmap)
    assert again.gallery.dtype == np.float16
    assert again.query_cameras.tolist() == [-1, -1]  # nobody said, so unknown
    assert again.gallery_cameras.tolist() == [-1, -1, -1]


def test_text_labels_are_numbered_alike_in_both_splits(tmp_path):
    np.savez(
        tmp_path / "f.npz",
        query_features=np.eye(2),
        gallery_features=np.eye(3, 2),
        query_ids=np.array(["zebra", "ant"]),
        gallery_ids=np.array(["ant", "zebra", "a much longer name"]),
        query_cameras=np.array(["north", ""]),
        gallery_cameras=np.array(["south", "north", "north"]),
    )
    features = Features.load(tmp_path / "f.npz")
    assert features.query_ids[0] == features.gallery_ids[1] != features.query_ids[1] == features.gallery_ids[0]
    assert features.query_cameras[0] == features.gallery_cameras[1] != features.gallery_cameras[0]
    assert features.query_cameras[1] == -1


def test_junk_groups():
    features = some(query_sequences=np.array([4, 5]), gallery_sequences=np.array([4, 4, 5]))
    assert [part.tolist() for part in features.groups("camera")] == [[0, 0], [1, 1, 1]]
    assert [part.tolist() for part in features.groups("sequence")] == [[4, 5], [4, 4, 5]]
    assert [part.tolist() for part in features.groups("none")] == [[-1, -1], [-1, -1, -1]]
    with pytest.raises(ValueError, match="junk=sequence: sequences are not known here; expected a column `sequence`"):
        some().groups("sequence")


def test_pictures_are_cropped_to_their_box(tmp_path):
    image = Image.new("RGB", (8, 6), "red")
    image.paste("blue", (2, 3, 5, 5))
    image.save(tmp_path / "a.png")
    paths = (str(tmp_path / "a.png"),) * 2
    boxes = np.array([[2, 3, 3, 2], [-1] * 4])
    features = some(query_paths=paths, query_boxes=boxes)
    assert features.picture("query", 0).size == (3, 2)
    assert features.picture("query", 0).getcolors() == [(6, (0, 0, 255))]
    assert features.picture("query", 1).size == (8, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_ids": None}, "missing query_ids; found"),
        ({"gallery_cameras": None}, "missing gallery_cameras, while query_cameras is there"),
        ({"gallery_ids": np.arange(2)}, "gallery_ids has 2 rows, gallery_features 3"),
        ({"query_paths": np.array(["a"])}, "query_paths has 1 rows, query_features 2"),
        ({"query_ids": np.array([0.5, 1.5])}, "ids are of type float64, int64; expected integers or text"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, change, message):
    features = some()
    arrays = {
        "query_features": features.query,
        "query_ids": features.query_ids,
        "query_cameras": features.query_cameras,
        "gallery_features": features.gallery,
        "gallery_ids": features.gallery_ids,
        "gallery_cameras": features.gallery_cameras,
    } | change
    np.savez(tmp_path / "f.npz", **{name: values for name, values in arrays.items() if values is not None})
    with pytest.raises(ValueError, match=message) as caught:
        Features.load(tmp_path / "f.npz")
    assert str(tmp_path / "f.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_read_is_said(tmp_path, caplog):
    features = some()
    features.save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as stored:
        np.savez(tmp_path / "g.npz", **dict(stored), query_camids=np.arange(2))
    Features.load(tmp_path / "g.npz")
    assert "query_camids not read; known are query_features" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_ids": np.array(3)}, r"query_ids has shape \(\); expected 1 dimensions"),
        (
            {"gallery_features": np.empty((0, 4)), "gallery_ids": np.arange(0)},
            "gallery_.* expected . dimensions and rows",
        ),
        ({"query_paths": np.arange(2)}, "query_paths is of type int64; expected text"),
    ],
)
def test_arrays_of_another_shape_are_named(tmp_path, change, message):
    features = some()
    features.save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as stored:
        np.savez(tmp_path / "g.npz", **(dict(stored) | change))
    with pytest.raises(ValueError, match=message):
        Features.load(tmp_path / "g.npz")


def test_a_single_array_is_no_features_file(tmp_path):
    np.save(tmp_path / "f.npy", np.eye(3))
    with pytest.raises(ValueError, match="a single array; expected several, by name"):
        Features.load(tmp_path / "f.npy")


def test_a_query_does_not_find_its_own_picture():
    """Leave-one-out: by path and box, where nothing else tells a query from its own row."""
    cameras = {"query_cameras": np.array([-1, 0]), "gallery_cameras": np.array([-1, -1, 0])}
    features = replace(some(query_paths=("a.jpg", "b.jpg"), gallery_paths=("c.jpg", "a.jpg", "b.jpg")), **cameras)
    query, gallery = features.groups("camera")
    assert query[0] == gallery[1] not in (-1, 0)
    assert (query[1], gallery[0], gallery[2]) == (0, -1, 0)
    query, gallery = features.groups("none")
    assert (query[0], query[1]) == (gallery[1], gallery[2])
    assert features.queries_in_gallery() == 2
    assert features.gallery_beside_queries().tolist() == [0]
    assert some().gallery_beside_queries().tolist() == [0, 1, 2]
    assert features.query_cameras.tolist() == [-1, 0]
