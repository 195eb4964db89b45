"""A trained model as an ONNX file that says all it takes to use it, checked against the model.

B images, T tokens, D width, C classes, R chosen patches, E embedding size.
"""

import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid.config import Config, FgvcConfig, ReidConfig
from reid.data.preprocessing import Preprocessing
from reid.files import fingerprint, model_file, write_whole
from reid.inference.checkpoint import EXPORT_SUFFIX, Checkpoint, as_metadata, load_model
from reid.inference.exported import (
    GRID,
    IMAGES,
    INPUT,
    MODEL,
    PREFIX,
    SIDES,
    Rescaling,
    normalisation,
    open_session,
)
from reid.inference.pretrained import IMAGENET, ModelSource, Pretrained, open_pretrained
from reid.models.dcal import DCAL, DcalOutput, embedding, probabilities
from reid.models.pooled import PooledNetwork
from reid.names import ExportInput

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger("reid")

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# What torch's exporter writes without converting. Later ones have the whole attention as one operator, which
# onnxruntime runs no faster on a CPU, and which fewer runtimes know.
OPSET = 18
LARGEST = 2**31  # bytes of an ONNX file
BATCHES = (1, 2, 7)
# How far rounding may go: the largest difference as a share of the largest number, the smallest cosine, and the share
# of the chosen patches that both chose.
DIFFERENCE, COSINE, ALIKE = 1e-4, 0.9999, 0.95
HEADER = "batch  output         difference  largest number  smallest cosine   alike"
SCALES: dict[ExportInput, str] = {
    "normalised": "divided by 255, less `mean` and then divided by `std` of the metadata's preprocessing, channel by "
    "channel",
    "imagenet": "divided by 255, less 0.485, 0.456, 0.406 and then divided by 0.229, 0.224, 0.225, channel by channel; "
    "the `mean` and `std` of the metadata's preprocessing are applied within",
    "raw": "numbers from 0 to 255; the `mean` and `std` of the metadata's preprocessing are applied within",
}
MEANINGS = {
    SIDES: "(batch,) int64, camera x number of views + view, by their places in the metadata's `sides`, or the one of "
    "them that there is; -1 where it is unknown",
    "embedding": "(batch, E), unit length; compare by cosine similarity",
    "probabilities": "(batch, C), in the order of the metadata's classes",
    "sa_token": "(batch, D), the class token of the self-attention branch",
    "glca_token": "(batch, D), the class token of global-local cross-attention",
    "jigsaw": "(batch, parts, D), the class token with each part of the shuffled patches; of the self-attention branch",
    "sa_logits": "(batch, C)",
    "glca_logits": "(batch, C)",
    "rollout": "(batch, T), the class token's attention rollout, which sums to 1; after `prefix` tokens the patches of "
    "`grid` (rows, columns), row by row",
    "chosen": "(batch, R), the tokens of the patches that global-local cross-attention chose, strongest first",
}


@dataclass(frozen=True)
class Parity:
    """How far one output of an export is from the model's own, for a batch of some images.

    `difference` is the largest absolute one, `scale` the model's largest absolute number, `cosine` the smallest over
    the rows. Of the chosen patches there is only `alike`, the share that both chose.
    """

    batch: int
    output: str
    difference: float | None = None
    scale: float | None = None
    cosine: float | None = None
    alike: float | None = None

    @property
    def good(self) -> bool:
        """Whether it is no more than rounding."""
        if self.difference is None or self.scale is None or self.cosine is None:
            return self.alike is not None and self.alike >= ALIKE
        return self.difference <= DIFFERENCE * self.scale and self.cosine >= COSINE

    def __str__(self) -> str:
        if self.alike is None:  # else the others are
            numbers = f"{self.difference:10.1e}  {self.scale:14.3f}  {self.cosine:15.8f}"
        else:
            numbers = f"{100 * self.alike:49.1f}%"
        return f"{self.batch:5}  {self.output:13}  {numbers}"


@dataclass(frozen=True)
class Exported:
    """An export of `size` bytes, and how it compares with the model."""

    file: Path
    size: int
    opset: int
    parity: tuple[Parity, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything, ready for `json.dump`."""
        tolerance = {"difference": DIFFERENCE, "cosine": COSINE, "alike": ALIKE}
        return {**asdict(self), "file": str(self.file), "tolerance": tolerance}

    def __str__(self) -> str:
        return f"{_table(self.parity)}\n{self.file}: {self.size / 1e6:.1f} MB, ONNX opset {self.opset}"


class Graph(nn.Module):
    """A model as a function from the tensors that `inputs` names to a tuple of those that `names` names.

    The inputs are `images` (B, 3, height, width) and, of a model with side information, `sides` (B,) as for DCAL.

    `embedding` (B, E), unit length, or for a classifier `probabilities` (B, C), both as the model was trained to be
    evaluated but without a flip test; `sa_token` and `glca_token` (B, D); a classifier's `sa_logits` and `glca_logits`
    (B, C); `jigsaw` (B, parts, D); `rollout` (B, T) and `chosen` (B, R) int64 as in `DcalOutput`. What the model does
    not have is left out.
    """

    def __init__(
        self, model: DCAL | PooledNetwork, checkpoint: Checkpoint[Config], given: ExportInput = "normalised"
    ) -> None:
        """`given` says how its images are normalised; the rest of the way to the model's own is a part of it."""
        super().__init__()
        self.model = model
        own, taken = (normalisation(kind, checkpoint.preprocessing) for kind in ("normalised", given))
        self.normalise = Rescaling(taken, own) if given != "normalised" else nn.Identity()
        self.taken = Rescaling(own, taken) if given != "normalised" else nn.Identity()
        self.config = checkpoint.config
        self.image_size = checkpoint.preprocessing.image_size
        self.sides = len(checkpoint.side_info)
        self.inputs = (IMAGES, SIDES) if self.sides else (IMAGES,)
        with torch.no_grad():
            self.names = tuple(self._named(*self.examples(1)))

    def forward(self, images: Tensor, sides: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.of_normalised(self.normalise(images), sides)

    def of_normalised(self, images: Tensor, sides: Tensor | None = None) -> tuple[Tensor, ...]:
        """The same of images that are normalised as the model's own."""
        return tuple(self._named(images, sides).values())

    def _named(self, images: Tensor, sides: Tensor | None = None) -> dict[str, Tensor]:
        output: DcalOutput = self.model(images, sides=sides, rollout=self.model.rolls_out)
        named: dict[str, Tensor] = {}
        if isinstance(self.config, ReidConfig):
            named["embedding"] = embedding(output, self.config.eval.features)
        if isinstance(self.config, FgvcConfig):
            named["probabilities"] = probabilities(output, self.config.eval.prediction)
        for name, branch in output.branches().items():
            named[f"{name}_token"] = branch.token
            if isinstance(self.config, FgvcConfig):
                named[f"{name}_logits"] = branch.logits
        if output.jigsaw:
            named["jigsaw"] = torch.stack([branch.token for branch in output.jigsaw], dim=1)
        if output.rollout is not None:
            named["rollout"] = output.rollout
        if output.chosen is not None:
            named["chosen"] = output.chosen
        return named

    def examples(self, count: int) -> tuple[Tensor, ...]:
        """Coloured patches under noise, for noise alone has no patches to prefer, and each side in turn.

        The images are normalised as the model's own.
        """
        generator = torch.Generator().manual_seed(count)
        colours = F.interpolate(torch.randn(count, 3, 8, 8, generator=generator), self.image_size)
        images = colours + 0.1 * torch.randn(colours.shape, generator=generator)
        return (images, torch.arange(count) % (self.sides + 1) - 1) if self.sides else (images,)


def export(source: ModelSource, output: Path | None = None, *, given: ExportInput = "normalised") -> Exported:
    """Write a model as ONNX, once onnxruntime gives with it what the model gives.

    `source` is a run folder, its model file, or a network that no run trained. `output` is by default beside the file
    that holds the weights, under its name, or that of a backbone with timm's own. The graph takes any number of images,
    normalised as `given` says, and gives what `Graph` does. Its metadata are those of the model file, with `model`, the
    fingerprint of that file, `grid` and `prefix` of the tokens, and `input`, which is `given`. Raises what
    `load_model`, `open_pretrained` and `write_whole` raise, and ValueError for a missing package, for a model that
    cannot be exported, and for an export that differs by more than rounding, which is not kept.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(f"exporting needs {', '.join(missing)}; pip install dcal-reid[export]")
    model, described, told, beside = _opened(source)
    output = output or beside.with_suffix(EXPORT_SUFFIX)
    log.info("exporting %s", source)
    graph = Graph(model, described, given).eval()
    proto = _to_onnx(graph)
    tokens = {MODEL: told, GRID: json.dumps(model.grid), PREFIX: str(model.prefix), INPUT: given}
    _describe(proto, described.preprocessing, {**as_metadata(described), **tokens}, given)
    if proto.ByteSize() >= LARGEST:
        raise ValueError(f"{source}: {proto.ByteSize()} bytes are more than one ONNX file may hold (2 GiB)")
    parity: list[Parity] = []

    def write(temporary: Path) -> None:
        temporary.write_bytes(proto.SerializeToString())
        log.info("comparing with the model on batches of %s images", ", ".join(map(str, BATCHES)))
        parity.extend(compare(temporary, graph))
        bad = [row for row in parity if not row.good]
        if bad:
            log.error("%s", _table(parity))
            raise ValueError(
                f"{output}: gives another {bad[0].output} than the model (allowed: a difference of {DIFFERENCE:g} of "
                f"the largest number, a cosine of {COSINE:g}, {100 * ALIKE:g}% of the patches alike); it is not kept"
            )

    write_whole(output, write)
    return Exported(output, output.stat().st_size, OPSET, tuple(parity))


def _opened(source: ModelSource) -> tuple[DCAL | PooledNetwork, Checkpoint[Any], str, Path]:
    """A model, what it says of itself, its fingerprint, and the file beside which an export goes."""
    if not isinstance(source, Pretrained):
        file = model_file(source)
        return *load_model(file, Config), fingerprint(file), file
    model, described = open_pretrained(source)
    named = {"weights": source.weights if source.weights == IMAGENET else Path(source.weights).name}  # not where it lay
    config = described.config.model_copy(update={"model": described.config.model.model_copy(update=named)})
    beside = Path(source.backbone if source.weights == IMAGENET else source.weights)
    return model, replace(described, config=config), described.fingerprint, beside


def compare(file: Path, graph: Graph) -> Iterator[Parity]:
    """How the outputs of an export compare with those of the model, for batches of BATCHES.

    Raises ValueError where one is of another shape or type, and what `open_session` raises.
    """
    session = open_session(file)
    for count in BATCHES:
        examples = graph.examples(count)
        with torch.inference_mode():
            expected = [value.numpy() for value in graph.of_normalised(*examples)]
            examples = (graph.taken(examples[0]), *examples[1:])
        given = {name: value.numpy() for name, value in zip(graph.inputs, examples, strict=True)}
        found = session.run(list(graph.names), given)
        for name, one, other in zip(graph.names, expected, found, strict=True):
            yield _parity(count, name, one, other)


def agrees(file: Path, exported: Path) -> bool:
    """Whether an export gives what a model file gives, but for rounding.

    Tools that quantise an export, or halve its numbers, leave in it what it says of itself. Raises what `load_model`
    and `open_session` raise.
    """
    model, described = load_model(file, Config)
    session = open_session(exported)
    given = session.get_modelmeta().custom_metadata_map.get(INPUT, "normalised")
    graph = Graph(model, described, cast(ExportInput, given)).eval()
    there = {output.name for output in session.get_outputs()}
    return there.issuperset(graph.names) and all(row.good for row in compare(exported, graph))


def _parity(count: int, name: str, expected: np.ndarray, found: np.ndarray) -> Parity:
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        raise ValueError(
            f"the export gives {name} of shape {found.shape} and type {found.dtype}, the model of shape "
            f"{expected.shape} and type {expected.dtype}"
        )
    if name == "chosen":
        alike = sum(len(np.intersect1d(*rows)) for rows in zip(expected, found, strict=True))
        return Parity(count, name, alike=alike / expected.size)
    expected, found = (rows.astype(np.float64).reshape(count, -1) for rows in (expected, found))
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return Parity(
        count,
        name,
        difference=float(np.abs(expected - found).max()),
        scale=float(np.abs(expected).max()),
        cosine=float(((expected * found).sum(axis=1) / lengths).min()),
    )


def _table(parity: Iterable[Parity]) -> str:
    return "\n".join([HEADER, *map(str, parity)])


def _to_onnx(graph: Graph) -> "ModelProto":
    """The graph in ONNX, free of what the exporter notes of the source code and its paths."""
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it warns of what it does not simplify
    batch = {0: torch.export.Dim("batch")}
    shapes = tuple(batch for _ in graph.inputs)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*axis name: batch will not be used")  # for sides: images have it
            # First traced alone: torch.onnx.export would turn to a fixed batch where a free one fails, and say nothing.
            program = torch.export.export(graph, graph.examples(2), dynamic_shapes=shapes, strict=False)
            exported = torch.onnx.export(
                program,
                input_names=list(graph.inputs),
                output_names=list(graph.names),
                dynamic_shapes=shapes,
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except (torch._dynamo.exc.UserError, torch.onnx.OnnxExporterError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"backbone {graph.config.model.backbone!r} cannot be exported: {reason}") from error
    assert exported is not None
    proto = exported.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info):
        part.ClearField("metadata_props")
    return proto


def _describe(
    proto: "ModelProto", preprocessing: Preprocessing, metadata: Mapping[str, str], given: ExportInput
) -> None:
    import onnx

    height, width = preprocessing.image_size
    shown = f"{height} x {width}"
    if preprocessing.resize:
        shown = "{} x {}, of that the centre of {}".format(*preprocessing.resize, shown)
    colours = "converted from their profile to sRGB" if preprocessing.profiles else "without their profile applied"
    proto.graph.input[0].doc_string = (
        f"(batch, 3, {height}, {width}) float32: pictures turned upright as their EXIF data say, colours {colours}, "
        f"RGB, resized to {shown} (height x width) by PIL's bicubic filter, {SCALES[given]}"
    )
    described = [*proto.graph.input, *proto.graph.output]
    for value in described[1:]:
        value.doc_string = MEANINGS[value.name]
    proto.doc_string = "\n".join(f"{value.name}: {value.doc_string}" for value in described)
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto)
