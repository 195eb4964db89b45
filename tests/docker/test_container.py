"""The real container: its first start, what it may do, and what it keeps through kills, stops and upgrades."""

import io
import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count
from time import monotonic

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.docker.conftest import SECRET, run
from tests.service.under_way import begin
from tests.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2400)]  # the first test builds the image

TOYS = 544  # in the toy gallery
KEY = "a-key-that-only-this-test-knows-0123456789"


def photo(seed, side=64):
    """The bytes of a picture of noise, another one for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def enrol(client, photos):
    """The ids of some photos by their bytes."""
    answer = client.post("/v1/items", files=[("images", ("a.png", data)) for data in photos])
    assert answer.status_code == 201, answer.text
    return {data: result["item"]["item_id"] for data, result in zip(photos, answer.json()["results"], strict=True)}


def ask(client, data):
    answer = client.post("/query", files={"image": ("a.png", data)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def expect(client, enrolled, deleted=()):
    """Everything enrolled is found by its own photo, nothing deleted is, and nothing else came in."""
    for data, item_id in enrolled.items():
        best = ask(client, data)["matches"][0]
        assert best["score"] == pytest.approx(1, abs=1e-4)
        assert client.get(f"/v1/items/{item_id}").status_code == 200
    for item_id in deleted:
        assert client.get(f"/v1/items/{item_id}").status_code == 404
    assert client.get("/health/ready").json()["items"] == TOYS + len(enrolled)


def test_a_first_start_answers_at_once_and_says_that_it_is_a_toy(running, vehicles):
    with running.client() as client:
        ready = client.get("/health/ready").json()
        assert (ready["items"], ready["trained_on"]) == (TOYS, "toy")
        assert "trained on drawn vehicles" in client.get("/").text
        right = 0
        for vehicle in vehicles:
            best = ask(client, vehicle.read_bytes())["matches"][0]
            right += best["label"] == str(int(vehicle.name.partition("_")[0]))
    assert len(vehicles) == 32
    assert right >= 10  # luck would find one
    assert "warning: this is the toy model" in running.log()


def test_curl_is_answered(running, vehicles):
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    said = run("curl", "--silent", "-F", f"image=@{vehicles[0]}", f"http://localhost:{running.port}/query").stdout
    assert len(json.loads(said)["matches"]) == 10


def test_what_the_container_may_do(running):
    assert running.execute("id", "--user").strip() == "10001"
    for folder in ("/", "/opt/reid", "/opt/toy", "/usr/local/bin", "/models"):
        assert "Read-only file system" in running.execute("touch", f"{folder}/file", check=False)
    running.execute("touch", "/tmp/file")
    status = dict(line.split(":\t") for line in running.execute("cat", "/proc/1/status").splitlines() if ":\t" in line)
    assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert status["NoNewPrivs"] == "1"
    ports = running.inspect()["NetworkSettings"]["Ports"]
    assert ports == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(running.port)}]}


def test_the_image_tells_nothing_of_how_it_was_built(image, running):
    told = run("docker", "history", "--no-trunc", image).stdout + run("docker", "inspect", image).stdout
    assert SECRET not in told
    config = json.loads(run("docker", "inspect", image).stdout)[0]["Config"]
    names = {variable.partition("=")[0] for variable in config["Env"]}
    assert {name for name in names if re.search("KEY|SECRET|TOKEN|PASSWORD|INDEX|PROXY", name)} <= {
        "GPG_KEY"
    }  # Python's
    assert config["User"] == "10001:10001"
    search = ["-xdev", "(", "-name", ".git", "-o", "-name", "pip.conf", "-size", "+0", ")"]
    assert run("docker", "run", "--rm", "--user", "0", "--entrypoint", "find", image, "/", *search).stdout == ""
    code = running.execute("sh", "-c", "ls /opt/reid/lib/python3*/site-packages")
    assert "service" in code.split()
    assert not {"pytest", "mypy", "tests", "benchmarks"} & set(code.split())


def test_an_upgrade_moves_little(image):
    """All but some MB are in the layer of the packages, which a change of our code leaves as it is."""
    sizes = run("docker", "history", "--format", "{{.Size}}\t{{.CreatedBy}}", "--human=false", "--no-trunc", image)
    layers = [line.split("\t") for line in sizes.stdout.splitlines()]
    (packages,) = [place for place, (_, created) in enumerate(layers) if "requirements.lock" in created]
    assert sum(int(size) for size, _ in layers[:packages]) < 20e6
    assert int(layers[packages][0]) > 1e9


def test_a_kill_loses_nothing(stack):
    stack.start()
    with stack.client() as client:
        enrolled = enrol(client, [photo(i) for i in range(20)])
        deleted = [enrolled.pop(photo(i)) for i in range(5)]
        for item_id in deleted:
            assert client.delete(f"/v1/items/{item_id}").status_code == 204
        run("docker", "kill", "--signal", "KILL", stack.container)
        assert stack.inspect()["State"]["ExitCode"] == 137
        stack.start()
        expect(client, enrolled, deleted)


def test_a_stop_under_load_answers_what_is_under_way_and_loses_nothing(stack):
    """Requests that began before SIGTERM are answered; what was acknowledged is there at the next start."""
    stack.start()
    pixels = photo(1, side=600)
    enrolled, answers, ending = [], [], threading.Event()

    def photos(name):
        # What follows the end of a picture changes nothing but its hash, by which it is another photo.
        return [("images", ("a.png", pixels + f"{name} {i}".encode())) for i in range(8)]

    def work(number):
        for round_ in count():
            if ending.is_set():
                return
            status = None
            with suppress(httpx2.TransportError), stack.client() as client:
                if round_ % 4 == 3:
                    status = client.post("/query", files={"image": ("a.png", pixels)}).status_code
                else:
                    answer = client.post("/v1/items", files=photos(f"{number} {round_}"))
                    status = answer.status_code
                    if status == 201:
                        enrolled.extend(result["item"]["item_id"] for result in answer.json()["results"])
            answers.append((monotonic(), status))

    with ThreadPoolExecutor(5) as pool:
        working = [pool.submit(work, number) for number in range(4)]
        try:
            wait_until(lambda: len(answers) >= 4)
            query = begin(stack.address, "/query", {"image": ("a.png", pixels)})
            enrolment = begin(stack.address, "/v1/items", photos("under way"))
            called = monotonic()
            stopping = pool.submit(run, "docker", "stop", stack.container)
            wait_until(lambda: not takes_requests(stack))
            status, found = finish(*query)
            assert status == 200 and len(found["matches"]) == 10
            status, taken = finish(*enrolment)
            assert status == 201
            enrolled.extend(result["item"]["item_id"] for result in taken["results"])
            stopping.result()
        finally:
            ending.set()
        for worked in working:
            worked.result()
    assert stack.inspect()["State"]["ExitCode"] == 0
    assert '"stopped"' in stack.log().splitlines()[-1]
    assert {status for ended, status in answers if ended <= called} <= {200, 201}
    stack.start()
    with stack.client() as client:
        assert client.get("/health/ready").json()["items"] >= TOYS + len(enrolled)
        for item_id in enrolled:
            assert client.get(f"/v1/items/{item_id}").status_code == 200


def finish(connection, rest):
    """Send the other half of a request; the status of the answer and what it says."""
    with closing(connection):
        connection.send(rest)
        answer = connection.getresponse()
        return answer.status, json.load(answer)


def takes_requests(stack):
    with suppress(httpx2.TransportError), stack.client() as client:
        return client.get("/health/live").status_code == 200
    return False


def test_a_stop_during_the_start_does_not_wait(stack):
    stack.call("up", "--no-start", "--no-build")
    container = stack.container
    run("docker", "start", container)
    run("docker", "stop", "--time", "60", container)
    # 143 is the end by SIGTERM itself, 0 a start that was quicker than the stop, and 137 the kill after a minute.
    assert stack.inspect()["State"]["ExitCode"] in (143, 0)


def test_an_upgrade_keeps_the_gallery(stack, build):
    """A newer image finds what an older one kept, and so does one that brings another toy model."""
    stack.start()
    with stack.client() as client:
        enrolled = enrol(client, [photo(i) for i in range(5)])
        model_id = client.get("/health/ready").json()["model_id"]
        newer = build("2")
        recipe = [
            f"FROM {newer}",
            "USER 0",
            "RUN rm -r /opt/toy/gallery && echo other > /opt/toy/model/model.safetensors",
        ]
        run("docker", "build", "--tag", "dcal-reid-test:3", "-", input="\n".join([*recipe, "USER 10001"]))
        for image, version in ((newer, "2"), ("dcal-reid-test:3", "2")):
            stack.start(IMAGE=image)
            labels = stack.inspect()["Config"]["Labels"]
            assert labels["org.opencontainers.image.version"] == version
            assert client.get("/health/ready").json()["model_id"] == model_id
            expect(client, enrolled)


def test_a_model_of_ones_own_has_a_gallery_of_its_own(stack, image, tmp_path):
    container = run("docker", "create", image).stdout.strip()
    run("docker", "cp", f"{container}:/opt/toy/model", str(tmp_path / "mine"))
    tmp_path.chmod(0o755)  # another user shall read it
    run("docker", "rm", "--volumes", container)
    stack.start(MODELS_FOLDER=str(tmp_path), REID_CHECKPOINT="/models/mine")
    with stack.client() as client:
        assert client.get("/health/ready").json()["items"] == 0
        enrolled = enrol(client, [photo(1)])
        stack.start(REID_CHECKPOINT="")
        assert client.get("/health/ready").json()["items"] == TOYS
        stack.start(REID_CHECKPOINT="/models/mine/model.safetensors")
        assert client.get("/health/ready").json()["items"] == len(enrolled)


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        (
            {"REID_CHECKPOINT": "/models/typo"},
            "/models/typo: not there in the container, or not readable by uid 10001; docker/models is /models there",
        ),
        ({"REID_CHECKPOINT": "/models/README.md"}, "checkpoint /models/README.md: cannot be read as safetensors"),
        ({"PUBLISH_ADDRESS": "172.17.0.1"}, "keys are required, but the gallery has none"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(stack, variables, error):
    """Each try of the restart policy adds one line of error, and the pauses between them grow."""
    stack.up(**variables)
    wait_until(lambda: error in stack.log())
    for line in stack.log().splitlines():
        if line.startswith("{"):  # what it is doing until then
            assert json.loads(line)["level"] == "info"
        else:
            assert line.startswith("reid-serve: error: ") and error in line


def test_whoever_comes_from_elsewhere_needs_a_key(stack):
    """The port is published at an address that is not this machine's alone; the container is asked from within."""
    stack.up(PUBLISH_ADDRESS="172.17.0.1", REID_ADMIN_KEY=KEY)
    stack.wait_until_healthy()
    for headers, expected in ({}, "401"), ({"X-API-Key": KEY}, "200"):
        code = (
            "import urllib.request as r, urllib.error as e\n"
            f"try: print(r.urlopen(r.Request('http://localhost:8000/v1/items', headers={headers})).status)\n"
            "except e.HTTPError as error: print(error.code)"
        )
        assert stack.execute("python", "-c", code).strip() == expected


def test_a_volume_of_another_user_is_named(image):
    volume = "dcal-reid-test-foreign"
    given = ["--rm", "--env", "REID_REQUIRE_KEYS=false", "--volume", f"{volume}:/data"]
    spoil = "touch /data/file && chown 0:0 /data"  # an empty one Docker itself would give to our user
    try:
        run("docker", "run", *given, "--user", "0", "--entrypoint", "sh", image, "-c", spoil)
        done = run("docker", "run", *given, image, check=False)
    finally:
        run("docker", "volume", "rm", "--force", volume)
    assert done.returncode == 1
    assert done.stdout.startswith("reid-serve: error: /data cannot be written by uid 10001: ")
    assert done.stdout.count("\n") == 1


def test_profiles_are_accepted(stack):
    for profiles in ("cpu", "gpu", "milvus", "monitoring", "cpu,milvus,monitoring"):
        stack.variables["COMPOSE_PROFILES"] = profiles
        stack.call("config", "--quiet")
