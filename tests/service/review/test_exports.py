"""The catalogue as files for other programs, each read back by something else than what wrote it."""

import csv
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest

from service.manage import main
from service.records import Details, Filter, Medium, NewItem, Region
from service.review.deployments import read_deployments, read_length, read_occasions, regular_occasions
from service.review.histories import histories
from service.review.rows import sightings
from service.storage.database import Database
from service.storage.decisions import NewDecision
from service.storage.identities import Identities
from service.storage.models import Models
from service.storage.store import Store

SCHEMAS = (
    Path(__file__).parent / "camtrap_dp"
)  # of version 1.0.2, as published but for descriptions, under the licence there
START = datetime(2025, 3, 1, 6, tzinfo=UTC)


def photos():
    said = [
        ("ada", "gate", 0, None),
        ("ada", "yard", 8, None),
        (None, "gate", 1, None),
        (None, "gate", 15, Region(10, 20, 100, 50)),
        ("Åsa, the old", "yard", 2, None),
        (None, None, 3, None),
        ("ada", "gate", None, None),
        ("ada", "barn", 1, None),
    ]
    for n, (label, camera, day, region) in enumerate(said):
        vector = np.zeros(4, np.float32)
        vector[n % 4] = 1
        time = None if day is None else START + timedelta(days=day)
        details = Details(label=label, camera=camera, captured_at=time, site="north", attributes={"n": n})
        yield NewItem(Medium(f"{n:064x}", 400, 200, f"cam/img {n}.jpg"), vector, details, region)


def fill(folder, photos):
    with Database(folder) as database:
        Models(database).bind("m", 4, {})
        return [one.item.item_id for one in Store(database).enrol(list(photos))]


@pytest.fixture
def folder(tmp_path):
    """A gallery with named and unnamed individuals."""
    ids = fill(tmp_path / "gallery", photos())
    with Database(tmp_path / "gallery") as database:
        Identities(database).decide([NewDecision(ids[2], ids[3], "same")])
    return tmp_path / "gallery"


@pytest.fixture
def deployments(tmp_path):
    path = tmp_path / "deployments.csv"
    path.write_text(
        "camera,latitude,longitude,start,end\n"
        "gate,-28.0,32.1,2025-03-01T00:00:00Z,2025-03-20T00:00:00Z\n"
        "yard,-28.01,32.1,2025-03-01T00:00:00Z,2025-03-10T00:00:00Z\n"
    )
    return path


def write(folder, kind, output, *more):
    assert main(["catalogue", "--gallery", str(folder), "--as", kind, "--output", str(output), *map(str, more)]) == 0
    return output


def read(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def groups(folder):
    """Who is shown with whom, by photo, and under which name."""
    with Database(folder) as database:
        found = {}
        for one in sightings(database, Filter()):
            if one.individual is not None:
                found.setdefault(one.individual, []).append(one.item.medium.sha256)
        return sorted(("" if len(name) == 32 else name, sorted(items)) for name, items in found.items())


@pytest.mark.parametrize(("kind", "more"), [("table", []), ("wildbook", ["--species", "Tragelaphus angasii"])])
def test_a_table_that_was_written_gives_another_gallery_the_same_individuals(folder, tmp_path, kind, more, capsys):
    table = write(folder, kind, tmp_path / "out.csv", *more)
    assert len(read(table)) == 8
    assert table.read_bytes().startswith(b"\xef\xbb\xbf") == (kind == "table"), "Excel needs the mark, Wildbook not"
    assert main(["name", "--gallery", str(folder), str(table)]) == 0
    assert "0 items named" in capsys.readouterr().out, "it is read back into its own gallery without a change"
    other = tmp_path / "other"
    fill(other, (NewItem(one.medium, one.vector, Details(), one.region) for one in photos()))
    assert main(["name", "--gallery", str(other), str(table)]) == 0
    assert groups(other) == groups(folder)
    again = write(other, kind, tmp_path / "again.csv", *more)
    individual = "individual" if kind == "table" else "MarkedIndividual.individualID"
    told = [[row[individual] if len(row[individual]) < 32 else "?" for row in read(path)] for path in (table, again)]
    assert told[0] == told[1]
    with Database(other) as database:
        store = Store(database)
        store.delete([store.page(Filter())[0].item_id])
    assert main(["name", "--gallery", str(other), str(table)]) == 1
    assert "not in the gallery: row 2" in capsys.readouterr().err


def test_the_table_tells_who_decided_and_how_sure_it_is(folder, tmp_path):
    with Database(folder) as database:
        identities, (first, *_, last) = Identities(database), Store(database).page(Filter())
        identities.decide([NewDecision(first.item_id, last.item_id, "same", "machine", actor="machine")])
    rows = read(write(folder, "table", tmp_path / "table.csv"))
    assert [row["name"] for row in rows] == ["ada", "ada", "", "", "Åsa, the old", "", "ada", "ada"]
    assert rows[2]["individual"] == rows[3]["individual"] == rows[2]["identity_id"] != ""
    assert rows[3]["box"] == "10,20,100,50"
    assert (rows[2]["basis"], rows[1]["basis"], rows[5]["basis"]) == ("visual", "import", "")
    assert 0.9 < float(rows[2]["certainty"]) < 1
    assert [row["captured_at"][:10] for row in rows[:2]] == ["2025-03-01", "2025-03-09"]


def test_a_table_with_suggestions_names_nobody_by_them(tmp_path, capsys):
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(8), 6)
    vectors = (random.normal(size=(8, 16))[truth] + 0.4 * random.normal(size=(48, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def gallery(name, labels):
        with Database(tmp_path / name) as database:
            Models(database).bind("m", 16, {})
            shown = zip(vectors, labels, strict=True)
            new = [
                NewItem(Medium(f"{n:064x}", 40, 40, f"{n}.jpg"), vector, Details(label=label))
                for n, (vector, label) in enumerate(shown)
            ]
            Store(database).enrol(new)
        return tmp_path / name

    folder = gallery("gallery", [f"N{who}" if n % 6 < 3 else None for n, who in enumerate(truth)])
    common = ["catalogue", "--gallery", str(folder), "--output", str(tmp_path / "x"), "--likely"]
    assert main(common) == 1 and "no review was started" in capsys.readouterr().err
    assert main([*common, "--as", "wildbook", "--species", "a b"]) == 2
    assert "--likely with --as wildbook: expected --as table" in capsys.readouterr().err
    assert main(["suggest", "--gallery", str(folder), "--error", "0"]) == 0
    plain, table = (write(folder, "table", tmp_path / f"{n}.csv", *more) for n, more in ((0, ()), (1, ["--likely"])))
    rows = read(table)
    assert [row | {"likely": "", "likely_probability": ""} for row in rows] == read(plain)
    told = {n: row["likely"] for n, row in enumerate(rows) if row["likely"]}
    assert len(told) > 12 and all(n % 6 >= 3 for n in told), "those without a name, and no others"
    assert np.mean([who == f"N{truth[n]}" for n, who in told.items()]) > 0.8
    other = gallery("other", [None] * 48)
    assert main(["name", "--gallery", str(other), str(table)]) == 0
    assert groups(other) == groups(folder) != []


def test_a_package_is_valid_under_the_published_schemas(folder, deployments, tmp_path, capsys):
    package = write(
        folder, "camtrap-dp", tmp_path / "package", "--deployments", deployments, "--species", "Tragelaphus angasii"
    )
    assert "3 items left out" in capsys.readouterr().err
    told = json.loads((package / "datapackage.json").read_text())
    profile = json.loads((SCHEMAS / "camtrap-dp-profile.json").read_text())
    profile["allOf"] = [one for one in profile["allOf"] if "$ref" not in one]  # the frame that it stands in
    drop_remote(profile)
    jsonschema_rs.Draft4Validator(profile).validate(told)
    tables = {one["name"]: read(package / one["path"]) for one in told["resources"]}
    for name, rows in tables.items():
        require_valid(rows, json.loads((SCHEMAS / f"{name}-table-schema.json").read_text()))
    assert len(tables["observations"]) == 5
    deployed, filed = (
        {row[f"{one}ID"] for row in tables[of]} for one, of in (("deployment", "deployments"), ("media", "media"))
    )
    for row in tables["observations"]:
        assert row["deploymentID"] in deployed and row["mediaID"] in filed
    shown = [row["individualID"] for row in tables["observations"]]
    assert (shown[:2], shown[4], len({*shown[2:4]})) == (["ada", "ada"], "Åsa, the old", 1)
    boxed = tables["observations"][3]
    assert [float(boxed[f"bbox{side}"]) for side in ("X", "Y", "Width", "Height")] == [0.025, 0.1, 0.25, 0.25]


def drop_remote(schema):
    """Leave out what refers to schemas elsewhere."""
    if isinstance(schema, dict):
        if str(schema.get("$ref", "")).startswith("http"):
            del schema["$ref"]
        for value in schema.values():
            drop_remote(value)
    elif isinstance(schema, list):
        for value in schema:
            drop_remote(value)


def require_valid(rows, schema):
    """Hold rows to a table schema by the words of its specification, each by the plainest way."""
    fields = {field["name"]: field for field in schema["fields"]}
    assert rows and rows[0].keys() <= fields.keys()
    for name, field in fields.items():
        rules = field.get("constraints", {})
        values = [row.get(name, "") for row in rows]
        assert not rules.get("required") or all(values), name
        given = [value for value in values if value]
        assert not rules.get("unique") or len(set(given)) == len(given), name
        for value in given:
            if field["type"] in ("number", "integer"):
                assert rules.get("minimum", -1e9) <= float(value) <= rules.get("maximum", 1e9), (name, value)
            if field["type"] == "datetime":
                datetime.strptime(value, field["format"])
            assert field["type"] != "boolean" or value in ("true", "false")
            assert value in rules.get("enum", [value]), (name, value)
            assert re.search(rules.get("pattern", ""), value), (name, value)


def test_capture_histories_have_who_was_seen_where_in_each_week(folder, deployments, tmp_path, capsys):
    secr = write(folder, "secr", tmp_path / "secr", "--deployments", deployments)
    assert "3 items left out" not in capsys.readouterr().out
    captures = [line.split() for line in (secr / "captures.txt").read_text().splitlines()[1:]]
    with Database(folder) as database:
        unnamed = next(one.individual for one in sightings(database, Filter()) if len(one.individual or "") == 32)
    expected = {("ada", 1, 1), ("ada", 2, 2), (unnamed, 1, 1), (unnamed, 3, 1), ("Åsa,_the_old", 1, 2)}
    assert {(who, int(when), int(where)) for _, who, when, where in captures} == expected
    traps = [line.split() for line in (secr / "traps.txt").read_text().splitlines()[1:]]
    assert [trap[0] for trap in traps] == ["1", "2"]
    assert [float(trap[2]) for trap in traps] == pytest.approx([1112, 0], abs=1)
    assert [trap[4:] for trap in traps] == [["1", "1", "1"], ["1", "1", "0"]]
    rows = read(write(folder, "marked", tmp_path / "marked.csv", "--deployments", deployments))
    assert {row["id"]: row["ch"] for row in rows} == {"ada": "110", unnamed: "101", "Åsa, the old": "100"}


def test_what_cannot_be_written_or_read_is_told(folder, deployments, tmp_path, capsys):
    common = ["catalogue", "--gallery", str(folder), "--output", str(tmp_path / "x")]
    for more, told in [
        (["--as", "wildbook"], "--as wildbook needs --species"),
        (["--as", "secr"], "--as secr needs --deployments"),
        (["--occasion", "soon"], "'soon': expected a length of time such as 7d"),
        (["--only", "colour=red"], "'colour=red': expected FIELD=VALUE with one of"),
    ]:
        assert main([*common, *more]) == 2
        assert told in capsys.readouterr().err
    assert main([*common, "--as", "wildbook", "--species", "nyala"]) == 1
    assert "species 'nyala': expected genus and epithet" in capsys.readouterr().err
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a,b\n1,2\n")
    assert main(["name", "--gallery", str(folder), str(wrong)]) == 1
    assert f"{wrong}: expected the columns item_id, individual and name" in capsys.readouterr().err
    for text, told in [
        ("camera,latitude\n", "no column longitude"),
        ("camera,latitude,longitude,start,end\n", "no row"),
        ("camera,latitude,longitude,start,end\ngate,x,1,2025-01-01,2025-01-02\n", "row 2: could not convert"),
        ("camera,latitude,longitude,start,end\ngate,1,1,2025-01-02,2025-01-01\n", "row 2: expected a camera"),
    ]:
        wrong.write_text(text)
        with pytest.raises(ValueError, match=told):
            read_deployments(wrong)


def test_a_capture_counts_once_in_an_occasion(folder, deployments):
    with Database(folder) as database:
        rows = list(sightings(database, Filter()))
    stood = read_deployments(deployments)
    found = histories([*rows, *rows], stood, regular_occasions(stood, read_length("1w")))
    assert (len(found.captures), found.occasions, found.left_out) == (5, 3, 6)


def test_occasions_come_from_a_table_and_what_lies_between_them_is_left_out(folder, deployments, tmp_path, capsys):
    table = tmp_path / "occasions.csv"
    day = [(START + timedelta(days=n)).isoformat() for n in range(20)]
    table.write_text(f"start,end\n{day[0]},{day[2]}\n{day[8]},{day[9]}\n")
    marked = write(folder, "marked", tmp_path / "m.csv", "--deployments", deployments, "--occasion", str(table))
    assert {row["id"]: row["ch"] for row in read(marked) if len(row["id"]) != 32} == {"ada": "11"}
    secr = write(folder, "secr", tmp_path / "secr", "--deployments", deployments, "--occasion", str(table))
    assert {line.split()[-1] for line in (secr / "traps.txt").read_text().splitlines()[1:]} <= {"0", "1"}
    assert len((secr / "captures.txt").read_text().splitlines()) == 1 + 3
    assert "5 items left out" in capsys.readouterr().err
    for text, told in [
        ("start\n", "no column end"),
        ("start,end\n", "no row"),
        (f"start,end\n{day[2]},{day[1]}\n", "row 2: expected an end after the start"),
        (f"start,end\n{day[0]},{day[2]}\n{day[1]},{day[3]}\n", "row 3: begins before"),
    ]:
        table.write_text(text)
        with pytest.raises(ValueError, match=told):
            read_occasions(table)
