"""Who else on the machine may read a gallery: nobody, unless its owner said so."""

import os
import stat

import pytest

from service.gallery.pictures import Pictures
from service.opening import open_gallery
from service.records import Details, Upload
from service.upkeep.backup import back_up


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder):
    """The permissions of folders, and of files, below one and of itself."""
    found = [folder, *folder.rglob("*")]
    kinds = ([path for path in found if path.is_dir()], [path for path in found if path.is_file()])
    return [{stat.S_IMODE(path.stat().st_mode) for path in kind} for kind in kinds]


def fill(folder, checkpoint, picture):
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        gallery.enrol([Upload("a.png", picture(1), Details())])
        assert (folder / "gallery.db-wal").exists()
        back_up(gallery.database, gallery.pictures, folder.with_name(f"{folder.name}-backup"), lambda done, total: None)
        return modes(folder)


def test_a_new_gallery_and_its_backups_are_of_their_owner_alone(checkpoint, picture, tmp_path):
    around = tmp_path / "around"
    assert fill(around / "gallery", checkpoint, picture) == [{0o700}, {0o600}]
    assert modes(around / "gallery-backup") == [{0o700}, {0o600}]
    assert stat.S_IMODE(around.stat().st_mode) == 0o755  # which is no gallery


def test_one_that_others_may_read_stays_so(checkpoint, picture, tmp_path):
    folder = tmp_path / "gallery"
    folder.mkdir(mode=0o750)
    assert fill(folder, checkpoint, picture) == [{0o750}, {0o640}]
    folder.chmod(0o755)
    Pictures(folder / "pictures").save({"ab" * 32: b"new"})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
