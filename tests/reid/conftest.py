"""Run folders with models that nobody trained, and their exports."""

from pathlib import Path

import pytest
import torch

from reid.config import FgvcConfig, ReidConfig, load_config
from reid.data.preprocessing import Preprocessing
from reid.inference.checkpoint import Checkpoint, save_model
from reid.inference.exporting import export
from reid.inference.side_info import SideInfo
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions


def save_run(
    folder: Path, task: str, size=(32, 16), resize=None, weights="none", backbone="vit_toy", cameras=(), **model
) -> Path:
    """A run folder with a model that nobody trained."""
    torch.manual_seed(0)
    built, _ = build_dcal(backbone, size, 3, DcalOptions(head=task, sides=len(cameras), **model), weights=weights)
    options = {"model.backbone": backbone, "model.weights": "none", "data.image_size": f"{size[0]}x{size[1]}"}
    options |= {"model.method": "dcal"} | {f"model.{name}": value for name, value in model.items()}
    config = load_config("folder", None, options, ReidConfig if task == "reid" else FgvcConfig)
    preprocessing = Preprocessing(size, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), resize)
    folder.mkdir(exist_ok=True)
    save_model(
        folder / "model.safetensors",
        built,
        Checkpoint(config, preprocessing, ("a", "b", "c"), {}, 1, SideInfo(tuple(cameras))),
    )
    return folder


@pytest.fixture(name="save_run", scope="session")
def _save_run():
    """The function that saves a run of one's own choice."""
    return save_run


@pytest.fixture(scope="session")
def exported_runs(tmp_path_factory) -> dict[str, Path]:
    """Run folders by name, each with its export, model.onnx."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    root = tmp_path_factory.mktemp("runs")
    found = {
        "reid": save_run(root / "reid", "reid"),
        "baseline": save_run(root / "baseline", "reid", method="baseline"),
        "fgvc": save_run(root / "fgvc", "fgvc", resize=(40, 24)),
    }
    for run in found.values():
        export(run)
    return found
