"""What was made or written for earlier versions goes on working: features, environment variables and the HTTP API.

Galleries of earlier versions are in tests/service/storage.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from service.api.app import create_app
from service.bulk.enrolling import enrol_features
from service.bulk.shards import FeatureFolder
from service.records import Filter
from service.settings import Settings, load
from service.storage.database import Database
from service.storage.store import Store

PROBLEM = ("code", "detail", "errors", "errors.detail", "errors.field", "request_id", "status", "title", "type")
BEFORE = Path(__file__).parent / "before"
MODEL = "accda2078a23d47b"


def test_features_of_an_earlier_version_are_enrolled(tmp_path, caplog):
    """Of a folder with three photos and a file that is none, in shards of three."""
    features = FeatureFolder.open(BEFORE / "features")
    counts, size = enrol_features(tmp_path / "gallery", features, [BEFORE / "photos"])
    assert (counts["created"], counts["failed"], size) == (3, 1, 3)
    assert "none.png: " in caplog.text
    with Database(tmp_path / "gallery") as database:
        store = Store(database)
        items = {item.number: item.medium.source for item in store.page(Filter(), 0, 10)}
        vectors = {items[row.number]: row.vector for row in store.rows(MODEL)}
    expected = load_file(BEFORE / "features" / "00000000.safetensors")["features"]
    assert list(vectors) == ["a.png", "b.png", "below/c.png"]
    np.testing.assert_array_equal(np.stack(list(vectors.values())), expected)


def test_environment_variables_of_an_earlier_version_are_settings(monkeypatch):
    given = json.loads((BEFORE / "environment.json").read_text())
    for name, (value, _) in given.items():
        monkeypatch.setenv(name, value)
    settings = load(Settings)
    for name, (_, expected) in given.items():
        found = getattr(settings, name.removeprefix("REID_").lower())
        secret = getattr(found, "get_secret_value", None)
        found = secret() if secret else str(found) if isinstance(found, Path) else found
        assert found == expected, name


def properties(schema, schemas, within=()):
    """The dotted names of all properties of a schema, and of those it requires at its top."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return (set(), set()) if name in within else properties(schemas[name], schemas, (*within, name))
    names, required = set(), set(schema.get("required", ()))
    for part in (*schema.get("anyOf", ()), *schema.get("allOf", ()), *schema.get("oneOf", ())):
        names |= properties(part, schemas, within)[0]
    if isinstance(schema.get("items"), dict):
        names |= properties(schema["items"], schemas, within)[0]
    for name, value in schema.get("properties", {}).items():
        names |= {name} | {f"{name}.{below}" for below in properties(value, schemas, within)[0]}
    return names, required


def interface(description):
    """What can be sent to each operation, what must be, and what it answers with each status, by the names in it."""
    schemas = description["components"]["schemas"]
    found = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            takes, needs, answers = set(), set(), {}
            for one in operation.get("parameters", ()):
                takes.add(f"{one['in']} {one['name']}")
                needs |= {f"{one['in']} {one['name']}"} if one.get("required") else set()
            for content in operation.get("requestBody", {}).get("content", {}).values():
                names, required = properties(content["schema"], schemas)
                takes |= names
                needs |= required
            for status, answer in operation["responses"].items():
                contents = answer.get("content", {}).values()
                names = [properties(content.get("schema", {}), schemas)[0] for content in contents]
                answers[status] = sorted(set().union(*names))
            found[f"{method.upper()} {path}"] = {"takes": sorted(takes), "needs": sorted(needs), "answers": answers}
    return found


def test_the_api_takes_and_answers_what_it_did(gallery, runner):
    before = json.loads((BEFORE / "interface.json").read_text())
    now = interface(create_app(gallery, runner, Settings(checkpoint=Path("run"), gallery=Path("gallery"))).openapi())
    for name, operation in before.items():
        assert set(operation["takes"]) <= set(now[name]["takes"]), name
        assert set(now[name]["needs"]) <= set(operation["needs"]), name
        for status, names in operation["answers"].items():
            assert set(PROBLEM if names == "problem" else names) <= set(now[name]["answers"][status]), (name, status)
