import json
from pathlib import Path

import numpy as np
import pytest

from reid.compare import main
from reid.evaluation.comparison import compare

PROTOCOL = {"dataset": "msmt17", "version": "v1", "junk": "camera", "features": "concat", "rerank": None}


def evaluation(path, precision, first_hit, *, gallery=500, queries=None, **protocol):
    """A file of `reid-eval --json`, as far as a comparison reads it; the penalty is half the precision."""
    precision = np.asarray(precision, float)
    each = 2 if precision.shape[-1] > 10 else 1  # queries of an identity

    def nullable(values):
        return [nullable(value) if isinstance(value, list) else None if np.isnan(value) else value for value in values]

    per_query = {
        "query": queries or [f"q/{number}.jpg" for number in range(precision.shape[-1])],
        "identity": [number // each for number in range(precision.shape[-1])],
        "average_precision": nullable(precision.tolist()),
        "inverse_negative_penalty": nullable((precision / 2).tolist()),
        "first_hit": nullable(np.asarray(first_hit, float).tolist()),
    }
    values = {"mAP": 0.5, "gallery": gallery, "protocol": {**PROTOCOL, **protocol}, "per_query": per_query}
    path.write_text(json.dumps(values))
    return str(path)


@pytest.fixture
def two(tmp_path):
    """A baseline and an evaluation with clearly higher mAP and the same Rank-1; query 3 is skipped in both."""
    rng = np.random.default_rng(0)
    precision, hits = rng.uniform(0.2, 0.8, 60), rng.integers(1, 13, 60).astype(float)
    precision[3] = hits[3] = np.nan
    better = precision + rng.normal(0.05, 0.02, 60)
    return evaluation(tmp_path / "a.json", precision, hits), evaluation(tmp_path / "b.json", better, hits)


def test_figures_and_differences_are_those_of_the_queries(two):
    comparison = compare(two, resamples=500)
    assert (comparison.queries, comparison.queries_skipped) == (59, 1)
    a, b = (json.loads(Path(path).read_text())["per_query"] for path in two)
    scored = [q for q in range(60) if q != 3]
    for name, key in (("mAP", "average_precision"), ("mINP", "inverse_negative_penalty")):
        one, other = np.array(a[key], float)[scored], np.array(b[key], float)[scored]
        assert comparison.means[name] == pytest.approx((one.mean(), other.mean()))
        assert comparison.differences[name][0].mean == pytest.approx(np.mean(other - one))
    for k in (1, 5, 10):
        share = sum(a["first_hit"][q] <= k for q in scored) / 59
        assert comparison.means[f"Rank-{k}"] == pytest.approx((share, share))
        assert comparison.differences[f"Rank-{k}"][0].mean == 0
    assert comparison.differences["mAP"][0].low > 0


def test_the_table_tells_a_gain_from_noise(two, capsys):
    assert main([*two, "--resamples", "300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "59 queries of 30 identities (1 skipped: no valid match); 95 % intervals from 300 resamples"
    )
    assert lines[1] == f"baseline: {two[0]}"
    (gain,) = (line for line in lines if line.startswith("  mAP"))
    assert gain.endswith("higher")
    (rank,) = (line for line in lines if line.startswith("  Rank-1 "))
    assert rank.endswith("[+0.00, +0.00]    within noise")
    assert not any("warning" in line for line in lines)

    assert main([two[1], two[0], "--resamples", "300"]) == 0
    assert "lower" in capsys.readouterr().out


def test_json_holds_everything(two, tmp_path, capsys):
    assert main([*two, "--resamples", "200", "--confidence", "0.9", "--seed", "3", "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["resamples"], printed["confidence"], printed["seed"]) == (200, 0.9, 3)
    assert set(printed["differences"]["mAP"][0]) == {"mean", "low", "high", "p_value"}
    file = tmp_path / "comparison.json"
    assert main([*two, "--resamples", "200", "--confidence", "0.9", "--seed", "3", "--json", str(file)]) == 0
    assert json.loads(file.read_text()) == printed
    assert "mAP" in capsys.readouterr().out


def test_several_are_compared_with_the_first(two, tmp_path, capsys):
    rng = np.random.default_rng(1)
    precision = np.insert(rng.uniform(0.2, 0.8, 59), 3, np.nan)
    third = evaluation(tmp_path / "c.json", precision, np.where(np.isnan(precision), np.nan, 1.0))
    comparison = compare([*two, third], resamples=200)
    assert comparison.files == (*two, third)
    assert len(comparison.differences["Rank-1"]) == 2
    assert comparison.means["Rank-1"][2] == 1
    assert comparison.differences["mAP"][0] == compare(two, resamples=200).differences["mAP"][0]
    assert main([*two, third, "--resamples", "200"]) == 0
    assert capsys.readouterr().out.count("against the baseline") == 2


def test_a_query_counts_in_every_draw(tmp_path):
    draws = [[0.2, 0.4, np.nan], [0.6, np.nan, np.nan]]
    hits = [[1, 7, np.nan], [2, np.nan, np.nan]]
    one = evaluation(tmp_path / "a.json", draws, hits)
    other = evaluation(
        tmp_path / "b.json", [[0.5, 0.5, np.nan], [0.5, np.nan, np.nan]], [[1, 1, np.nan], [1, np.nan, np.nan]]
    )
    comparison = compare([one, other], resamples=10)
    assert (comparison.queries, comparison.queries_skipped) == (2, 1)
    assert comparison.means["mAP"] == pytest.approx((0.4, 0.5))
    assert comparison.means["Rank-1"] == pytest.approx((1 / 3, 1))
    assert comparison.means["Rank-10"] == (1, 1)
    fewer = evaluation(tmp_path / "c.json", [[0.5, 0.5, np.nan]], [[1, 1, np.nan]])
    with pytest.raises(ValueError, match="2 and 1 draws; expected the same"):
        compare([one, fewer])


def test_rows_in_another_order_are_noticed_by_their_identities(tmp_path):
    files = [evaluation(tmp_path / f"{name}.json", [0.1, 0.2], [1, 2], queries=["row 0", "row 1"]) for name in "ab"]
    stored = json.loads(Path(files[1]).read_text())
    stored["per_query"]["identity"].reverse()
    Path(files[1]).write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="2 queries show other identities, the first is 'row 0'"):
        compare(files)


def test_different_protocols_are_named(tmp_path, capsys):
    hits = [1, 2, 3, 4]
    one = evaluation(tmp_path / "a.json", [0.1, 0.2, 0.3, 0.4], hits)
    other = evaluation(tmp_path / "b.json", [0.2, 0.2, 0.3, 0.4], hits, gallery=400, rerank={"k1": 20}, new=1)
    assert compare([one, other], resamples=10).protocol_differences == {
        "rerank": (None, {"k1": 20}),
        "gallery images": (500, 400),
        "new": (None, 1),
    }
    assert main([one, other, "--resamples", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'warning: protocols differ in rerank: null, {"k1": 20}' in lines
    assert "warning: protocols differ in gallery images: 500, 400" in lines


def refused(arguments, capsys):
    """The one line on standard error, and the exit code."""
    code = main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return code, line.removeprefix("reid-eval compare: error: ")


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (
            ["q/0.jpg", "q/9.jpg", "q/2.jpg"],
            "of 3 and 3 queries number 1 (from 0) is the first to differ, 'q/1.jpg' and",
        ),
        (
            ["q/0.jpg", "q/1.jpg"],
            "of 3 and 2 queries number 2 (from 0) is the first to differ, 'q/2.jpg' and 'missing'",
        ),
        ([0, 1, 2], "number 0 (from 0) is the first to differ, 'q/0.jpg' and 0;"),
    ],
)
def test_different_queries_are_refused(tmp_path, capsys, queries, message):
    one = evaluation(tmp_path / "a.json", [0.1, 0.2, 0.3], [1, 2, 3])
    other = evaluation(tmp_path / "b.json", [0.1] * len(queries), [1] * len(queries), queries=queries)
    code, line = refused([one, other], capsys)
    assert code == 1
    assert line.startswith(f"{one} and {other}: ")
    assert message in line


def test_queries_skipped_in_one_only_are_refused(tmp_path, capsys):
    one = evaluation(tmp_path / "a.json", [0.1, 0.2, 0.3], [1, 2, 3])
    other = evaluation(tmp_path / "b.json", [0.1, np.nan, 0.3], [1, np.nan, 3])
    code, line = refused([one, other], capsys)
    assert code == 1
    assert "1 query is skipped in one of them only, the first is 'q/1.jpg'" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        ("3", "not a file of reid-eval --json"),
        ('{"epoch": 3}', "not a file of reid-eval --json"),
        ("[{}, {}]", "holds 2 datasets; expected one"),
        ('{"protocol": {}}', "has no values a query (per_query); evaluate again"),
        ('{"protocol": {}, "per_query": {"query": []}}', "per_query is damaged (KeyError: 'identity')"),
        ('{"protocol": {}, "per_query": 7}', "per_query is damaged (TypeError"),
    ],
)
def test_what_is_no_evaluation_is_refused(two, tmp_path, capsys, content, message):
    path = tmp_path / "other.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, line = refused([two[0], str(path)], capsys)
    assert code == 1
    assert line.startswith(f"evaluation {path}: ")
    assert message in line


@pytest.mark.parametrize("values", [[0.1], ["a", "b"], [[0.1, 0.2], [0.3]], [[[0.1, 0.2]]], {"a": 1}])
def test_damaged_values_are_refused(tmp_path, capsys, values):
    paths = [evaluation(tmp_path / name, [0.1, 0.2], [1, 2]) for name in ("a.json", "b.json")]
    stored = json.loads((tmp_path / "b.json").read_text())
    stored["per_query"]["average_precision"] = values
    (tmp_path / "b.json").write_text(json.dumps(stored))
    code, line = refused(paths, capsys)
    assert code == 1
    assert "b.json: per_query is damaged" in line


def test_nothing_scored_is_refused(tmp_path, capsys):
    path = evaluation(tmp_path / "a.json", [np.nan, np.nan], [np.nan, np.nan])
    assert refused([path, path], capsys) == (1, f"evaluation {path}: none of its 2 queries is scored")


def test_a_missing_file_is_named(two, capsys):
    assert refused([two[0], "nowhere.json"], capsys) == (1, "evaluation nowhere.json: no such file")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "1 evaluation given; expected a baseline"),
        (["two", "--resamples", "0"], "resamples=0"),
        (["two", "--confidence", "95"], "confidence=95.0"),
        (["two", "--seed", "-1"], "seed=-1"),
    ],
)
def test_unusable_arguments_end_with_code_2(two, capsys, arguments, message):
    code, line = refused([two[0], *(two[1] if part == "two" else part for part in arguments)], capsys)
    assert code == 2
    assert message in line


def test_few_identities_warn(tmp_path):
    rng = np.random.default_rng(0)
    for queries, told in ((58, True), (60, False)):  # two of each identity
        precision, hits = rng.uniform(0.2, 0.8, queries), np.ones(queries)
        files = [evaluation(tmp_path / name, precision, hits) for name in ("a.json", "b.json")]
        assert ("the intervals rest on 29 identities only" in str(compare(files, resamples=50))) == told
