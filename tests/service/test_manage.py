"""The command that looks after a gallery."""

import json
import subprocess
import sys

import pytest
import torch

from reid.config import ReidConfig
from reid.inference.checkpoint import load_model, save_model
from service.gallery.search import SearchOptions
from service.manage import main
from service.opening import open_gallery
from service.records import Cause, Details, Filter, NewKey, Upload
from service.storage.database import Database
from service.storage.keys import Keys
from service.storage.store import Store
from tests.waiting import wait_until


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "gallery"


@pytest.fixture
def keys(folder, capsys):
    """A function that runs `reid-gallery keys`, and returns its exit code and what it prints."""

    def run(action, *arguments):
        code = main(["keys", action, "--gallery", str(folder), *arguments])
        return code, *capsys.readouterr()

    return run


def test_the_first_key_makes_the_gallery_and_its_secret_stands_alone(folder, keys):
    code, out, err = keys(
        "add", "gate 3", "--scope", "write", "--camera", "north", "--camera", "it's", "--requests-per-minute", "90"
    )
    assert code == 0
    secret = out.removesuffix("\n")
    with Database(folder) as database:
        key = Keys(database).find(secret)
        assert (key.name, key.scopes, key.cameras) == ("gate 3", {"read", "write"}, {"north", "it's"})
        assert key.requests_per_minute == 90
        (made,) = Store(database).operations()
        assert Cause(made.actor, made.request_id) == Cause("reid-gallery")
    assert key.key_id in err and secret not in err
    assert keys("list") == (0, err, "")


def test_read_is_the_scope_of_a_key_that_is_given_none(folder, keys):
    _, secret, _ = keys("add", "k")
    with Database(folder) as database:
        assert Keys(database).find(secret.strip()).scopes == {"read"}


def test_a_key_is_revoked_by_its_id(folder, keys):
    _, secret, line = keys("add", "k")
    key_id = line.split()[0]
    assert keys("revoke", key_id) == (0, "", "")
    with Database(folder) as database:
        assert Keys(database).find(secret.strip()) is None
    assert ", revoked 2" in keys("list")[1]
    assert keys("revoke", "other") == (1, "", f"reid-gallery: error: {folder}: no key 'other'\n")


@pytest.mark.parametrize("arguments", [("list",), ("revoke", "x")])
def test_only_adding_makes_a_gallery(folder, keys, arguments):
    code, out, err = keys(*arguments)
    assert (code, out) == (1, "")
    assert err == f"reid-gallery: error: {folder}: no gallery, for there is no gallery.db in it\n"
    assert not folder.exists()


def test_keys_are_made_listed_and_revoked_while_the_service_runs(folder, keys):
    with Database(folder) as database:
        served = Keys(database)
        _, secret, line = keys("add", "k")
        key_id = line.split()[0]
        wait_until(lambda: served.find(secret.strip()), "the service does not take the key")
        assert keys("list") == (0, line, "")
        assert keys("revoke", key_id) == (0, "", "")
        wait_until(lambda: served.find(secret.strip()) is None, "the service takes the key that was revoked")
        assert [entry.kind for entry in Store(database).operations()] == ["key.create", "key.revoke"]
        another, _ = served.add(NewKey("made by the service", frozenset({"read"})))
        assert another.key_id in keys("list")[1]


def test_wrong_arguments_are_told_before_anything_is_made(folder, keys):
    code, out, err = keys("add", "k", "--scope", "admin", "--camera", "north")
    assert (code, out) == (2, "")
    assert "a key with scope 'admin' cannot be limited to cameras" in err and err.count("\n") == 1
    assert keys("add", "a\nb")[0] == 2
    with pytest.raises(SystemExit):
        keys("add", "k", "--scope", "root")
    assert not folder.exists()


def test_a_folder_of_other_things_is_not_made_a_gallery(folder, keys):
    folder.mkdir()
    (folder / "diary.txt").write_text("dear diary")
    code, _, err = keys("add", "k")
    assert code == 1 and "holds files but no gallery.db" in err
    assert [path.name for path in folder.iterdir()] == ["diary.txt"]


@pytest.fixture
def manage(folder, capsys):
    """A function that runs another command of `reid-gallery`, and returns its exit code and what it prints."""

    def run(action, *arguments):
        code = main([action, "--gallery", str(folder), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def filled(gallery, folder, picture):
    """A gallery of five photos, closed again."""
    gallery.enrol([Upload(f"{n}.png", picture(n), Details(camera=f"c{n % 2}", label="ada")) for n in range(5)])
    gallery.close()
    return folder


def test_a_backup_is_a_gallery(filled, manage, tmp_path):
    target = tmp_path / "backups" / "first"
    code, out, err = manage("backup", target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    assert (code, out, err) == (0, f"{target}: 5 items, {size:,} bytes\n", "")
    with Database(target) as copy:
        assert Store(copy).count(Filter()) == 5
    assert manage("backup", target)[::2] == (
        1,
        f"reid-gallery: error: {target}: is there already; expected a new folder\n",
    )


def test_a_gallery_moves_to_postgresql(filled, checkpoint, picture, shared_url, tmp_path, monkeypatch, capsys):
    target = tmp_path / "shared"
    monkeypatch.setenv("REID_DATABASE", shared_url)
    command = ["restore", "--gallery", str(target), str(filled)]
    assert (main(command), *capsys.readouterr()) == (0, f"{target}: 5 items\n", "")
    with open_gallery(target, checkpoint, "cpu") as gallery:
        assert gallery.query([picture(3)], SearchOptions()).matches[0].item.medium.source == "3.png"
    code, out, err = main(command), *capsys.readouterr()
    assert (code, out) == (1, "")
    assert err.endswith("already; expected a new or empty gallery\n")


def test_a_backup_is_restored_to_a_folder(filled, manage, tmp_path):
    assert manage("backup", tmp_path / "backup")[0] == 0
    target = tmp_path / "restored"
    assert main(["restore", "--gallery", str(target), str(tmp_path / "backup")]) == 0
    with Database(target) as copy:
        assert Store(copy).count(Filter()) == 5


def test_what_cannot_be_restored_is_one_line(filled, manage, tmp_path):
    nowhere = tmp_path / "nowhere"
    message = f"{nowhere}: no gallery, for there is no gallery.db in it"
    assert manage("restore", nowhere) == (1, "", f"reid-gallery: error: {message}\n")
    assert not nowhere.exists()
    code, out, err = manage("restore", filled)
    assert (code, out) == (2, "")
    assert f"{filled} is both the source and --gallery; expected a new folder" in err


def test_a_gallery_is_given_to_another_model(filled, manage, checkpoint, tmp_path, picture):
    model, described = load_model(checkpoint, ReidConfig)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    (tmp_path / "run").mkdir()
    save_model(tmp_path / "run" / "model.safetensors", model, described)
    code, out, err = manage("reindex", "--checkpoint", tmp_path / "run", "--device", "cpu")
    with open_gallery(filled, tmp_path / "run", "cpu") as gallery:
        assert (code, out, err) == (0, f"{filled}: 5 items of model {gallery.model_id}\n", "")
        assert gallery.query([picture(3)], SearchOptions()).matches[0].item.medium.source == "3.png"
        assert gallery.store.operations()[-1].actor == "reid-gallery"


def test_a_sweep_removes_what_no_item_has_and_nothing_else(filled, manage):
    """Also after a newer database was put back, and before the next start."""
    pictures = filled / "pictures"
    aside = pictures / "orphans" / "2026-01-31"
    aside.mkdir(parents=True)
    mine = next(pictures.glob("??/*.webp"))
    data = mine.read_bytes()
    mine.rename(aside / mine.name)
    (aside / f"{'0' * 64}.webp").write_bytes(b"1234")
    assert manage("sweep") == (0, f"{filled}: 1 picture removed, 4 bytes\n", "")
    assert mine.read_bytes() == data
    assert not aside.exists()


def test_a_check_names_what_is_lost_or_damaged_also_beside_a_service(filled, manage):
    with Database(filled):  # which holds it
        assert manage("check") == (0, f"{filled}: 5 pictures and 5 vectors read\nall are whole\n", "")
        lost, damaged = sorted((filled / "pictures").glob("??/*.webp"))[:2]
        lost.unlink()
        damaged.write_bytes(damaged.read_bytes()[:-1])
        code, out, _ = manage("check")
        assert code == 1 and "1 item has no picture; enrolling" in out and "1 item has a damaged picture" in out
        code, out, _ = manage("check", "--json")
        found = json.loads(out)
        assert (code, found["photos"], len(found["missing"]), len(found["damaged"])) == (1, 5, 1, 1)


def test_info_tells_what_is_there(filled, manage, checkpoint):
    with open_gallery(filled, checkpoint, "cpu") as gallery:
        model = f'model {gallery.model_id}: embedding size {gallery.embedder.size}, {{"features": '
    code, out, err = manage("info")
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first == "5 items of 2 cameras and 1 label"
    assert second.startswith(model)


def test_info_while_the_service_runs(filled, manage):
    with Database(filled):
        assert manage("info")[1].startswith("5 items")


def test_info_on_a_read_only_disk(filled, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount --bind {filled.parent} {disk} && mount -o remount,ro,bind {disk}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    command = f"{mount} && exec {sys.executable} -m service.manage info --gallery {disk / filled.name}"
    ended = subprocess.run(["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("5 items of 2 cameras")


def test_info_on_a_gallery_without_model(folder, manage):
    Database(folder).close()
    assert manage("info") == (0, "0 items of 0 cameras and 0 labels\nno model yet\n", "")


@pytest.mark.parametrize("arguments", [("sweep",), ("backup", "target"), ("reindex", "--checkpoint", "run")])
def test_no_gallery_and_one_in_use_are_one_line(folder, manage, arguments):
    assert manage(*arguments) == (
        1,
        "",
        f"reid-gallery: error: {folder}: no gallery, for there is no gallery.db in it\n",
    )
    with Database(folder):
        code, out, err = manage(*arguments)
    assert (code, out) == (1, "")
    assert "another process has this gallery open; if that is the service, use its API" in err
