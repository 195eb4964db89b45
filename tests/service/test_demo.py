import re
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

import reid.demo
import service.demo as demo_module
from reid.data.datasets import load_dataset
from reid.data.synthetic import generate
from service.demo import main, search
from service.opening import open_gallery
from service.records import Filter

MATCH = {"rank": 1, "label": "3", "score": 0.98765, "probability": None}
RIGHT = "The best match is the right vehicle."


@pytest.fixture
def dataset(tmp_path):
    """A toy set of three vehicles, one of which is tested."""
    return load_dataset("toy", generate(tmp_path / "toy", identities=3, cameras=2, images_per_camera=3, size=32))


def test_a_query_is_answered_by_a_service(dataset, checkpoint, tmp_path):
    lines = search(dataset, checkpoint, tmp_path / "gallery", "cpu").splitlines()
    photo, vehicle = dataset.query[0].path, dataset.query[0].identity
    assert re.fullmatch(
        rf"Vehicle {vehicle}, asked for with curl -F image=@{photo} http://127.0.0.1:\d+/query", lines[0]
    )
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:  # the service let go of it
        items = {item.medium.source: item for item in gallery.store.page(Filter(), 0, 1000)}
        vectors = {row.number: row.vector for row in gallery.store.rows(gallery.model_id)}
        asked = gallery.embedder.embed([photo])[0]
    assert len(items) == len(dataset.gallery)
    scores = {item.details.label or "-": 0.0 for item in items.values()}
    ranked = sorted(items.values(), key=lambda item: -float(vectors[item.number] @ asked))[:3]
    for line, item in zip(lines[2:5], ranked, strict=True):
        rank, label, score, probability = line.split()
        assert (rank, probability) == (str(ranked.index(item) + 1), "-")
        assert label in scores
        assert float(score) == pytest.approx(float(vectors[item.number] @ asked), abs=6e-4)
    right = ranked[0].details.label == str(vehicle)
    assert lines[5:] == [f"The best match is {'the right vehicle' if right else 'another vehicle'}."]


def test_given_again_it_enrols_nothing(dataset, checkpoint, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(demo_module, "_service", lambda *_: nullcontext("http://nowhere"))
    monkeypatch.setattr(demo_module, "_ask", lambda *_: [MATCH])
    for said in (f"{len(dataset.gallery)} photos enrolled, 0", f"0 photos enrolled, {len(dataset.gallery)}"):
        caplog.clear()
        with caplog.at_level("INFO", "reid"):
            search(dataset, checkpoint, tmp_path / "gallery", "cpu")
        assert f"--- search: {said} there before in {tmp_path}/gallery" in caplog.text


@pytest.mark.parametrize(
    ("label", "probability", "expected"),
    [(None, None, ["1 - 0.987650 -", "The best match is another vehicle."]), ("3", 0.5, ["1 3 0.987650 50 %", RIGHT])],
)
def test_what_is_told_of_a_match(dataset, checkpoint, tmp_path, monkeypatch, label, probability, expected):
    monkeypatch.setattr(demo_module, "_service", lambda *_: nullcontext("http://nowhere"))
    monkeypatch.setattr(demo_module, "_ask", lambda *_: [MATCH | {"label": label, "probability": probability}])
    lines = search(dataset, checkpoint, tmp_path / "gallery", "cpu").splitlines()
    assert [" ".join(line.split()) for line in lines[2:]] == expected


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("raise SystemExit(3)", "reid-serve ended with exit code 3 before it was ready"),
        (
            """
import http.server, signal, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        self.send_response(500)
        self.end_headers()
        self.wfile.write(b"broken")
port = next(int(option[7:]) for option in sys.argv if option.startswith("--port="))
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
""",
            "reid-serve answered 500: broken",
        ),
    ],
)
def test_a_service_that_fails_is_told(dataset, checkpoint, tmp_path, monkeypatch, server, message):
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").touch()
    (tmp_path / "service" / "serve.py").write_text(server)
    monkeypatch.chdir(tmp_path)  # where `python -m` looks first
    with pytest.raises(ChildProcessError, match=message):
        search(dataset, checkpoint, tmp_path / "gallery", "cpu")


def evaluated(dataset, *precisions):
    """What `demo` finds of four vehicles with two queries each."""
    metrics = SimpleNamespace(mAP=0.5, cmc={1: 0.25, 5: 0.75}, mINP=0.125)
    metrics.average_precision = np.resize(precisions, 8)
    features = SimpleNamespace(query_ids=np.repeat([3, 5, 8, 9], 2))
    return SimpleNamespace(dataset=dataset, result=SimpleNamespace(metrics=metrics), features=features)


def test_only_where_dcal_is_not_above_its_baseline_it_says_why(dataset):
    low, high = evaluated(dataset, 0.25, 0.5), evaluated(dataset, 0.75, 0.5)
    above = reid.demo.verdict({"baseline": low, "dcal": high})
    assert above == (
        "DCAL against its baseline: mAP +25.0, 95 % interval +25.0 to +25.0 over 4 vehicles, one training of each."
    )
    below = reid.demo.verdict({"baseline": high, "dcal": low})
    assert "mAP -25.0, 95 % interval -25.0 to -25.0" in below
    assert below.endswith(": docs/results.md")


def test_the_command_trains_asks_and_says_what_is_next(dataset, tmp_path, monkeypatch, capsys):
    found = evaluated(dataset, 0.5)
    asked = []
    monkeypatch.setattr(reid.demo, "demo", lambda *_: {"baseline": found, "dcal": found})
    monkeypatch.setattr(demo_module, "search", lambda *given: asked.append(given) or "what was found")
    output = tmp_path / "runs"
    assert main(["--output", str(output), "--device", "cpu"]) == 0
    assert asked == [(dataset, output / "dcal", output / "gallery", "cpu")]
    shown = capsys.readouterr().out
    assert re.search(r"^dcal +50\.0 +25\.0 +75\.0 +12\.5$", shown, re.MULTILINE)
    assert (
        "DCAL against its baseline: mAP +0.0, 95 % interval +0.0 to +0.0 over 4 vehicles, one training of each."
        in shown
    )
    assert "\nwhat was found\n" in shown
    assert f"  reid-serve --checkpoint {output}/dcal --gallery {output}/gallery\n" in shown
    assert f"  curl -F image=@{dataset.query[0].path} http://localhost:8000/query\n" in shown
