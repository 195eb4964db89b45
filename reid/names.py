"""What things are called: in options, in results, in files. Whoever needs only a name needs no torch."""

from typing import Literal

Task = Literal["reid", "fgvc"]
Method = Literal["dcal", "baseline", "glca", "pwca"]
BranchName = Literal["sa", "glca", "pwca"]
PartnerStream = Literal["sa", "pwca"]
SideKind = Literal["camera", "view", "camera+view"]
Features = Literal["concat", "sa", "glca"]
"""Which tokens an embedding is made of."""
Prediction = Literal["sum", "sa", "glca"]
"""Whose class probabilities are taken."""

ExportInput = Literal["normalised", "imagenet", "raw"]
"""What an export takes: pixels normalised by the model's own mean and deviation, by ImageNet's, or from 0 to 255."""

Runtime = Literal["auto", "torch", "onnx"]
"""What runs a model: torch, ONNX Runtime by the model's export, or whichever of them gains."""

BRANCHES: dict[Method, tuple[BranchName, ...]] = {
    "dcal": ("sa", "glca", "pwca"),
    "glca": ("sa", "glca"),
    "pwca": ("sa", "pwca"),
    "baseline": ("sa",),
}


def counted(number: int, one: str, many: str = "") -> str:
    """A number with what it counts, as `1 photo` and `1,204 photos`; `many` where that is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


# The files of a run's folder.
MODEL_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
STATE_FILE = "state.pt"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
