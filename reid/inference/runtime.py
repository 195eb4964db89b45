"""What runs a model: torch, or ONNX Runtime with the export beside it, which gives the same embeddings sooner."""

import logging
from importlib.util import find_spec
from pathlib import Path

import torch

from reid.config import Config
from reid.device import inference_precision
from reid.files import fingerprint, model_file
from reid.inference.checkpoint import EXPORT_SUFFIX, read_checkpoint
from reid.inference.exported import model_fingerprint
from reid.inference.pretrained import ModelSource, Pretrained
from reid.names import Runtime

log = logging.getLogger("reid")


def choose_runtime(name: Runtime, source: ModelSource, device: torch.device) -> ModelSource:
    """What to open so that a model runs as `name` says: itself for torch, its export for ONNX Runtime.

    `auto` takes the export that lies beside a model of float32 on a CPU, where onnxruntime is installed; `onnx` makes
    one where there is none, or none of this model, or one that gives something else, such as a quantised one. Raises
    ValueError for an export that torch shall run and for `onnx` without a model file, and what
    `reid.inference.exporting.export` raises.
    """
    if isinstance(source, Pretrained):
        if name == "onnx":
            raise ValueError(f"runtime onnx of {source}: give its export by reid-export as --checkpoint")
        return source
    file = model_file(source)
    if file.suffix == EXPORT_SUFFIX:
        if name == "torch":
            raise ValueError(f"runtime torch of {file}, an export: give the model that it was made of as --checkpoint")
        return source
    exported = file.with_suffix(EXPORT_SUFFIX)
    if name == "torch" or (name == "auto" and not _might_gain(file, exported, device)):
        return source
    if _is_export_of(file, exported):
        return exported
    if name == "auto":
        log.warning("warning: %s is no export of %s, and not used; reid-export makes it anew", exported, file)
        return source
    if exported.exists():
        log.warning("warning: %s is no export of %s, and made anew", exported, file)
    from reid.inference.exporting import export  # here, as above

    return export(file, exported).file


def _is_export_of(file: Path, exported: Path) -> bool:
    from reid.inference.exporting import agrees  # here, since nobody else needs it

    try:
        return exported.exists() and model_fingerprint(exported) == fingerprint(file) and agrees(file, exported)
    except ValueError:  # damaged, no export at all, or nothing to run it
        return False


def _might_gain(file: Path, exported: Path, device: torch.device) -> bool:
    """Whether there is something to run, and torch would compute in float32: in bfloat16 it is as fast."""
    if device.type != "cpu" or not exported.exists() or find_spec("onnxruntime") is None:
        return False
    trained_in = read_checkpoint(file, Config).config.train.precision
    return inference_precision(trained_in, device) == torch.float32
