"""A gallery on PostgreSQL is checked, and what is kept for a time only or asked to be erased goes, as from a file."""

import json

import pytest
from sqlalchemy import select, update

from service.fields import Filter
from service.gallery.search import SearchOptions
from service.manage import main
from service.opening import open_gallery
from service.records import Cause, Details, LogPart, Upload
from service.settings import Backend
from service.storage import tables
from service.storage.jobs import Jobs
from service.upkeep.backup import back_up
from service.upkeep.jobs import JobRunner
from service.upkeep.retention import expire_work
from tests.waiting import wait_until

DAY = 86_400_000_000  # microseconds
SAID = {"label": "Berta Secret", "camera": "gate", "attributes": {"note": "limps-secretly"}}


@pytest.fixture
def gallery(checkpoint, tmp_path, shared_url):
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu", Backend(database=shared_url)) as opened:
        yield opened


def rows(database):
    """All that the tables say, but for the model."""
    return repr([database.read(table.select()) for table in tables.metadata.sorted_tables])


def test_it_is_kept_as_one_in_a_file(gallery, picture, shared_url, monkeypatch, capsys):
    monkeypatch.setenv("REID_DATABASE", shared_url)
    command = ["--gallery", str(gallery.folder)]
    uploads = [Upload(f"secret-{n}.png", picture(n), Details(key=f"secret-key-{n}", **SAID)) for n in range(2)]
    uploads += [Upload(f"{n}.png", picture(n), Details(label="ada", camera="yard")) for n in range(2, 5)]
    items = [one.item for one in gallery.enrol(uploads)]
    gallery.query([picture(0)], SearchOptions(), Cause("ada"))

    assert main(["check", *command]) == 0
    gallery.pictures.path(items[4].medium.sha256).write_bytes(b"no picture")
    with gallery.database.transaction() as connection:
        others = select(tables.vectors.c.vector).where(tables.vectors.c.owner_number == items[4].number)
        changed = update(tables.vectors).where(tables.vectors.c.owner_number == items[3].number)
        connection.execute(changed.values(vector=others.scalar_subquery()))
    assert main(["check", "--json", *command]) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["damage"], found["missing"]) == (None, [])
    assert (found["damaged"], found["damaged_vectors"]) == ([items[4].item_id], [items[3].item_id])

    with gallery.database.transaction() as connection:
        earlier = tables.items.c.created_at - 8 * DAY
        connection.execute(
            update(tables.items).where(tables.items.c.number == items[3].number).values(created_at=earlier)
        )
    with JobRunner(Jobs(gallery.database), {"expire": expire_work(gallery, {"yard": 7.0})}) as runner:
        job = runner.start("expire", {}).job_id
        wait_until(lambda: Jobs(gallery.database).get(job).state == "done")
    assert [item.number for item in gallery.store.page(Filter())] == [items[n].number for n in (0, 1, 2, 4)]

    back_up(gallery.database, gallery.pictures, gallery.folder / "backups" / "one", lambda done, total: None)
    words = {"secret-", "Berta", "limps-secretly", *(item.item_id for item in items[:2])}
    words |= {item.medium.sha256 for item in items[:2]}
    assert all(word in rows(gallery.database) for word in words)
    assert main(["erase", *command, *(item.item_id for item in items[:2])]) == 0
    receipt = json.loads(capsys.readouterr().out)
    told = rows(gallery.database)
    assert [word for word in words if word in told] == []
    assert (receipt["gallery"]["items"], receipt["backups"]["one"]["items"], receipt["gallery"]["queries"]) == (2, 2, 1)
    assert "the files and the write-ahead log of the server" in receipt["not_reached"]
    assert gallery.store.operations(LogPart(limit=100))[-1].kind == "gallery.erase"
