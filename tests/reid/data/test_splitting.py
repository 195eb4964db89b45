import csv
import random
import shutil
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from reid.data.check import count_unmatched
from reid.data.datasets import load_dataset
from reid.data.splitting import split_table
from reid.data.tables import AS_IT_IS, Reading
from reid.datacheck import main

TABLES = Path(__file__).parent / "tables"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twenty animals at three cameras, in bursts of up to three photos 20 seconds apart."""
    generator = random.Random(1)
    rows = []
    for animal in range(20):
        for visit in range(1 if animal == 0 else 6):
            time = datetime(2026, 1, 1) + timedelta(hours=generator.randrange(2000))
            camera = f"c{generator.randrange(3)}"
            for photo in range(generator.randrange(1, 4)):
                at = (time + timedelta(seconds=20 * photo)).isoformat()
                rows.append((f"{animal}-{visit}-{photo}.jpg", f"animal {animal}", camera, at, "left, then right"))
    rows.append(("nobody.jpg", "unknown", "c1", "", ""))
    for path, *_ in rows:
        Image.new("RGB", (4, 4)).save(tmp_path / path)
    with (tmp_path / "photos.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([("Image", "Animal ID", "Camera", "Date", "flank"), *rows])
    return tmp_path / "photos.csv"


def written(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["Image"]: row for row in csv.DictReader(file)}


def test_identities_are_apart_queries_latest_and_bursts_together(table: Path) -> None:
    output = table.with_name("split.csv")
    told = split_table(table, output, AS_IT_IS, seed=3)
    rows = written(output)
    splits = defaultdict(set)
    for row in rows.values():
        splits[row["Animal ID"]].add(row["split"])
    trained = {name for name, found in splits.items() if "train" in found}
    assert all(splits[name] == {"train"} for name in trained)
    assert len(trained) == 14
    assert splits["unknown"] == {"gallery"}
    held_out = [name for name in splits if name not in trained and name != "unknown"]
    for name in held_out:
        own = [row for row in rows.values() if row["Animal ID"] == name]
        visits: dict[str, set[str]] = defaultdict(set)
        for row in own:
            visits[row["Image"].rsplit("-", 1)[0]].add(row["split"])
        assert all(len(found) == 1 for found in visits.values())
    assert {row["flank"] for row in rows.values()} == {"left, then right", ""}
    dataset = load_dataset("csv", output)
    assert {dataset.identity_names[sample.identity] for sample in dataset.query} == {
        name for name in held_out if name != "animal 0"
    }
    assert count_unmatched(dataset.query, dataset.gallery) == 0
    assert f"{len(dataset.train)} photos of 14 identities to train on; {len(dataset.query)} queries and" in told
    assert "nobody known (1)" in told


def test_queries_come_last_where_every_camera_is_another(tmp_path: Path) -> None:
    rows = [f"{animal}-{day}.jpg,{animal},c{day},2026-01-0{9 - day}" for animal in range(9) for day in range(1, 7)]
    for row in rows:
        (tmp_path / row.split(",")[0]).touch()
    (tmp_path / "t.csv").write_text("path,identity,camera,captured_at\n" + "\n".join(rows) + "\n")
    split_table(tmp_path / "t.csv", tmp_path / "out.csv", AS_IT_IS)
    dataset = load_dataset("csv", tmp_path / "out.csv")
    assert {sample.path.stem.split("-")[1] for sample in dataset.query} == {"1", "2"}  # the latest third
    assert len(dataset.query) == 2 * 3


def test_the_same_seed_gives_the_same_split_whatever_the_order(table: Path) -> None:
    head, *rows = table.read_text().splitlines()
    shuffled = table.with_name("shuffled.csv")
    shuffled.write_text("\n".join([head, *random.Random(5).sample(rows, len(rows))]) + "\n")
    found = []
    for source, seed in ((table, 0), (shuffled, 0), (table, 1)):
        output = table.with_name(f"{source.stem}-{seed}.csv")
        split_table(source, output, AS_IT_IS, seed)
        found.append({name: row["split"] for name, row in written(output).items()})
    assert found[0] == found[1] != found[2]


def test_days_without_hours_split_the_same_whatever_the_order_and_unread_times_are_told(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{n // 12},c{n % 3},2026-01-0{1 + n % 12 // 6}" for n in range(108)]
    rows.append("108.jpg,8,c1,soon")
    found = []
    for name, order in (("a", rows), ("b", random.Random(5).sample(rows, len(rows)))):
        source = tmp_path / f"{name}.csv"
        source.write_text("Image,identity,camera,captured_at\n" + "\n".join(order) + "\n")
        told = split_table(source, tmp_path / f"{name}-split.csv", AS_IT_IS)
        assert told.endswith("; 1 time cannot be read, taken for none, such as 'soon'")
        found.append({image: row["split"] for image, row in written(tmp_path / f"{name}-split.csv").items()})
    assert found[0] == found[1]


def test_a_table_without_times_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(24):
        (tmp_path / f"p{number:02}.jpg").touch()
    shutil.copy(TABLES / "no_split.csv", tmp_path)
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "split.csv"  # paths are relative to it
    assert main(["split", str(tmp_path / "no_split.csv"), "--output", str(output)]) == 0
    assert "18 photos of 6 identities to train on; 2 queries and 4 gallery photos of 2 others; drawn, seed 0" in (
        capsys.readouterr().out
    )
    dataset = load_dataset("csv", output)
    assert count_unmatched(dataset.query, dataset.gallery) == 0
    assert main(["split", str(tmp_path / "no_split.csv"), "--output", str(output)]) == 1
    assert "is there already; choose another --output" in capsys.readouterr().err
    assert main(["split", str(output)]) == 1
    assert "has a split already, in column 'split'; --columns split= makes another" in capsys.readouterr().err
    assert main(["split", str(output), "--columns", "split="]) == 0
    assert len(load_dataset("csv", tmp_path / "out" / "split-split.csv").train) == 18


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.jpg,1,0\nb.jpg,1,1\nc.jpg,2,0\n", "2 identities, of which 1 seen on two occasions"),
        ("a.jpg,1,0\nb.jpg,1,0\nc.jpg,2,0\nd.jpg,3,1\n", "3 identities, of which 0 seen on two occasions"),
    ],
)
def test_tables_that_cannot_be_split(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "t.csv").write_text("path,identity,camera\n" + rows)
    with pytest.raises(ValueError, match=message):
        split_table(tmp_path / "t.csv", tmp_path / "out.csv", Reading())
    assert not (tmp_path / "out.csv").exists()
