import csv
import io

from reid.report.tables import Points, Share, Table, as_csv, as_latex, as_text, escape_latex

TABLE = Table(
    "Runs of 50 %",
    ("run", "mAP", "rate", "images"),
    [("a_b & c", Share(0.5391, 0.451, 0.62), 1e-5, 1234), ("=1+1", Share(1 / 3), None, 7)],
)


def test_cells_are_for_people():
    assert [as_text(cell) for cell in TABLE.rows[0]] == ["a_b & c", "53.9 % [45.1, 62.0]", "1e-05", "1,234"]
    assert [as_text(cell) for cell in TABLE.rows[1]] == ["=1+1", "33.3 %", "", "7"]


def test_differences_have_a_sign_and_no_percent():
    assert str(Points(0.043, -0.001, 0.077)) == "+4.3 [-0.1, +7.7]"
    assert str(Points(-0.2)) == "-20.0"


def test_an_interval_without_width_says_nothing():
    assert str(Share.between(1.0, 1.0, 1.0)) == str(Share.between(1.0, float("nan"), float("nan"))) == "100.0 %"
    assert str(Share.between(0.5, 0.4, 0.6)) == "50.0 % [40.0, 60.0]"


def test_csv_has_numbers_and_the_ends_of_intervals_in_columns_of_their_own():
    header, first, second = csv.reader(io.StringIO(as_csv(TABLE)))
    assert header == ["run", "mAP", "mAP low", "mAP high", "rate", "images"]
    assert first == ["a_b & c", "0.5391", "0.451", "0.62", "1e-05", "1234"]
    assert second == ["'=1+1", str(1 / 3), "", "", "", "7"]  # no formula


def test_latex_is_a_table_of_booktabs():
    assert as_latex("camera_pairs", TABLE).splitlines() == [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        "  \\caption{Runs of 50 \\%}",
        "  \\label{tab:camera-pairs}",
        "  \\begin{tabular}{lrrr}",
        "    \\toprule",
        "    run & mAP & rate & images \\\\",
        "    \\midrule",
        "    a\\_b \\& c & 53.9 \\% {[}45.1, 62.0{]} & 1e-05 & 1,234 \\\\",
        "    =1+1 & 33.3 \\% &  & 7 \\\\",
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]


def test_what_latex_would_read_as_its_own_is_text():
    assert (
        escape_latex("$\\frac{1}$~^#\n2")
        == "\\$\\textbackslash{}frac\\{1\\}\\$\\textasciitilde{}\\textasciicircum{}\\# 2"
    )
