import json

import pytest

from benchmarks.all import FULL, QUICK, REGRESSED, Figure, main, page

PLACE = {"where": "2026-01-01, a processor", "load": 0.5}


@pytest.mark.parametrize(
    ("figure", "last", "kept", "worse"),
    [
        (Figure("a ratio", 2.1, most=2.2), 2.0, True, False),
        (Figure("a ratio", 2.3, most=2.2), 2.0, False, False),
        (Figure("a ratio", 2.3, most=2.2), 1.8, False, True),
        (Figure("a gain", 3.1, least=3), 3.2, True, False),
        (Figure("a gain", 3.1, least=3), 4.0, True, True),
        (Figure("a gain", 2.9, least=3), 2.5, False, False),
        (Figure("a count", 0, most=0), 0, True, False),
        (Figure("a count", 1, most=0), 0, False, True),
    ],
)
def test_a_figure_is_held_against_what_it_must_be_and_the_last(figure, last, kept, worse):
    assert (figure.kept, figure.worse_than(last)) == (kept, worse)
    told = page("all", {"search": {**PLACE, "figures": [list(figure)]}}, {figure.name: last})
    assert (REGRESSED in told) == worse
    assert ("not kept" in told) == (not kept)


def test_the_page_has_what_failed_and_where_all_was_measured():
    figures = [list(Figure("start", 4.25, "s", most=5, note="1,000 rows"))]
    told = page("all", {"start": {**PLACE, "figures": figures}, "naming": {**PLACE, "failed": "no memory"}}, {})
    assert "| start | 4.25 s |  | at most 5 | 1,000 rows | `benchmarks.growth` |" in told
    assert "| naming | failed | | | no memory | `benchmarks.naming --speed` |" in told
    assert "- 2026-01-01, a processor: start (load 0.5), naming (load 0.5)" in told


@pytest.mark.parametrize("sizes", [QUICK, FULL])
def test_a_batch_has_the_two_identities_of_a_triplet(sizes):
    """Of four images each, as `train_step` draws them."""
    assert min(sizes.batch) >= 8


@pytest.mark.slow
def test_a_part_is_measured_beside_what_stays(tmp_path, capsys):
    kept = {
        "python -m benchmarks.all --quick": {"search": {**PLACE, "figures": [["one query", 3.5, "x", None, 3, ""]]}}
    }
    (tmp_path / "all.json").write_text(json.dumps(kept))
    for last in ("", "0 "):
        assert main(["--quick", "--only", "commands", "--results", str(tmp_path)]) == 0
        shown = (tmp_path / "all.md").read_text()
        assert f"| commands whose --help imports torch | 0  | {last} | at most 0 |" in shown
        assert "| one query | 3.5 x |" in shown
