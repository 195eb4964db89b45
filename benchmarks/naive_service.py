"""What the service is compared with: the least one can write, a lock around the model and the features in an array.

    python -m benchmarks.naive_service --checkpoint RUN --features FILE.npy

It keeps nothing, filters nothing and tells nothing of what it found but the places and scores of ten rows.
"""

import argparse
from pathlib import Path
from threading import Lock

import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image

from reid.device import choose_device
from reid.inference.embedder import Embedder

COUNT = 10


def create_app(embedder: Embedder, features: np.ndarray) -> FastAPI:
    """`POST /query` over features (rows, E) float32 of unit length."""
    app = FastAPI()
    lock = Lock()

    @app.post("/query")
    def query(image: UploadFile) -> list[tuple[int, float]]:
        picture = Image.open(image.file).convert("RGB")
        with lock:
            scores = features @ embedder.embed([picture])[0]
        best = np.argsort(-scores)[:COUNT]
        return [(int(row), float(scores[row])) for row in best]

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    embedder, _ = Embedder.from_checkpoint(arguments.checkpoint, device=device)
    embedder.embed([Image.new("RGB", (8, 8))])
    uvicorn.run(create_app(embedder, np.load(arguments.features)), port=arguments.port)


if __name__ == "__main__":
    main()
