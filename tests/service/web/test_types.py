"""The page's modules agree with each other, as TypeScript's checker reads them and their comments."""

import json
import subprocess
from importlib import resources
from pathlib import Path

import pytest


@pytest.mark.slow
def test_types_hold(tools):
    web = Path(str(resources.files("service.web")))
    options = json.loads((tools.parent / "tsconfig.json").read_text())
    project = tools.parent / "page.json"
    project.write_text(json.dumps({**options, "files": [str(web / name) for name in ("main.js", "docs.js")]}))
    checker = [tools / ".bin" / "tsc", "-p", project]
    done = subprocess.run(checker, capture_output=True, text=True)
    assert done.stdout == "" and done.returncode == 0
    seen = subprocess.run([*checker, "--listFilesOnly"], capture_output=True, text=True, check=True).stdout
    ours = {path.relative_to(web).as_posix() for path in web.rglob("*.js")}
    others = {"vendor/preact.js", "vendor/swagger-ui/swagger-ui-bundle.js"}  # of the first its .d.ts stands for it
    assert {name for name in ours if str(web / name) in seen} == ours - others
