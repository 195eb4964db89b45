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

BRANCHES: dict[Method, tuple[BranchName, ...]] = {
    "dcal": ("sa", "glca", "pwca"),
    "glca": ("sa", "glca"),
    "pwca": ("sa", "pwca"),
    "baseline": ("sa",),
}

# The files of a run's folder.
MODEL_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
STATE_FILE = "state.pt"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
