"""Models from their files: a gallery with its own, and a classifier."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from reid.checkpoint import Checkpoint
from reid.classifier import Classifier
from reid.config import Config, ReidConfig
from reid.device import choose_device
from reid.embedder import Embedder
from reid.exported import model_fingerprint
from service.engines.ivf import IvfEngine
from service.engines.memory import MemoryEngine
from service.gallery import Gallery
from service.records import EngineName

log = logging.getLogger("reid")


def open_gallery(folder: Path, checkpoint: Path, device: str = "auto", engine: EngineName = "memory") -> Gallery:
    """Open a gallery with the model of a run folder, model file or export, as that was trained to be evaluated.

    `engine` is `memory` (exact) or `faiss-ivf` (approximate, for a CPU and more than some 200,000 items). Raises what
    loading a model and opening a `Gallery` raise.
    """
    embedder, trained, model_id = load_embedder(checkpoint, device)
    chosen_engine = IvfEngine() if engine == "faiss-ivf" else MemoryEngine(choose_device(device))
    return Gallery(folder, embedder, model_id, chosen_engine, trained_on=trained.protocol.get("dataset"))


def load_embedder(checkpoint: Path, device: str = "auto") -> tuple[Embedder, Checkpoint[ReidConfig], str]:
    """The model of a run folder, model file or export, as that was trained to be evaluated, warm, and its id.

    Raises what loading a model raises.
    """
    embedder, trained = Embedder.from_checkpoint(checkpoint, device=choose_device(device))
    if trained.sides:
        log.warning("warning: this model was trained with side information, which photos here do not have")
    embedder.embed([Image.new("RGB", (8, 8))])  # the first pass is slow, so nobody shall wait for it
    choices = {"features": embedder.features, "flip_test": embedder.flip_test}
    return embedder, trained, _model_id(checkpoint, trained, choices)


def load_classifier(checkpoint: Path, device: str = "auto") -> tuple[Classifier, str]:
    """The classifier of a run folder, model file or export, as that was trained to be evaluated, warm, and its id.

    Raises what loading a model raises.
    """
    chosen = choose_device(device)
    classifier, trained = Classifier.from_checkpoint(checkpoint, device=chosen)
    classifier.classify([Image.new("RGB", (8, 8))])
    return classifier, _model_id(checkpoint, trained, {"prediction": classifier.prediction})


def _model_id(checkpoint: Path, trained: Checkpoint[Config], choices: Mapping[str, Any]) -> str:
    """What tells a model, with its preprocessing and these choices, from every other."""
    identity = {
        "weights": model_fingerprint(checkpoint),
        "preprocessing": trained.preprocessing.as_json(),
        **choices,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
