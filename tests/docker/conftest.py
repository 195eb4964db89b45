"""The real image, built once, and the compose file started on it; all of it skips where there is no Docker."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from time import monotonic, sleep

import httpx2
import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
OFFICIAL = "python:3.11-slim-bookworm"  # as in the Dockerfile
STAND_IN = "dcal-reid-test-base:bookworm"
SECRET = "told-to-the-build-alone-7d1f"
SECONDS_TO_START = 120
SECONDS_TO_BUILD = 1800
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
NUMBERS = count()


def run(*command, check=True, timeout=SECONDS_TO_START, **options):
    """The finished process of a command, with what it said as text; a failure shows it."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **options
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}"
    return done


def _builds(folder):
    """Whether the client in a folder can use BuildKit: by itself before version 23, by a plug-in since."""
    client = folder / "docker"
    if not client.is_file():
        return False
    version = run(str(client), "--version").stdout.split()[2].strip(",")
    return int(version.split(".")[0]) < 23 or run(str(client), "buildx", "version", check=False).returncode == 0


@pytest.fixture(scope="session")
def _client():
    """A client that can build comes first on the path, and builds with BuildKit."""
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    able = next((folder for folder in folders if _builds(folder)), None)
    if able is None:
        pytest.skip("no Docker client that can build: apt-get install docker.io")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{able}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("DOCKER_BUILDKIT", "1")
        yield


@pytest.fixture(scope="session")
def _daemon(_client, tmp_path_factory):
    """A Docker daemon: the one that runs, or one that is started for these tests and stopped after them."""
    if run("docker", "info", check=False).returncode == 0:
        yield
        return
    if shutil.which("dockerd") is None or os.geteuid():
        pytest.skip("no Docker daemon runs, and none can be started: that takes dockerd and root")
    log = tmp_path_factory.mktemp("dockerd") / "log"
    with open(log, "w") as written, subprocess.Popen(["dockerd"], stdout=written, stderr=written) as daemon:
        try:
            deadline = monotonic() + 60
            while run("docker", "info", check=False).returncode:
                if daemon.poll() is not None or monotonic() > deadline:
                    pytest.skip(f"dockerd does not start: {log.read_text()[-500:]}")
                sleep(0.5)
            yield
        finally:
            daemon.terminate()
            daemon.wait(60)


@pytest.fixture(scope="session")
def compose(_daemon):
    """The words that start Docker Compose, version 2 where it is there."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) and run(*words, "version", check=False).returncode == 0:
            return words
    pytest.skip("no Docker Compose: apt-get install docker-compose")


@pytest.fixture(scope="session")
def base(_daemon):
    """The base image: BASE_IMAGE if that is set, the official one, or where that cannot be had Debian's own Python."""
    if named := os.environ.get("BASE_IMAGE"):
        return named
    for image in (OFFICIAL, STAND_IN):
        if run("docker", "image", "inspect", image, check=False).returncode == 0:
            return image
    if run("docker", "pull", "--quiet", OFFICIAL, check=False).returncode == 0:
        return OFFICIAL
    if shutil.which("debootstrap") is None or os.geteuid():
        pytest.skip(f"{OFFICIAL} cannot be pulled, and a stand-in takes debootstrap and root")
    sources = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: bookworm").stdout.split()
    with tempfile.TemporaryDirectory() as folder:
        packages = "--include=ca-certificates,python3,python3-venv,python3-pip"
        run("debootstrap", "--variant=minbase", packages, "bookworm", folder, *sources[:1], timeout=SECONDS_TO_BUILD)
        shutil.copy(BUNDLE, Path(folder, BUNDLE.relative_to("/")))  # a proxy of this network may have one of its own
        for kept in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(Path(folder, kept))
        run("sh", "-euc", f"tar --directory {folder} --create . | docker import - {STAND_IN}", timeout=SECONDS_TO_BUILD)
    return STAND_IN


@pytest.fixture(scope="session")
def build(base, tmp_path_factory):
    """A function that builds the image of a version, as README says, and gives its name."""
    config = tmp_path_factory.mktemp("pip") / "pip.conf"
    index = os.environ.get("PIP_INDEX_URL")
    config.write_text(f"# {SECRET}\n[global]\n" + (f"index-url = {index}\n" if index else ""))

    def build(version):
        name = f"dcal-reid-test:{version}"
        given = {"BASE_IMAGE": base, "VERSION": version}
        arguments = [word for pair in given.items() for word in ("--build-arg", "=".join(pair))]
        command = ["docker", "build", "--file", "docker/Dockerfile", "--tag", name, *arguments]
        run(*command, "--secret", f"id=pip.conf,src={config}", ".", cwd=ROOT, timeout=SECONDS_TO_BUILD)
        return name

    return build


@pytest.fixture(scope="session")
def image(build):
    """The image of version 1."""
    return build("1")


@pytest.fixture(scope="session")
def vehicles(image, tmp_path_factory):
    """The photos to ask with that the image holds; a name begins with the vehicle's number."""
    folder = tmp_path_factory.mktemp("vehicles")
    container = run("docker", "create", image).stdout.strip()
    run("docker", "cp", f"{container}:/opt/toy/query", str(folder))
    run("docker", "rm", "--volumes", container)
    return sorted((folder / "query").iterdir())


class Stack:
    """The compose file as a project of its own, on a free port of this machine."""

    def __init__(self, compose, image):
        self._compose = compose
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.variables = {
            "COMPOSE_PROJECT_NAME": f"dcal-reid-test-{os.getpid()}-{next(NUMBERS)}",
            "IMAGE": image,
            "PUBLISH_PORT": str(self.port),
        }

    def call(self, *words, **options):
        environment = {**os.environ, **self.variables}
        return run(*self._compose, "--file", str(COMPOSE), *words, env=environment, **options)

    def up(self, **variables):
        """Start it, or start it anew where a variable has another value."""
        self.variables |= variables
        self.call("up", "--detach", "--no-build")

    def start(self, **variables):
        """`up`, and wait until it is ready: Docker itself asks for its health every ten seconds only."""
        self.up(**variables)
        deadline = monotonic() + SECONDS_TO_START
        with self.client() as client:
            while not self._is_ready(client):
                assert monotonic() < deadline, self.log()
                sleep(0.1)

    @staticmethod
    def _is_ready(client):
        with suppress(httpx2.TransportError):
            return client.get("/health/ready").is_success
        return False

    def wait_until_healthy(self):
        """Wait until Docker takes it for healthy."""
        deadline = monotonic() + SECONDS_TO_START
        while self.inspect()["State"].get("Health", {}).get("Status") != "healthy":
            assert monotonic() < deadline, self.log()
            sleep(0.5)

    @property
    def container(self):
        return self.call("ps", "--quiet", "--all" if self._compose == ["docker", "compose"] else "reid").stdout.strip()

    def inspect(self):
        return json.loads(run("docker", "inspect", self.container).stdout)[0]

    def log(self):
        return run("docker", "logs", self.container).stdout

    def execute(self, *command, **options):
        return run("docker", "exec", self.container, *command, **options).stdout

    def client(self, **options):
        return httpx2.Client(base_url=self.address, timeout=60, **options)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def project(compose, image):
    stack = Stack(compose, image)
    try:
        yield stack
    finally:
        stack.call("down", "--volumes", "--timeout", "1", check=False)


@pytest.fixture
def stack(compose, image):
    """The compose file, not yet started; what it made is removed after the test."""
    with project(compose, image) as stack:
        yield stack


@pytest.fixture(scope="module")
def running(compose, image):
    """The service of the compose file as it is, healthy; tests that share it change nothing that others look at."""
    with project(compose, image) as stack:
        stack.up()
        stack.wait_until_healthy()
        yield stack
