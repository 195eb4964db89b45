import json

import pytest

from reid.data.detections import Detections, Found

MEGADETECTOR = {
    "info": {"detector": "md_v5a.0.0.pt"},
    "detection_categories": {"1": "animal", "2": "person"},
    "images": [
        {
            "file": "north/a.jpg",
            "detections": [
                {"category": "1", "conf": 0.31, "bbox": [0.1, 0.2, 0.3, 0.4]},
                {"category": "2", "conf": 0.94, "bbox": [0.5, 0.5, 0.25, 0.25]},
                {"category": "1", "conf": 0.19, "bbox": [0.0, 0.0, 1.0, 1.0]},
            ],
        },
        {"file": "north/b.jpg", "detections": []},
        {"file": "south\\a.jpg", "failure": "Failure image access", "detections": None},
    ],
}
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg", "width": 400, "height": 200}, {"id": 8, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "zebra"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [10.5, 20, 100, 50.2]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 400, 200], "iscrowd": 1},
        {"image_id": 7, "category_id": 1},
        {"image_id": 8, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
    ],
}


@pytest.fixture
def saved(tmp_path):
    """A function that writes a JSON file."""

    def save(content, name="boxes.json"):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return save


@pytest.fixture
def labels(tmp_path):
    """A folder of YOLO's, as its data sets have it."""
    folder = tmp_path / "labels" / "train"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("1 0.25 0.5 0.1 0.2\n\n0 0.5 0.5 1 1 0.75\n")
    (folder / "classes.txt").write_text("left\nright\n")
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog}\n")
    return tmp_path / "labels"


def test_megadetector_gives_shares_of_the_upright_picture(saved):
    detections = Detections(saved(MEGADETECTOR))
    assert (detections.kind, detections.origin) == ("MegaDetector", "md_v5a.0.0.pt")
    # the surest first; 0.19 is below what its authors take for a detection
    assert detections.of("north/a.jpg", (1000, 500)) == [
        Found((500, 250, 250, 125), 0.94, "person"),
        Found((100, 100, 300, 200), 0.31, "animal"),
    ]
    assert detections.left_out == {"of a crowd": 0, "below a confidence of 0.2": 1}
    assert detections.of("north/b.jpg", (1000, 500)) == []
    assert detections.of("south/a.jpg", (1000, 500)) is None


def test_the_least_confidence_and_the_categories_choose(saved):
    path = saved(MEGADETECTOR)
    assert [one.confidence for one in Detections(path, least=0.1).of("north/a.jpg", (100, 100))] == [0.94, 0.31, 0.19]
    assert [one.category for one in Detections(path, categories=["Animal"]).of("north/a.jpg", (100, 100))] == ["animal"]
    with pytest.raises(ValueError, match="no category 'cat'; found animal, person"):
        Detections(path, categories=["cat"])
    nobody = {**MEGADETECTOR, "images": [{"file": "north/b.jpg", "detections": []}]}
    assert Detections(saved(nobody), categories=["person"]).of("north/b.jpg", (100, 100)) == []


def test_coco_gives_pixels_of_the_size_it_says(saved):
    detections = Detections(saved(COCO))
    assert detections.of("a.jpg", (400, 200)) == [Found((10, 20, 101, 51), None, "zebra")]
    assert detections.of("a.jpg", (800, 400)) == [Found((21, 40, 200, 101), None, "zebra")]  # drawn on a smaller copy
    assert detections.of("b.jpg", (50, 50)) == [Found((1, 2, 3, 4), 0.5, "zebra")]
    with pytest.raises(ValueError, match="400x200 pixels, before it was turned upright, and it has 200x400"):
        detections.of("a.jpg", (200, 400))
    assert detections.left_out["of a crowd"] == 1


def test_yolo_gives_centres_and_sides(labels):
    detections = Detections(labels)
    found = detections.of("train/a", (200, 100))
    assert found == [Found((40, 40, 20, 20), None, "dog"), Found((0, 0, 200, 100), 0.75, "cat")]
    assert len(detections) == 1  # the names of categories are no photo's


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "polygons and key points are to be exported as boxes"),
        ("cat 0.5 0.5 1 1", "found 'cat 0.5 0.5 1 1', expected class x y w h"),
        ("0 nan 0.5 1 1", "expected class x y w h"),
        ("0 320 240 100 80", "are pixels, expected shares"),
    ],
)
def test_lines_of_yolo_that_are_no_boxes(labels, line, problem):
    (labels / "train" / "a.txt").write_text(line)
    with pytest.raises(ValueError, match=f"a.txt line 1: .*{problem}"):
        Detections(labels).of("train/a", (200, 100))


def test_boxes_end_where_their_picture_does(saved):
    boxes = [[-0.1, 0.5, 0.3, 0.6], [0.9001, 0, 0.1, 0.1], [1.2, 0, 0.1, 0.1], [0.5, 0.5, 0, 0.1]]
    image = {"file": "a.jpg", "detections": [{"category": "1", "conf": 0.9, "bbox": box} for box in boxes]}
    detections = Detections(saved({"images": [image], "detection_categories": {}}))
    found = detections.of("a.jpg", (1000, 1000))
    assert [one.box for one in found] == [(0, 500, 200, 500), (900, 0, 100, 100)]
    assert detections.clipped == 1  # what passes the edge by the last digit of a share was not cut
    assert detections.left_out["outside their picture"] == 2


def test_boxes_that_agree_within_one_in_a_hundred_are_one(saved):
    boxes = [(0.9, [100, 100, 200, 400]), (0.8, [101, 104, 200, 398]), (0.7, [103, 100, 200, 400])]
    annotations = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for score, box in boxes]
    image = {"id": 1, "file_name": "a.jpg", "width": 1000, "height": 1000}
    detections = Detections(saved({"images": [image], "annotations": annotations}))
    assert [one.confidence for one in detections.of("a.jpg", (1000, 1000))] == [0.9, 0.7]
    assert detections.left_out["like another within 1 %"] == 1


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        (["a/1.jpg", "b/1.jpg"], ["/d/a/1.jpg", "/d/b/1.jpg"]),  # the folder itself
        (["d/a/1.jpg", "d/b/1.jpg"], ["/d/a/1.jpg", "/d/b/1.jpg"]),  # one above
        (["C:\\photos\\a\\1.jpg", "C:\\photos\\b\\1.jpg"], ["/d/a/1.jpg", "/d/b/1.jpg"]),  # on another machine
        (["1.jpg", "2.jpg"], ["/d/a/1.jpg", "/d/a/2.jpg"]),  # one below
    ],
)
def test_photos_are_found_wherever_the_detector_began(saved, tmp_path, told, asked):
    detections = Detections(
        saved({"detection_categories": {}, "images": [{"file": f, "detections": []} for f in told]})
    )
    photos = [tmp_path / path.lstrip("/") for path in asked]
    names = [name.replace("\\", "/") for name in told]
    assert detections.match(photos) == dict(zip(photos, names, strict=True))


def test_a_photo_of_the_same_name_in_another_folder_is_not_taken_for_it(saved, tmp_path):
    told = [{"file": f"b/{number}.jpg", "detections": []} for number in range(3)]
    detections = Detections(saved({"detection_categories": {}, "images": told}))
    photos = [tmp_path / folder / f"{number}.jpg" for folder in "ab" for number in range(4)]
    assert detections.match(photos) == {tmp_path / "b" / f"{n}.jpg": f"b/{n}.jpg" for n in range(3)}


def test_folders_whose_photos_have_the_same_names_are_looked_at_in_few_places(saved, tmp_path, monkeypatch):
    told = [f"cam{folder}/{number}.jpg" for folder in range(20) for number in range(20)]
    detections = Detections(saved({"images": [{"file": name, "detections": []} for name in told]}))
    photos = [tmp_path / name for name in told]
    looked = []
    explained = Detections._explained
    monkeypatch.setattr(
        Detections, "_explained", lambda self, move, wholes: looked.append(move) or explained(self, move, wholes)
    )
    assert detections.match(photos) == dict(zip(photos, told, strict=True))
    assert len(looked) <= 100, "there are 381 ways to pair a folder of ours with one of the detector's"
    photos[0] = tmp_path / "cam99" / "0.jpg"
    assert detections.match(photos) == dict(zip(photos[1:], told[1:], strict=True)), "which the file does not tell of"


def test_photos_of_yolo_have_their_labels_beside_their_folder(tmp_path):
    photos = {}
    for split in ("train", "val"):
        for kind, name in (("images", "a.b.jpg"), ("labels", "a.b.txt")):
            path = tmp_path / split / kind / name
            path.parent.mkdir(parents=True)
            path.write_text("")
            photos |= {path: f"{split}/labels/a.b"} if kind == "images" else {}
    assert Detections(tmp_path).match(list(photos)) == photos


def test_photos_that_could_be_either_are_refused(saved, tmp_path):
    detections = Detections(saved({"detection_categories": {}, "images": [{"file": "1.jpg", "detections": []}]}))
    with pytest.raises(ValueError, match=r"its 1.jpg could be .*1.jpg and .*1.jpg; give the folder as SOURCE"):
        detections.match([tmp_path / "a" / "1.jpg", tmp_path / "b" / "1.jpg"])
    with pytest.raises(ValueError, match="none of its 1 photo is among the 1 given; it has 1.jpg, they have .*x.jpg"):
        detections.match([tmp_path / "x.jpg"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "another JSON; expected MegaDetector's JSON, COCO's JSON, or a folder"),
        ('{"images": []}', "it lists no photo"),
        ('[{"image_id": 1, "bbox": [0, 0, 1, 1]}]', "COCO's results, which do not name photos"),
        ('{"images": [{"file": "a.jpg"}]}', "not as MegaDetector writes it \\(no 'detections'\\)"),
        ('{"images": [{"id": 1}], "annotations": []}', "not as COCO writes it \\(no 'file_name'\\)"),
        (
            '{"images": [{"file": "a.jpg", "detections": [{"category": "1", "conf": 1, "bbox": [1, 2]}]}]}',
            r"bbox \[1, 2\], expected four numbers",
        ),
        ('{"images": [{"file": "a.jpg", "detections": [3]}]}', "not as MegaDetector writes it"),
    ],
)
def test_files_that_are_none(tmp_path, content, problem):
    path = tmp_path / "boxes.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"boxes.json: .*{problem}"):
        Detections(path)
    with pytest.raises(FileNotFoundError, match="no such file of detections"):
        Detections(tmp_path / "gone.json")


def test_a_folder_without_texts_is_none_of_yolos(tmp_path):
    with pytest.raises(ValueError, match="no .txt file in it, expected MegaDetector"):
        Detections(tmp_path)
