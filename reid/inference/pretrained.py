"""A network that no run of ours trained, in the place of a checkpoint: what it is, and how commands are told of it."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from reid.cli import UsageError
from reid.config import ImageSize, ReidConfig, ReidDataOptions, ReidModelOptions
from reid.data.preprocessing import Preprocessing
from reid.files import model_file
from reid.inference.checkpoint import Checkpoint
from reid.inference.side_info import SideInfo
from reid.names import Runtime

if TYPE_CHECKING:
    from reid.models.dcal import DCAL
    from reid.models.pooled import PooledNetwork

log = logging.getLogger("reid")

IMAGENET = "imagenet"


def _parse_channels(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    numbers = value.split(",")
    try:
        parsed = tuple(float(number) for number in numbers)
    except ValueError:
        parsed = ()
    if len(parsed) not in (1, 3):
        raise ValueError("expected one number or three, as 0.485,0.456,0.406")
    return parsed * 3 if len(parsed) == 1 else parsed


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1)]
Mean = Annotated[tuple[Share, Share, Share], BeforeValidator(_parse_channels)]
Deviation = Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_parse_channels)]


class Pretrained(BaseModel):
    """A backbone by name with weights of timm's hub (`imagenet`) or a file: a model that is evaluated and served as is.

    `image_size` is (height, width) in pixels, `mean` and `std` are per channel, for RGB in [0, 1]; what is None is as
    the weights were trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: str
    weights: str = IMAGENET
    image_size: ImageSize | None = None
    mean: Mean | None = None
    std: Deviation | None = None

    def __str__(self) -> str:
        weights = self.weights if self.weights == IMAGENET else Path(self.weights).name
        return f"{self.backbone} with weights {weights}"

    @property
    def config(self) -> ReidConfig:
        """The options that it amounts to; it knows no dataset."""
        return ReidConfig(
            data=ReidDataOptions(dataset=""),
            model=ReidModelOptions(backbone=self.backbone, method="baseline", weights=self.weights),
        )


ModelSource = Path | str | Pretrained
"""A run folder, its model file, its export, or a network that no run trained."""


def require_model(source: ModelSource) -> None:
    """Raise FileNotFoundError where there is no such file, before torch, which takes seconds, is imported."""
    if not isinstance(source, Pretrained):
        model_file(source)
    elif source.weights != IMAGENET and not Path(source.weights).is_file():
        raise FileNotFoundError(f"weights {source.weights!r}: no such file (expected 'imagenet' or a file)")


def open_pretrained(source: Pretrained) -> tuple["DCAL | PooledNetwork", Checkpoint[ReidConfig]]:
    """The model on the CPU, in evaluation mode, and what a checkpoint would say of it.

    Raises what `build_pretrained` raises.
    """
    from reid.models.pretrained import build_pretrained

    built = build_pretrained(source.backbone, source.weights, source.image_size)
    mean, std = source.mean or built.mean, source.std or built.std
    shown = "; ".join(f"{name} {', '.join(map(str, value))}" for name, value in (("mean", mean), ("std", std)))
    log.info("%s; images of %d x %d pixels (height x width); %s", built.report, *built.image_size, shown)
    preprocessing = Preprocessing(built.image_size, mean, std, profiles=True)
    sides = SideInfo.by_number(built.sides)
    known = {"pretrained": str(source)}
    return built.model, Checkpoint(source.config, preprocessing, (), known, 0, sides, built.fingerprint)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that name its model."""
    parser.add_argument("--checkpoint", metavar="RUN", type=Path, help="a run folder, its model file, or its export")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="instead of a run, a network as others trained it: a backbone of reid-train, or timm's name of any",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="of --backbone: imagenet, the name's own from timm's hub (default), or a file"
    )
    parser.add_argument(
        "--image-size",
        metavar="HxW",
        help="of --backbone: height x width in pixels; by default that which its weights were trained at",
    )
    for name, what in (("mean", "mean"), ("std", "standard deviation")):
        parser.add_argument(
            f"--{name}",
            metavar="R,G,B",
            help=f"of --backbone: {what} of the pixels in [0, 1], or one number for all three; by default its weights'",
        )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Give a command that embeds the option that says what runs its model."""
    parser.add_argument(
        "--runtime",
        choices=get_args(Runtime),
        help="what runs the model: torch, or ONNX Runtime (onnx) by its export, which is made where it is not there; "
        "auto (default) takes ONNX Runtime on a CPU where there is an export beside the model",
    )


def chosen_model(arguments: argparse.Namespace) -> Path | Pretrained | None:
    """The model that the options of `add_arguments` name, None where they name none; raises UsageError."""
    return model_of(arguments.checkpoint, {name: getattr(arguments, name) for name in Pretrained.model_fields})


def model_of(checkpoint: Path | None, options: dict[str, str | None]) -> Path | Pretrained | None:
    """A checkpoint, or the network that `options`, the fields of Pretrained, describe; raises UsageError for both."""
    given = {name: value for name, value in options.items() if value is not None}
    named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
    if checkpoint is not None and given:
        raise UsageError(f"--checkpoint with {named}: a run has a backbone, weights and preprocessing of its own")
    if checkpoint is not None or not given:
        return checkpoint
    if "backbone" not in given:
        raise UsageError(f"{named} without --backbone NAME, the network that the weights are of")
    if given.get("weights") == "none":
        raise UsageError("--weights none: a network with random weights knows nothing; give imagenet or a file")
    try:
        return Pretrained.model_validate(given)
    except ValidationError as error:
        problems = (
            f"--{str(detail['loc'][0]).replace('_', '-')} {given[str(detail['loc'][0])]}: "
            f"{detail['msg'].removeprefix('Value error, ')}"
            for detail in error.errors()
        )
        raise UsageError("; ".join(problems)) from None
