import csv
import json

import pytest
from matplotlib.figure import Figure

from reid import curves
from reid.config import FgvcConfig, ReidConfig
from reid.report.curves import Line, draw_lines
from reid.report.figures import LIGHT, png
from reid.report.histories import read_histories

PARTS = {"ce": 4.0, "triplet": 0.5}


def write_run(folder, *, epochs=4, ended=4, method="dcal", task="reid", intervals=True):
    """The folder of a run that has ended some of its epochs, evaluated after every second one."""
    folder.mkdir()
    kind = ReidConfig if task == "reid" else FgvcConfig
    options = {"data": {"dataset": "toy"}, "model": {"method": method}, "train": {"epochs": epochs}}
    (folder / "config.yaml").write_text(kind.model_validate(options).as_yaml())
    branches = {"dcal": ("sa", "glca", "pwca"), "baseline": ("sa",)}[method]
    records = []
    for epoch in range(1, ended + 1):
        record = {
            "epoch": epoch,
            "epochs": epochs,
            "loss": 9.0 / epoch,
            "losses": {branch: {name: value / epoch for name, value in PARTS.items()} for branch in branches},
            "log_variances": {branch: 0.01 * epoch for branch in branches} if method == "dcal" else {},
            "lr": 1e-5 / epoch,
            "images_per_second": 100.4,
            "seconds": 30.0,
            "peak_memory_mib": 1.0,
        }
        if epoch % 2 == 0:
            record |= {"evaluation": evaluation(task, 0.1 * epoch, intervals), "frozen": 0.05, "score": 0.1 * epoch}
        records.append(record)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def evaluation(task, share, intervals):
    ends = [share - 0.05, share + 0.05]
    if task == "fgvc":
        accuracy = {"sum": {"top1": share, "top5": share + 0.1}, "sa": {"top1": 0.0, "top5": 0.0}}
        known = {"accuracy": {"sum": {"top1": ends, "top5": ends}}, "mean_class_accuracy": ends}
        figures = {"accuracy": accuracy, "mean_class_accuracy": share, "protocol": {"prediction": "sum"}}
    else:
        figures = {"mAP": share, "mINP": share / 2, "cmc": {"1": share, "5": share}}
        known = {"mAP": ends, "mINP": ends, "cmc": {"1": ends, "5": ends}}
    return figures | ({"intervals_95": known} if intervals else {})


CHARTS = ("loss", "loss_ce", "loss_triplet", "weights", "rate", "map", "rank1", "rank5", "minp")


def test_the_page_on_a_run_has_every_curve_and_its_files(tmp_path, page_of):
    page = curves.report([write_run(tmp_path / "one")])
    assert page == tmp_path / "one" / "report" / "index.html"
    parsed = page_of(page)
    sections = [attributes["id"] for attributes in parsed.attributes("section")]
    assert sections == ["numbers", "losses", "weights", "rate", "evaluation"]
    files = {f"{name}.{kind}" for name in CHARTS for kind in ("png", "svg")}
    files |= {f"{name}.{kind}" for name in ("runs", "epochs") for kind in ("csv", "tex")}
    assert {file.name for file in page.parent.iterdir()} == {"index.html", *files}
    assert {attributes["href"] for attributes in parsed.attributes("a")} == {*files, *(f"#{name}" for name in sections)}
    assert "Training of DCAL on vit_base, toy" in parsed.text
    assert "40.0 % [35.0, 45.0]" in parsed.text
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in parsed.tags}


@pytest.mark.usefixtures("drawn_once")
def test_the_table_of_epochs_has_what_was_recorded(tmp_path):
    page = curves.report([write_run(tmp_path / "one")], tmp_path / "page")
    with open(page.parent / "epochs.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert (rows[1]["GLCA ce"], rows[1]["w PWCA"], rows[1]["rate"]) == ("2.0", "0.02", "5e-06")
    assert (rows[1]["mAP"], rows[1]["mAP low"], rows[0]["mAP"]) == ("0.2", "0.15000000000000002", "")


@pytest.mark.usefixtures("drawn_once")
def test_several_runs_of_any_method_are_drawn_together(tmp_path, page_of):
    runs = [
        write_run(tmp_path / "dcal"),
        write_run(tmp_path / "baseline", method="baseline", ended=2, intervals=False),
        write_run(tmp_path / "birds", task="fgvc", epochs=9),
    ]
    page = curves.report(runs, tmp_path / "page")
    text = page_of(page).text
    assert "3 trainings: dcal, baseline, birds" in text
    assert "baseline: epoch 2 of 4, not ended" in text
    assert "birds: epoch 4 of 9, not ended" in text
    assert {"top1.svg", "mean_over_classes.svg", "map.svg"} <= {file.name for file in page.parent.iterdir()}


@pytest.mark.usefixtures("drawn_once")
def test_a_run_that_held_identities_out_says_which_epoch_it_keeps(tmp_path, page_of):
    run = write_run(tmp_path / "one", ended=3)
    *before, last = (run / "metrics.jsonl").read_text().splitlines()
    kept = {**json.loads(last), "kept": 2}
    (run / "metrics.jsonl").write_text("\n".join([*before, json.dumps(kept)]) + "\n")
    text = page_of(curves.report([run], tmp_path / "page")).text
    assert "ended after 3 epochs, that of epoch 2 is kept" in text
    assert "chosen on the test images" not in text


@pytest.mark.usefixtures("drawn_once")
def test_folders_of_one_name_go_by_their_paths(tmp_path, page_of):
    for name in "ab":
        (tmp_path / name).mkdir()
    runs = [write_run(tmp_path / name / "run") for name in "ab"]
    text = page_of(curves.report(runs, tmp_path / "page")).text
    assert all(str(run) in text for run in runs)


@pytest.mark.usefixtures("drawn_once")
def test_a_run_that_was_never_evaluated_has_its_losses(tmp_path, page_of):
    page = curves.report([write_run(tmp_path / "one", ended=1, method="baseline")])
    parsed = page_of(page)
    assert [attributes["id"] for attributes in parsed.attributes("section")] == ["numbers", "losses", "rate"]
    assert "epoch 1 of 4, not ended" in parsed.text


def damaged(folder, line):
    write_run(folder)
    (folder / "metrics.jsonl").write_text(line)
    return folder


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    begun = write_run(tmp_path / "begun")
    (begun / "metrics.jsonl").unlink()
    wrong = {
        tmp_path: "no config.yaml in this folder; expected the --output of reid-train or fgvc-train",
        begun: "none of its epochs has ended yet",
        damaged(tmp_path / "half", '{"epoch": 1'): "metrics.jsonl is damaged (JSONDecodeError",
        damaged(tmp_path / "other", '{"epoch": 1, "loss": 2}'): "no log_variances, losses, lr in a line",
        damaged(tmp_path / "empty", ""): "metrics.jsonl is empty",
    }
    for folder, message in wrong.items():
        assert curves.main([str(folder)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"reid-report: error: run {folder}: ")
        assert message in line


def test_small_rates_and_losses_below_0_are_ticks_for_people():
    """With mathematical text off, matplotlib's own would be an offset beside the axis."""
    shown = []

    def draw(figure):
        draw_lines(figure, [Line("run", {1: -2e-5, 2: 3e-5}, "C0")], "rate", shares=False)
        axis = figure.axes[0].yaxis
        figure.draw_without_rendering()
        shown.extend(label.get_text() for label in axis.get_majorticklabels())
        assert axis.get_offset_text().get_text() == ""

    png(draw, (4, 3), LIGHT, 50)
    assert {"\N{MINUS SIGN}2e-05", "0", "2e-05"} <= set(shown)


@pytest.mark.browser
def test_a_browser_shows_it_without_network(tmp_path, shown_offline):
    runs = [write_run(tmp_path / "dcal"), write_run(tmp_path / "baseline", method="baseline")]
    shown_offline(curves.report(runs, tmp_path / "page"))


@pytest.mark.usefixtures("drawn_once")
def test_the_scores_on_identities_held_out_are_drawn_with_those_of_the_weights_before(tmp_path, page_of):
    run = write_run(tmp_path / "one")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record, score in zip(records, (0.31, 0.52, 0.44, 0.4), strict=True):
        record["held_out"] = {"score": score, "frozen": 0.35}
    records[-1]["kept"] = 2
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    page = curves.report([run, write_run(tmp_path / "two")], tmp_path / "page")
    parsed = page_of(page)
    sections = [attributes["id"] for attributes in parsed.attributes("section")]
    assert sections == ["numbers", "losses", "weights", "rate", "held_out", "evaluation"]
    assert "The thin line is that of the weights the training started from" in parsed.text
    with open(page.parent / "epochs.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["mAP, held out"] for row in rows] == ["0.31", "0.52", "0.44", "0.4", "", "", "", ""]
    with open(page.parent / "runs.csv") as file:
        one, two = csv.DictReader(file)
    assert (one["mAP, held out"], one["before training"], two["mAP, held out"]) == ("0.4", "0.35", "")
    [history, other] = read_histories([run, tmp_path / "two"])
    assert (history.held_out, history.kept) == ({0: 0.35, 1: 0.31, 2: 0.52, 3: 0.44, 4: 0.4}, 2)
    assert other.held_out == {}


def test_the_level_before_and_the_epoch_that_is_kept_are_in_the_drawing():
    figure = Figure()
    draw_lines(figure, [Line("one", {1: 0.3, 2: 0.5}, "C0", level=0.35, chosen=2)], "mAP, held out", True)
    axes = figure.axes[0]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert drawn == [([1, 2], [0.3, 0.5]), ([0, 1], [0.35, 0.35]), ([2], [0.5])]
