"""The first moments of a service: it answers while it loads, and can be stopped."""

import os
import signal
import socket
from functools import partial

import httpx2
import pytest

import service.loading as loading_module
import service.opening as opening_module
from service.serve import main
from service.storage.folder import hold
from tests.waiting import DEADLINE

get, post = (partial(ask, timeout=DEADLINE) for ask in (httpx2.get, httpx2.post))


@pytest.fixture
def port():
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def start(checkpoint, tmp_path, port):
    """A function that runs the command on the gallery of the test, until something in it stops it."""
    given = ["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery"), "--device", "cpu"]
    return lambda: main([*given, "--port", str(port)])


def stop():
    """As a supervisor would; this is the process."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_answers_while_it_loads_and_afterwards(start, port, monkeypatch, picture, capsys):
    address = f"http://127.0.0.1:{port}"
    load, fill, announce = opening_module.load_embedder, opening_module.LocalIndex, loading_module.announce
    told = []

    def look(function, *given):
        assert get(f"{address}/health/live").status_code == 200
        told.append(get(f"{address}/health/ready").json())
        refused = post(f"{address}/query", files={"image": ("a.png", picture(1))})
        assert (refused.status_code, refused.json()["code"]) == (503, "starting")
        return function(*given)

    def look_at_last(*given):
        assert get(f"{address}/health/ready").json()["items"] == 0
        announce(*given)
        stop()

    monkeypatch.setattr(opening_module, "load_embedder", partial(look, load))
    monkeypatch.setattr(opening_module, "LocalIndex", partial(look, fill))
    monkeypatch.setattr(loading_module, "announce", look_at_last)
    assert start() == 0
    assert {one["code"] for one in told} == {"starting"}
    assert [one["detail"].split(": ")[1] for one in told] == [
        "loading the model; ask again",
        "opening the gallery; ask again",
    ]
    said = capsys.readouterr().err
    steps = (f"listening on 127.0.0.1 port {port}", "loading the model", "filling the index", address, "stopped")
    assert [said.index(step) for step in steps] == sorted(said.index(step) for step in steps)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start(start, port, monkeypatch, tmp_path, capsys, sent):
    before = signal.getsignal(sent)

    def load(*_):
        os.kill(os.getpid(), sent)
        pytest.fail("the start went on")

    monkeypatch.setattr(loading_module, "_require_some_key", load)  # the gallery is open by then
    assert start() == 0
    assert "stopped" in capsys.readouterr().err.splitlines()[-1]
    assert signal.getsignal(sent) is before
    hold(tmp_path / "gallery").close()
    socket.create_server(("127.0.0.1", port)).close()


def test_what_fails_during_a_start_ends_it_in_one_line(start, port, monkeypatch, tmp_path, capsys):
    def fail(*_):
        assert get(f"http://127.0.0.1:{port}/health/live").status_code == 200
        raise ValueError("the model is broken")

    monkeypatch.setattr(loading_module, "_require_some_key", fail)
    assert start() == 1
    assert capsys.readouterr().err.splitlines()[-1] == "reid-serve: error: the model is broken"
    hold(tmp_path / "gallery").close()
    socket.create_server(("127.0.0.1", port)).close()
