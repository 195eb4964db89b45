"""A gallery as files, and back: nothing is lost, and the table trains."""

import csv
import os
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from safetensors.numpy import load_file
from sqlalchemy import select

from reid.data.datasets import load_dataset
from service.gallery.search import SearchOptions
from service.manage import main
from service.opening import open_gallery
from service.records import NOBODY, Details, Filter, Medium, NewItem, Upload
from service.review.catalogue import Catalogue
from service.storage.database import Database
from service.storage.decisions import Decisions, NewDecision
from service.storage.identities import Identities
from service.storage.models import Models
from service.storage.shortlists import Entry, Shortlists
from service.storage.store import Store
from service.storage.tables import items, vectors

STRANGE = 'a "b",\r\nc; =1+1 \u00e9\U0001f993'


@pytest.fixture
def filled(checkpoint, tmp_path, picture):
    """A gallery with everything that is written: boxes, times, attributes, merged identities, decisions."""
    folder = tmp_path / "gallery"
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        uploads = [
            Upload(f"{STRANGE[:6]}{n}.png", picture(n), Details(camera="north", label=f"l{n % 3}")) for n in range(6)
        ]
        attributes = {"note": STRANGE, "count": 3, "list": [1, None]}
        uploads += [
            Upload("two.png", picture(9, 40, 60), Details(key="=k 1", attributes=attributes), box=(1, 2, 20, 30)),
            Upload("two.png", picture(9, 40, 60), Details(site="'@shore", viewpoint="left"), box=(5, 6, 20, 30)),
        ]
        there = [one.item for one in gallery.enrol(uploads)]
        identities = Identities(gallery.database)
        identities.merge(there[0].identity_id, there[1].identity_id)
        gallery.delete([there[3].item_id])
        lists = Shortlists(gallery.database)
        made = lists.create("=likely", STRANGE, [there[5].item_id, there[0].item_id], ["north"], NOBODY)
        lists.edit(made.shortlist_id, NOBODY, entries=[Entry(there[5].item_id, "'see"), Entry(there[0].item_id)])
        lists.create("all", "", [], None, NOBODY)
    return folder


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def found(folder, checkpoint, data):
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        matches = gallery.query([data], SearchOptions()).matches
        assert gallery.worker.size() == 7
        shown = [(match.item.item_id, match.item.details, match.item.region, match.score) for match in matches]
        return shown, Shortlists(gallery.database).list()


@pytest.mark.parametrize("pictures", [[], ["--pictures"]])
def test_what_comes_back_is_what_was_written(filled, checkpoint, picture, tmp_path, pictures, capsys):
    first, again, new = tmp_path / "first", tmp_path / "again", tmp_path / "new"
    assert main(["export", "--gallery", str(filled), str(first), *pictures]) == 0
    assert main(["import", "--gallery", str(new), str(first)]) == 0
    kept = 6 if pictures else 0
    assert capsys.readouterr().out == f"{first}: 7 items\n{new}: 7 items, {kept} pictures\n"
    assert main(["export", "--gallery", str(new), str(again), *pictures]) == 0
    assert files(again) == files(first)
    with open(first / "items.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert {"'=k 1", "''@shore"} <= {*cells} and not [cell for cell in cells if cell[:1] in ("=", "@")]
    assert len(files(first)) > 3 + kept
    assert found(new, checkpoint, picture(4)) == found(filled, checkpoint, picture(4))
    assert [one.name for one in found(new, checkpoint, picture(4))[1]] == ["all", "=likely"]


def test_what_is_written_is_for_whom_the_umask_says(filled, tmp_path):
    before = os.umask(0o027)
    try:
        main(["export", "--gallery", str(filled), str(tmp_path / "e"), "--pictures"])
    finally:
        os.umask(before)
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in [tmp_path / "e", *(tmp_path / "e").rglob("*")]}
    assert modes == {(True, 0o750), (False, 0o640)}


def test_the_features_are_in_the_order_of_the_table(filled, checkpoint, tmp_path):
    main(["export", "--gallery", str(filled), str(tmp_path / "e")])
    with open(tmp_path / "e" / "items.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    features = load_file(tmp_path / "e" / "features" / "00000000.safetensors")["features"]
    with open_gallery(filled, checkpoint, "cpu") as gallery:
        for row, vector in zip(rows, features, strict=True):
            stored = {item_id: stored for item_id, stored in vectors_of(gallery)}
            assert np.array_equal(stored[row["item_id"]], vector)
    assert {(row["x"], row["y"], row["w"], row["h"]) for row in rows} == {
        ("", "", "", ""),
        ("1", "2", "20", "30"),
        ("5", "6", "20", "30"),
    }


def vectors_of(gallery):
    chosen = select(items.c.item_id, vectors.c.vector).join_from(
        items, vectors, vectors.c.owner_number == items.c.number
    )
    return [(item_id, np.frombuffer(vector, "<f4")) for item_id, vector in gallery.database.read(chosen)]


def test_photos_from_a_folder_of_the_same_name_come_back_without_pictures(checkpoint, picture, tmp_path):
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        gallery.enrol([Upload("pictures/a.png", picture(0), Details())])
    assert main(["export", "--gallery", str(tmp_path / "gallery"), str(tmp_path / "e")]) == 0
    assert main(["import", "--gallery", str(tmp_path / "new"), str(tmp_path / "e")]) == 0


@pytest.mark.parametrize("path", ["pictures/../secret.png", "pictures/none.png"])
def test_only_pictures_of_the_export_are_taken(filled, tmp_path, capsys, path):
    export = tmp_path / "e"
    main(["export", "--gallery", str(filled), str(export), "--pictures"])
    (export / "secret.png").write_bytes(b"secret")
    lines = (export / "items.csv").read_text(encoding="utf-8").split("\n")
    lines[1] = path + lines[1][lines[1].index(",") :]
    (export / "items.csv").write_text("\n".join(lines), encoding="utf-8")
    capsys.readouterr()
    assert main(["import", "--gallery", str(tmp_path / "new"), str(export)]) == 1
    assert f"{export / 'items.csv'}: path {path!r}: no picture in pictures" in capsys.readouterr().err


def test_the_table_is_a_dataset(filled, tmp_path):
    main(["export", "--gallery", str(filled), str(tmp_path / "e"), "--pictures"])
    dataset = load_dataset("csv", tmp_path / "e" / "items.csv")
    assert len(dataset.splits["train"]) == 5  # those without label are of nobody known
    assert all(sample.path.exists() for sample in dataset.splits["train"])


def test_what_is_no_whole_export_is_refused_and_changes_nothing(filled, tmp_path, capsys, checkpoint):
    good, new = tmp_path / "e", tmp_path / "new"
    main(["export", "--gallery", str(filled), str(good), "--pictures"])
    assert main(["export", "--gallery", str(filled), str(good)]) == 1
    capsys.readouterr()

    def refused(spoil, complaint):
        bad = tmp_path / "bad"
        shutil.copytree(good, bad)
        spoil(bad)
        assert main(["import", "--gallery", str(new), str(bad)]) == 1
        error = capsys.readouterr().err
        assert complaint in error and error.count("\n") == 1
        shutil.rmtree(bad)

    refused(lambda bad: (bad / "model.json").unlink(), "no whole export")
    refused(lambda bad: next((bad / "pictures").iterdir()).write_bytes(b"x"), "not the picture that was exported")
    refused(lambda bad: next((bad / "features").iterdir()).write_bytes(b"x"), "no file of features")
    refused(lambda bad: change(bad / "items.csv", "identity_id", "someone"), "has no column 'identity_id'")
    assert main(["import", "--gallery", str(new), str(good)]) == 0
    assert main(["import", "--gallery", str(new), str(good)]) == 1
    assert "expected a new or empty gallery" in capsys.readouterr().err


def change(path, old, new):
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.fixture
def catalogued(tmp_path):
    """A gallery whose individuals were named, merged, parted, described and judged; the steps to take back."""
    folder = tmp_path / "catalogued"
    with Database(folder) as database:
        Models(database).bind("m", 4, {})
        store, identities = Store(database), Identities(database)
        new = [
            NewItem(Medium(f"{n:064x}", 64, 64, f"{n}.jpg"), np.eye(4, dtype=np.float32)[n % 4], Details(camera="gate"))
            for n in range(12)
        ]
        gone, *ids = (one.item.item_id for one in store.enrol(new))
        decide = [("same", "visual"), ("same", "machine"), ("different", "visual"), ("unsure", "gold")]
        identities.decide(
            [
                NewDecision(ids[n], ids[n + 1], answer, basis, actor="ada", evidence={"features": [1.0, n]})
                for n, (answer, basis) in enumerate(decide)
            ]
        )
        ada = store.find([ids[0]])[0].identity_id
        identities.edit(
            ada, {"name": "Ada", "aliases": ("=1+1", "Ada \u00e9"), "notes": STRANGE, "attributes": {"sex": "f"}}
        )
        identities.rename(ada, "Ada L.")
        bob = identities.create("Bob", ids[3:6]).identity_id
        eva = identities.create("Eva", ids[6:9]).identity_id
        identities.create("nobody's")
        store.delete([gone])  # so that numbers are others where it comes back
        parted = identities.split(eva, [ids[8]], "Uma").batch_id
        merged = identities.merge_step(bob, ada).batch_id
        through = [NewDecision(ids[9], ids[10], "same")]
        taken_back = identities.decide(through).batch_id
        identities.undo(taken_back)
        store.delete([ids[1]])  # which keeps others together
    return folder, bob, parted, merged


def individuals(folder):
    """All that is told of identities and decisions, but for the numbers within."""
    with Database(folder) as database:
        catalogue, identities = Catalogue(database), Identities(database)
        entries, total = catalogue.page(Filter())
        told = {}
        for entry in entries:
            one = entry.identity
            shown = [item.item_id for item in catalogue.items(one.identity_id, Filter())]
            merged = identities.merged_into(one.identity_id)
            told[one.identity_id] = (
                *(one.name, one.aliases, one.notes, one.attributes, one.anchor, entry.photos, shown, merged),
                catalogue.disputes(one.identity_id),
            )
        given = [
            {name: value for name, value in asdict(one).items() if name not in ("number", "supersedes")}
            for one in Decisions(database).page(limit=1000)
        ]
        assert total == len(told)
        return told, given


def test_decisions_and_individuals_come_back_and_can_still_be_taken_back(catalogued, tmp_path):
    folder, bob, parted, merged = catalogued
    first, again, new = tmp_path / "first", tmp_path / "again", tmp_path / "new"
    assert main(["export", "--gallery", str(folder), str(first)]) == 0
    assert main(["import", "--gallery", str(new), str(first)]) == 0
    assert main(["export", "--gallery", str(new), str(again)]) == 0
    assert files(again) == files(first)
    told, given = individuals(folder)
    assert individuals(new) == (told, given)
    names = {one[0] for one in told.values()}
    assert {"Ada L.", "Eva", "Uma", "nobody's"} <= names and "Bob" not in names
    assert len(given) > 10
    shutil.copytree(new, tmp_path / "other")
    shutil.copytree(folder, tmp_path / "before")
    for one in (folder, new):
        with Database(one) as database:
            identities = Identities(database)
            identities.unmerge(bob)
            identities.undo(parted)
    told, _ = individuals(folder)
    assert individuals(new)[0] == told
    assert "Bob" in {one[0] for one in told.values()} and "Uma" not in {one[0] for one in told.values()}
    for one in (tmp_path / "before", tmp_path / "other"):
        with Database(one) as database:
            Identities(database).undo(merged)
    assert individuals(tmp_path / "other")[0] == individuals(tmp_path / "before")[0]


def test_an_export_of_an_earlier_version_comes_in_without_the_log(catalogued, tmp_path):
    main(["export", "--gallery", str(catalogued[0]), str(tmp_path / "e")])
    (tmp_path / "e" / "identity_log.csv").unlink()
    assert main(["import", "--gallery", str(tmp_path / "new"), str(tmp_path / "e")]) == 0
    assert individuals(tmp_path / "new")[0].keys() == individuals(catalogued[0])[0].keys()
