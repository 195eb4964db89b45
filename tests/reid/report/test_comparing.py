import csv
import json

import numpy as np
import pytest

from reid.compare import main

SECTIONS = ["numbers", "cmc", "protocol"]


def evaluation(path, shift=0.0, **protocol):
    """A file of `reid-eval --json`, as far as a comparison reads it."""
    random = np.random.default_rng(0)
    precision = np.clip(random.uniform(0.2, 0.7, 40) + shift, 0, 1)
    per_query = {
        "query": [f"{number}.jpg" for number in range(40)],
        "identity": [number // 2 for number in range(40)],
        "average_precision": precision.tolist(),
        "inverse_negative_penalty": (precision / 2).tolist(),
        "first_hit": np.maximum(1, random.integers(1, 12, 40) - 20 * shift).tolist(),
    }
    values = {
        "model": "DCAL on vit_toy",
        "gallery": 300,
        "protocol": {"dataset": "msmt17", "version": "v1", **protocol},
        "per_query": per_query,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))
    return str(path)


@pytest.fixture
def files(tmp_path):
    return [evaluation(tmp_path / f"{name}.json", shift) for name, shift in (("baseline", 0), ("<b>", 0.1))]


def test_all_curves_and_differences_are_on_one_page(files, tmp_path, page_of, capsys):
    folder = tmp_path / "page"
    assert main([*files, "--report", str(folder), "--resamples", "200"]) == 0
    assert str(folder / "index.html") in capsys.readouterr().err
    parsed = page_of(folder / "index.html")
    assert [attributes["id"] for attributes in parsed.attributes("section")] == SECTIONS
    assert "baseline, <b>: compared on msmt17 v1" in parsed.text
    assert "40 queries of 20 identities" in parsed.text
    assert "higher" in parsed.text
    assert parsed.text.count("DCAL on vit_toy") == 2
    assert len(parsed.attributes("img")) == 1
    linked = {a["href"] for a in parsed.attributes("a") if a["href"][0] != "#"}
    assert {file.name for file in folder.iterdir()} == {"index.html", *linked}
    with open(folder / "cmc.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert {"rank", "baseline", "baseline low", "baseline high", "<b>"} <= set(rows[0])
    with open(folder / "differences.csv") as file:
        found = {row["figure"]: row for row in csv.DictReader(file)}
    assert float(found["mAP"]["difference low"]) > 0


@pytest.mark.usefixtures("drawn_once")
def test_files_of_one_name_go_by_their_paths_and_protocols_that_differ_are_told(tmp_path, page_of):
    files = [evaluation(tmp_path / name / "x.json", junk=junk) for name, junk in (("a", "camera"), ("b", "none"))]
    assert main([*files, "--report", str(tmp_path / "page"), "--resamples", "20"]) == 0
    text = page_of(tmp_path / "page" / "index.html").text
    assert all(file in text for file in files)
    assert "may not be comparable" in text


@pytest.mark.browser
def test_a_browser_shows_it_without_network(files, tmp_path, shown_offline):
    assert main([*files, "--report", str(tmp_path / "page"), "--resamples", "20"]) == 0
    shown_offline(tmp_path / "page" / "index.html")
