import json

import pytest
from PIL import Image

from reid.config import ReidDataOptions
from reid.data.datasets import open_dataset


@pytest.fixture
def table(tmp_path):
    """A table of six photos: with one box, two, none, unknown to the detector, with a box of its own, and damaged."""
    rows = ["path,split,identity,x,y,w,h"]
    for number, box in enumerate([",,,", ",,,", ",,,", ",,,", "1,2,3,4", ",,,"]):
        Image.new("RGB", (100, 50)).save(tmp_path / f"{number}.jpg")
        rows.append(f"{number}.jpg,train,{number % 2},{box}")
    (tmp_path / "5.jpg").write_bytes(b"\xff\xd8\xff")
    one = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.5, 0.6]}
    found = [[one], [one, {**one, "bbox": [0, 0, 0.1, 0.1]}], [{**one, "conf": 0.3, "category": "2"}]]
    images = [{"file": f"{number}.jpg", "detections": boxes} for number, boxes in enumerate(found)]
    said = {"images": images, "detection_categories": {"1": "animal", "2": "person"}}
    (tmp_path / "boxes.json").write_text(json.dumps(said))
    (tmp_path / "images.csv").write_text("\n".join(rows))
    return tmp_path / "images.csv"


def _opened(table, **options):
    detections = str(table.parent / "boxes.json")
    return open_dataset(ReidDataOptions(dataset="csv", root=str(table), detections=detections, **options), splits=())


def test_images_are_cropped_to_their_only_box(table):
    dataset = _opened(table, category="animal")
    boxes = {sample.path.name: sample.box for sample in dataset.train}
    assert boxes == {"0.jpg": (10, 10, 50, 30), "4.jpg": (1, 2, 3, 4), "5.jpg": None}
    assert dataset.protocol["boxes"] == "boxes of animal from a confidence of 0.2 by MegaDetector"
    told = "csv: 1 image cropped to a box by MegaDetector; 1 with several boxes left out; 2 without a box left out"
    assert any(warning.startswith(told) for warning in dataset.warnings)


def test_images_without_a_box_may_be_whole(table):
    boxes = {sample.path.name: sample.box for sample in _opened(table, whole=True, min_confidence=0.5).train}
    assert boxes == {"0.jpg": (10, 10, 50, 30), "2.jpg": None, "3.jpg": None, "4.jpg": (1, 2, 3, 4), "5.jpg": None}


def test_boxes_beyond_their_picture_are_told(table):
    beyond = [{"category": "1", "conf": 0.9, "bbox": [0.5, 0.5, 0.9, 0.5]}]
    said = {"images": [{"file": "0.jpg", "detections": beyond}], "detection_categories": {"1": "animal"}}
    (table.parent / "boxes.json").write_text(json.dumps(said))
    dataset = _opened(table)
    assert dataset.train[0].box == (50, 25, 50, 25)
    assert any("; 1 clipped to their picture" in warning for warning in dataset.warnings)


def test_a_file_of_other_photos_is_refused(table):
    said = {"images": [{"file": "other.jpg", "detections": []}], "detection_categories": {}}
    (table.parent / "boxes.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="none of its 1 photo is among the 5 given; it has other.jpg"):
        _opened(table)


def test_images_whose_boxes_are_of_another_shape_are_left_out_and_the_first_is_named(table):
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 50} for number in range(4)]
    images[1] |= {"width": 50, "height": 100}
    boxes = [{"image_id": number, "bbox": [1, 1, 20, 20]} for number in range(4)]
    (table.parent / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    dataset = _opened(table)
    assert {sample.path.name for sample in dataset.train} == {"0.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"}
    first = f"{table.parent / '1.jpg'}: its boxes are of a picture of 50x100"
    assert any(f"1 with boxes that cannot be used left out, the first: {first}" in one for one in dataset.warnings)
