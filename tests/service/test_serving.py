"""The first moments of a service: it answers while it loads, and can be stopped."""

import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, get_ident, main_thread
from time import sleep

import httpx2
import pytest

import service.loading as loading_module
import service.opening as opening_module
import service.serving as serving_module
from service.gallery.decoders import Decoders
from service.gallery.gallery import Gallery
from service.gallery.worker import Worker
from service.serve import main
from service.storage.folder import hold
from tests.waiting import DEADLINE, wait_until

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


def test_a_stop_waits_neither_for_photos_to_be_read_nor_for_the_model(start, port, monkeypatch, picture, capsys):
    """One photo is with the model, one waits for it, others for processes that never come to read them."""
    monkeypatch.setattr(serving_module, "SECONDS_TO_ANSWER", 0)
    monkeypatch.setattr(opening_module, "Decoders", lambda **_: Decoders(2))
    galleries, with_model, give_up, free = [], Event(), Gallery.give_up, Event()
    work, announce = Worker._work, loading_module.announce

    def slow(worker, jobs):
        with_model.set()
        assert free.wait(DEADLINE)
        return work(worker, jobs)

    def then_free(gallery):
        give_up(gallery)
        free.set()

    def ask():
        return post(f"http://127.0.0.1:{port}/query", files={"image": ("a.png", picture(1))})

    def look(loaded, *given):
        announce(loaded, *given)
        gallery = loaded.gallery
        galleries.append(gallery)
        asked.append(pool.submit(ask))
        assert with_model.wait(DEADLINE)
        asked.append(pool.submit(ask))
        wait_until(lambda: gallery.worker.waiting["urgent"] == 1)
        monkeypatch.setattr(gallery.decoders, "_share", lambda: None)
        asked.extend(pool.submit(ask) for _ in range(2))
        wait_until(lambda: sum(map(len, gallery.decoders._waiting.values())) == 2)
        stop()

    monkeypatch.setattr(Worker, "_work", slow)
    monkeypatch.setattr(Gallery, "give_up", then_free)
    monkeypatch.setattr(loading_module, "announce", look)
    asked = []
    with ThreadPoolExecutor(4) as pool:
        assert start() == 0
    answers = [one.result() for one in asked]
    assert [answer.status_code for answer in answers] == [200, 503, 503, 503]
    assert {answer.json()["code"] for answer in answers[1:]} == {"stopping"}
    assert "stopped" in capsys.readouterr().err.splitlines()[-1]
    assert all(process.ended for gallery in galleries for process in gallery.decoders._processes)


def test_what_never_ends_is_ended_with_the_process(start, monkeypatch, capsys):
    ended, close, announce = Event(), Gallery.close, loading_module.announce

    def hang(gallery):
        assert ended.wait(DEADLINE)
        close(gallery)

    def then_stop(*given):
        announce(*given)
        stop()

    monkeypatch.setattr(serving_module, "SECONDS_TO_STOP", 0)
    monkeypatch.setattr(serving_module.os, "_exit", lambda code: code == 1 and ended.set())
    monkeypatch.setattr(Gallery, "close", hang)
    monkeypatch.setattr(loading_module, "announce", then_stop)
    assert start() == 0  # as the process lives on here
    assert "after the signal, whatever was under way" in capsys.readouterr().err


def test_a_stop_waits_for_no_process_that_reads_a_photo(start, port, monkeypatch, picture):
    """One has it and does not get on, as with a photo that takes minutes."""
    monkeypatch.setattr(serving_module, "SECONDS_TO_ANSWER", 0)
    monkeypatch.setattr(opening_module, "Decoders", lambda **_: Decoders(2))
    announce, asked = loading_module.announce, []

    def ask():
        return post(f"http://127.0.0.1:{port}/query", files={"image": ("a.png", picture(1))})

    def look(loaded, *given):
        announce(loaded, *given)
        assert ask().status_code == 200
        for process in loaded.gallery.decoders._processes:
            os.kill(process.pid, signal.SIGSTOP)
        asked.append(pool.submit(ask))
        wait_until(lambda: loaded.gallery.decoders._working)
        stop()

    monkeypatch.setattr(loading_module, "announce", look)
    with ThreadPoolExecutor(1) as pool:
        assert start() == 0
    (answer,) = (one.result() for one in asked)
    assert (answer.status_code, answer.json()["code"]) == (503, "stopping")


def test_a_loop_that_hangs_is_ended_with_the_process(start, port, monkeypatch):
    """Nobody is left who would begin to stop."""
    announce, hanging, ended, released = loading_module.announce, Event(), Event(), []

    async def hang(*_):
        hanging.set()
        released.append(ended.wait(DEADLINE))

    def look(*given):
        announce(*given)
        monkeypatch.setattr(serving_module.Starting, "__call__", hang)
        pool.submit(get, f"http://127.0.0.1:{port}/")
        assert hanging.wait(DEADLINE)
        stop()

    monkeypatch.setattr(serving_module, "SECONDS_TO_STOP", 0)
    monkeypatch.setattr(serving_module.os, "_exit", lambda code: code == 1 and ended.set())
    monkeypatch.setattr(loading_module, "announce", look)
    with ThreadPoolExecutor(1) as pool:
        assert start() == 0  # as the process lives on here
    assert released == [True]


def test_a_signal_that_wakes_nobody_is_seen(start, monkeypatch):
    """Another thread than the main one gets it, as one does that comes just before the main one waits."""
    announce, stopped, seen = loading_module.announce, Event(), []

    def main_waits():
        frame, names = sys._current_frames()[main_thread().ident], []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return names[0] == "wait" and "serve" in names and "look" not in names

    def send():
        wait_until(main_waits)
        sleep(0.1)  # for it to be in the midst of waiting, or the test could not fail
        signal.pthread_kill(get_ident(), signal.SIGTERM)
        seen.append(stopped.wait(DEADLINE))
        if not seen[0]:
            stop()

    def look(*given):
        announce(*given)
        pool.submit(send)

    monkeypatch.setattr(loading_module, "announce", look)
    with ThreadPoolExecutor(1) as pool:
        assert start() == 0
        stopped.set()
    assert seen == [True]
