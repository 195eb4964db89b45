"""Ways to run a model on a CPU: photos a second, and how far their embeddings are from those in float32.

    python -m benchmarks.runtimes --table TABLE.csv --backbone vit_tiny --weights FILE --image-size 96x96
    python -m benchmarks.runtimes --table TABLE.csv --checkpoint RUN [--batch 1 32] [--json FILE]
    python -m benchmarks.runtimes --random vit_small

`bfloat16` is torch's autocast; `compiled` torch.compile in float32, and needs a C++ compiler; `onnx` is what
reid-export writes, by ONNX Runtime, and `int8` that file with its matrix products in whole numbers: `dynamic` has the
range of each batch, `static` that of photos of the table's training part. One thread; rates are of its processor time,
medians of interleaved rounds, so that other work on the machine counts little. Cosines and mAP are of the table's
queries and gallery. A way may be the default where at least 99 % of photos have a cosine of 0.999 and mAP moves by no
more than 0.1. With --random, a model of random weights and drawn photos, rates mean something, and cosines little.
"""

import argparse
import io
import json
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.service import make_checkpoint, make_photos
from reid.data.datasets import load_dataset
from reid.data.images import read_image
from reid.data.samples import ReidDataset
from reid.device import emulates
from reid.evaluation.features import label_rows
from reid.inference.embedder import Embedder
from reid.inference.exporting import export
from reid.inference.pretrained import ModelSource, add_arguments, chosen_model
from reid.models.specs import BACKBONES
from reid.retrieval.metrics import evaluate_features

LEAST_COSINE, LEAST_SHARE, LARGEST_CHANGE = 0.999, 0.99, 0.1  # what a default must hold; mAP in percent
CALIBRATING = 64  # photos of the training part
DRAWN = 64
WAYS = ("float32", "bfloat16", "compiled", "onnx", "int8 dynamic", "int8 static")

Row = dict[str, Any]
Embed = Callable[[Tensor], np.ndarray]


def ways_to_run(source: ModelSource, wanted: list[str], calibrating: Tensor, work: Path) -> Iterator[tuple[str, Embed]]:
    """For each way its name and a function from prepared photos (n, 3, height, width) to embeddings (n, E)."""
    file = work / "model.onnx"
    if any(way.startswith(("onnx", "int8")) for way in wanted):
        export(source, file)
    for way in wanted:
        if way.startswith("int8"):
            quantised = work / f"{way.replace(' ', '-')}.onnx"
            quantise(file, quantised, None if way == "int8 dynamic" else calibrating)
            yield way, opened(quantised)
        elif way == "compiled":
            yield way, opened(source, compiled=True)
        else:
            yield way, opened(file if way == "onnx" else source, "bfloat16" if way == "bfloat16" else "float32")


def opened(source: ModelSource, precision: str = "float32", *, compiled: bool = False) -> Embed:
    """A model's embeddings of prepared photos."""
    embedder, _ = Embedder.from_checkpoint(source, precision=getattr(torch, precision))
    if compiled:
        embedder.model.compile()
    return embedder.embed_prepared


def quantise(file: Path, quantised: Path, calibrating: Tensor | None) -> None:
    """Write an export with its matrix products in 8 bits, with ranges of these photos or else of each batch."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    ways = {"op_types_to_quantize": ["MatMul", "Gemm"], "weight_type": QuantType.QInt8, "per_channel": True}
    if calibrating is None:
        quantize_dynamic(file, quantised, **ways)
        return

    class Photos(CalibrationDataReader):  # type: ignore[misc]
        parts = iter(calibrating.split(8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {"images": part.numpy()}

    quantize_static(file, quantised, Photos(), activation_type=QuantType.QUInt8, **ways)


def rates(ways: dict[str, Embed], images: Tensor, rounds: int) -> dict[str, tuple[float, float]]:
    """Photos a second of processor time, and its ratio to that of float32, of each way: medians of rounds in turn."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, embed in ways.items():
            begun = time.process_time()
            embed(images)
            spent[way].append(time.process_time() - begun)
    whole = spent["float32"][1:]
    return {
        way: (len(images) / median(own[1:]), median(a / b for a, b in zip(whole, own[1:], strict=True)))
        for way, own in spent.items()
    }


def mean_average_precision(dataset: ReidDataset, features: np.ndarray) -> float:
    """mAP in percent of embeddings of a data set's queries and then its gallery."""
    rows, queries = label_rows(dataset), len(dataset.query)
    labels = rows.query_ids, rows.query_cameras, features[queries:], rows.gallery_ids, rows.gallery_cameras
    return 100 * evaluate_features(features[:queries], *labels).mAP


def measure(source: ModelSource, dataset: ReidDataset | None, options: argparse.Namespace, work: Path) -> list[Row]:
    """A row of the table for each way and size of a batch."""
    embedder, _ = Embedder.from_checkpoint(source)
    if dataset is None:
        images = torch.stack([embedder.prepare(Image.open(io.BytesIO(photo))) for photo in make_photos(0, DRAWN)])
        calibrating = images
    else:
        every = max(1, len(dataset.train) // CALIBRATING)
        parts = ([*dataset.query, *dataset.gallery], dataset.train[::every][:CALIBRATING])
        images, calibrating = (
            torch.stack([embedder.prepare(read_image(sample.path, sample.box)) for sample in part]) for part in parts
        )
    ways = dict(ways_to_run(source, options.ways, calibrating, work))
    features = {way: np.concatenate([embed(part) for part in images.split(32)]) for way, embed in ways.items()}
    whole = features["float32"]
    truth = None if dataset is None else mean_average_precision(dataset, whole)
    rows = []
    for batch in options.batch:
        for way, (rate, ratio) in rates(ways, images[:batch], options.rounds).items():
            cosines = (features[way] * whole).sum(axis=1)
            row: Row = {"way": way, "batch": batch, "rate": rate, "ratio": ratio, "least": float(cosines.min())}
            row["share"] = float((cosines >= LEAST_COSINE).mean())
            row["good"] = row["share"] >= LEAST_SHARE
            if dataset is not None and truth is not None:
                row["mAP"] = mean_average_precision(dataset, features[way])
                row["good"] &= abs(row["mAP"] - truth) <= LARGEST_CHANGE
            rows.append(row)
    return rows


def line(row: Row) -> str:
    mean = f"{row['mAP']:.2f}" if "mAP" in row else ""
    cells = (row["way"], row["batch"], f"{row['rate']:.1f}", f"{row['ratio']:.2f}")
    cells += (f"{100 * row['share']:.1f} %", f"{row['least']:.5f}", mean, "yes" if row["good"] else "no")
    return "| " + " | ".join(map(str, cells)) + " |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--random", choices=sorted(BACKBONES), metavar="NAME", help="a model with random weights")
    parser.add_argument("--table", type=Path, metavar="FILE", help="of a data set, for cosines and mAP")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="by default all")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="photos at once (1 32)")
    parser.add_argument("--rounds", type=int, default=11, help="interleaved rounds to take medians of (11)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the table as a list of rows")
    options = parser.parse_args(argv)
    options.ways = ["float32", *(way for way in options.ways if way != "float32")]
    torch.set_num_threads(1)
    if emulates(torch.bfloat16, torch.device("cpu")):
        print("this processor has no bfloat16 of its own, and emulates it")
    with TemporaryDirectory() as folder:
        work = Path(folder)
        source = make_checkpoint(work, options.random) if options.random else chosen_model(options)
        if source is None or (options.table is None and not options.random):
            parser.error("give --checkpoint RUN or --backbone NAME with --table FILE, or --random NAME alone")
        rows = measure(source, load_dataset("csv", options.table) if options.table else None, options, work)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime"))
    print(f"{options.random or source}; {platform.processor() or platform.machine()}, one thread; {versions}\n")
    print("| way | batch | photos/s | over float32 | cosine >= 0.999 | least cosine | mAP | within the limits |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    print("\n".join(map(line, rows)))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
