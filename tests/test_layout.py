"""The house itself: who imports whom, what the README's tree says, and what the repository must not hold."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = [name for name in ("reid", "fgvc", "service") if (ROOT / name).is_dir()]
BELOW_GALLERY = {"service.storage", "service.engines", "service.records", "reid"}
OPENING = {"service.opening", "service.settings"}
# Rooms and what they may import of ours; what is not named may import everything of its own package.
ROOMS = {
    "reid.models": {"reid.models"},
    "reid.data": {"reid.data"},
    "reid.retrieval": {"reid.retrieval"},
    "reid": {"reid"},
    "fgvc": {"fgvc", "reid"},
    "service": {"service", "reid"},
    "service.records": set(),
    "service.storage": {"service.storage", "service.records", "reid"},
    "service.engines": {"service.engines", "service.records", "reid"},
    "service.settings": {"service.records", "reid"},
    "service.metrics": set(),
    "service.logs": set(),
    "service.wire": {"service.wire", "service.records"},
    "service.client": {"service.wire", "service.records"},
    "service.gallery": BELOW_GALLERY | {"service.gallery", "service.metrics"},
    "service.upkeep": BELOW_GALLERY | {"service.upkeep", "service.gallery"},
    "service.opening": BELOW_GALLERY | {"service.gallery", "service.settings"},
    "service.classification": {"service.gallery", "service.metrics", "service.records", "reid"},
    "service.bulk": BELOW_GALLERY | {"service.bulk", "service.gallery", "service.wire", *OPENING},
    "service.api": BELOW_GALLERY
    | {"service.api", "service.wire", "service.gallery", "service.upkeep", "service.settings"}
    | {"service.metrics", "service.classification"},
}
NO_TORCH = (
    "reid.data.samples",
    "reid.data.datasets",
    "reid.data.official",
    "reid.data.listed",
    "reid.data.custom",
    "reid.data.tables",
    "reid.data.times",
    "reid.data.splitting",
    "reid.data.layout",
    "fgvc.datasets",
    "reid.data.images",
    "reid.data.formats",
    "reid.data.folders",
    "reid.data.capture",
    "reid.data.colours",
)


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


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


@pytest.mark.parametrize("module", NO_TORCH)
def test_reading_labels_starts_without_torch(module):
    assert not any(name.split(".")[0] in ("torch", "torchvision", "timm") for name in imports(modules()[module]))


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_the_layout_names_every_file_of_the_packages():
    text = (ROOT / "docs" / "layout.md").read_text()
    block = re.search(r"# Layout\n+```\n(.*?)```", text, re.S)
    assert block, "docs/layout.md has no tree"
    named = set(re.findall(r"[\w.]+\.(?:py|yaml)\b", block.group(1)))
    ours = [path for path in tracked() if path.split("/")[0] in (*PACKAGES, "configs", "benchmarks", "docker")]
    files = {Path(path).name for path in ours if path.endswith((".py", ".yaml")) and not path.endswith("__init__.py")}
    assert files - named == set(), "files that the tree does not name"
    assert {name for name in named if name not in files} <= {"test_layout.py", "conftest.py"}, "names without a file"


def test_the_readme_can_be_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} points to {target}"


def test_every_command_exists():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for target in scripts.values():
        module, function = target.split(":")
        tree = ast.parse(modules()[module].read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


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
