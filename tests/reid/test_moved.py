import importlib
import pkgutil
import subprocess
import sys

import pytest

import service  # noqa: F401, some of the moved ones are its
from reid.moved import MOVED


@pytest.mark.parametrize("name", MOVED)
def test_the_former_place_of_a_module_names_the_present_one(name):
    with pytest.raises(ModuleNotFoundError, match=f"^{name} is now {MOVED[name]}$"):
        importlib.import_module(name)
    assert pkgutil.resolve_name(MOVED[name]) is not None


def test_it_is_told_in_a_fresh_process_too():
    for code in ("from service.backup import copy", "from reid import embedder", "from reid.distributed import World"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert " is now " in done.stderr.splitlines()[-1]


def test_a_module_that_never_was_is_not_found_as_usual():
    with pytest.raises(ModuleNotFoundError, match="No module named 'reid.nowhere'"):
        importlib.import_module("reid.nowhere")
