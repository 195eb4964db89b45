"""Prometheus itself reads the container by our configuration, and every query of the dashboard has an answer."""

import json
import os
import shutil
import subprocess
from functools import partial

import httpx2
import pytest
import yaml

from tests.docker.conftest import ROOT, free_port, run
from tests.waiting import DEADLINE, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2400)]

MONITORING = ROOT / "docker" / "monitoring"
NOT_SERVED = "reid_classify_"  # a container without a classifier does not classify


@pytest.fixture
def prometheus(running, tmp_path):
    """A client of a Prometheus that reads the container by our configuration, but every second."""
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus: apt-get install prometheus")
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    config["global"]["scrape_interval"] = "1s"
    (job,) = config["scrape_configs"]
    (group,) = job["static_configs"]
    assert group["targets"] == ["reid:8000"]  # an alias of each of the services, in compose.yaml
    group["targets"] = [f"127.0.0.1:{running.port}"]
    path, port = tmp_path / "prometheus.yaml", free_port()
    path.write_text(yaml.safe_dump(config))
    given = [
        f"--config.file={path}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen(["prometheus", *given], stdout=log, stderr=log) as process,
    ):
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as client:
                yield client
        finally:
            process.terminate()


def test_every_query_of_the_dashboard_is_answered(running, prometheus, vehicles):
    def ask(query):
        try:
            answer = prometheus.get("/api/v1/query", params={"query": query})
        except httpx2.TransportError:  # it does not listen yet
            return []
        if answer.status_code == 503:  # it reads its own files yet
            return []
        return answer.raise_for_status().json()["data"]["result"]

    def use():
        with running.client() as client:
            assert client.post("/query", files={"image": ("a.jpg", vehicles[0].read_bytes())}).status_code == 200
            assert client.post("/query", files={"image": ("a.jpg", b"text")}).is_client_error
            client.post("/v1/items", files={"images": ("a.jpg", vehicles[0].read_bytes())})

    def has_a_value(query):
        use()  # again and again, for a rate takes two samples
        return any(sample["value"][1] != "NaN" for sample in ask(query))

    wait_until(lambda: ask('up{job="reid"} == 1'))
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    queries = [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]
    for query in queries:
        if NOT_SERVED in query:
            ask(query)
        else:
            wait_until(partial(has_a_value, query), query)


@pytest.mark.parametrize("key", ["", "reid_of-the-test"])
def test_the_configuration_is_valid_with_and_without_a_key(tmp_path, key):
    """As the container of Prometheus writes it before it starts."""
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: apt-get install prometheus")
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    script = services["prometheus"]["entrypoint"][2].replace("$$", "$")
    script = script.replace('exec prometheus "$@"', "promtool check config /tmp/prometheus.yaml")
    script = script.replace("/tmp/", f"{tmp_path}/")  # first, for the repository may be below /tmp itself
    script = script.replace("/etc/prometheus/", f"{MONITORING}/")
    run("sh", "-euc", script, env={**os.environ, "METRICS_KEY": key})
    (job,) = yaml.safe_load((tmp_path / "prometheus.yaml").read_text())["scrape_configs"]
    if key:
        assert job["authorization"] == {"credentials_file": f"{tmp_path}/metrics-key"}
        assert (tmp_path / "metrics-key").read_text() == key
    else:
        assert "authorization" not in job
