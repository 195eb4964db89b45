import base64
import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid.config import EvalOptions
from reid.data.preprocessing import Preprocessing
from reid.evaluation.features import Features
from reid.evaluation.scoring import rank, score
from reid.inference.embedder import Embedder
from reid.models.dcal import DCAL, build_dcal
from reid.models.options import DcalOptions
from reid.report.page import MATCHES_WITH_ATTENTION, write_report
from reid.report.ranked_lists import pick_queries
from reid.report.strips import and_more
from reid.retrieval.calibration import fit_calibration

HOSTILE = "<script>alert('a&b')</script>"
TABLES = ("numbers", "cmc", "verification", "camera_pairs")
SECTIONS = ["numbers", "cmc", "scores", "cameras", "ranked_lists", "attention", "embeddings"]


def world(folder, identities=12, cameras=3, gallery_each=3):
    """Embeddings of identities and a picture for each; the second query's file name is hostile."""
    random = np.random.default_rng(0)
    ids = {"query": np.arange(identities), "gallery": np.repeat(np.arange(identities), gallery_each)}
    centres = random.normal(size=(identities, 8))
    parts = {}
    for split, labels in ids.items():
        parts[split] = centres[labels] + random.normal(size=(len(labels), 8))
        parts[f"{split}_ids"] = labels
        parts[f"{split}_cameras"] = random.integers(0, cameras, len(labels))
        names = [f"{split}{row}.png" for row in range(len(labels))]
        if split == "query" and len(names) > 1:
            names[1] = HOSTILE.replace("/", "\N{DIVISION SLASH}") + ".png"
        for name in names:
            Image.fromarray(random.integers(0, 255, (24, 16, 3), dtype=np.uint8)).save(folder / name)
        parts[f"{split}_paths"] = tuple(str(folder / name) for name in names)
    return Features(**parts)


def make(folder, features, options=None, *, verification=True, **kwargs):
    options = options or EvalOptions()
    distances = rank(features, options)
    result = score(features, distances, options, {"dataset": HOSTILE, "version": "v7"}, verification=verification)
    return result, write_report(folder / "report", result, features, distances, **kwargs)


def embedder(method="dcal"):
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (32, 16), 3, DcalOptions(method=method))
    return Embedder(model, Preprocessing((32, 16), (0.5,) * 3, (0.5,) * 3))


def check(parsed):
    """Every picture is in the page, described and a picture; nothing is fetched from elsewhere."""
    assert [attributes["id"] for attributes in parsed.attributes("section")] == SECTIONS
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in parsed.tags}
    assert "http:" not in parsed.source
    assert "https:" not in parsed.source
    assert "@import" not in parsed.source
    assert "url(" not in parsed.source
    for tag, attributes in parsed.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "srcset", "href", "data", "action"):
            if name in attributes and tag == "a" and not attributes[name].startswith("#"):
                assert (parsed.path.parent / attributes[name]).is_file()
            elif name in attributes:
                assert attributes[name].startswith("#" if tag == "a" else "data:")
    for attributes in parsed.attributes("img"):
        assert attributes["alt"]
        Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1]))).verify()
    embedded = {attributes["src"] for attributes in parsed.attributes("img")}
    for file in parsed.path.parent.glob("*.png"):
        if file.stem not in ("ranked_lists", "attention"):  # the page lays these out itself
            assert f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}" in embedded
    assert not list(parsed.path.parent.glob(".*"))
    return parsed


def files(page):
    return {file.name for file in page.parent.iterdir()}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report with everything."""
    folder = tmp_path_factory.mktemp("full")
    features = world(folder)
    options = EvalOptions()
    verified = score(features, rank(features, options), options, {}, verification=True).verification
    calibration = fit_calibration(
        verified.best_positive, verified.best_negative, features.query_ids, features.gallery_ids
    )
    return *make(folder, features, embedder=embedder(), calibration=calibration), features, calibration


def test_a_full_report_has_every_figure_in_the_page_and_beside_it(full, page_of):
    result, page, _, calibration = full
    parsed = check(page_of(page))
    charts = ("cmc", "scores", "roc", "reliability", "camera_pairs", "ranked_lists", "attention", "embeddings")
    pictures = {f"{name}.{kind}" for name in charts for kind in ("png", "svg")}
    tables = {f"{name}.{kind}" for name in TABLES for kind in ("csv", "tex")}
    assert files(page) == {"index.html", "metrics.json", *pictures, *tables}
    assert {a["href"] for a in parsed.attributes("a") if a["href"][0] != "#"} == pictures | tables
    assert json.loads((page.parent / "metrics.json").read_text()) == json.loads(json.dumps(result.as_full_json()))
    assert len(parsed.attributes("source")) == 6
    assert parsed.text.count("\N{CHECK MARK} rank") > 12
    assert "\N{BALLOT X} rank" in parsed.text
    assert f"{calibration.queries} queries of {calibration.identities} identities" in parsed.text
    assert "patches that GLCA chose" in parsed.text


def test_numbers_and_every_choice_of_the_protocol_are_told(full, page_of):
    result, page, *_ = full
    text = page_of(page).text
    for share in (result.metrics.mAP, result.metrics.mINP, *result.metrics.cmc.values()):
        assert f"{100 * share:.1f} %" in text
    for name, value in result.protocol.items():
        assert name.replace("_", " ") in text
        assert value is None or isinstance(value, bool) or str(value) in text
    open_set = result.verification.open_set
    assert f"{open_set.threshold:.6f}" in text
    assert f"{100 * result.verification.equal_error_rate:.2f} %" in text


def test_where_a_list_is_cut_the_page_says_how_many_more_there_are(full, page_of):
    result, page, features, _ = full
    text, gallery = page_of(page).text, len(features.gallery_ids)
    assert f", and {gallery - 10} more gallery images" in text or f", and {gallery - 11} more gallery images" in text
    assert f", and {gallery - MATCHES_WITH_ATTENTION + 1} more gallery images" in text  # the query is one of the tiles
    shown = sum(map(len, pick_queries(result.metrics).values()))
    more = result.metrics.queries - shown
    assert f"Shown are {shown} queries{f', and {more} more queries that were scored' if more else ''}." in text


@pytest.mark.parametrize(
    ("number", "said"), [(-3, ""), (0, ""), (1, ", and 1 more photos"), (12345, ", and 12,345 more photos")]
)
def test_only_what_is_left_out_is_told(number, said):
    assert and_more(number, "photos") == said


def test_names_from_outside_are_text(full, page_of):
    _, page, features, _ = full
    parsed = page_of(page)
    assert HOSTILE in parsed.text
    assert "<script" not in parsed.source
    titles = [attributes.get("title") for attributes in parsed.attributes("li")]
    assert set(titles) & set(features.gallery_paths)
    assert features.query_paths[1] in titles
    assert features.query_paths[1].split("/")[-1] in parsed.text


@pytest.mark.usefixtures("drawn_once")
def test_two_queries_and_one_gallery_row(tmp_path, page_of):
    features = world(tmp_path, identities=2)
    rows = {name: getattr(features, name)[:1] for name in ("gallery", "gallery_ids", "gallery_paths")}
    features = replace(features, **rows, gallery_cameras=np.array([7]))
    result, page = make(tmp_path, features, verification=False, embedder=embedder("baseline"))
    parsed = check(page_of(page))
    assert (result.metrics.queries, result.metrics.queries_skipped) == (1, 1)
    assert "1 skipped" in parsed.text
    assert "There are no verification figures" in parsed.text
    assert "GLCA" not in parsed.text
    assert {"attention.png", "ranked_lists.png", "embeddings.png", "camera_pairs.png"} <= files(page)


@pytest.mark.usefixtures("drawn_once")
def test_a_network_without_class_token_has_no_attention(tmp_path, monkeypatch, page_of):
    monkeypatch.setattr(DCAL, "rolls_out", property(lambda model: False))
    _, page = make(tmp_path, world(tmp_path), embedder=embedder("baseline"))
    assert "The network has no class token whose attention could be shown." in check(page_of(page)).text
    assert "attention.png" not in files(page)


@pytest.mark.usefixtures("drawn_once")
def test_features_without_cameras_paths_or_model(tmp_path, page_of):
    features = world(tmp_path)
    unknown = features.groups("none")
    features = replace(features, query_cameras=unknown[0], gallery_cameras=unknown[1], query_paths=(), gallery_paths=())
    _, page = make(tmp_path, features)
    text = check(page_of(page)).text
    assert "Cameras are unknown" in text
    assert text.count("stored without the paths of their images") == 2
    assert files(page) & {"camera_pairs.png", "ranked_lists.png", "attention.png"} == set()


@pytest.mark.usefixtures("drawn_once")
def test_pictures_without_a_model_or_that_are_gone(tmp_path, page_of):
    features = world(tmp_path)
    _, page = make(tmp_path, features, verification=False)
    assert "need the model" in check(page_of(page)).text
    for path in features.gallery_paths:
        Path(path).unlink()
    _, page = make(tmp_path, features, verification=False)
    text = check(page_of(page)).text
    assert "cannot be read any more" in text
    assert "no such image" in text


@pytest.mark.usefixtures("undrawn")
def test_re_ranking_is_told_to_use_the_other_queries(tmp_path, page_of):
    options = EvalOptions(rerank="zhong", distance="euclidean")
    _, page = make(tmp_path, world(tmp_path), options, verification=False)
    text = check(page_of(page)).text
    assert "every ranking used the other queries too" in text
    assert "k1 20, k2 6, lambda 0.3" in text
    assert "re-ranked distance" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("gallery", ["single", "redrawn"])
def test_drawn_galleries_give_a_mean_and_show_all_images(tmp_path, gallery, page_of):
    result, page = make(tmp_path, world(tmp_path), EvalOptions(gallery=gallery, draws=3), verification=False)
    text = check(page_of(page)).text
    assert "Means of 3 random galleries" in text
    assert f"{100 * min(draw.mAP for draw in result.draws):.1f} %" in text
    assert "mean of 3 draws; the band is its 95 % interval" in text
    assert "ranked_lists.png" in files(page)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(NotADirectoryError, match="report is a file, expected a folder or a new name"):
        make(tmp_path, world(tmp_path), verification=False)
    assert (tmp_path / "report").read_text() == "mine"


def test_rates_of_pairs_and_of_queries_have_intervals(full):
    result, page, *_ = full
    with open(page.parent / "verification.csv") as file:
        first = next(csv.DictReader(file))
    rate, low, high = (float(first[f"true positive rate{end}"]) for end in ("", " low", " high"))
    assert rate == result.verification.tpr_at_fpr[0.01].tpr
    assert low < rate < high
    assert high - low > 0.05  # of 12 identities


def test_every_point_of_the_map_leads_to_its_photo(full, page_of):
    _, page, features, _ = full
    parsed = page_of(page)
    points = [a["href"] for a in parsed.attributes("a") if a.get("tabindex") == "-1"]
    rows = len(features.query_ids) + len(features.gallery_ids)
    assert sorted(points) == sorted(f"#photo-{place}" for place in range(rows))
    assert {f"#{a['id']}" for a in parsed.attributes("li") if a.get("id", "").startswith("photo-")} == set(points)
    by_name = [a["href"] for a in parsed.attributes("a") if a["href"].startswith("#photo-") and "tabindex" not in a]
    assert sorted(by_name) == sorted(points)
    assert all(path in parsed.text for path in (*features.query_paths, *features.gallery_paths))


@pytest.mark.browser
def test_pressing_a_point_shows_its_photo_alone(full):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        tab = browser.new_page()
        tab.goto(full[1].as_uri())
        for place in (3, 0):
            tab.locator(f".drawn a[href='#photo-{place}'] circle").dispatch_event("click")
            assert tab.locator(".photos li:visible").evaluate_all("found => found.map(item => item.id)") == [
                f"photo-{place}"
            ]
        browser.close()


@pytest.mark.browser
def test_a_browser_shows_it_without_network(full, shown_offline):
    shown_offline(full[1])


@pytest.mark.usefixtures("drawn_once")
def test_names_that_are_no_text_or_hold_dollars_are_shown(tmp_path, page_of):
    """Bytes that are no UTF-8, and what matplotlib would read as a formula."""
    features = world(tmp_path)
    renamed = [
        Path(os.fsdecode(os.fsencode(path).replace(b".", b"\xff $\\frac{1}$."))) for path in features.query_paths
    ]
    for old, new in zip(features.query_paths, renamed, strict=True):
        os.rename(old, new)
    _, page = make(tmp_path, replace(features, query_paths=tuple(map(str, renamed))))
    assert "frac" in check(page_of(page)).text


@pytest.mark.usefixtures("undrawn")
def test_figures_of_an_earlier_report_do_not_stay(tmp_path):
    features = world(tmp_path)
    _, page = make(tmp_path, features)
    assert (page.parent / "ranked_lists.png").exists()
    _, page = make(tmp_path, replace(features, query_paths=(), gallery_paths=()))
    assert not (page.parent / "ranked_lists.png").exists()
