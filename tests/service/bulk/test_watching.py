"""Folders that are watched: each photo once, when it is written, whatever happens meanwhile."""

import os
import re
import signal
import threading

import httpx2
import pytest

from reid.data.tables import AS_IT_IS
from service.bulk import watching
from service.bulk.sources import source_of
from service.bulk.watching import SECONDS_SETTLED, Watched, watch
from service.fields import Filter
from service.gallery.batcher import Busy
from service.opening import open_gallery
from tests.waiting import DEADLINE, wait_until


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@pytest.fixture
def watched(folder):
    return Watched([source_of(folder, AS_IT_IS)])


def names(photos):
    return [photo.name for photo in photos]


def test_a_photo_is_new_once_when_it_has_not_changed_for_a_while(watched, folder, picture):
    assert watched.new(0) == []
    data = picture(1)
    (folder / "a.png").write_bytes(data[:100])
    assert watched.new(10) == []
    (folder / "a.png").write_bytes(data)
    os.utime(folder / "a.png", ns=(1, 1))  # a copy that keeps the time of the original
    assert watched.new(20) == []
    assert watched.new(20 + SECONDS_SETTLED - 0.1) == []
    found = watched.new(20 + SECONDS_SETTLED)
    assert names(found) == ["a.png"]
    assert names(watched.new(30)) == ["a.png"]  # until it is done
    watched.done(found)
    assert watched.new(40) == []


def test_what_changes_or_comes_again_is_new_again(watched, folder, picture):
    path = folder / "sub" / "a.png"
    path.parent.mkdir()
    for time, number in ((0, 1), (100, 2)):
        path.write_bytes(picture(number, 20 + number))
        assert watched.new(time) == []
        found = watched.new(time + 50)
        assert names(found) == ["sub/a.png"]
        watched.done(found)
    path.unlink()
    assert watched.new(200) == []
    path.write_bytes(picture(2, 22))
    assert (watched.new(210), names(watched.new(300))) == ([], ["sub/a.png"])


def run(gallery, folder, looks, between=lambda look: None):
    """Watch for some looks, with a clock in which files are settled from one to the next."""
    stop, look = threading.Event(), 0

    def clock():
        nonlocal look
        look += 1
        between(look)
        if look == looks:
            stop.set()
        return 100.0 * look

    watch(gallery, [source_of(folder, AS_IT_IS)], stop, clock=clock)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(watching, "SECONDS_BETWEEN_LOOKS", 0)


def test_photos_are_enrolled_as_they_come_and_what_is_none_is_named_once(gallery, folder, picture, caplog):
    def come(look):
        (folder / f"{look}.png").write_bytes(picture(look))

    (folder / "broken.png").write_bytes(b"\x89PNG")
    run(gallery, folder, 5, come)
    there = [item.medium.source for item in gallery.store.page(Filter(), 0, 10)]
    assert there == ["1.png", "2.png", "3.png"]  # the fourth was there for one look alone
    assert [line.partition(":")[0] for line in caplog.messages if "broken" in line] == ["broken.png"]


def test_a_restart_loses_nothing_and_repeats_nothing(checkpoint, tmp_path, folder, picture):
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(number))
    for looks, more in ((2, 4), (3, 5), (3, 6)):
        with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
            run(gallery, folder, looks)
            (folder / f"{more}.png").write_bytes(picture(more))
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        run(gallery, folder, 3)
        items = gallery.store.page(Filter(), 0, 100)
        assert sorted(item.medium.source for item in items) == [f"{number}.png" for number in range(7)]
        gallery.delete([items[0].item_id])
        run(gallery, folder, 3)
        assert gallery.store.count(Filter()) == 6  # what was deleted stays out


def test_what_cannot_be_taken_now_is_taken_later(gallery, folder, picture, monkeypatch, caplog):
    for number in range(3):
        (folder / f"{number}.png").write_bytes(picture(number))
    enrol, asked = watching.enrol, 0

    def refuse_first(*given, **named):
        nonlocal asked
        asked += 1
        if asked < 4:
            raise Busy("256 jobs are waiting", 1) if asked < 3 else OSError("no space left on the disk")
        return enrol(*given, **named)

    monkeypatch.setattr(watching, "enrol", refuse_first)
    run(gallery, folder, 7)
    assert gallery.store.count(Filter()) == 3
    assert len([line for line in caplog.messages if "is enrolled later" in line]) == 2  # one of a kind


@pytest.mark.slow
def test_a_fault_does_not_end_the_watching(gallery, folder, picture, monkeypatch, caplog):
    monkeypatch.setattr(watching, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(watching, "SECONDS_SETTLED", 0)
    (folder / "a.png").write_bytes(picture(1))
    enrol, stop, faults = watching.enrol, threading.Event(), [RuntimeError("a decoder failed")]

    def enrol_at_last(*arguments, **options):
        if faults:
            raise faults.pop()
        stop.set()
        return enrol(*arguments, **options)

    monkeypatch.setattr(watching, "enrol", enrol_at_last)
    watch(gallery, [source_of(folder, AS_IT_IS)], stop)
    assert gallery.store.count(Filter()) == 1
    assert "watching: 1 file is tried again later" in caplog.text and "a decoder failed" in caplog.text


def test_a_folder_that_cannot_be_read_is_told_once(watched, folder, picture, caplog):
    for time in range(3):
        assert watched.new(time) == []
    assert caplog.messages == [f"warning: watching: {folder}: no image in it"]
    (folder / "a.png").write_bytes(picture(1))
    watched.new(10)
    (folder / "a.png").unlink()
    watched.new(20)
    assert len(caplog.messages) == 2


@pytest.mark.slow
def test_by_the_command_and_by_the_service(command, serve, folder, picture, tmp_path):
    process = command("service.enrol", "--watch", str(folder))
    (folder / "a.png").write_bytes(picture(1))
    until(process.stderr, "1 enrolled")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    process, address = serve("--watch", str(folder))
    (folder / "b.png").write_bytes(picture(2))
    wait_until(lambda: httpx2.get(f"{address}/health/ready", timeout=DEADLINE).json().get("items") == 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


def until(lines, text):
    for line in lines:
        if re.search(text, line):
            return
    pytest.fail("the command ended")
