"""Models from their files: a gallery with its own, and a classifier."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from reid.config import Config, ReidConfig
from reid.device import choose_device
from reid.inference.checkpoint import Checkpoint
from reid.inference.classifier import Classifier
from reid.inference.embedder import Embedder
from reid.inference.exported import model_fingerprint
from reid.inference.pretrained import ModelSource, Pretrained
from reid.inference.runtime import choose_runtime
from reid.names import Runtime
from service.engines.ivf import IvfEngine
from service.engines.memory import MemoryEngine
from service.engines.milvus import MilvusEngine
from service.fields import Filter
from service.gallery.decoders import Decoders
from service.gallery.gallery import Gallery
from service.gallery.index import Index, LocalIndex, ServerIndex, collection
from service.settings import Backend
from service.storage.database import Database
from service.storage.store import Store

log = logging.getLogger("reid")


def open_gallery(
    folder: Path,
    model: ModelSource,
    device: str = "auto",
    backend: Backend | None = None,
    doing: Callable[[str], object] = log.debug,
) -> Gallery:
    """Open a gallery with a model, as that was trained to be evaluated.

    By default the environment tells where it is kept and what finds its items. `doing` is told what is under way.
    Raises what loading a model, opening a `Database` and making an engine raise.
    """
    doing("loading the model")
    kept = backend or Backend()
    embedder, trained, model_id = load_embedder(model, device, kept.runtime)
    doing("opening the gallery")
    database = Database(folder, kept.database_url)
    try:
        index: Index
        if kept.engine == "milvus":
            index = server_index(database, model_id, embedder.size, kept)
        else:
            index = LocalIndex(database, local_engine(kept, device, folder), model_id)
        doing("filling the index")
        decoders = Decoders(seconds=kept.decode_seconds)
        return Gallery(database, embedder, model_id, index, trained, decoders)
    except BaseException:
        database.close()
        raise


def local_engine(backend: Backend, device: str, folder: Path) -> MemoryEngine:
    """The engine in this process; raises ValueError for rows on the disk where a GPU would search them."""
    if backend.engine in ("approximate", "faiss-ivf"):
        return IvfEngine()
    chosen = choose_device(device)
    if backend.rows == "memory":
        return MemoryEngine(chosen)
    if chosen.type != "cpu":
        raise ValueError(f"REID_ROWS disk with device {chosen}: expected --device cpu")
    return MemoryEngine(chosen, folder)


def server_index(database: Database, model_id: str, dimension: int, backend: Backend) -> ServerIndex:
    """The index of a gallery on a Milvus server, for vectors (E,) of a model; raises as `MilvusEngine`."""
    assert backend.milvus_uri is not None
    engine = MilvusEngine(
        backend.milvus_uri,
        collection(database.gallery_id, model_id, kind=backend.milvus_index),
        dimension,
        token=None if backend.milvus_token is None else backend.milvus_token.get_secret_value(),
        consistency=backend.milvus_consistency,
        index=backend.milvus_index,
        effort=backend.milvus_effort,
        expected=Store(database).count(Filter()),
    )
    return ServerIndex(database, engine, model_id, kind=backend.milvus_index)


def load_embedder(
    model: ModelSource, device: str = "auto", runtime: Runtime = "auto"
) -> tuple[Embedder, Checkpoint[ReidConfig], str]:
    """A model as it was trained to be evaluated, warm, and its id, which follows from the content of its weights.

    The id is the same by every runtime, because the embeddings are. Raises what loading a model and `choose_runtime`
    raise.
    """
    chosen = choose_device(device)
    model = choose_runtime(runtime, model, chosen)
    embedder, trained = Embedder.from_checkpoint(model, device=chosen)
    if embedder.runtime == "onnx":
        log.info("the model runs by ONNX Runtime: %s", model)
    if not isinstance(model, Pretrained):
        trained = replace(trained, fingerprint=model_fingerprint(model))
    if trained.side_info:
        log.warning("warning: this model was trained with side information, which photos here do not have")
    embedder.embed([Image.new("RGB", (8, 8))])  # the first pass is slow, so nobody shall wait for it
    choices = {"features": embedder.features, "flip_test": embedder.flip_test}
    return embedder, trained, _model_id(trained, choices)


def load_classifier(checkpoint: Path, device: str = "auto") -> tuple[Classifier, str]:
    """The classifier of a run folder, model file or export, as that was trained to be evaluated, warm, and its id.

    Raises what loading a model raises.
    """
    chosen = choose_device(device)
    classifier, trained = Classifier.from_checkpoint(checkpoint, device=chosen)
    classifier.classify([Image.new("RGB", (8, 8))])
    trained = replace(trained, fingerprint=model_fingerprint(checkpoint))
    return classifier, _model_id(trained, {"prediction": classifier.prediction})


def _model_id(trained: Checkpoint[Config], choices: Mapping[str, Any]) -> str:
    """What tells a model, with its preprocessing and these choices, from every other."""
    identity = {
        "weights": trained.fingerprint,
        "preprocessing": trained.preprocessing.as_json(),
        **choices,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
