from service.gallery.thumbnails import Thumbnails
from service.records import NOBODY, Crop, Details, Region, Upload
from service.storage.database import Database
from service.upkeep.backup import back_up, restore
from tests.drawn import encode, noise

WHOLE, BOX = Crop("a" * 64), Crop("a" * 64, Region(1, 2, 3, 4))
JPEG = encode(noise(), "JPEG")


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_is_read_until_it_is_deleted(tmp_path):
    thumbnails = Thumbnails(tmp_path)
    assert thumbnails.read(WHOLE) is None
    thumbnails.keep({WHOLE: JPEG, BOX: b"\xff\xd8box\xff\xd9"})
    assert (thumbnails.read(WHOLE), thumbnails.read(BOX)) == (JPEG, b"\xff\xd8box\xff\xd9")
    assert files(tmp_path) == [f"{'a' * 64}-1-2-3-4.jpg", f"{'a' * 64}.jpg"]
    thumbnails.delete([BOX, Crop("b" * 64)])
    assert (thumbnails.read(WHOLE), thumbnails.read(BOX)) == (JPEG, None)


def test_what_was_not_written_to_its_end_is_none(tmp_path):
    thumbnails = Thumbnails(tmp_path)
    thumbnails.keep({WHOLE: JPEG})
    for left in (b"", JPEG[:-2]):
        thumbnails.path(WHOLE).write_bytes(left)
        assert thumbnails.read(WHOLE) is None


def test_a_disk_that_is_full_is_told_and_leaves_nothing(tmp_path, monkeypatch, caplog):
    def full(path, *_, **__):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.gallery.thumbnails.open", full, raising=False)
    Thumbnails(tmp_path).keep({WHOLE: JPEG})
    assert "could not be written (No space left on device)" in caplog.text
    assert files(tmp_path) == []


def test_a_sweep_leaves_those_of_known_photos(tmp_path):
    thumbnails = Thumbnails(tmp_path)
    thumbnails.keep({WHOLE: JPEG, BOX: JPEG, Crop("b" * 64): JPEG})
    thumbnails.path(WHOLE).with_name(f".{'a' * 64}.jpg.{'0' * 32}.tmp").write_bytes(b"\xff\xd8")
    thumbnails.sweep({"a" * 64})
    assert files(tmp_path) == [f"{'a' * 64}-1-2-3-4.jpg", f"{'a' * 64}.jpg"]


def test_they_are_made_at_enrolment_and_go_with_their_items(gallery, picture, monkeypatch, tmp_path):
    boxes = [None, (1, 2, 3, 4)]
    whole, box = (one.item for one in gallery.enrol([Upload("0.png", picture(0), Details(), box=one) for one in boxes]))
    assert len(files(gallery.folder / "thumbnails")) == 2
    with monkeypatch.context() as patched:
        patched.setattr(gallery.decoders, "render", None)  # nothing is decoded any more
        small, smaller = gallery.thumbnail(whole), gallery.thumbnail(box)
    assert small.startswith(b"\xff\xd8") and small != smaller
    for path in (gallery.folder / "thumbnails").rglob("*.jpg"):  # as in a gallery of an earlier version
        path.unlink()
    assert (gallery.thumbnail(whole), gallery.thumbnail(box)) == (small, smaller)
    assert len(files(gallery.folder / "thumbnails")) == 2
    backup = tmp_path / "backup"
    back_up(gallery.database, gallery.pictures, backup, lambda done, total: None)
    assert files(backup / "thumbnails") == files(gallery.folder / "thumbnails")
    with Database(backup) as source, Database(tmp_path / "restored") as target:
        restore(source, target, lambda done, total: None)
    assert files(tmp_path / "restored" / "thumbnails") == files(gallery.folder / "thumbnails")
    gallery.delete([box.item_id])
    assert files(gallery.folder / "thumbnails") == [f"{whole.medium.sha256}.jpg"]
    gallery.delete([whole.item_id])
    assert files(gallery.folder / "thumbnails") == []
    gallery.holdings.keep_thumbnails({whole.crop: small})  # somebody was still looking
    assert files(gallery.folder / "thumbnails") == []


def test_nothing_is_kept_of_what_is_deleted_while_it_is_enrolled(gallery, picture, monkeypatch):
    add = gallery.holdings.add

    def deleted_at_once(*arguments):
        added = add(*arguments)
        gallery.holdings.delete([one.item.item_id for one in added], NOBODY)
        return added

    monkeypatch.setattr(gallery.holdings, "add", deleted_at_once)
    gallery.enrol([Upload("0.png", picture(0), Details())])
    assert files(gallery.folder / "thumbnails") == []
