"""Files of weights as people publish them: read by content, whatever their name and wrapping."""

import argparse
import pickle
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

State = dict[str, Tensor]

# Which of several networks in one file is taken, where all have the tensors that are looked for.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "teacher", "state_dict", "model", "student")
CONVERT = (
    "it holds Python objects beside tensors, and loading them could run any code; where you trust the file, convert "
    "it: torch.save({k: v for k, v in torch.load(FILE, weights_only=False)[KEY].items()}, NEW_FILE), where KEY is what "
    "holds the tensors, such as 'state_dict', 'model' or 'teacher'"
)


def kind_of_file(path: Path) -> Literal["safetensors", "npz", "pickle"]:
    """What a file holds, by its first bytes; raises ValueError naming what is no weights file."""
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise ValueError("a pointer of Git LFS, not the weights; fetch them with `git lfs pull`")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError("a web page, not weights; the download went wrong")
    if start[8:9] == b"{":
        return "safetensors"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "npz" if all(name.endswith(".npy") for name in archive.namelist()) else "pickle"
    if not start:
        raise ValueError("the file is empty")
    return "pickle"


def read_state(path: Path, wanted: Collection[str]) -> tuple[State, str]:
    """The tensors of a safetensors or pickled file, and where in it they were found, in words.

    Of the mappings in a file and the prefixes of their names, those are taken under which most of the `wanted` names
    are found; where none is, the outermost tensors as they are. A pickle's own code is never run. Raises ValueError
    for a pickle that needs it, and what torch and safetensors raise for damaged files.
    """
    if kind_of_file(path) == "safetensors":
        loaded: Any = load_file(str(path))
    else:
        try:
            with torch.serialization.safe_globals([argparse.Namespace]):  # the options that training scripts keep
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "weights_only" in str(error) or "Unsupported global" in str(error):
                raise ValueError(CONVERT) from None
            raise
    found = list(_mappings(loaded, ""))
    if not found:
        raise ValueError("no mapping of names to tensors in it")
    places = [
        (sum(prefix + name in state for name in wanted), _preference(where), where, prefix, state)
        for where, state in found
        for prefix in _prefixes(state, wanted)
    ]
    hits, _, where, prefix, state = max(places, key=lambda place: place[:2])
    if not hits:
        where, prefix, state = found[0][0], "", found[0][1]
    words = ", ".join(filter(None, [where, f"without the prefix {prefix!r}" if prefix else ""]))
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}, words


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
    anchors = [name for name in wanted if name.endswith("blocks.0.norm1.weight")][:1]
    return {"", *(name.removesuffix(anchor) for anchor in anchors for name in state if name.endswith(f".{anchor}"))}


def _preference(where: str) -> int:
    last = where.rpartition(".")[2]
    return -WRAPPERS.index(last) if last in WRAPPERS else -len(WRAPPERS)
