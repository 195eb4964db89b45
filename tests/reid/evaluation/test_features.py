from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

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


def test_labels_as_pandas_leaves_them(tmp_path):
    np.savez(
        tmp_path / "f.npz",
        allow_pickle=True,
        query_features=np.eye(2),
        gallery_features=np.eye(3, 2),
        query_ids=np.array(["rex", None], object),
        gallery_ids=np.array([None, "ida", "rex"], object),
        query_cameras=np.array([1.0, np.nan]),
        gallery_cameras=np.array([np.nan, 1.0, 2.0]),
        query_paths=np.array(["a.jpg", "b.jpg"], object),
        gallery_paths=np.array(["c.jpg", "d.jpg", "e.jpg"], object),
    )
    features = Features.load(tmp_path / "f.npz")
    assert features.query_ids[0] == features.gallery_ids[2]
    assert len({*features.query_ids.tolist(), *features.gallery_ids.tolist()}) == 4
    assert (features.query_cameras.tolist(), features.gallery_cameras.tolist()) == ([1, -1], [-1, 1, 2])
    assert features.query_paths == ("a.jpg", "b.jpg")


class Trap:
    """An object that runs code when it is read."""

    def __reduce__(self):
        return print, ("the code ran",)


def test_no_code_of_a_features_file_runs(tmp_path, capsys):
    values = {"query_features": np.eye(1), "gallery_features": np.eye(1), "gallery_ids": np.arange(1)}
    np.savez(tmp_path / "f.npz", allow_pickle=True, query_ids=np.array([Trap()], object), **values)
    with pytest.raises(
        ValueError, match="f.npz: cannot be read .*it holds a Python object of builtins.print; expected"
    ):
        Features.load(tmp_path / "f.npz")
    assert capsys.readouterr().out == ""


def test_matlab_files_as_reid_publishes_them(tmp_path, caplog):
    gallery = np.arange(8.0).reshape(4, 2)
    savemat(
        tmp_path / "result.mat",
        {
            "query_f": np.eye(2),
            "query_label": np.array([[3, 5]]),
            "query_cam": np.array([[1, 2]]),
            "gallery_f": gallery,
            "gallery_label": np.array([[-1, 3, 0, 5]]),
            "gallery_cam": np.array([[1, 2, 3, 4]]),
        },
    )
    features = Features.load(tmp_path / "result.mat")
    assert (features.query_ids.tolist(), features.query_cameras.tolist()) == ([3, 5], [1, 2])
    assert (features.gallery_ids.tolist(), features.gallery_cameras.tolist()) == ([3, 0, 5], [2, 3, 4])
    assert features.gallery.tolist() == gallery[1:].tolist()
    assert "1 gallery images of label -1 left out" in caplog.text
    savemat(tmp_path / "other.mat", {"x": np.eye(2)})
    with pytest.raises(ValueError, match="missing query_features, query_ids, gallery_features, gallery_ids; found x"):
        Features.load(tmp_path / "other.mat")
    (tmp_path / "other.mat").write_bytes((tmp_path / "result.mat").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"other.mat: cannot be read as .* \(no Matlab file, or a damaged one: "):
        Features.load(tmp_path / "other.mat")


def test_matlab_files_of_other_habits(tmp_path):
    """Features of one column an image, labels in cells, and another name."""
    labels = {"query_id": np.array(["rex", "ida"], object), "gallery_id": np.array(["ida", "", "rex"], object)}
    savemat(tmp_path / "a.mat", {"query_feature": np.eye(5)[:, :2], "gallery_feature": np.eye(5)[:, :3], **labels})
    (tmp_path / "a.mat").rename(tmp_path / "a.dat")
    features = Features.load(tmp_path / "a.dat")
    assert features.query.shape == (2, 5) and features.gallery.shape == (3, 5)
    assert features.query_ids.tolist() == [features.gallery_ids[2], features.gallery_ids[0]]
    assert len(set(features.gallery_ids.tolist())) == 3


def test_labels_of_one_column_are_those_of_a_list(tmp_path):
    some().save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as stored:
        columns = {name: stored[name][:, None] for name in ("query_ids", "gallery_ids", "gallery_cameras")}
        np.savez(tmp_path / "g.npz", **(dict(stored) | columns))
    features = Features.load(tmp_path / "g.npz")
    assert features.gallery_ids.tolist() == [0, 1, 2] and features.gallery_cameras.tolist() == [1, 1, 1]


def test_a_page_in_the_place_of_features_is_told(tmp_path):
    (tmp_path / "f.npz").write_text("<!DOCTYPE html><html>Not found</html>")
    with pytest.raises(ValueError, match=r"features .*f.npz: cannot be read .* \(a web page in the place"):
        Features.load(tmp_path / "f.npz")


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
        ({"query_ids": np.array([0.5, 1.5])}, "ids: found 0.5, expected whole numbers or text"),
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
