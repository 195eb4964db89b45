import json
import logging

import pytest
from PIL import Image

from reid.data.detections import Detections
from reid.data.tables import AS_IT_IS, BOX_COLUMNS
from service.bulk.choosing import tell_left_out
from service.bulk.detected import with_boxes
from service.bulk.sources import source_of


@pytest.fixture
def photos(tmp_path):
    """Five photos of 200 x 100 pixels upright, one of them stored on its side, and what a detector says of them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        Image.new("RGB", (200, 100), (40 * number, 90, 90)).save(folder / f"{number}.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (100, 200), "teal").save(folder / "0.jpg", exif=turned)
    box = {"category": "1", "bbox": [0.5, 0.5, 0.25, 0.5]}
    found = {
        "0.jpg": [{**box, "conf": 0.9}],
        "1.jpg": [{**box, "conf": 0.9}, {**box, "conf": 0.8, "bbox": [0, 0, 0.1, 0.1]}],
        "2.jpg": [{**box, "conf": 0.1}],
        "3.jpg": None,
    }
    images = [{"file": name, "detections": detections} for name, detections in found.items()]
    said = {"images": images, "detection_categories": {"1": "animal"}, "info": {"detector": "md"}}
    (tmp_path / "boxes.json").write_text(json.dumps(said))
    return folder


def _placed(photos):
    return [(photo.name, *(photo.cells.get(name) for name in BOX_COLUMNS)) for photo in photos]


def test_each_box_is_a_photo_of_its_own(photos, tmp_path, caplog):
    caplog.set_level(logging.INFO, "reid")
    [source] = with_boxes([source_of(photos, AS_IT_IS)], Detections(tmp_path / "boxes.json"))
    listed = list(source.photos())
    assert _placed(listed) == [
        ("0.jpg", "100", "50", "50", "50"),  # of the picture as people see it, not as it is stored
        ("1.jpg", "100", "50", "50", "50"),
        ("1.jpg", "0", "0", "20", "10"),
    ]
    said = listed[0].details()
    assert (said.origin, said.attributes) == ("md", {"confidence": "0.9", "category": "animal"})
    tell_left_out([source])
    lines = caplog.messages
    assert "3 boxes (3 animal) of 2 photos by md; boxes left out: 1 below a confidence of 0.2" in lines
    assert lines[-1].endswith(
        "3 files left out: 1 not told of in boxes.json (--whole takes them whole), 1 that its detector could not read, "
        "says boxes.json (--whole takes them whole), 1 without a box (--whole takes them whole)"
    )
    assert list(source.photos()) == listed  # and is not counted again
    assert caplog.messages == lines


def test_photos_without_a_box_may_be_taken_whole(photos, tmp_path):
    [source] = with_boxes([source_of(photos, AS_IT_IS)], Detections(tmp_path / "boxes.json"), whole=True)
    assert _placed(source.photos())[3:] == [(f"{number}.jpg", None, None, None, None) for number in (2, 3, 4)]
    assert not source.left_out


def test_a_row_keeps_its_own_box_and_its_name_where_one_subject_is_meant(photos, tmp_path):
    table = photos / "photos.csv"
    table.write_text("path,identity,camera,x,y,w,h\n0.jpg,ada,n,,,,\n1.jpg,bob,n,,,,\n1.jpg,eve,n,5,5,20,20\n")
    [source] = with_boxes([source_of(table, AS_IT_IS)], Detections(tmp_path / "boxes.json"))
    rows = [(photo.name, photo.details().label, photo.details().camera, photo.cells["w"]) for photo in source.photos()]
    assert rows == [
        ("0.jpg", "ada", "n", "50"),
        ("1.jpg", None, "n", "50"),
        ("1.jpg", None, "n", "20"),
        ("1.jpg", "eve", "n", "20"),
    ]


def test_a_photo_that_cannot_be_read_stays_to_be_named(photos, tmp_path):
    (photos / "0.jpg").write_bytes(b"\xff\xd8\xff")
    [source] = with_boxes([source_of(photos, AS_IT_IS)], Detections(tmp_path / "boxes.json"))
    assert _placed(source.photos())[0] == ("0.jpg", None, None, None, None)


def test_boxes_of_another_picture_are_told(photos, tmp_path, caplog):
    image = {"id": 1, "file_name": "1.jpg", "width": 100, "height": 200}
    coco = {
        "images": [image, {"id": 2, "file_name": "2.jpg"}],
        "annotations": [{"image_id": number, "bbox": [0, 0, 10, 10]} for number in (1, 2)],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    [source] = with_boxes([source_of(photos, AS_IT_IS)], Detections(tmp_path / "coco.json"))
    assert _placed(source.photos()) == [("2.jpg", "0", "0", "10", "10")]
    assert "1.jpg: its boxes are of a picture of 100x200 pixels, before it was turned upright" in caplog.text
    assert "1 with boxes that cannot be used" in str(source.left_out)


def test_nothing_to_enrol_is_said(photos, tmp_path):
    [source] = with_boxes([source_of(photos, AS_IT_IS)], Detections(tmp_path / "boxes.json", least=0.95))
    with pytest.raises(ValueError, match="boxes from a confidence of 0.95 by MegaDetector in .*: none in any photo"):
        list(source.photos())
