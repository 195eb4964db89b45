"""Clients that public tools generate from the description of the service, against a service that runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

pytestmark = pytest.mark.slow

KEY = "a-secret-of-the-test-for-everything-0123"
USES = Path(__file__).parent / "generated"
PYTHON_TOOL = "openapi-python-client==0.29.1"
NODE_TOOLS = ["@hey-api/openapi-ts@0.95.0", "typescript@5.9.3", "esbuild@0.27.2", "@types/node@20"]
# As docs/search.md has it: the tool knows files by one type alone.
PYTHON_OPTIONS = """
content_type_overrides: {image/jpeg: application/octet-stream, image/png: application/octet-stream}
post_hooks: []
"""
# ff d8 is how a JPEG file begins.
DONE = {
    "camera": "gate",
    "label": "ada",
    "matches": [[True, "ada"]],
    "listed": [True],
    "thumbnail": "ffd8",
    "deleted": 204,
    "left": 0,
}


def run(*command, **options):
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


def install(*command, **options):
    """Run what needs a package registry; where that cannot be reached, the test is skipped."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    if ended.returncode:
        pytest.skip(f"{command[0]} could not install: {ended.stderr.strip().splitlines()[-1:]}")


@pytest.fixture
def service(serve, monkeypatch, tmp_path, picture):
    """Its address, a file with its description, and one with a picture."""
    monkeypatch.setenv("REID_ADMIN_KEY", KEY)
    monkeypatch.setenv("REID_REQUIRE_KEYS", "true")
    _, address = serve()
    described, photo = tmp_path / "openapi.json", tmp_path / "photo.png"
    described.write_text(httpx2.get(f"{address}/openapi.json").text)
    photo.write_bytes(picture(1))
    return address, described, photo


def test_one_in_python(service, tmp_path):
    address, described, photo = service
    uv, python = str(Path(sys.executable).parent / "uv"), tmp_path / "tool" / "bin" / "python"
    install(uv, "venv", "--quiet", tmp_path / "tool")
    install(uv, "pip", "install", "--quiet", "--python", python, PYTHON_TOOL)
    (tmp_path / "options.yaml").write_text(PYTHON_OPTIONS)
    tool = [python.with_name("openapi-python-client"), "generate", "--path", described, "--meta", "none"]
    said = run(*tool, "--config", tmp_path / "options.yaml", "--output-path", tmp_path / "generated")
    assert "WARNING" not in said
    shutil.copy(USES / "use.py", tmp_path)
    assert json.loads(run(python, tmp_path / "use.py", address, KEY, photo)) == DONE


def test_one_in_typescript(service, tmp_path):
    address, described, photo = service
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    install("npm", "install", "--no-audit", "--no-fund", "--silent", *NODE_TOOLS, cwd=folder)
    programs = folder / "node_modules" / ".bin"
    run(programs / "openapi-ts", "-i", described, "-o", folder / "generated", cwd=folder)
    shutil.copy(USES / "use.ts", folder)
    options = ["--strict", "--noEmit", "--skipLibCheck", "--target", "es2022", "--module", "esnext"]
    run(programs / "tsc", *options, "--moduleResolution", "bundler", "--types", "node", "use.ts", cwd=folder)
    run(programs / "esbuild", "use.ts", "--bundle", "--platform=node", "--format=esm", "--outfile=use.mjs", cwd=folder)
    assert json.loads(run("node", "use.mjs", address, KEY, photo, cwd=folder)) == DONE
