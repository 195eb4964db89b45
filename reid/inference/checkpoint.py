"""The model file with all it takes to rebuild the model.

What a file says of itself is read without torch, which takes seconds to import; models need it.
"""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic import BaseModel, Json, ValidationError
from pydantic_core import ErrorDetails
from safetensors import SafetensorError, safe_open

from reid.config import Config, ConfigError, FgvcConfig, ReidConfig, config_from
from reid.data.preprocessing import Preprocessing
from reid.files import model_file, write_whole
from reid.inference.side_info import SideInfo
from reid.models.options import DcalOptions

if TYPE_CHECKING:
    from reid.models.dcal import DCAL
    from reid.models.weights import WeightsReport

FORMAT = "1"
EXPORT_SUFFIX = ".onnx"
KINDS: dict[str, type[Config]] = {kind.task: kind for kind in (ReidConfig, FgvcConfig)}
TITLES: dict[type[Config], str] = {
    ReidConfig: "a re-identification model (of reid-train)",
    FgvcConfig: "a classifier (of fgvc-train)",
}
NO_SIDE_INFO = SideInfo()
Kind = TypeVar("Kind", bound=Config, covariant=True)


@dataclass(frozen=True)
class Checkpoint(Generic[Kind]):
    """What a model file says of itself.

    `config` is a ReidConfig or an FgvcConfig, and so tells the task. `classes` names the C training identities or
    categories in label order; `protocol` says on what it was trained, `side_info` which cameras and views the
    model knows. `fingerprint` tells its weights from all others; it is empty until somebody has looked at them.
    """

    config: Kind
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    protocol: Mapping[str, str]
    epoch: int
    side_info: SideInfo = NO_SIDE_INFO
    fingerprint: str = ""


def save_model(path: Path, model: "DCAL", checkpoint: Checkpoint[Config]) -> None:
    """Write a model's tensors under their contract names, with the checkpoint's description as metadata."""
    from safetensors.torch import save_file

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
        **({"sides": json.dumps(asdict(checkpoint.side_info))} if checkpoint.side_info else {}),
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


def load_model(path: Path | str, kind: type[Kind]) -> tuple["DCAL", Checkpoint[Kind]]:
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
        model, _ = build_model(checkpoint.config, size, classes, sides=len(checkpoint.side_info))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"checkpoint {file}: its model cannot be built ({_one_line(error)})") from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"checkpoint {file}: tensors do not fit its own config ({_one_line(error)})") from error
    broken = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        raise ValueError(
            f"checkpoint {file}: {len(broken)} tensors hold NaN or infinite values, e.g. {broken[0]}: the training "
            "diverged, or the file is damaged"
        )
    return model.eval(), checkpoint


def read_checkpoint(path: Path | str, kind: type[Kind]) -> Checkpoint[Kind]:
    """What a run folder's model file, or an export, says of itself; raises as `load_model` and `open_exported` do."""
    file = model_file(path)
    if file.suffix == EXPORT_SUFFIX:
        from reid.inference.exported import open_exported

        return open_exported(file, kind, "cpu")[1]
    try:
        with safe_open(str(file), framework="np") as opened:
            return read_metadata(file, opened.metadata() or {}, kind)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint {file}: cannot be read as safetensors ({error})") from error


def build_model(
    config: Config, image_size: tuple[int, int], classes: int, weights: str = "none", sides: int = 0
) -> tuple["DCAL", "WeightsReport"]:
    """The model that a config describes, for images of `image_size` (height, width); errors as for `build_dcal`.

    `sides` is how many combinations of camera and view it is told of.
    """
    from reid.models.dcal import build_dcal

    chosen = {**config.model.model_dump(), "head": config.task, "checkpointing": config.train.checkpointing}
    options = DcalOptions(
        **{field.name: chosen[field.name] for field in fields(DcalOptions) if field.name in chosen}, sides=sides
    )
    return build_dcal(config.model.backbone, image_size, classes, options, weights=weights)


class _Metadata(BaseModel, allow_inf_nan=False):
    config: Json[dict[str, dict[str, Any]]]
    preprocessing: Json[Preprocessing]
    classes: Json[tuple[str, ...]]
    protocol: Json[dict[str, Any]]
    epoch: int
    sides: Json[SideInfo] = NO_SIDE_INFO


def _problem(detail: ErrorDetails) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{name} is missing"
    return f"{name}={reprlib.repr(detail['input'])}: {detail['msg']}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
