"""Files of a run, written whole, and the model file with all it takes to rebuild the model."""

import hashlib
import json
import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, Json, ValidationError
from pydantic_core import ErrorDetails
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from reid.config import Config, ConfigError, FgvcConfig, ReidConfig, ReidModelOptions, config_from
from reid.data.transforms import Preprocessing
from reid.inference.side_info import Sides
from reid.models.dcal import DCAL, build_dcal
from reid.models.weights import WeightsReport

MODEL_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
STATE_FILE = "state.pt"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
FORMAT = "1"
KINDS: dict[str, type[Config]] = {kind.task: kind for kind in (ReidConfig, FgvcConfig)}
TITLES: dict[type[Config], str] = {
    ReidConfig: "a re-identification model (of reid-train)",
    FgvcConfig: "a classifier (of fgvc-train)",
}
NO_SIDES = Sides()
Kind = TypeVar("Kind", bound=Config, covariant=True)


@dataclass(frozen=True)
class Checkpoint(Generic[Kind]):
    """What a model file says of itself.

    `config` is a ReidConfig or an FgvcConfig, and so tells the task. `classes` names the C training identities or
    categories in label order; `protocol` says on what it was trained, `sides` which cameras and views the model knows.
    """

    config: Kind
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    protocol: Mapping[str, str]
    epoch: int
    sides: Sides = NO_SIDES


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` make a file that appears at `path` whole or not at all: temporary name, fsync, rename.

    Raises OSError naming `path` when it cannot be written, say for a full disk; what stood there before stays.
    """
    path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        write(path)  # a device or a pipe cannot be renamed over
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors raise their own for a full disk
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(f"{path}: could not be written ({reason}); what was saved before is kept") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_whole` for text."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_whole(path, write)


def save_model(path: Path, model: DCAL, checkpoint: Checkpoint[Config]) -> None:
    """Write a model's tensors under their contract names, with the checkpoint's description as metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_whole(path, lambda temporary: save_file(tensors, str(temporary), as_metadata(checkpoint)))


def as_metadata(checkpoint: Checkpoint[Config]) -> dict[str, str]:
    """A checkpoint's description as the metadata of a file."""
    return {
        "format": FORMAT,
        "task": checkpoint.config.task,
        "config": checkpoint.config.model_dump_json(),
        "preprocessing": json.dumps(checkpoint.preprocessing.as_json()),
        "classes": json.dumps(checkpoint.classes),
        "protocol": json.dumps(dict(checkpoint.protocol)),
        "epoch": str(checkpoint.epoch),
        **({"sides": json.dumps(asdict(checkpoint.sides))} if checkpoint.sides else {}),
    }


def read_metadata(file: Path, metadata: Mapping[str, str], kind: type[Kind]) -> Checkpoint[Kind]:
    """What a file says of itself in the metadata that `as_metadata` gave it; the kind Config takes any kind of run.

    Raises ValueError naming the file for metadata that is damaged, not ours, or of another kind of run than asked for.
    """
    if metadata.get("format") != FORMAT:
        found = f"format {metadata['format']!r}" if "format" in metadata else "no format"
        raise ValueError(f"checkpoint {file}: {found} in its metadata, expected {FORMAT!r}: not a file of reid-train")
    task = metadata.get("task", "reid")  # the first files of reid-train had none
    if task not in KINDS:
        raise ValueError(f"checkpoint {file}: unknown task {task!r} in its metadata, expected {' or '.join(KINDS)}")
    if not issubclass(KINDS[task], kind):
        raise ValueError(f"checkpoint {file} is {TITLES[KINDS[task]]}, expected {TITLES[kind]}")
    try:
        read = _Metadata.model_validate(metadata)
        config = config_from(read.config, "its config", KINDS[task])
    except ValidationError as error:
        problems = "; ".join(_problem(detail) for detail in error.errors())
        raise ValueError(f"checkpoint {file}: damaged metadata ({problems})") from None
    except ConfigError as error:
        raise ValueError(f"checkpoint {file}: {error}") from None
    checkpoint = Checkpoint(config, read.preprocessing, read.classes, read.protocol, read.epoch, read.sides)
    return cast(Checkpoint[Kind], checkpoint)


def load_model(path: Path | str, kind: type[Kind]) -> tuple[DCAL, Checkpoint[Kind]]:
    """Rebuild the model of a run folder or of its model file, on the CPU, in evaluation mode.

    The kind Config takes any kind of run. Raises FileNotFoundError when there is none, ValueError for a file that is
    damaged, no checkpoint of ours, or one of another kind than asked for.
    """
    file = model_file(path)
    try:
        with safe_open(str(file), framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {file}: cannot be read as safetensors ({error})") from error
    checkpoint = read_metadata(file, metadata, kind)
    size, classes = checkpoint.preprocessing.image_size, len(checkpoint.classes)
    try:
        model, _ = build_model(checkpoint.config, size, classes, sides=len(checkpoint.sides))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"checkpoint {file}: its model cannot be built ({_one_line(error)})") from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"checkpoint {file}: tensors do not fit its own config ({_one_line(error)})") from error
    return model.eval(), checkpoint


def read_checkpoint(path: Path | str, kind: type[Kind]) -> Checkpoint[Kind]:
    """What the model file of a run folder says of itself, without its tensors; raises as `load_model` does."""
    file = model_file(path)
    try:
        with safe_open(str(file), framework="pt") as opened:
            return read_metadata(file, opened.metadata() or {}, kind)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {file}: cannot be read as safetensors ({error})") from error


def build_model(
    config: Config, image_size: tuple[int, int], classes: int, weights: str = "none", sides: int = 0
) -> tuple[DCAL, WeightsReport]:
    """The model that a config describes, for images of `image_size` (height, width); errors as for `build_dcal`.

    `sides` is how many combinations of camera and view it is told of.
    """
    options = config.model
    return build_dcal(
        options.backbone,
        image_size,
        classes,
        method=options.method,
        head=config.task,
        weights=weights,
        drop_path=options.drop_path,
        ratio=options.ratio,
        partner_stream=options.partner_stream,
        stride=options.stride,
        checkpointing=config.train.checkpointing,
        jigsaw=options.jigsaw if isinstance(options, ReidModelOptions) else 0,
        sides=sides,
    )


def model_file(path: Path | str) -> Path:
    """The model file of a run folder, or `path` itself when it is a file."""
    path = Path(path)
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"checkpoint {path}: no {'such file' if file == path else f'{MODEL_FILE} in this folder'}"
        )
    return file


def fingerprint(file: Path) -> str:
    """What tells one model file from every other: the SHA-256 of its bytes, in hexadecimal."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


class _Metadata(BaseModel, allow_inf_nan=False):
    config: Json[dict[str, dict[str, Any]]]
    preprocessing: Json[Preprocessing]
    classes: Json[tuple[str, ...]]
    protocol: Json[dict[str, Any]]
    epoch: int
    sides: Json[Sides] = NO_SIDES


def _problem(detail: ErrorDetails) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{name} is missing"
    return f"{name}={reprlib.repr(detail['input'])}: {detail['msg']}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
