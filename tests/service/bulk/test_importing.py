"""Features into a gallery: what direct enrolment of the same photos gives, without the model."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.bulk import importing
from service.bulk.importing import BATCH
from service.embed import main as embed_main
from service.enrol import main
from service.gallery.decoders import OverBudget
from service.gallery.pictures import Pictures
from service.gallery.search import SearchOptions
from service.opening import open_gallery
from service.records import Filter
from service.storage.store import Store

SHARD = 20
PHOTOS = 2 * BATCH + 5


@pytest.fixture
def table(tmp_path, picture):
    """A table of photos with all that can be said of them, and some that cannot be used."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = ["path,key,label,camera,captured_at,site"]
    for number in range(PHOTOS):
        (folder / f"{number:03}.png").write_bytes(picture(number))
        rows.append(f"{number:03}.png,k{number},l{number % 5},c{number % 3},2024-05-{1 + number % 28:02}T12:00:00Z,s")
    (folder / "copy 'of' \"one\".png").write_bytes(picture(1))
    (folder / "cut.png").write_bytes(picture(500)[:-300])
    (folder / "new.png").write_bytes(picture(501))
    # Right behind what they contradict, so that direct enrolment meets them in this order too.
    rows[5:5] = ['"copy \'of\' ""one"".png",,other,,,', "new.png,k3,,,,"]
    rows += ["cut.png,,,,,", "missing.png,,,,,", "002.png,,,,yesterday,"]
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    return folder / "images.csv"


@pytest.fixture
def features(table, checkpoint, tmp_path):
    """The features of that table."""
    options = ["--checkpoint", checkpoint, "--output", tmp_path / "features", "--device", "cpu", "--shard-size", SHARD]
    assert embed_main([str(option) for option in (*options, table)]) == 0
    return tmp_path / "features"


@pytest.fixture
def run(features, tmp_path):
    """A function that enrols the features into a gallery."""

    def start(*arguments, gallery="gallery", features=features):
        return main([str(one) for one in ("--features", features, "--gallery", tmp_path / gallery, *arguments)])

    return start


def failures(text):
    """What a command told, without the ids of a gallery's own."""
    return sorted(re.sub("[0-9a-f]{32}", "ID", line) for line in text.splitlines())


def held(folder, checkpoint):
    """All that a gallery holds of its photos, but for ids and times of its own; their vectors; the pictures kept."""
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        items = {item.number: item for item in gallery.store.page(Filter(), 0, 1000)}
        said = {item.medium: item.details for item in items.values()}
        vectors = {items[row.number].medium: row.vector for row in gallery.store.rows(gallery.model_id)}
        pictures = {item.medium: gallery.pictures.read(item.medium.sha256) for item in items.values()}
        model = gallery.models.active
    return said, vectors, pictures, model


def test_the_gallery_is_that_of_direct_enrolment(run, table, checkpoint, tmp_path, picture, capsys):
    capsys.readouterr()
    assert run() == 1
    shown = capsys.readouterr()
    options = ["--checkpoint", checkpoint, "--gallery", tmp_path / "direct", "--device", "cpu", table]
    assert main([str(option) for option in options]) == 1
    direct = capsys.readouterr()
    assert shown.out == direct.out.replace("direct", "gallery")
    assert shown.out.startswith(f"{PHOTOS} enrolled, 1 there before, 4 failed; ")
    how = "images.csv: UTF-8 text with commas between cells; label as identity"  # told where the table is read
    assert failures(direct.err) == sorted([*failures(shown.err), how])
    assert len(failures(shown.err)) == 4
    one, other = held(tmp_path / "gallery", checkpoint), held(tmp_path / "direct", checkpoint)
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for medium, vector in one[1].items():
        np.testing.assert_allclose(vector, other[1][medium], atol=1e-6)
    assert one[2:] == other[2:]
    kept = [sorted(path.name for path in (tmp_path / name / "pictures").glob("*/*")) for name in ("gallery", "direct")]
    assert kept[0] == kept[1]
    answers = []
    for folder in ("gallery", "direct"):
        with open_gallery(tmp_path / folder, checkpoint, "cpu") as gallery:
            found = gallery.query([picture(600)], SearchOptions(Filter(cameras=frozenset({"c1"})))).matches
            answers.append([(match.item.details.key, round(match.score, 5)) for match in found])
    assert len(answers[0]) == 10
    assert answers[0] == answers[1]


def test_given_again_it_reads_no_photo(run, table, checkpoint, tmp_path, monkeypatch, capsys):
    run()
    before = held(tmp_path / "gallery", checkpoint)[0]
    for path in table.parent.glob("0*.png"):
        path.unlink()
    (table.parent / "new.png").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(importing, "_take", _refuse)
        capsys.readouterr()
        assert run() == 1
    assert capsys.readouterr().out.startswith(f"0 enrolled, {PHOTOS + 1} there before, 4 failed")
    assert held(tmp_path / "gallery", checkpoint)[0] == before


def _refuse(boxes, _):
    assert [one.photo.name for one in boxes] == ["new.png"]  # which the gallery does not have
    raise FileNotFoundError(2, "No such file or directory")


def test_a_photo_that_takes_too_much_is_refused_by_the_decoders_and_others_are_enrolled(
    run, table, monkeypatch, capsys
):
    slow = (table.parent / "007.png").read_bytes()

    class Strict:
        def __init__(self, decoders):
            self.close, self._render = decoders.close, decoders.render

        def render(self, who, data, order):
            if data == slow:
                raise OverBudget("the image takes more than 5 s")
            return self._render(who, data, order)

    shared = importing.Decoders
    monkeypatch.setattr(importing, "Decoders", lambda **given: Strict(shared(**given)))
    capsys.readouterr()
    assert run() == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{PHOTOS - 1} enrolled, 1 there before, 5 failed")
    assert "007.png: the image takes more than 5 s\n" in shown.err


def test_a_photo_that_changed_since_is_refused(run, table, picture, tmp_path, capsys):
    (table.parent / "004.png").write_bytes(picture(700))
    (table.parent / "005.png").unlink()
    capsys.readouterr()
    assert run() == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{PHOTOS - 2} enrolled, 1 there before, 6 failed")
    assert "004.png: its bytes are not those that were embedded; embed it again\n" in shown.err
    assert "005.png: No such file or directory\n" in shown.err


def test_photos_that_lie_elsewhere_now(run, table, tmp_path, capsys):
    shutil.move(table.parent, tmp_path / "moved")
    assert run() == 1
    assert capsys.readouterr().out.endswith("holds 0 items\n")
    assert run(tmp_path / "moved" / "images.csv") == 1
    assert f"{PHOTOS} enrolled" in capsys.readouterr().out
    assert run(tmp_path, tmp_path) == 2
    assert "2 SOURCE for features of 1" in capsys.readouterr().err


def test_shards_that_are_missing_or_damaged_are_told_at_the_end(run, features, tmp_path, capsys):
    second, third = (features / f"0000000{number}.safetensors" for number in (1, 2))
    kept = third.read_bytes()
    second.rename(tmp_path / "second")
    third.write_bytes(kept[:-1] + b"?")
    capsys.readouterr()
    assert run() == 1
    error = capsys.readouterr().err.splitlines()[-1]
    expected = (
        f"{PHOTOS - 2 * SHARD} enrolled, 1 there before, 4 failed; {features}: 2 of 4 shards could not be imported"
    )
    assert error == f"reid-enrol: error: {expected}, the first: shard 1 is not there yet; give reid-embed again"
    (tmp_path / "second").rename(second)
    third.write_bytes(kept)
    assert run() == 1
    assert capsys.readouterr().out.startswith(f"{2 * SHARD} enrolled, ")


def test_a_gallery_of_another_model_is_refused(run, features, checkpoint, tmp_path, capsys):
    manifest = features / "manifest.json"
    other = tmp_path / "other"
    shutil.copytree(features, other)
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        model_id = gallery.model_id
    (other / "manifest.json").write_text(manifest.read_text().replace(model_id, "0123456789abcdef"))
    capsys.readouterr()
    assert run(features=other) == 1
    error = capsys.readouterr().err
    assert f"belongs to model {model_id} (E = " in error and "not to model 0123456789abcdef" in error
    assert error.count("\n") == 1


def test_what_is_said_otherwise_is_taken_over_on_demand(run, checkpoint, tmp_path, capsys):
    run()
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        item = next(item for item in gallery.store.page(Filter(), 0, 1000) if item.details.key == "k7")
        gallery.edit(item.item_id, {"label": "renamed"})
    capsys.readouterr()
    run()
    assert "of 2 there before something else is said here" in capsys.readouterr().out  # and of the copy
    run("--update")
    assert "2 that were there before are updated" in capsys.readouterr().out
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        assert gallery.store.get(item.item_id).details.label == "l2"


def test_a_kill_between_batches_is_made_good(run, checkpoint, tmp_path, monkeypatch, capsys):
    """Pictures are saved and the commit never comes, as if the process were killed there."""
    enrol, calls = Store.enrol, []

    def killed(self, photos, cause, embedded_by):
        calls.append(len(photos))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return enrol(self, photos, cause, embedded_by)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "enrol", killed)
        assert run() == 1
    assert "interrupted; 38 enrolled, 1 there before, 1 failed; given again" in capsys.readouterr().err
    assert run() == 1
    assert capsys.readouterr().out.startswith(f"{PHOTOS - 38} enrolled, 39 there before, 4 failed")
    run(gallery="whole")
    assert held(tmp_path / "gallery", checkpoint)[0] == held(tmp_path / "whole", checkpoint)[0]


def test_what_was_deleted_does_not_come_back_by_itself(run, checkpoint, tmp_path, capsys):
    run()
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        item, *_ = gallery.store.page(Filter())
        gallery.delete([item.item_id])
    assert capsys.readouterr() and run() == 1
    assert "1 deleted before, left out" in capsys.readouterr().out
    assert run("--again") == 1
    assert capsys.readouterr().out.startswith("1 enrolled")


def test_a_copy_that_was_lost_is_put_back(run, checkpoint, tmp_path, capsys):
    run()
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        item, *_ = gallery.store.page(Filter())
        kept = gallery.pictures.read(item.medium.sha256)
        gallery.pictures.path(item.medium.sha256).unlink()
    assert capsys.readouterr() and run() == 1
    assert capsys.readouterr().out.startswith("0 enrolled")
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        assert gallery.store.get(item.item_id).medium == item.medium
        assert gallery.pictures.read(item.medium.sha256, item.medium.copy_sha256) == kept


def test_the_log_of_operations_names_the_command(run, tmp_path):
    run()
    with sqlite3.connect(tmp_path / "gallery" / "gallery.db") as database:
        found = database.execute("SELECT DISTINCT actor FROM operations").fetchall()
    database.close()
    assert found == [("reid-enrol",)]


@pytest.mark.parametrize("arguments", [["--checkpoint", "run"], ["--dataset", "csv", "--data-root", "x"]])
def test_features_and_a_model_are_too_much(run, arguments, capsys):
    assert run(*arguments) == 2
    assert "--features needs no model and no --dataset" in capsys.readouterr().err


def test_boxes_are_found_before_features_are_made(run, capsys):
    assert run("--detections", "boxes.json") == 2
    assert "--detections is for reid-embed, where features are made" in capsys.readouterr().err


def test_neither_features_nor_a_model_is_too_little(tmp_path, capsys):
    assert main(["--gallery", str(tmp_path / "gallery"), str(tmp_path)]) == 2
    assert "give either --checkpoint RUN, or --backbone NAME, with what to enrol" in capsys.readouterr().err
    assert main(["--gallery", str(tmp_path / "gallery"), "--features", str(tmp_path)]) == 1
    assert "no features, for there is no manifest.json in it" in capsys.readouterr().err
    assert not Path(tmp_path / "gallery").exists()


def test_features_are_refused_once_another_process_has_switched_models(run, tmp_path, monkeypatch, capsys):
    save = Pictures.save

    def switched_meanwhile(pictures, copies):
        with closing(sqlite3.connect(tmp_path / "gallery" / "gallery.db")) as other, other:
            other.execute("UPDATE models SET model_id = 'other'")
            other.execute("UPDATE spaces SET model_id = 'other'")
        save(pictures, copies)

    monkeypatch.setattr(Pictures, "save", switched_meanwhile)
    capsys.readouterr()
    assert run() == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "0 failed; the gallery belongs to model other, but model" in error
    assert not list((tmp_path / "gallery" / "pictures").rglob("*.webp"))
