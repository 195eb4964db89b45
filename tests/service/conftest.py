"""Tiny models that nobody trained, and galleries on them."""

import io
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid.checkpoint import Checkpoint, save_model
from reid.config import FgvcConfig, load_config
from reid.data.transforms import Preprocessing
from reid.models.dcal import build_dcal
from service.backup import backup_work
from service.classification import Classification
from service.jobs import JobRunner
from service.opening import load_classifier, open_gallery
from service.reindex import reindex_work
from service.storage.jobs import Jobs
from tests.service.milvus_servers import MilvusServer

BIRDS = ("auk", "boat-tailed grackle", "crow", "dove", "egret", "fulmar")


@pytest.fixture(autouse=True)
def _logs_as_before():
    """The loggers of this process, left as they were."""
    loggers = [
        logging.getLogger(name) for name in ("", "reid", "reid.access", "uvicorn", "uvicorn.error", "uvicorn.access")
    ]
    kept = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    with warnings.catch_warnings():
        yield
        logging.captureWarnings(False)
    for logger, handlers, level, propagate in kept:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory):
    """The function that starts a server of a kind, once in a session; whoever kills it starts it again."""
    servers = {}

    def start(kind):
        if kind not in servers:
            servers[kind] = MilvusServer(kind, tmp_path_factory.mktemp(kind))
        servers[kind].start()
        return servers[kind]

    yield start
    for server in servers.values():
        server.kill()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A run folder with a DCAL model for images of 32x16 pixels."""
    run = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (32, 16), 3)
    options = {"model.backbone": "vit_toy", "model.weights": "none", "data.image_size": "32x16"}
    config = load_config("csv", None, {**options, "data.root": "images.csv"})
    preprocessing = Preprocessing((32, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    save_model(run / "model.safetensors", model, Checkpoint(config, preprocessing, ("a", "b", "c"), {}, 1))
    return run


@pytest.fixture(scope="session")
def classifier(tmp_path_factory) -> Path:
    """A run folder with a DCAL model that tells six birds apart, by the middle 32x16 of 40x20 pixels."""
    run = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (32, 16), 6, head="fgvc")
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter)  # of other probabilities for every picture
    options = {"backbone": "vit_toy", "weights": "none", "image_size": "32x16", "resize": "40x20", "root": "birds"}
    config = load_config("folder", None, options, FgvcConfig)
    preprocessing = Preprocessing((32, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (40, 20))
    save_model(run / "model.safetensors", model, Checkpoint(config, preprocessing, BIRDS, {}, 1))
    return run


@pytest.fixture
def classification(classifier):
    """A classifier at work, alone."""
    with Classification(*load_classifier(classifier, "cpu")) as opened:
        yield opened


@pytest.fixture
def gallery(checkpoint, tmp_path):
    """An empty gallery."""
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as opened:
        yield opened


@pytest.fixture
def runner(gallery, tmp_path):
    """What runs the jobs of the gallery."""
    kinds = {
        "backup": backup_work(gallery.database, gallery.pictures, tmp_path / "backups"),
        "reindex": reindex_work(gallery),
    }
    with JobRunner(Jobs(gallery.database), kinds) as runner:
        yield runner


@pytest.fixture
def command(checkpoint, tmp_path):
    """A function that starts a module of the service on the gallery of the test."""
    started = []

    def start(module, *arguments, prefix=()):
        given = ["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery"), "--device", "cpu"]
        environment = {**os.environ, "REID_LOG_FORMAT": "text", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, *given, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def serve(command):
    """A function that starts the service on a free port and gives the process and its address."""

    def start(*arguments, **options):
        process = command("service.serve", "--port", "0", *arguments, **options)
        lines = []
        for line in process.stderr:
            lines.append(line)
            if address := re.search(r"http://\S+:\d+", line):
                return process, address.group()
        pytest.fail(f"the command ended: {lines}")

    return start


@pytest.fixture
def picture():
    """A function that gives the bytes of a PNG file, another one for each number."""

    def make(number: int, width: int = 20, height: int = 30) -> bytes:
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        written = io.BytesIO()
        Image.fromarray(pixels).save(written, "PNG")
        return written.getvalue()

    return make
