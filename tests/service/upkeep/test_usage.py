"""What a gallery takes of its disk."""

from datetime import UTC, datetime

import pytest

from service.gallery import space as space_module
from service.records import Cause, Details, LoggedQuery, Upload
from service.storage.queries import Queries
from service.upkeep.backup import back_up
from service.upkeep.usage import usage


@pytest.fixture
def filled(gallery, picture):
    """A gallery of three photos."""
    gallery.enrol([Upload(f"{n}.png", picture(n), Details(camera="north")) for n in range(3)])
    return gallery


def parts_of(found):
    return {part.name: (part.files, part.bytes) for part in found.parts}


def bytes_below(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_every_file_counts_once_and_in_its_part(filled):
    folder = filled.folder
    (folder / "rows-appearance").write_bytes(b"r" * 11)
    (folder / "notes.txt").write_bytes(b"n" * 7)
    (folder / "imports" / "a" / "files").mkdir(parents=True)
    (folder / "imports" / "a" / "files" / "1.png").write_bytes(b"i" * 5)
    found = parts_of(usage(filled, folder / "backups"))
    assert found["pictures"] == (3, bytes_below(folder / "pictures"))
    assert found["thumbnails"] == (3, bytes_below(folder / "thumbnails"))
    assert found["database"][1] == sum(path.stat().st_size for path in folder.glob("gallery.db*"))
    assert (found["index"], found["imports"], found["backups"]) == ((1, 11), (1, 5), (0, 0))
    assert sum(size for _, size in found.values()) == bytes_below(folder)


@pytest.mark.parametrize("inside", [True, False])
def test_what_a_backup_shares_with_the_gallery_is_no_room_of_its_own(filled, tmp_path, inside):
    backups = filled.folder / "backups" if inside else tmp_path / "elsewhere"
    back_up(filled.database, filled.pictures, backups / "one", lambda done, total: None)
    found = parts_of(usage(filled, backups))
    shared = [path for path in (backups / "one").rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert len(shared) == 6
    assert found["pictures"] == (3, bytes_below(filled.folder / "pictures"))
    assert found["backups"][1] == bytes_below(backups) - sum(path.stat().st_size for path in shared)


def test_room_for_more_follows_from_the_photos_that_there_are(gallery, picture, tmp_path, monkeypatch):
    assert usage(gallery, tmp_path / "none").room_for is None
    gallery.enrol([Upload(f"{n}.png", picture(n), Details()) for n in range(4)])
    monkeypatch.setattr(space_module.shutil, "disk_usage", lambda folder: Full)
    found = usage(gallery, tmp_path / "none")
    parts = parts_of(found)
    each = sum(parts[name][1] for name in ("pictures", "thumbnails", "database", "index")) / 4
    assert found.room_for == int(Full.free / each)
    assert (found.free, found.total) == (Full.free, Full.total)
    assert found.trouble == "100 MiB are free on the disk of " + str(gallery.folder)


class Full:
    total, used, free = 2**40, 2**40 - 100 * 2**20, 100 * 2**20


def test_vectors_and_logs_are_told_of_the_database(filled, tmp_path):
    found = usage(filled, tmp_path / "none")
    assert found.vectors == 3 * 4 * filled.embedder.size
    assert found.queries == 0
    asked = LoggedQuery(Cause("somebody", "r"), ("ab" * 32,), None, {"top_k": 10}, 3, (("one", 0.5),))
    Queries(filled.database).append([asked] * 1500)
    found = usage(filled, tmp_path / "none")
    assert 1500 * 150 < found.queries < 1500 * 600
    assert found.changes > 150 * len(filled.store.operations())
    Queries(filled.database).prune(datetime(2000, 1, 1, tzinfo=UTC), found.queries // 3)
    assert usage(filled, tmp_path / "none").queries == pytest.approx(found.queries / 3, rel=0.01)
