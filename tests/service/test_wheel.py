"""What is installed is whole: a wheel, in an environment that has all it needs but this checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import resources
from pathlib import Path

import httpx2
import pytest

from reid.config import load_config
from tests.waiting import DEADLINE, wait_until

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")


@pytest.fixture
def installed(tmp_path):
    """The folder of the commands of an environment with the wheel of this checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():  # a build leaves files among the sources
        if (ROOT / name).is_file():
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / "source" / name)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=tmp_path / "source", check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    folder = tmp_path / "environment"
    uv = UV if UV.exists() else "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", folder, wheel], check=True)
    (found,) = folder.glob("lib/python*/site-packages")
    # What a .pth file names is searched, and its own .pth files, one of which leads to this checkout, are not read.
    (found / "all_it_needs.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


@pytest.fixture
def environment():
    """Variables that do not lead to this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "REID_"))}
    return {**kept, "REID_LOG_FORMAT": "text", "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_an_installed_wheel_serves_the_page_and_has_the_recipes(installed, environment, checkpoint, tmp_path):
    recipes = "import reid, reid.config as c; print(reid.__file__); print(c.load_config('veri776').as_yaml())"
    told = subprocess.run(
        [installed / "python", "-c", recipes], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, _, recipe = told.stdout.partition("\n")
    assert where.startswith(str(tmp_path))
    assert recipe.strip() == load_config("veri776").as_yaml().strip()
    options = ["--checkpoint", checkpoint, "--gallery", tmp_path / "gallery", "--device", "cpu", "--port", "0"]
    command = [installed / "reid-serve", *map(str, options)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        found = (re.search(r"http://\S+:\d+", line) for line in process.stderr)
        address = next(filter(None, found))[0]
        page = wait_until(lambda: httpx2.get(address, timeout=DEADLINE))
        assert page.headers["content-type"].startswith("text/html")
        web = Path(str(resources.files("service.web")))
        for file in web.rglob("*.*"):
            if file.suffix in (".js", ".css", ".svg"):
                served = httpx2.get(f"{address}/static/{file.relative_to(web)}", timeout=DEADLINE)
                assert served.content == file.read_bytes(), file.name
    finally:
        process.kill()
        process.communicate()
