"""Opening a gallery with a model from its file."""

import hashlib
import json
from pathlib import Path

from PIL import Image

from reid.checkpoint import fingerprint, model_file
from reid.device import choose_device, choose_precision
from reid.embedder import Embedder
from service.engines.ivf import IvfEngine
from service.engines.memory import MemoryEngine
from service.gallery import Gallery
from service.records import EngineName


def open_gallery(folder: Path, checkpoint: Path, device: str = "auto", engine: EngineName = "memory") -> Gallery:
    """Open a gallery with the model of a run folder or model file, as that was trained to be evaluated.

    `engine` is `memory` (exact) or `faiss-ivf` (approximate, for a CPU and more than some 200,000 items). Raises what
    loading a model and opening a `Gallery` raise.
    """
    chosen = choose_device(device)
    embedder, trained = Embedder.from_checkpoint(checkpoint, device=chosen)
    embedder.precision = choose_precision(trained.config.train.precision, chosen)
    embedder.embed([Image.new("RGB", (8, 8))])  # the first pass is slow, so nobody shall wait for it
    identity = {
        "weights": fingerprint(model_file(checkpoint)),
        "preprocessing": trained.preprocessing.as_json(),
        "features": embedder.features,
        "flip_test": embedder.flip_test,
    }
    model_id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return Gallery(folder, embedder, model_id, IvfEngine() if engine == "faiss-ivf" else MemoryEngine(chosen))
