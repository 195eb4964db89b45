"""Published implementations to compare with, where they are installed: `pip install --no-deps fastreid` suffices."""

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType


def fastreid(name: str) -> ModuleType | None:
    """Load a module of fastreid's evaluation alone, for the package around it needs many others; None if not there."""
    package = importlib.util.find_spec("fastreid")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0]) / "evaluation" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"published_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that its compiled twin is missing
        spec.loader.exec_module(module)
    return module
