"""Clients that leave before they have their answer."""

import logging
import socket
import threading

import pytest
import uvicorn

from service.api.app import create_app
from service.gallery.rendering import Order
from service.settings import Settings
from tests.drawn import encode, noise
from tests.waiting import DEADLINE, wait_until


@pytest.fixture
def port(gallery, runner, checkpoint, classification, tmp_path):
    """Of a service with a gallery and a classifier."""
    settings = Settings(checkpoint=checkpoint, gallery=tmp_path)
    app = create_app(gallery, runner, settings, classification=classification)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("path", ["/query", "/v1/classify", "/v1/attention"])
def test_photos_of_who_has_left_are_not_read(path, port, gallery, classification, caplog):
    decoders = classification._decoders if path == "/v1/classify" else gallery.decoders
    caplog.set_level(logging.INFO)
    release = threading.Event()
    photo = encode(noise(), "PNG")
    busy = [
        decoders.submit(f"share {i}", photo, Order(["thumbnail"]), lambda _: release.wait(DEADLINE))
        for i in range(len(decoders._threads))
    ]
    wait_until(lambda: all(one.running() for one in busy))
    body = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + photo + b"\r\n--x--\r\n"
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
        connection.sendall(head.encode() + body)
        (jobs,) = wait_until(lambda: list(decoders._waiting.values()))
    (job,) = jobs
    wait_until(job.left.is_set)
    release.set()
    wait_until(lambda: f"POST {path} 408" in caplog.text)
    assert [one.result(DEADLINE) for one in busy] == [True] * len(busy)
    assert not gallery.decoders._waiting
    assert "Exception" not in caplog.text
    with pytest.raises(RuntimeError, match="has left"):
        job.future.result(DEADLINE)
