"""The house itself: who imports whom, what the README's tree says, and what the repository must not hold."""

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = [name for name in ("reid", "fgvc", "service") if (ROOT / name).is_dir()]
BELOW_GALLERY = {"service.storage", "service.engines", "service.fields", "service.records", "reid"}
OPENING = {"service.opening", "service.settings"}
# What all of `reid` stands on: no torch, nor any other room.
GROUND = {"reid.config", "reid.names", "reid.cli", "reid.files", "reid.progress"}
BELOW_MODELS = GROUND | {"reid.data"}
BELOW_INFERENCE = BELOW_MODELS | {"reid.models", "reid.distributed", "reid.device"}
BELOW_REPORTS = BELOW_INFERENCE | {"reid.inference", "reid.retrieval"}
# Rooms and what they may import of ours; what is not named may import everything of its own package.
ROOMS = {
    "reid.names": set(),
    "reid.moved": set(),
    "reid.progress": set(),
    "reid.files": {"reid.names"},
    "reid.config": {"reid.names"},
    "reid.cli": {"reid.config", "reid.files"},
    "reid.device": set(),
    "reid.naming": GROUND | {"reid.naming"},
    "reid.retrieval": GROUND | {"reid.retrieval"},
    "reid.models": GROUND | {"reid.models"},
    "reid.data": GROUND | {"reid.data"},
    "reid.distributed": GROUND | {"reid.distributed", "reid.device"},
    "reid.inference": BELOW_INFERENCE | {"reid.inference"},
    "reid.report": BELOW_REPORTS | {"reid.report", "reid.evaluation"},
    "reid.evaluation": BELOW_REPORTS | {"reid.report", "reid.evaluation"},
    # A training evaluates; an evaluation never trains.
    "reid.training": BELOW_REPORTS | {"reid.evaluation", "reid.training"},
    "reid": {"reid"},
    "fgvc": {"fgvc", "reid"},
    "service": {"service", "reid"},
    "service.fields": set(),
    "service.records": {"service.fields", "reid.data.boxes", "reid.naming.decisions"},
    "service.storage": {"service.storage", "service.fields", "service.records", "reid"},
    "service.engines": {"service.engines", "service.fields", "service.records", "reid"},
    "service.settings": {"service.records", "reid"},
    "service.metrics": set(),
    "service.logs": set(),
    "service.wire": {"service.wire", "service.fields", "service.records", "reid.data.times"},
    "service.client": {"service.wire", "service.fields", "service.records", "service.review_client"}
    | {"service.work_client", "service.import_client"},
    "service.review_client": {"service.wire", "service.fields"},
    "service.work_client": {"service.wire", "service.records"},
    "service.import_client": {"service.wire"},
    "service.gallery": BELOW_GALLERY | {"service.gallery", "service.metrics"},
    "service.upkeep": BELOW_GALLERY | {"service.upkeep", "service.gallery"},
    "service.review": BELOW_GALLERY | {"service.review", "service.upkeep.jobs"},
    "service.naming": {"service.review", "service.records", "service.storage", "reid"},
    "service.opening": BELOW_GALLERY | {"service.gallery", "service.settings"},
    "service.classification": {"service.gallery", "service.metrics", "service.records", "reid"},
    "service.bulk": BELOW_GALLERY | {"service.bulk", "service.gallery", "service.wire", *OPENING},
    "service.api": BELOW_GALLERY
    | {"service.api", "service.wire", "service.gallery", "service.upkeep", "service.review", "service.settings"}
    | {"service.metrics", "service.classification", "service.bulk.import_work"},
}
# Each only parses and prints. Nothing but another command calls one.
COMMANDS = {
    *("reid.train", "reid.evaluate", "reid.compare", "reid.export", "reid.datacheck", "reid.curves"),
    "reid.demo",
    *("fgvc.train", "fgvc.evaluate", "fgvc.predict", "fgvc.datacheck"),
    *("service.serve", "service.enrol", "service.embed", "service.manage", "service.demo"),
}
# What may be imported before it is clear that there is something to compute; see also tests/reid/test_commands.py.
NO_TORCH = (
    *sorted(GROUND),
    "reid.distributed.world",
    "reid.data.samples",
    "reid.data.datasets",
    "reid.data.official",
    "reid.data.listed",
    "reid.data.custom",
    "reid.data.tables",
    "reid.data.times",
    "reid.data.splitting",
    "reid.data.layout",
    "reid.data.images",
    "reid.data.formats",
    "reid.data.folders",
    "reid.data.detections",
    "reid.data.cropping",
    "reid.data.capture",
    "reid.data.colours",
    "reid.data.colour_codes",
    "reid.data.overlap",
    "reid.data.opening",
    "reid.data.check",
    "reid.data.preprocessing",
    "reid.models.specs",
    "reid.models.options",
    "reid.evaluation.comparison",
    "reid.report.histories",
    "reid.report.tables",
    "fgvc.datasets",
    "fgvc.check",
)


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@cache
def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= below if node.module in PACKAGES else {node.module} | below
    return names


@cache
def top_level_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {
        name
        for node in tree.body
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_one_way(module):
    room = max((name for name in ROOMS if module == name or module.startswith(f"{name}.")), key=len)
    ours = {
        name
        for name in imports(modules()[module])
        if name.split(".")[0] in ("reid", "fgvc", "service", "tests", "benchmarks")
    }
    for name in ours:
        assert any(name == allowed or name.startswith(f"{allowed}.") for allowed in ROOMS[room]), (
            f"{module} imports {name}"
        )


def reached(start: str) -> set[str]:
    """All modules of ours that a module brings with it sooner or later."""
    found, waiting = set[str](), [start]
    while waiting:
        for name in imports(modules()[waiting.pop()]):
            if name in modules() and name not in found:
                found.add(name)
                waiting.append(name)
    return found


@pytest.mark.parametrize("module", ["service.serve", "service.enrol", "service.embed", "service.manage"])
def test_serving_never_reaches_training(module):
    training = {name for name in reached(module) if name == "reid.train" or name.startswith("reid.training")}
    assert training == set()


def test_imports_have_no_cycle():
    graph = {
        module: {name for name in top_level_imports(path) if name in modules() and name != module}
        for module, path in modules().items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for other in graph[module]:
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(set(modules()) - COMMANDS))
def test_nothing_but_a_command_calls_a_command(module):
    assert not imports(modules()[module]) & COMMANDS


@pytest.mark.parametrize("module", NO_TORCH)
def test_what_needs_no_torch_starts_without(module):
    slow = {"torch", "torchvision", "timm", "scipy", "matplotlib", "sklearn", "sqlalchemy"}
    assert not {name.split(".")[0] for name in top_level_imports(modules()[module])} & slow


def test_tests_mirror_the_packages():
    rooms = {"/".join(path.split("/")[:-1]) for path in tracked() if path.split("/")[0] in PACKAGES}
    folders = {"/".join(path.split("/")[1:-1]) for path in tracked() if re.match(r"tests/.*/test_\w+\.py", path)}
    assert {name for name in folders if name.split("/")[0] in PACKAGES} - rooms == set()


@cache
def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_the_layout_page_names_every_file_by_its_path():
    named = re.findall(r"^- `([^`]+)`: .", (ROOT / "docs" / "layout.md").read_text(), re.M)
    ours = [path for path in tracked() if path.split("/")[0] in (*PACKAGES, "configs", "benchmarks", "docker")]
    files = [path for path in ours if path.endswith((".py", ".yaml")) and not path.endswith("__init__.py")]
    assert set(files) - set(named) == set(), "files that docs/layout.md does not name"
    assert set(named) - set(files) == set(), "names without a file"
    assert len(named) == len(set(named))


def test_the_readme_names_every_folder_of_the_packages():
    block = re.search(r"## Folders\n+```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block, "README.md has no tree under '## Folders'"
    named, package = set(), ""
    for line in block.group(1).splitlines():
        if found := re.match(r"(\w+)/", line):
            package = found[1]
            named.add(package)
        else:
            named |= {f"{package}/{folder}" for folder in re.findall(r"(\w+)/", line)}
    folders = {"/".join(path.split("/")[:-1][:2]) for path in tracked() if path.split("/")[0] in PACKAGES}
    assert folders == {name for name in named if name.split("/")[0] in PACKAGES}


def test_the_readme_can_be_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} points to {target}"


def test_every_command_exists_and_is_a_module_that_runs():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for target in scripts.values():
        module, function = target.split(":")
        tree = ast.parse(modules()[module].read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert "__name__ == '__main__'" in ast.unparse(tree), f"python -m {module} does nothing, without a word"


def test_every_folder_of_code_is_installed():
    """`setuptools` leaves out, without a word, what is not listed."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {name.rpartition(".")[0] for name, path in modules().items() if path.name != "__init__.py"}
    recipes = {".".join(["reid", *path.parent.relative_to(ROOT).parts]) for path in (ROOT / "configs").rglob("*.yaml")}
    assert listed == folders | set(PACKAGES) | recipes | {"reid.configs", "service.web"}


def test_the_lock_holds_versions_and_hashes_only():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    pins = re.findall(r"^([\w.-]+)==", text, re.M)
    assert {"torch", "torchvision", "timm", "pytest"} <= set(pins)
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
