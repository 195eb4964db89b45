"""What a large photo costs on its way in: reading, resizing, the copy that is kept; and what scaled decoding changes.

    python -m benchmarks.ingest [--photos DIR] [--backbone vit_tiny --weights FILE] [--size 224x224]
    python -m benchmarks.ingest --table TABLE.csv --backbone vit_tiny --weights FILE

Without --photos, JPEGs of 12 megapixels are drawn. Times are of one processor, the median over photos. With a network,
its embeddings of photos that were decoded at a scale that is enough are held against those of photos read in full. With
--table these photos are the queries and the gallery of a data set, enlarged to 12 megapixels with a camera's noise, and
mAP is computed of both.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from reid.data.datasets import load_dataset
from reid.data.folders import LeftOut, pictures_below
from reid.data.images import decode, read_image, upright_size
from reid.data.preprocessing import SPARE, Decoding
from reid.data.samples import Sample
from reid.evaluation.features import label_rows
from reid.inference.embedder import Embedder
from reid.inference.pretrained import Pretrained
from reid.progress import track
from reid.retrieval.metrics import evaluate_features
from service.gallery.copies import copy_of, lossless
from service.gallery.rendering import Order, render

DRAWN = (4000, 3000)  # pixels
QUALITY = 92
NOISE = 4  # levels of 255, of a pixel
LEAST_COSINE = 0.999

Result = TypeVar("Result")


@dataclass
class Part:
    """Seconds of a processor that a part took of each photo, and the bytes that it made of all."""

    times: list[float] = field(default_factory=list)
    size: int = 0

    @property
    def seconds(self) -> float:
        """The median."""
        return float(np.median(self.times))

    def time(self, work: Callable[[], Result]) -> Result:
        begun = time.process_time()
        made = work()
        self.times.append(time.process_time() - begun)
        self.size += len(made) if isinstance(made, bytes) else 0
        return made


def draw(count: int, size: tuple[int, int] = DRAWN) -> Iterator[bytes]:
    """JPEGs of (width, height), by default a camera's: shapes, with texture of every size down to the pixel."""
    width, height = size
    for number in range(count):
        chance = np.random.default_rng(number)
        shown = chance.integers(0, 256, (12, 16, 3)).astype(np.uint8)
        values = np.asarray(Image.fromarray(shown).resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
        for cell in (1, 3, 9):
            texture = chance.normal(0, NOISE, (-(-height // cell), -(-width // cell), 1)).astype(np.float32)
            values += texture.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
        yield jpeg_of(values)


def jpeg_of(values: np.ndarray) -> bytes:
    """Pixels (height, width, 3) as a camera writes them."""
    written = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(written, "JPEG", quality=QUALITY)
    return written.getvalue()


def enlarge(sample: Sample, chance: np.random.Generator) -> bytes:
    """An image of a data set as a JPEG of a camera's size, with noise in each pixel."""
    image = read_image(sample.path, sample.box)
    scale = (DRAWN[0] * DRAWN[1] / (image.width * image.height)) ** 0.5
    large = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC)
    values = np.asarray(large).astype(np.float32)
    return jpeg_of(values + NOISE * chance.standard_normal((*values.shape[:2], 1), np.float32))


def photos_in(folder: Path, most: int) -> Iterator[bytes]:
    """The first JPEGs below a folder that are larger than is enough for a model of 224 x 224 pixels."""
    found = 0
    for inside in pictures_below(folder, LeftOut()):
        data = (folder / inside).read_bytes()
        try:
            if data[:2] != b"\xff\xd8" or min(upright_size(data)) < 2 * SPARE * 224:
                continue
            decode(data)
        except ValueError:
            continue
        yield data
        found += 1
        if found == most:
            return


def measure(
    photos: Iterable[bytes], height: int, width: int
) -> tuple[dict[str, Part], list[tuple[Image.Image, Image.Image]], list[int]]:
    """What each part of an enrolment takes of photos for a model of that size.

    Beside it are the views of each photo, read in full and scaled, and the photos' sizes in bytes.
    """
    enough = Decoding.for_model(height, width)
    in_full = enough.in_full
    names = ("in full", "scaled", "resize", "resize scaled", "copy", "lossless", "former", "unscaled", "now")
    parts = {name: Part() for name in names}
    views: list[tuple[Image.Image, Image.Image]] = []
    sizes: list[int] = []

    def resized(image: Image.Image) -> Image.Image:
        return image.resize((width, height), Image.Resampling.BICUBIC)

    for data in photos:
        sizes.append(len(data))
        image = parts["in full"].time(lambda data=data: decode(data, in_full))
        small = parts["scaled"].time(lambda data=data: decode(data, enough))
        whole_view = parts["resize"].time(lambda image=image: resized(image))
        views.append((whole_view, parts["resize scaled"].time(lambda small=small: resized(small))))
        parts["copy"].time(lambda data=data, small=small: copy_of(data, small, enough))
        parts["lossless"].time(lambda image=image: lossless(image))
        parts["former"].time(lambda data=data: former(data, in_full, resized))
        for name, how in (("unscaled", in_full), ("now", enough)):
            order = Order(["view", "thumbnail"], view=(height, width), how=how, copy=True)
            parts[name].time(lambda data=data, order=order: render(data, order))
    return parts, views, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, metavar="DIR", help="a folder of real photos")
    parser.add_argument("--count", type=int, default=8, help="photos, at most (default: %(default)s)")
    parser.add_argument("--size", default="224x224", metavar="HxW", help="what the model is given (default: 224x224)")
    parser.add_argument("--backbone", default="vit_tiny", help="of --weights (default: %(default)s)")
    parser.add_argument("--weights", metavar="FILE", help="of a network, to compare its embeddings")
    parser.add_argument("--table", type=Path, metavar="FILE", help="of a data set, of which mAP is computed both ways")
    arguments = parser.parse_args()
    height, width = map(int, arguments.size.split("x"))
    enough = Decoding.for_model(height, width)
    network = None
    if arguments.weights:
        network = Pretrained(backbone=arguments.backbone, weights=arguments.weights, image_size=(height, width))
    if arguments.table:
        if network is None:
            parser.error("--table needs --weights, of the network whose embeddings are compared")
        compare_ranking(network, arguments.table, enough)
        return
    photos = photos_in(arguments.photos, arguments.count) if arguments.photos else draw(arguments.count)
    parts, views, sizes = measure(photos, height, width)
    if not views:
        raise SystemExit(f"{arguments.photos}: no JPEG in it that is large enough")
    report(parts, sizes)
    if network is not None:
        embedder, _ = Embedder.from_checkpoint(network)
        tell_cosines(*(embedder.embed(list(images)) for images in zip(*views, strict=True)))


def former(data: bytes, in_full: Decoding, resized: Callable[[Image.Image], Image.Image]) -> bytes:
    """What an enrolment did with a photo before it kept the bytes that came: all pixels, and all anew."""
    image = decode(data, in_full)
    resized(image)
    return lossless(image)


def report(parts: dict[str, Part], sizes: list[int]) -> None:
    """Print the table; `sizes` are those of the photos in bytes."""
    count = len(sizes)

    def ms(name: str) -> str:
        return f"{1000 * parts[name].seconds:,.0f} ms"

    print(f"{count} photos of {np.mean(sizes) / 1e6:.2f} MB")
    print(f"| reading in full | {ms('in full')}, and {ms('resize')} to resize |")
    print(f"| at a scale that is enough | {ms('scaled')}, and {ms('resize scaled')} to resize |")
    print(f"| the copy that is kept | {ms('copy')}, {parts['copy'].size / sum(sizes):.2f} of the photo's size |")
    print(f"| written anew without loss | {ms('lossless')}, {parts['lossless'].size / sum(sizes):.2f} of it |")
    rows = {
        "former": "former way: read in full, resized, written anew without loss",
        "unscaled": "all of an enrolment but the model, read in full",
        "now": "the same, scaled",
    }
    for name, words in rows.items():
        rate, gain = 1 / parts[name].seconds, parts["former"].seconds / parts[name].seconds
        print(f"| {words} | {ms(name)}, {rate:.1f} photos/s, {gain:.1f} times the former way |")


def compare_ranking(network: Pretrained, table: Path, how: Decoding) -> None:
    """Print how mAP moves on a data set whose images are large photos, when these are decoded smaller."""
    embedder, _ = Embedder.from_checkpoint(network)
    dataset = load_dataset("csv", table)
    chance = np.random.default_rng(0)
    areas = {False: 0, True: 0}
    found: dict[bool, list[np.ndarray]] = {False: [], True: []}
    samples = [*dataset.query, *dataset.gallery]
    for sample in track(samples, len(samples), "enlarging"):
        data = enlarge(sample, chance)
        for scaled, chosen in ((False, how.in_full), (True, how)):
            image = decode(data, chosen)
            areas[scaled] += image.width * image.height
            found[scaled].append(embedder.embed([image]))
    whole, smaller = (np.concatenate(found[scaled]) for scaled in (False, True))
    print(f"decoded smaller: {areas[False] / areas[True]:.1f} times fewer pixels")
    tell_cosines(whole, smaller)
    rows = label_rows(dataset)
    queries = len(dataset.query)
    for words, features in (("read in full", whole), ("scaled", smaller)):
        labels = rows.query_ids, rows.query_cameras, features[queries:], rows.gallery_ids, rows.gallery_cameras
        metrics = evaluate_features(features[:queries], *labels)
        print(f"{words}: mAP {100 * metrics.mAP:.3f}, Rank-1 {100 * metrics.cmc[1]:.3f}")


def tell_cosines(whole: np.ndarray, scaled: np.ndarray) -> None:
    """Print how near the embeddings (n, E) of photos decoded smaller are to those of photos read in full."""
    cosines = (whole * scaled).sum(axis=1)
    share = 100 * (cosines >= LEAST_COSINE).mean()
    told = f"{share:.1f} % of {len(cosines):,} photos at least {LEAST_COSINE}, least {cosines.min():.5f}"
    print(f"cosine of the two embeddings: {told}")


if __name__ == "__main__":
    main()
