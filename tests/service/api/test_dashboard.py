"""The dashboard of docker/monitoring asks for nothing that the service does not measure."""

import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service.api.app import create_app
from service.classification import Classification
from service.opening import load_classifier
from service.settings import Settings

DASHBOARD = Path(__file__).resolve().parents[3] / "docker" / "monitoring" / "dashboard.json"
SELECTOR = re.compile(r"\b([a-z]+_[a-z_]+)\b(?:\{([^}]*)\})?")
OF_PROMETHEUS = {"job", "instance", "le"}
FUNCTIONS = {"histogram_quantile"}


@pytest.fixture
def measured(gallery, runner, classifier, checkpoint, tmp_path, picture):
    """The labels of every metric, by its name, of a service that was asked for all sorts of things."""
    settings = Settings(checkpoint=checkpoint, gallery=tmp_path / "gallery", classifier=classifier)
    with Classification(*load_classifier(classifier, "cpu"), gallery) as classification:
        client = TestClient(
            create_app(gallery, runner, settings, None, classification),
            base_url="http://localhost",
            raise_server_exceptions=False,
        )
        client.post("/v1/items", files={"images": ("a.png", picture(0))})
        for path, data in (("/query", picture(1)), ("/v1/classify", picture(1)), ("/query", b"text")):
            client.post(path, files={"image": ("a.png", data)})
        text = client.get("/metrics").text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {name: set() for name in sample.labels})
            for name, value in sample.labels.items():
                found[sample.name].setdefault(name, set()).add(value)
    return found


def test_every_panel_asks_for_what_is_measured(measured):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) >= len(panels) > 10
    for query in queries:
        names = {name: labels for name, labels in SELECTOR.findall(query) if name not in FUNCTIONS}
        assert names, query
        for name, selected in names.items():
            assert name in measured, f"{query}: there is no {name}"
            grouped = re.findall(r"\bby \(([^)]*)\)", query)
            labels = {label.strip() for group in grouped for label in group.split(",")}
            labels |= set(re.findall(r"(\w+)=", selected))
            assert labels <= measured[name].keys() | OF_PROMETHEUS, f"{query}: {name} has no such label"
            for label, pattern in re.findall(r'(\w+)=~"([^"]*)"', selected):
                if label != "status":  # nothing fails here
                    assert any(re.fullmatch(pattern, value) for value in measured[name][label]), query


def test_what_is_measured_of_queries_and_of_work_is_shown(measured):
    text = DASHBOARD.read_text()
    ours = {
        re.sub(r"_(total|bucket|count|sum|created|info)$", "", name) for name in measured if name.startswith("reid_")
    }
    hidden = {name for name in ours if name not in text}
    assert hidden <= {"reid_classifier"}  # its name and classes
