"""Two services over one gallery, with PostgreSQL and Milvus, behind a proxy: what one was told, the other knows."""

from contextlib import ExitStack

import pytest

from service.client import Client, ServiceError
from tests.service.sites import Proxy, Service
from tests.waiting import wait_until

pytestmark = pytest.mark.milvus

ADMIN = "an admin key of two services, long enough"


@pytest.fixture
def site(tmp_path, shared_url, milvus_server, checkpoint):
    """Two services at work, and the address of their proxy."""
    settings = {
        "REID_DATABASE": shared_url,
        "REID_ENGINE": "milvus",
        "REID_MILVUS_URI": milvus_server("milvus").uri,
        "REID_REQUIRE_KEYS": "true",
        "REID_ADMIN_KEY": ADMIN,
    }
    services = [Service(tmp_path / "gallery", tmp_path / f"{name}.log", **settings) for name in "ab"]
    proxy = Proxy([service.port for service in services])
    try:
        for service in services:
            service.start(checkpoint)
        for service in services:
            service.wait()
        yield *services, proxy.address
    finally:
        proxy.close()
        for service in services:
            service.kill()


def names(answer):
    return [match.key for match in answer.matches]


@pytest.fixture
def client():
    """A function that makes a client."""
    with ExitStack() as made:
        yield lambda address, key=ADMIN: made.enter_context(Client(address, key))


def test_what_one_was_told_the_other_knows_at_once(site, client, picture):
    a, b = (client(service.address) for service in site[:2])
    for number in range(12):
        told, asked = (a, b) if number % 2 else (b, a)
        (result,) = told.enrol([picture(number)], [{"key": f"k{number}", "camera": f"c{number % 3}"}])
        assert (result.result, result.pending) == ("created", False)
        found = asked.query(picture(number), top_k=1)
        assert (names(found), found.candidates) == ([f"k{number}"], number + 1)
        assert asked.enrol([picture(number)])[0].item.item_id == result.item.item_id
    moved = next(item for item in b.items() if item.key == "k4")
    b.edit(moved.item_id, camera="tower")
    assert names(a.query(picture(4), cameras=["tower"])) == ["k4"]
    a.delete_items([moved.item_id], dry_run=False)
    assert "k4" not in names(b.query(picture(4), top_k=20))
    assert [item.item_id for item in a.items()] == [item.item_id for item in b.items()]
    key = a.add_key("gate", ["read"])
    gate, other_gate = (client(service.address, key.secret) for service in site[:2])
    wait_until(lambda: allowed(other_gate))
    assert allowed(gate)
    b.revoke_key(key.key_id)
    wait_until(lambda: not allowed(gate) and not allowed(other_gate))


def test_either_may_be_killed(site, client, picture, checkpoint):
    a, b, address = site
    anyone = client(address)
    anyone.enrol([picture(0)], [{"key": "k0"}])
    for round_, (killed, other) in enumerate([(a, b), (b, a)], 1):
        killed.kill()
        anyone.enrol([picture(round_)], [{"key": f"k{round_}"}])
        for number in range(round_ + 1):
            assert names(anyone.query(picture(number), top_k=1)) == [f"k{number}"]
        assert client(other.address).ready().items == round_ + 1
        killed.start(checkpoint)
        killed.wait()
        assert names(client(killed.address).query(picture(round_), top_k=1)) == [f"k{round_}"]


def test_a_new_model_takes_the_gallery_over_from_a_running_service(site, client, picture, another_checkpoint):
    a, b, _ = site
    old, new = client(a.address), client(b.address)
    old.enrol([picture(number) for number in range(20)], [{"key": f"k{number}"} for number in range(20)])
    b.kill()
    b.start(another_checkpoint)
    b.wait("/health/live")
    with pytest.raises(ServiceError, match="belongs to model"):
        new.query(picture(3))
    old.enrol([picture(20)], [{"key": "k20"}])
    job = new.wait(new.reindex().job_id)
    assert (job.state, job.result["items"]) == ("done", 21)
    assert names(new.query(picture(3), top_k=1)) == ["k3"]
    assert new.query(picture(20)).candidates == 21
    with pytest.raises(ServiceError, match="belongs to model"):
        old.query(picture(3))
    a.kill()
    a.start(another_checkpoint)
    a.wait()
    assert names(old.query(picture(20), top_k=1)) == ["k20"]


def allowed(client):
    try:
        client.session()
        return True
    except ServiceError as error:
        assert error.status == 401, error
        return False
