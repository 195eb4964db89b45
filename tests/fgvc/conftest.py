"""A dataset of one folder a class, and options of a training that takes a second or two."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TINY = {
    "model.backbone": "vit_toy",
    "model.weights": "none",
    "data.image_size": "16x16",
    "data.resize": "20x20",
    "train.batch_size": 4,
    "train.lr": 1e-3,
    "train.epochs": 2,
    "train.eval_every": 0,
}


@pytest.fixture
def tiny() -> dict[str, object]:
    """Options of a small, short training."""
    return dict(TINY)


def write_classes(root: Path, classes: int = 3, train: int = 5, test: int = 3, size: int = 24) -> Path:
    """Write `root`/{train,test}/kind-N/*.png: coloured noise, alike within a class."""
    random = np.random.default_rng(0)
    for label in range(classes):
        base = random.integers(0, 256, 3)
        for split, count in (("train", train), ("test", test)):
            folder = root / split / f"kind-{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(base + random.normal(0, 30, (size, size, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    """The root of a dataset of 3 classes with 5 training and 3 test images each."""
    return write_classes(tmp_path / "kinds")


@pytest.fixture(name="write_classes")
def _write_classes():
    """The function that writes a dataset of one's own choice."""
    return write_classes
