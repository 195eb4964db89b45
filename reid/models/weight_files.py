"""Files of weights as people publish them: read by content, whatever their name and wrapping."""

import _codecs
import argparse
import pickle
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any, Literal

import numpy as np
import torch
from numpy._core import multiarray
from safetensors.torch import load_file
from torch import Tensor

from reid.files import require_content
from reid.models.layouts import State, in_timm_names, is_reid

# Which of several networks in one file is taken, where all have the tensors that are looked for.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "teacher", "state_dict", "model", "student")
CONVERT = (
    "it holds Python objects beside tensors, and loading them could run any code; where you trust the file, convert "
    "it: torch.save({k: v for k, v in torch.load(FILE, weights_only=False)[KEY].items()}, NEW_FILE), where KEY is what "
    "holds the tensors, such as 'state_dict', 'model' or 'teacher'"
)
# What training scripts keep beside the tensors, and what does nothing but hold values: options, paths, NumPy's numbers
# and arrays, the latter also under the name of their module before NumPy 2.
HARMLESS: list[Any] = [
    argparse.Namespace,
    PosixPath,
    _codecs.encode,
    np.dtype,
    np.ndarray,
    *[kind for kind in vars(np.dtypes).values() if isinstance(kind, type)],
    *[
        (getattr(multiarray, name), f"{module}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for module in ("numpy.core", "numpy._core")
    ],
]
SCRIPTED = (
    "it is a TorchScript archive, as OpenAI's of CLIP are, which is a program; where you trust the file, convert it: "
    "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), NEW_FILE)"
)


@dataclass(frozen=True)
class Found:
    """The tensors of a network in a file under timm's names, where in it they were, in words, and whose they are."""

    state: State
    where: str = ""
    reid: bool = False  # whether the network was trained for re-identification, by `is_reid`


def kind_of_file(path: Path) -> Literal["safetensors", "npz", "pickle"]:
    """What a file holds, by its first bytes; raises ValueError naming what is no weights file."""
    require_content(path)
    with path.open("rb") as file:
        if file.read(9)[8:] == b"{":
            return "safetensors"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise ValueError(SCRIPTED)
        return "npz" if all(name.endswith(".npy") for name in names) else "pickle"
    return "pickle"


def read_state(path: Path, wanted: Collection[str]) -> Found:
    """The network in a safetensors or pickled file, by the names of its tensors that are `wanted`.

    Of the mappings in a file and the prefixes of their names, those are taken under which most of the names are found;
    where none is, the outermost tensors as they are. A pickle's own code is never run. Raises ValueError for a pickle
    that needs it, and what torch and safetensors raise for damaged files.
    """
    if kind_of_file(path) == "safetensors":
        loaded: Any = load_file(str(path))
    else:
        try:
            with torch.serialization.safe_globals(HARMLESS):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "weights_only" in str(error) or "Unsupported global" in str(error):
                raise ValueError(CONVERT) from None
            raise
    found = [(where, in_timm_names(state)) for where, state in _mappings(loaded, "")]
    if not found:
        raise ValueError("no mapping of names to tensors in it")
    places = [
        (sum(prefix + name in state for name in wanted), _preference(where), -len(prefix), where, prefix, state)
        for where, state in found
        for prefix in _prefixes(state, wanted)
    ]
    # Of two networks in one mapping the shorter prefix is that which is trained: base_encoder, not momentum_encoder.
    hits, *_, where, prefix, state = max(places, key=lambda place: place[:5])
    if not hits:
        where, prefix, state = found[0][0], "", found[0][1]
    words = _named(where, prefix)
    others = [_named(*place[3:5]) for place in places if hits and place[0] == hits and place[3:5] != (where, prefix)]
    if others:
        words = f"{words or 'outermost'}; not the one of {', nor of '.join(others)}"
    network = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return Found(network, words, is_reid(state, prefix))


def _named(where: str, prefix: str) -> str:
    return ", ".join(filter(None, [where, f"without the prefix {prefix!r}" if prefix else ""]))


def _mappings(loaded: Any, where: str, depth: int = 3) -> Iterator[tuple[str, State]]:
    """Every mapping that has tensors, with the path to it, the outermost first."""
    if not isinstance(loaded, Mapping):
        return
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    for name, value in loaded.items() if depth else ():
        yield from _mappings(value, f"{where}.{name}" if where else str(name), depth - 1)


def _prefixes(state: State, wanted: Collection[str]) -> set[str]:
    """What stands before the names of the network's tensors; nothing is one possibility."""
    anchors = [*[name for name in wanted if name.endswith("blocks.0.norm1.weight")], *wanted][:1]
    return {"", *(name.removesuffix(anchor) for anchor in anchors for name in state if name.endswith(f".{anchor}"))}


def _preference(where: str) -> int:
    last = where.rpartition(".")[2]
    return -WRAPPERS.index(last) if last in WRAPPERS else -len(WRAPPERS)
