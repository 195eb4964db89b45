import json
import os
import re
import shutil
import signal
import socket
from dataclasses import replace
from functools import partial

import httpx2
import numpy as np
import pytest

from reid.config import ReidConfig
from reid.files import fingerprint
from reid.inference.checkpoint import load_model, save_model
from reid.inference.exporting import export
from reid.retrieval.calibration import Calibration
from service.api.state import UNCALIBRATED
from service.loading import Loaded, _calibration, announce
from service.opening import open_gallery
from service.records import NewKey
from service.serve import main
from service.settings import Settings
from service.storage.database import Database
from service.storage.keys import Keys
from tests.service.starting import Command
from tests.waiting import DEADLINE, wait_until

get, post = (partial(ask, timeout=DEADLINE) for ask in (httpx2.get, httpx2.post))


@pytest.fixture
def launch():
    """A function that starts the command with some variables on a free port; it gives the process and its address."""
    started = []

    def run(variables, *options):
        environment = {**os.environ, **variables, "REID_LOG_FORMAT": "text"}
        process = Command("service.serve", ["--port", "0", "--device", "cpu", *options], environment)
        started.append(process)
        lines = []
        for line in process.stderr:
            lines.append(line)
            if address := re.search(r"http://\S+:\d+", line):
                return process, address.group()
        pytest.fail(f"the command ended: {lines}")

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def start(launch, checkpoint, tmp_path):
    """A function that starts the command on the gallery of the test."""
    return partial(launch, {"REID_CHECKPOINT": str(checkpoint), "REID_GALLERY": str(tmp_path / "gallery")})


@pytest.fixture
def start_alone(launch, classifier):
    """A function that starts the command with a classifier and no gallery."""
    return partial(launch, {"REID_CLASSIFIER": str(classifier)})


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_query_is_answered_and_a_signal_ends_it_well(start, picture, sent):
    process, address = start()
    photo = {"images": ("a.png", picture(1))}
    assert post(f"{address}/v1/items", files=photo).status_code == 201
    answer = post(f"{address}/query", files={"image": ("a.png", picture(1))}).json()
    assert answer["matches"][0]["score"] == pytest.approx(1, abs=1e-5)
    process.send_signal(sent)
    _, rest = process.communicate(timeout=DEADLINE)
    assert (process.returncode, rest) == (0, "stopped\n")
    _, address = start()  # the gallery was let go of, and holds what was answered
    assert get(f"{address}/health/ready").json()["items"] == 1
    again = post(f"{address}/query", files={"image": ("a.png", picture(1))}).json()
    assert again["matches"] == answer["matches"]


@pytest.mark.slow
def test_a_classifier_alone_and_beside_the_gallery(start, start_alone, classifier, picture):
    process, address = start_alone()
    answer = post(f"{address}/v1/classify", files={"image": ("a.png", picture(1))}).json()
    assert get(f"{address}/health/ready").json()["classifier"]["classes"] == 6
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=DEADLINE)
    assert (process.returncode, rest) == (0, "stopped\n")
    process, address = start("--classifier", str(classifier))
    again = post(f"{address}/v1/classify", files={"image": ("a.png", picture(1))}).json()
    assert again["results"] == answer["results"]
    assert get(f"{address}/health/ready").json()["items"] == 0
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=DEADLINE)
    assert (process.returncode, rest) == (0, "stopped\n")


@pytest.mark.slow
def test_what_was_answered_survives_a_kill(start, picture):
    process, address = start()
    photo = {"images": ("a.png", picture(1))}
    (result,) = post(f"{address}/v1/items", files=photo).json()["results"]
    process.kill()
    process.wait()
    _, address = start()
    answer = post(f"{address}/query", files={"image": ("a.png", picture(1))}).json()
    assert [match["item_id"] for match in answer["matches"]] == [result["item"]["item_id"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", ""], "host (--host or REID_HOST): string should have at least 1 character"),
        (["--port", "http"], "port (--port or REID_PORT): input should be a valid integer"),
    ],
)
def test_settings_that_cannot_be_used(checkpoint, tmp_path, options, message, capsys):
    given = ["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery")]
    assert main([*given, *options]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"reid-serve: error: {message}")
    assert shown.count("\n") == 1
    assert not (tmp_path / "gallery").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to serve: expected --checkpoint with --gallery, or --classifier, or all three"),
        (["--gallery", "g"], "--gallery without --checkpoint (or REID_CHECKPOINT), the model that embeds its photos"),
        (
            ["--checkpoint", "r", "--classifier", "c"],
            "--checkpoint without --gallery (or REID_GALLERY), the folder of what it embeds",
        ),
    ],
)
def test_settings_that_are_missing(capsys, monkeypatch, options, message):
    for name in ("CHECKPOINT", "GALLERY", "CLASSIFIER"):
        monkeypatch.delenv(f"REID_{name}", raising=False)
    assert main(options) == 2
    assert capsys.readouterr().err == f"reid-serve: error: {message}\n"


def test_a_model_of_the_wrong_kind_is_told_in_one_line(checkpoint, classifier, tmp_path, capsys):
    folder = tmp_path / "gallery"
    reid, fgvc = "a re-identification model (of reid-train)", "a classifier (of fgvc-train)"
    for given, found, expected in [
        (["--classifier", str(checkpoint)], f"{checkpoint / 'model.safetensors'} is {reid}", fgvc),
        (
            ["--checkpoint", str(classifier), "--gallery", str(folder)],
            f"{classifier / 'model.safetensors'} is {fgvc}",
            reid,
        ),
        (
            ["--checkpoint", str(checkpoint), "--gallery", str(folder), "--classifier", str(checkpoint)],
            f"{checkpoint / 'model.safetensors'} is {reid}",
            fgvc,
        ),
    ]:
        assert main([*given, "--device", "cpu", "--port", "0"]) == 1
        message = f"reid-serve: error: checkpoint {found}, expected {expected}\n"
        assert capsys.readouterr().err.endswith(f"\n{message}")
    assert not folder.exists()


def test_an_address_that_is_taken_is_named(checkpoint, tmp_path, capsys):
    given = ["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery"), "--device", "cpu"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([*given, "--port", str(port)]) == 1
    message = f"reid-serve: error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize(("features", "kept"), [("concat", True), ("sa", False)])
def test_a_calibration_is_used_for_the_embeddings_it_was_made_for(checkpoint, tmp_path, caplog, features, kept):
    run = shutil.copytree(checkpoint, tmp_path / "run")
    levels = np.array([-1.0, 1.0]), np.array([0.1, 0.9])
    calibration = Calibration(*levels, 0.9, 0.5, 0.01, 10, 10, 10, 10, 0.1, 0.1, ()).as_json()
    protocol = {"features": features, "flip_test": False}
    values = {"model": fingerprint(run / "model.safetensors"), "protocol": protocol, "calibration": calibration}
    with open_gallery(tmp_path / "gallery", run, "cpu") as gallery:
        assert _calibration(run, gallery) == (None, UNCALIBRATED)
        (run / "calibration.json").write_text(json.dumps(values))
        found, told = _calibration(run, gallery)
    if kept:
        assert found.as_json() == calibration
        assert told == "an evaluation on features with other individuals"
    else:
        assert found is None
        assert told in caplog.text
        assert "made with features sa, the gallery with concat" in caplog.text


def test_elsewhere_a_key_is_needed(checkpoint, tmp_path, start, capsys):
    given = ["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery"), "--device", "cpu"]
    assert main([*given, "--host", "0.0.0.0", "--port", "0"]) == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert "keys are required, but the gallery has none; make one with: reid-gallery keys add" in shown
    with Database(tmp_path / "gallery") as database:
        _, secret = Keys(database).add(NewKey("gate", frozenset({"read"})))
    _, address = start("--host", "0.0.0.0")
    address = address.replace("0.0.0.0", "127.0.0.1")
    assert get(f"{address}/v1/items").status_code == 401
    assert get(f"{address}/v1/items", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert get(f"{address}/health/ready").status_code == 200


def test_elsewhere_a_classifier_alone_needs_the_admin_key(classifier, start_alone, capsys, monkeypatch, picture):
    given = ["--classifier", str(classifier), "--device", "cpu", "--port", "0", "--host", "0.0.0.0"]
    assert main(given) == 1
    assert "only a gallery can keep keys; set REID_ADMIN_KEY" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setenv("REID_ADMIN_KEY", "a" * 40)
    _, address = start_alone("--host", "0.0.0.0")
    address = address.replace("0.0.0.0", "127.0.0.1")
    sent = {"image": ("a.png", picture(1))}
    assert post(f"{address}/v1/classify", files=sent).status_code == 401
    assert post(f"{address}/v1/classify", files=sent, headers={"X-API-Key": "a" * 40}).status_code == 200


@pytest.mark.slow
def test_another_model_serves_after_a_reindex(start, checkpoint, picture, tmp_path):
    """The same weights with other features are another model."""
    process, address = start()
    sent = [("images", (f"{i}.png", picture(i))) for i in range(5)]
    post(f"{address}/v1/items", files=sent)
    process.send_signal(signal.SIGTERM)
    process.wait()
    run = shutil.copytree(checkpoint, tmp_path / "other")
    model, described = load_model(run, ReidConfig)
    options = described.config.eval.model_copy(update={"features": "sa"})
    config = described.config.model_copy(update={"eval": options})
    save_model(run / "model.safetensors", model, replace(described, config=config))
    _, address = start("--checkpoint", str(run))
    ready = get(f"{address}/health/ready")
    assert (ready.status_code, ready.json()["code"]) == (503, "model_mismatch")
    asked = post(f"{address}/query", files={"image": ("a.png", picture(1))})
    assert (asked.status_code, asked.json()["code"]) == (503, "model_mismatch")
    accepted = post(f"{address}/v1/admin/reindex").json()

    def ended():
        job = get(f"{address}/v1/jobs/{accepted['job_id']}").json()
        return job if job["state"] not in ("queued", "running") else None

    job = wait_until(ended)
    assert (job["state"], job["result"]["items"]) == ("done", 5)
    assert get(f"{address}/health/ready").json()["items"] == 5
    answer = post(f"{address}/query", files={"image": ("a.png", picture(1))}).json()
    assert answer["matches"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert answer["candidates"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["toy", "msmt17"])
def test_the_toy_model_is_named_as_such(start, checkpoint, tmp_path, dataset):
    run = shutil.copytree(checkpoint, tmp_path / dataset)
    model, described = load_model(run, ReidConfig)
    save_model(run / "model.safetensors", model, replace(described, protocol={"dataset": dataset}))
    process, address = start("--checkpoint", str(run))
    assert get(f"{address}/health/ready").json()["trained_on"] == dataset
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()  # not `communicate`, which does not know of lines that came together with the address
    assert rest.startswith("warning: this is the toy model") == (dataset == "toy")


@pytest.mark.slow
def test_the_export_of_a_model_serves_its_gallery(start, checkpoint, picture, tmp_path):
    pytest.importorskip("onnxscript")
    file = export(checkpoint, tmp_path / "model.onnx").file
    process, address = start()
    sent = [("images", (f"{i}.png", picture(i))) for i in range(3)]
    post(f"{address}/v1/items", files=sent)
    model_id = get(f"{address}/health/ready").json()["model_id"]
    process.send_signal(signal.SIGTERM)
    process.wait()
    _, address = start("--checkpoint", str(file))
    ready = get(f"{address}/health/ready")
    assert (ready.status_code, ready.json()["model_id"], ready.json()["items"]) == (200, model_id, 3)
    answer = post(f"{address}/query", files={"image": ("a.png", picture(1))}).json()
    assert answer["matches"][0]["score"] == pytest.approx(1, abs=1e-5)
    shown = post(f"{address}/v1/attention", files={"image": ("a.png", picture(1))})
    assert shown.status_code == 200


@pytest.mark.slow
def test_a_gallery_made_by_one_runtime_is_searched_by_the_other(start, checkpoint, picture, tmp_path):
    pytest.importorskip("onnxscript")
    run = shutil.copytree(checkpoint, tmp_path / "run")
    served = {}
    for runtime, asked in (("torch", ["--runtime", "torch"]), ("onnx", ["--runtime", "onnx"]), ("auto", [])):
        process, address = start("--checkpoint", str(run), *asked)
        if runtime == "torch":
            post(f"{address}/v1/items", files=[("images", (f"{i}.png", picture(i))) for i in range(3)])
        ready = get(f"{address}/health/ready").json()
        answer = post(f"{address}/query", files={"image": ("a.png", picture(1))}).json()
        served[runtime] = (ready["runtime"], ready["model_id"], ready["status"])
        assert answer["matches"][0]["score"] == pytest.approx(1, abs=1e-5)
        assert answer["candidates"] == 3
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert served["onnx"] == served["auto"] == ("onnx", *served["torch"][1:])
    assert served["torch"][0] == "torch"


def test_a_runtime_that_is_none_is_refused(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REID_RUNTIME", "tpu")
    assert main(["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery")]) == 2
    expected = "runtime (--runtime or REID_RUNTIME): input should be 'auto', 'torch' or 'onnx'"
    assert expected in capsys.readouterr().err


def test_an_index_of_milvus_that_is_not_offered_is_refused(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REID_MILVUS_INDEX", "diskann")  # which a server may take, and never finish
    assert main(["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery")]) == 2
    shown = capsys.readouterr().err
    expected = "milvus_index (REID_MILVUS_INDEX): input should be 'flat', 'hnsw', 'ivf' or 'auto'"
    assert shown == f"reid-serve: error: {expected}\n"


def test_a_setting_that_does_not_exist_is_named_with_the_near_one(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REID_REQUIRE_KEY", "true")
    assert main(["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery")]) == 2
    shown = capsys.readouterr().err
    assert shown == "reid-serve: error: REID_REQUIRE_KEY: there is no such setting; near: REID_REQUIRE_KEYS\n"


@pytest.mark.parametrize("key", ["short", "é" * 40, "x" * 201])
def test_a_key_that_cannot_be_sent_is_refused(checkpoint, tmp_path, monkeypatch, capsys, key):
    monkeypatch.setenv("REID_ADMIN_KEY", key)
    assert main(["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("reid-serve: error: admin_key (REID_ADMIN_KEY): expected 32 to 200 printable ASCII")
    assert key not in shown


@pytest.mark.parametrize(
    ("said", "who", "warned"),
    [
        ({}, "from this machine, without a key", ""),
        ({"public_url": "https://a.example/reid"}, "with a key", ""),
        (
            {"public_url": "https://a.example/reid", "require_keys": False},
            "without a key",
            "whoever a proxy lets pass may",
        ),
        ({"host": "0.0.0.0", "require_keys": False}, "without a key", "whoever reaches 0.0.0.0 may see"),
    ],
)
def test_who_may_ask_is_told_and_warned_of_where_that_is_everybody(said, who, warned, caplog):
    caplog.set_level("INFO", "reid")
    announce(Loaded(None, None, None), Settings(classifier="unused", **said), "http://here")
    assert caplog.messages[0].endswith(f"on http://here, {who}")
    assert [warned in message for message in caplog.messages[1:]] == [True] * bool(warned)
