"""The OpenAPI description: that it is complete, and that the service does what it says, whatever is sent."""

import io
import re
from pathlib import Path
from zlib import crc32

import jsonschema_rs
import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from service.api.app import create_app, create_classifier_app
from service.api.description import EXAMPLES
from service.api.problems import MEDIA_TYPE
from service.classification import Classification
from service.opening import load_classifier, open_gallery
from service.records import Details, Upload
from service.settings import Settings
from service.storage.jobs import Jobs
from service.upkeep.jobs import JobRunner
from service.wire import admin_schemas, import_schemas, review_schemas, schemas, state_schemas, work_schemas

ROOT = Path(__file__).resolve().parents[3]


def encoded(form, seed, size=(20, 30), **save):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, form, **save)
    return written.getvalue()


# In place of the files that are generated: pictures, broken ones, and what is none.
FILES = [
    *(encoded(form, seed) for seed, form in enumerate(["PNG", "JPEG", "WEBP", "BMP", "PNG", "JPEG"])),
    encoded("JPEG", 9, (200, 200))[:5000],
    encoded("PNG", 9)[:300],
    encoded("GIF", 1),
    b"",
    b"<svg/>",
]


@pytest.fixture(scope="module")
def app(checkpoint, classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi") / "gallery"
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        gallery.enrol([Upload(f"{i}.png", encoded("PNG", 100 + i), Details(camera="a", label="x")) for i in range(20)])
        kinds = {"backup": lambda job, progress: {"folder": "b"}, "reindex": lambda job, progress: {}}
        kinds |= dict.fromkeys(["suggest", "check", "expire", "import"], lambda job, progress: {})
        kinds["reconcile"] = lambda job, progress: {"rows": 20, "missing": 0, "ghosts": 0, "wrong": 0}
        served = {"checkpoint": checkpoint, "gallery": folder, "classifier": classifier}
        settings = Settings(**served, allowed_hosts=["testserver"])
        with (
            Classification(*load_classifier(classifier, "cpu"), gallery) as classification,
            JobRunner(Jobs(gallery.database), kinds) as runner,
        ):
            yield create_app(gallery, runner, settings, classification=classification)


@pytest.fixture(scope="module")
def alone(classifier):
    """A classifier without a gallery."""
    with Classification(*load_classifier(classifier, "cpu")) as classification:
        yield create_classifier_app(classification, Settings(classifier=classifier, allowed_hosts=["testserver"]))


@pytest.fixture(scope="module")
def description(app):
    return app.openapi()


@pytest.fixture(scope="module")
def schema(app):
    loaded = schemathesis.openapi.from_asgi("/openapi.json", app, config=CONFIG)
    without_binary(loaded.raw_schema)
    return loaded


def without_binary(part):
    """Take `format: binary` away, beside which Schemathesis cannot make up what is wrong; `contentMediaType` stays."""
    if isinstance(part, dict):
        if part.get("format") == "binary":
            del part["format"]
        part = [*part.values()]
    for one in part if isinstance(part, list) else []:
        without_binary(one)


# By itself the check for wrong data takes no 413 for a refusal, which a filter of 10,001 names may get.
CONFIG = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": ["4xx", "5xx"]}}})
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# Of these a request has one, which its schema does not say.
EITHER = [("image", "item_id"), ("image", "subject_id"), ("item_id", "subject_id"), ("item_ids", "filter")]
# No job runs long enough to be cancelled, and nobody guesses a key.
# Nor does anybody guess what an identity has, or which step to take back.
NEVER_DONE = {
    ("post", "/v1/jobs/{job_id}/cancel"),
    ("post", "/v1/session"),
    ("post", "/v1/decisions/undo"),
    ("post", "/v1/items/edit/undo"),
    ("get", "/v1/review/next"),  # nor is a review sure to be ready by then
    ("get", "/v1/review/status"),
    # Nor does an import have more to take, run or be tried again.
    ("put", "/v1/imports/{import_id}/files/{name}"),
    ("post", "/v1/imports/{import_id}/cancel"),
    ("post", "/v1/imports/{import_id}/retry"),
    ("post", "/v1/imports/{import_id}/timezone"),
    ("post", "/v1/imports/{import_id}/undo"),
    *(("post", f"/v1/identities/{{identity_id}}/{act}") for act in ("merge", "unmerge", "split")),
}


def with_files(form):
    """The same form with real files in place of generated ones; which, is up to those."""
    return {
        name: [chosen(data, FILES) for data in value]
        if name in ("image", "images") and isinstance(value, list)
        else chosen(value, FILES)
        if name == "image"
        else value
        for name, value in form.items()
    }


def with_sense(body, ids):
    """The same body about an item that is there, without one of two fields that exclude each other."""
    without = {chosen(body, pair) for pair in EITHER if body.keys() >= set(pair)}
    kept = {name: value for name, value in body.items() if name not in without}
    if isinstance(kept.get("image"), list) and kept.get("box"):
        kept["box"] = [""] * len(kept["image"])
    if isinstance(kept.get("item_ids"), list) and "count" in kept:
        kept["item_ids"] = ids[:2]
    if isinstance(kept.get("item_ids"), list) and "name" in kept:
        kept |= {"item_ids": [], "name": kept["name"] or "someone"}
    if isinstance(kept.get("decisions"), list):
        pair = dict(zip("ab", ids[:2], strict=True))
        kept["decisions"] = [{**pair, "answer": one["answer"]} for one in kept["decisions"][:1]]
    return {**kept, "item_id": chosen(kept, ids)} if "item_id" in kept else kept


def chosen(generated, things):
    return things[crc32(repr(generated).encode()) % len(things)]


def ask(operation, mode, examples, client):
    """Send generated requests to an operation, often about what is there, and check the answers; give the statuses."""
    statuses = set()
    ids = there(client, operation)
    chance = settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )

    @chance
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        # A form or a query string has no types that could be wrong.
        checks = [*CHECKS, negative_data_rejection] if case.media_type == "application/json" else CHECKS
        if case.media_type == "multipart/form-data" and isinstance(case.body, dict):
            case.body = with_files(case.body)
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = with_sense(case.body, ids)
            if operation.path == "/v1/items/edit":  # which needs something to change, and what to change it of
                case.body = {"item_ids": ids[:2], "changes": {"site": "here"}}
            if operation.path.startswith("/v1/imports"):  # no zone, nor any camera, is called as it comes
                case.body = {name: value for name, value in case.body.items() if name not in ("timezone", "said")}
            if "shortlist" in operation.path:  # whose items are there
                some = [item["item_id"] for item in client.get("/v1/items").json()["items"][:2]]
                known = {"item_ids": some, "entries": [{"item_id": item_id, "note": "n"} for item_id in some]}
                case.body |= {name: value for name, value in known.items() if name in case.body}
        for name, value in case.path_parameters.items():
            known = {"index": [0], "name": ["1.png"]}.get(name, ids)
            case.path_parameters[name] = chosen(value, [value, *known])
        statuses.add(case.call_and_validate(checks=checks).status_code)

    check()
    return statuses


def there(client, operation):
    """The ids of what the service holds of the kind that an operation is about."""
    if "shortlist" in operation.path:
        return 5 * [client.post("/v1/shortlists", json={"name": "a"}).json()["shortlist_id"]]
    if "imports" in operation.path:
        made = client.post("/v1/imports", json={}).json()["import_id"]
        client.post(f"/v1/imports/{made}/files", json={"files": [{"name": "1.png", "size": len(FILES[0])}]})
        client.put(f"/v1/imports/{made}/files/1.png", content=FILES[0])
        return 5 * [made]
    if "subject" in operation.path:
        return 5 * [client.post("/v1/subjects", files={"image": FILES[0]}).json()["subject_id"]]
    for kind, path, of in [
        ("job", "jobs", "jobs"),
        ("key", "admin/keys", "keys"),
        ("identit", "identities", "identities"),
        ("", "items", "items"),
    ]:
        if kind in operation.path:
            name = {"identities": "identity_id"}.get(of, f"{of[:-1]}_id")
            return [one[name] for one in client.get(f"/v1/{path}").json().get(of, ())]


def answers(description):
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                yield f"{method} {path} {status}", int(status), answer


def contents(description):
    """What is sent and answered as JSON or a form: where, and the media type with its schema."""
    for where, status, answer in answers(description):
        if status < 400 and (content := answer.get("content", {}).get("application/json")):
            yield where, content
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                if kind != "application/octet-stream":
                    yield f"{method} {path}", content


def resolved(description, schema):
    return description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]


def validator(description, schema):
    return jsonschema_rs.Draft202012Validator(
        {**schema, "components": description["components"]}, validate_formats=True
    )


def test_every_operation_says_what_it_does_and_what_it_refuses(description):
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert 5 < len(operation["summary"]) < 120 and "\n" not in operation["summary"], where
            assert operation["tags"], where
            refusals = {int(status) for status in operation["responses"] if int(status) >= 400}
            assert 403 in refusals, where  # a page of another site, which holds even where no key is needed
            assert ("security" in operation) == (401 in refusals) or path == "/v1/session", where
            body = "requestBody" in operation
            assert ({400, 413, 422} <= refusals) == body, where
            if "{" in path:
                assert {404, 422} <= refusals, where
            assert any(int(status) < 300 for status in operation["responses"]), where


def test_every_refusal_is_a_problem_with_an_example_of_its_own(description):
    told = validator(description, {"$ref": "#/components/schemas/Problem"})
    for where, status, answer in answers(description):
        if status >= 400:
            ((media_type, content),) = answer["content"].items()
            assert media_type == MEDIA_TYPE, where
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, where
            told.validate(content["example"])
            assert content["example"]["status"] == status, where
            assert content["example"]["request_id"], where
    for missing in ("request_id", "code", "detail"):
        assert missing in description["components"]["schemas"]["Problem"]["required"]


def test_what_is_sent_and_what_is_answered_has_an_example_that_is_valid(description):
    checked = 0
    for where, content in contents(description):
        schema = resolved(description, content["schema"])
        assert schema.get("examples"), where
        for example in schema["examples"]:
            validator(description, {**schema, "additionalProperties": False}).validate(example)
            required = set(schema["properties"]) if " 2" in where else set(schema.get("required", ()))
            assert required <= example.keys(), where  # an answer shows all that there can be
        checked += 1
    assert checked > 25


def test_the_examples_are_what_the_models_take(description):
    for name, example in EXAMPLES.items():
        for module in (schemas, admin_schemas, import_schemas, review_schemas, state_schemas, work_schemas):
            if model := getattr(module, name, None):
                again = model.model_validate(example).model_dump(mode="json", by_alias=True, exclude_unset=True)
                assert again == example or name == "Credentials"  # which hides its secret


def test_every_answer_has_the_id_of_its_request(app, description):
    client = TestClient(app)
    for path, methods in description["paths"].items():
        for method in methods:
            response = client.request(method, path)
            assert len(response.headers["x-request-id"]) == 32
            if response.status_code >= 400:
                assert response.json()["request_id"] == response.headers["x-request-id"]
            assert str(response.status_code) in methods[method]["responses"]


def operations(schema, mode):
    """Those to which something can be sent; where they take nothing, nothing can be wrong."""
    every = [result.ok() for result in schema.get_all_operations()]
    return [one for one in every if mode is GenerationMode.POSITIVE or [*one.iter_parameters(), *one.body]]


@pytest.mark.parametrize("mode", GenerationMode)
def test_whatever_is_sent_the_answer_is_one_that_is_described(app, schema, subtests, mode):
    for operation in operations(schema, mode):
        with subtests.test(f"{operation.method} {operation.path}"):
            statuses = ask(operation, mode, 5 if mode is GenerationMode.POSITIVE else 2, TestClient(app))
            if mode is GenerationMode.POSITIVE and (operation.method, operation.path) not in NEVER_DONE:
                if min(statuses) >= 300:  # of so few, all may have contradicted what is there
                    statuses |= ask(operation, mode, 40, TestClient(app))
                assert min(statuses) < 300, "no request succeeded, which shows little"


@pytest.mark.parametrize("mode", GenerationMode)
def test_a_classifier_alone_answers_as_it_is_described(alone, subtests, mode):
    schema = schemathesis.openapi.from_asgi("/openapi.json", alone, config=CONFIG)
    for operation in operations(schema, mode):
        with subtests.test(f"{operation.method} {operation.path}"):
            statuses = ask(operation, mode, 5, TestClient(alone))
            if mode is GenerationMode.POSITIVE and (operation.method, operation.path) not in NEVER_DONE:
                assert min(statuses) < 300, "no request succeeded, which shows little"


def test_of_a_classifier_alone_all_is_described_too(app, alone):
    described, every = alone.openapi(), app.openapi()
    for path, methods in described["paths"].items():
        assert methods == every["paths"][path]
    assert described["components"]["schemas"].items() <= every["components"]["schemas"].items()


@pytest.mark.slow
@pytest.mark.parametrize("mode", GenerationMode)
def test_whatever_is_sent_in_greater_number(app, schema, subtests, mode):
    for operation in operations(schema, mode):
        with subtests.test(f"{operation.method} {operation.path}"):
            ask(operation, mode, 30, TestClient(app))


def test_the_pages_name_routes_that_there_are(app):
    """A route in `docs` or the README, with or without its methods, is one that the service has."""
    paths = {path.replace("{item_id}", "{id}"): set(methods) for path, methods in app.openapi()["paths"].items()}
    text = "".join(page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    told = re.findall(r"`([A-Z, ]*)(/(?:v1|query|health|metrics)[^`?]*)`", text)
    assert len(told) > 20
    for methods, path in told:
        assert path in paths, path
        assert {method.lower() for method in re.findall("[A-Z]+", methods)} <= paths[path], f"{methods} {path}"
