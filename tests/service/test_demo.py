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

MATCH = {"label": "3", "score": 0.98765, "identity_probability": None}


@pytest.fixture
def dataset(tmp_path):
    """A toy set of three vehicles, one of which is tested."""
    return load_dataset("toy", generate(tmp_path / "toy", identities=3, cameras=2, images_per_camera=3, size=32))


def test_a_query_is_answered_by_a_service(dataset, checkpoint, tmp_path):
    lines = search(dataset, checkpoint, tmp_path / "gallery", "cpu").splitlines()
    photo, vehicle = dataset.query[0].path, dataset.query[0].identity
    asked_by = rf"curl -F image=@{photo} -F group_by=identity http://127.0.0.1:\d+/query"
    assert re.fullmatch(rf"Vehicle {vehicle}, asked for with {asked_by}", lines[0])
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:  # the service let go of it
        items = {item.number: item for item in gallery.store.page(Filter(), 0, 1000)}
        vectors = {row.number: row.vector for row in gallery.store.rows(gallery.model_id)}
        asked = gallery.embedder.embed([photo])[0]
    assert len(items) == len(dataset.gallery)
    best: dict[str | int, tuple[float, str]] = {}  # of each vehicle, and each photo of nobody
    for number, item in items.items():
        name, score = item.details.label, float(vectors[number] @ asked)
        best[name or number] = max(best.get(name or number, (-1.0, "")), (score, name or "no name"))
    ranked = sorted(best.values(), reverse=True)[:3]
    for line, (score, name) in zip(lines[2:5], ranked, strict=True):
        assert re.split(r"\s{2,}", line)[:2] == [name, "-"]
        assert float(line.split()[-1]) == pytest.approx(score, abs=6e-4)
    assert lines[5:] == [
        f"The first is {'the right vehicle' if ranked[0][1] == str(vehicle) else 'another one'}. {demo_module.TOO_FEW}"
    ]


@pytest.mark.slow
def test_of_enough_vehicles_each_has_a_probability_and_the_rest_is_told(checkpoint, tmp_path):
    root = generate(tmp_path / "many", identities=48, cameras=2, images_per_camera=3, size=32)
    dataset = load_dataset("toy", root)
    answer = search(dataset, checkpoint, tmp_path / "gallery", "cpu")
    lines = answer.splitlines()
    chances = [int(re.search(r"(\d+) %", line)[1]) for line in lines[2:6]]
    assert lines[5].startswith("others, or none") and sum(chances) == pytest.approx(100, abs=2)
    assert chances[:3] == sorted(chances[:3], reverse=True)
    assert answer.endswith(demo_module.LEARNED)


def test_given_again_it_enrols_nothing(dataset, checkpoint, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(demo_module, "_service", lambda *_: nullcontext("http://nowhere"))
    monkeypatch.setattr(demo_module, "_ask", lambda *_: [MATCH])
    for said in (f"{len(dataset.gallery)} photos enrolled, 0", f"0 photos enrolled, {len(dataset.gallery)}"):
        caplog.clear()
        with caplog.at_level("INFO", "reid"):
            search(dataset, checkpoint, tmp_path / "gallery", "cpu")
        assert f"--- search: {said} there before in {tmp_path}/gallery" in caplog.text


@pytest.mark.parametrize(
    ("label", "chance", "told"),
    [
        (None, None, f"no name - 0.987650\nThe first is another one. {demo_module.TOO_FEW}"),
        ("3", 0.5, f"3 50 % 0.987650\nothers, or none 50 %\nThe first is the right vehicle. {demo_module.LEARNED}"),
    ],
)
def test_what_is_told_of_a_match(dataset, checkpoint, tmp_path, monkeypatch, label, chance, told):
    monkeypatch.setattr(demo_module, "_service", lambda *_: nullcontext("http://nowhere"))
    monkeypatch.setattr(demo_module, "_ask", lambda *_: [MATCH | {"label": label, "identity_probability": chance}])
    lines = search(dataset, checkpoint, tmp_path / "gallery", "cpu").splitlines()
    assert "\n".join(" ".join(line.split()) for line in lines[2:]) == told


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
    assert f"  curl -F image=@{dataset.query[0].path} -F group_by=identity http://localhost:8000/query\n" in shown
