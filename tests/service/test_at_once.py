"""Commands that tell something before they work: nothing heavy is imported for it."""

import json
import os
import subprocess
import sys

from service.storage.folder import hold

HEAVY = ("torch", "timm", "torchvision", "scipy", "sqlalchemy", "faiss", "sklearn", "matplotlib")
# Runs command lines one after the other, and prints for each its exit code, what it said, and what it brought.
PROGRAM = f"""
import contextlib, importlib, io, json, sys

for line in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = importlib.import_module(f"service.{{line[0]}}").main(line[1:])
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, said.getvalue(), [name for name in {HEAVY} if name in sys.modules]]))
"""


def run(lines):
    """The exit code and the text of each command line, in one process that may import nothing heavy."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REID_")}
    command = [sys.executable, "-c", PROGRAM, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines), done.stderr
    for line, (_, _, brought) in zip(lines, answers, strict=True):
        assert brought == [], f"{line} imports {brought}"
    return [(code, said) for code, said, _ in answers]


def test_help_and_wrong_arguments_are_told_at_once():
    commands = ("serve", "enrol", "embed", "manage", "demo")
    actions = ("info", "keys", "backup", "restore", "reindex", "reconcile")
    for code, said in run([[name, "--help"] for name in commands] + [["manage", name, "--help"] for name in actions]):
        assert code == 0
        assert said.startswith("usage: reid-")
    for code, said in run([[name, "--no-such-option"] for name in commands]):
        assert code == 2
        assert "error: " in said


def test_what_is_missing_is_told_at_once(tmp_path):
    photos, model, gallery = (str(tmp_path / name) for name in ("photos", "model.safetensors", "gallery"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    nowhere = str(tmp_path / "nowhere")
    lines = [
        (["serve"], "nothing to serve"),
        (["serve", "--checkpoint", nowhere, "--gallery", gallery], "checkpoint"),
        (["serve", "--classifier", nowhere], "checkpoint"),
        (["enrol", "--checkpoint", nowhere, "--gallery", gallery, photos], "checkpoint"),
        (["enrol", "--checkpoint", model, "--gallery", gallery, nowhere], "neither a folder nor a file"),
        (["enrol", "--features", nowhere, "--gallery", gallery], nowhere),
        (["enrol", "--gallery", gallery, photos], "give either --checkpoint RUN"),
        (["embed", "--checkpoint", nowhere, "--output", gallery, photos], "checkpoint"),
        (["embed", "--checkpoint", model, "--output", gallery, nowhere], "neither a folder nor a file"),
        (["embed", "--checkpoint", model, "--output", gallery, "--shard-size", "0", photos], "--shard-size 0"),
        (["manage", "info", "--gallery", nowhere], "no gallery"),
        (["manage", "keys", "list", "--gallery", nowhere], "no gallery"),
        (["manage", "keys", "add", "--gallery", nowhere, "--requests-per-minute", "0", "gate"], "expected 1 to"),
        (["manage", "backup", "--gallery", nowhere, photos], "no gallery"),
        (["manage", "restore", "--gallery", gallery, nowhere], "no gallery"),
        (["manage", "reindex", "--gallery", nowhere, "--checkpoint", model], "no gallery"),
        (["manage", "reconcile", "--gallery", nowhere], "expected milvus"),
    ]
    for (line, expected), (code, said) in zip(lines, run([line for line, _ in lines]), strict=True):
        assert code in (1, 2), line
        assert expected in said, line
        assert said.count("\n") == 1, said
    assert not (tmp_path / "gallery").exists()


def test_a_gallery_that_another_process_has_is_told_at_once(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "a.png").touch()
    model, gallery = ["--checkpoint", str(tmp_path / "model.safetensors")], ["--gallery", str(tmp_path / "gallery")]
    lines = [
        ["serve", *model, *gallery],
        ["enrol", *model, *gallery, str(tmp_path)],
        ["manage", "backup", *gallery, str(tmp_path / "backup")],
        ["manage", "reindex", *gallery, *model],
    ]
    with hold(tmp_path / "gallery"):
        (tmp_path / "gallery" / "gallery.db").touch()
        for code, said in run(lines):
            assert code == 1
            assert "another process has this gallery open" in said
            assert said.count("\n") == 1


def test_the_client_needs_no_more_than_its_words():
    program = "import sys, service.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    brought = done.stdout.split()
    assert "service.wire.schemas" in brought
    heavy = (*HEAVY, "fastapi", "starlette", "PIL", "service.storage", "service.gallery", "service.api")
    assert [name for name in heavy if name in brought] == []
