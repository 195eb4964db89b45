"""The compose file and its neighbours, read as files; nothing is started."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
OURS = {"reid", "reid-gpu", "reid-milvus"}


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]


def pins(path):
    """Name and version, with their hashes, of every package of a lock."""
    blocks = re.split(r"^(?=[\w.-]+==)", path.read_text(), flags=re.M)[1:]
    return {
        re.match(r"[\w.-]+==[^\s;]+", block).group(): frozenset(re.findall(r"sha256:\w+", block)) for block in blocks
    }


def test_the_image_installs_what_was_tested_less_what_only_developers_need():
    ours, tested = pins(ROOT / "docker" / "requirements.lock"), pins(ROOT / "requirements.lock")
    assert ours.items() <= tested.items()
    names = {pin.partition("==")[0] for pin in ours}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, requirements in extras.items():
        wanted = {re.match(r"[\w-]+", one).group() for one in requirements}
        assert wanted <= names if extra != "dev" else not {"pytest", "ruff", "mypy"} & names


def test_every_setting_that_is_passed_on_exists(services):
    for name in OURS:
        passed = [key for key in services[name]["environment"] if key.startswith("REID_")]
        assert {key.removeprefix("REID_").lower() for key in passed} <= Settings.model_fields.keys()
        assert "REID_ADMIN_KEY" in passed


def test_memory_is_bounded_and_given_back(services):
    image = (ROOT / "docker" / "Dockerfile").read_text()
    assert re.search(r"^ENV .*\bMALLOC_ARENA_MAX=2\b", image, re.M)  # also of commands beside the service
    for name in OURS:
        assert services[name]["mem_limit"] == "${MEMORY:-12g}"
        assert services[name]["tmpfs"] == "/tmp:size=${TMP_SIZE:-2g}"


def test_only_the_service_and_grafana_have_ports_and_both_on_this_machine(services):
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports.keys() == OURS | {"grafana"}
    for published in ports.values():
        (port,) = published
        assert port.startswith(("127.0.0.1:", "${PUBLISH_ADDRESS:-127.0.0.1}:"))


def test_images_of_others_have_an_exact_version(services):
    images = {name: service["image"] for name, service in services.items() if name not in OURS}
    assert images.keys() >= {"milvus", "etcd", "minio", "prometheus", "grafana"}
    for image in images.values():
        assert re.search(r":(v?\d+\.\d+\.\d+|RELEASE\.[\dTZ-]+)$", image), image


def test_each_of_ours_is_hardened(services):
    for name in OURS:
        service = services[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["init"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
