"""Running an export (`reid.export`) by onnxruntime, in the place of the model that it was made of.

B images, D width.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from reid.data.preprocessing import Preprocessing
from reid.files import fingerprint, model_file
from reid.inference.checkpoint import EXPORT_SUFFIX, Checkpoint, Kind, read_metadata
from reid.models.dcal import Branch, DcalOutput
from reid.names import ExportInput, Features, Method

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

IMAGES, SIDES = "images", "sides"  # inputs; only a model with side information has the second
# Beside the metadata that a model file has: the fingerprint of that file, DCAL's grid and prefix, and what is given.
MODEL, GRID, PREFIX, INPUT = "model", "grid", "prefix", "input"


class Rescaling(nn.Module):
    """Images (B, 3, height, width) normalised in one way to the same images normalised in another."""

    scale: Tensor
    shift: Tensor

    def __init__(self, before: "Normalisation", after: "Normalisation") -> None:
        super().__init__()
        (mean, std), (new_mean, new_std) = (torch.tensor(kind, dtype=torch.float64) for kind in (before, after))
        for name, value in (("scale", std / new_std), ("shift", (mean - new_mean) / new_std)):
            self.register_buffer(name, value.float().view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


Triple = tuple[float, float, float]
Normalisation = tuple[Triple, Triple]  # mean and standard deviation of RGB in [0, 1]


def normalisation(given: ExportInput, preprocessing: Preprocessing) -> Normalisation:
    """What an export of this kind of input expects to be subtracted and divided by, of RGB in [0, 1]."""
    if given == "raw":
        return (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    if given == "imagenet":
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return preprocessing.mean, preprocessing.std


class ExportedModel(nn.Module):
    """An exported DCAL, called as that is in evaluation, with input and output on the CPU.

    It has the logits of a classifier; those of a re-identification model are (B, 0).
    """

    def __init__(
        self, session: "InferenceSession", method: Method, grid: tuple[int, int], prefix: int, rescale: Rescaling | None
    ) -> None:
        """`method`, `grid` and `prefix` are DCAL's; `rescale` makes what the file takes of what DCAL takes."""
        super().__init__()
        self.session = session
        self.rescale = rescale
        self.method: Method = method
        self.grid = grid
        self.prefix = prefix
        self._outputs = {output.name: output.shape for output in session.get_outputs()}
        self._knows_sides = SIDES in {given.name for given in session.get_inputs()}

    @property
    def width(self) -> int:
        """D, the numbers in a branch's token."""
        return int(self._outputs["sa_token"][1])

    @property
    def classes(self) -> int:
        """C, the classes of a classifier's head."""
        return int(self._outputs["sa_logits"][1])

    @property
    def rolls_out(self) -> bool:
        """Whether there is a class token whose attention is rolled out."""
        return "rollout" in self._outputs

    def embedding_size(self, features: Features) -> int:
        """E, the numbers in an embedding of these features."""
        parts = self._outputs["jigsaw"][1] if "jigsaw" in self._outputs else 0
        sizes = {"sa": self.width * (1 + parts), "glca": self.width * ("glca_token" in self._outputs)}
        return sum(sizes.values()) if features == "concat" else sizes[features]

    def forward(
        self, images: Tensor, sides: Tensor | None = None, *, glca: bool = True, rollout: bool = False
    ) -> DcalOutput:
        """Images (B, 3, height, width) float32, normalised RGB, to the output of the branches, as DCAL gives it.

        `sides` are as for DCAL. Raises ValueError for a rollout that the model does not have.
        """
        if rollout and not self.rolls_out:
            raise ValueError("the exported model has no class token to roll attention out from")
        inputs = {IMAGES: (images if self.rescale is None else self.rescale(images)).numpy()}
        if self._knows_sides:
            inputs[SIDES] = (torch.full((len(images),), -1) if sides is None else sides).numpy()
        wanted = ["sa_token", "sa_logits", "jigsaw"]
        wanted += ["glca_token", "glca_logits"] if glca else []
        wanted += ["rollout"] if rollout else []
        wanted += ["chosen"] if rollout and glca else []
        names = [name for name in wanted if name in self._outputs]
        values = self.session.run(names, inputs)
        found = {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

        def branch(name: str) -> Branch | None:
            token = found.get(f"{name}_token")
            if token is None:
                return None
            return Branch(token, found.get(f"{name}_logits", token[:, :0]), head=name)

        sa = branch("sa")
        assert sa is not None
        jigsaw = found["jigsaw"].unbind(dim=1) if "jigsaw" in found else ()
        return DcalOutput(
            sa,
            branch("glca"),
            rollout=found.get("rollout"),
            chosen=found.get("chosen"),
            jigsaw=tuple(Branch(part, part[:, :0], head=f"jigsaw_{i}") for i, part in enumerate(jigsaw, start=1)),
        )


def open_exported(file: Path, kind: type[Kind], device: torch.device | str) -> tuple[ExportedModel, Checkpoint[Kind]]:
    """The model of an export, to be run on the CPU or on `cuda`, and what it says of itself.

    Raises ValueError for a file that is damaged, no export of ours, or one of another kind of run than asked for, for a
    missing onnxruntime, and for one that cannot run on the device.
    """
    session = open_session(file, device)
    metadata = session.get_modelmeta().custom_metadata_map
    checkpoint = read_metadata(file, metadata, kind)
    try:
        rows, columns = json.loads(metadata[GRID])
        prefix = int(metadata[PREFIX])
        given = TypeAdapter(ExportInput).validate_python(metadata.get(INPUT, "normalised"))  # the first had no other
    except (KeyError, ValueError) as error:
        raise ValueError(f"checkpoint {file}: damaged metadata ({error!r})") from error
    own, taken = (normalisation(kind, checkpoint.preprocessing) for kind in ("normalised", given))
    rescale = None if given == "normalised" else Rescaling(own, taken)
    return ExportedModel(session, checkpoint.config.model.method, (rows, columns), prefix, rescale), checkpoint


def open_session(file: Path, device: torch.device | str = "cpu") -> "InferenceSession":
    """An ONNX file in onnxruntime, with as many threads as torch has; errors as for `open_exported`."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ValueError(f"checkpoint {file}: running it needs onnxruntime; pip install dcal-reid[export]") from error
    provider = "CUDAExecutionProvider" if torch.device(device).type == "cuda" else "CPUExecutionProvider"
    there = onnxruntime.get_available_providers()
    if provider not in there:
        raise ValueError(
            f"checkpoint {file}: this onnxruntime has {' and '.join(there)}, but device 'cuda' needs {provider}; "
            "install onnxruntime-gpu in its place, or use --device cpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others want the processors too
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(file, options, providers=[provider])
    except Exception as error:  # each of onnxruntime's is of a class of its own
        raise ValueError(f"checkpoint {file}: cannot be read as ONNX ({' '.join(str(error).split())})") from error
    if session.get_providers()[0] != provider:
        raise ValueError(f"checkpoint {file}: onnxruntime cannot start {provider} here; use --device cpu")
    return session


def model_fingerprint(path: Path | str) -> str:
    """What tells the model of a run folder, model file or export from all others: the fingerprint of its model file.

    An export has that of the file it was made of, because it gives the same embeddings. Raises what `model_file` and
    `open_exported` raise.
    """
    file = model_file(path)
    if file.suffix != EXPORT_SUFFIX:
        return fingerprint(file)
    try:
        return str(open_session(file).get_modelmeta().custom_metadata_map[MODEL])
    except KeyError:
        raise ValueError(f"checkpoint {file}: no {MODEL!r} in its metadata: not a file of reid-export") from None
