"""The commands of `reid-gallery` that tell who is who."""

import json

import numpy as np
import pytest

from service.manage import main
from service.records import Details, Medium, NewItem
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.storage.models import Models
from service.storage.store import Store


@pytest.fixture
def folder(tmp_path):
    """A gallery of twelve photos of four cameras."""
    with Database(tmp_path / "gallery") as database:
        Models(database).bind("m", 8, {})
        vectors = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        photos = [
            NewItem(Medium(f"{n:064x}", 64, 64, f"{n}.jpg"), vector, Details(camera=f"c{n % 4}"))
            for n, vector in enumerate(vectors)
        ]
        Store(database).enrol(photos)
    return tmp_path / "gallery"


def test_a_review_is_started_where_no_service_runs(folder, capsys):
    assert main(["suggest", "--gallery", str(folder), "--only", "cameras=c0", "--only", "cameras=c1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"] == 6
    assert main(["suggest", "--gallery", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("12 groups; about ")
    with Database(folder) as database:
        job = Jobs(database).last_done("suggest")
    assert (job.parameters["filter"], job.result["groups"]) == ({}, 12)


@pytest.mark.parametrize(
    ("wanted", "code", "told"),
    [
        (["--error", "2"], 2, "error 2: expected a number from 0 to 0.99"),
        (["--neighbours", "0"], 2, "neighbours 0: expected a number from 1 to 200"),
        (["--only", "cameras"], 2, "'cameras': expected FIELD=VALUE"),
        (["--only", "cameras=elsewhere"], 1, "no item passes the filter"),
    ],
)
def test_a_review_that_cannot_be_started_is_told(folder, capsys, wanted, code, told):
    assert main(["suggest", "--gallery", str(folder), *wanted]) == code
    assert told in capsys.readouterr().err
    assert main(["suggest", "--gallery", str(folder), "--json"]) == 0, "another one can be"


def test_the_catalogue_is_written_while_another_process_has_the_gallery(folder, tmp_path, capsys):
    with Database(folder):
        assert main(["catalogue", "--gallery", str(folder), "--output", str(tmp_path / "table.csv")]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'table.csv'}: 12 rows\n"
        assert main(["suggest", "--gallery", str(folder)]) == 1
        assert "another process has this gallery open; if that is the service, use its API" in capsys.readouterr().err
