"""Every backbone by name: parameters, operations, images per second of training and inference, and what GLCA adds.

    python -m benchmarks.backbones                                   # Re-ID: 256 x 128, GLCA on 30 % of the patches
    python -m benchmarks.backbones --image-size 448x448 --ratio 0.1  # fine-grained categories
    python -m benchmarks.backbones --backbones deit_tiny swin_tiny

Weights are random. A training step is forward, cross-entropy of each branch, backward and SGD; baseline, DCAL (PWCA
alone where there is no class token) and inference are run in turn, and medians are shown. Operations are of one image
at inference, a multiply-add counted as two. Where the image size is no multiple of the patch, the nearest one is taken.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from reid.device import choose_precision
from reid.models.dcal import DCAL, build_dcal
from reid.models.options import DcalOptions
from reid.models.specs import BACKBONES
from reid.training.loop import draw_partners
from reid.training.losses import FgvcLoss, branch_losses, total_loss

CLASSES = 200
# The paper's section 4.4: what GLCA adds on DeiT-Tiny for CUB, and on ViT-Base for VeRi-776.
PUBLISHED = {(448, 448): "+9 % parameters, +2 % operations (DeiT-Tiny)", (256, 128): "+8 %, +3 % (ViT-Base, 256 x 256)"}


@dataclass
class Row:
    """One backbone's figures; shares are of the baseline's, and None without GLCA."""

    backbone: str
    method: str
    image_size: str
    tokens: int
    parameters: int
    operations: int
    glca_parameters: float | None
    glca_operations: float | None
    rollout_operations: float | None
    baseline_rate: float
    method_rate: float
    inference_rate: float
    step_ratio: float


def build(name: str, size: tuple[int, int], method: str, ratio: float) -> DCAL:
    torch.manual_seed(0)
    model, _ = build_dcal(name, size, CLASSES, DcalOptions(method=method, head="fgvc", ratio=ratio))  # type: ignore[arg-type]
    return model


def fitting(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """The size itself, or the nearest multiples of the backbone's patch."""
    patch = BACKBONES[name].patch
    height, width = (max(patch, round(side / patch) * patch) for side in size)
    return height, width


def training_step(model: DCAL, images: torch.Tensor, precision: torch.dtype) -> Callable[[], None]:
    """A whole step, its partners drawn anew each time."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-5, momentum=0.9)
    labels = torch.arange(len(images), device=images.device) % CLASSES
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        partner = draw_partners(len(images), (0, 0, count)).to(images.device)
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            output = model(images, partner)
        parts = branch_losses(output, labels, FgvcLoss())
        total_loss(parts, getattr(model, "log_variances", None)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def inference(model: DCAL, images: torch.Tensor, precision: torch.dtype) -> Callable[[], None]:
    """A forward pass of all branches that inference has."""

    def run() -> None:
        was_training = model.training
        model.eval()
        with torch.inference_mode(), torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            model(images)
        model.train(was_training)

    return run


def seconds(work: Callable[[], None], device: str) -> float:
    """Time of some work, the device's queue empty before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def operations(model: DCAL, image: torch.Tensor, *, glca: bool = False, rollout: bool = False) -> int:
    """Of one image at inference."""
    model.eval()
    with FlopCounterMode(display=False) as counter:  # with gradients: it cannot follow parameters without
        model(image, glca=glca, rollout=rollout)
    return counter.get_total_flops()


def count(model: DCAL, image: torch.Tensor) -> tuple[int, float | None, float | None]:
    """A baseline's operations, and what GLCA and, for a picture of the attention, the rollout add as shares of them."""
    own = operations(model, image)
    if model.glca is None:
        return own, None, None
    both = operations(model, image, glca=True)
    return own, (both - own) / own, (operations(model, image, glca=True, rollout=True) - both) / own


def weigh(model: DCAL) -> tuple[int, float | None]:
    """The backbone's parameters, and what GLCA's block and norm add as a share of them."""
    own = sum(parameter.numel() for parameter in model.backbone.parameters())
    if model.glca is None:
        return own, None
    return own, sum(parameter.numel() for parameter in model.glca.parameters()) / own


def measure(name: str, arguments: argparse.Namespace) -> Row:
    size = fitting(name, arguments.image_size)
    method = "dcal" if BACKBONES[name].offers.glca else "pwca"
    precision = choose_precision(arguments.precision, torch.device(arguments.device))
    images = torch.randn(arguments.batch_size, 3, *size, generator=torch.Generator().manual_seed(0))
    full, baseline = (build(name, size, kind, arguments.ratio) for kind in (method, "baseline"))
    parameters, more = weigh(full)
    counted, added, rolled = count(full, images[:1])
    images = images.to(arguments.device)
    works = {
        "baseline": training_step(baseline.to(arguments.device), images, precision),
        "method": training_step(full.to(arguments.device), images, precision),
        "inference": inference(full, images, precision),
    }
    times: dict[str, list[float]] = {what: [] for what in works}
    for round_ in range(arguments.rounds + 1):
        for what, work in works.items():
            taken = seconds(work, arguments.device)
            if round_:  # the first warms up
                times[what].append(taken)
    rates = {what: len(images) / statistics.median(taken) for what, taken in times.items()}
    ratio = statistics.median(b / a for a, b in zip(times["baseline"], times["method"], strict=True))
    tokens = full.grid[0] * full.grid[1] + full.prefix
    sides = f"{size[0]}x{size[1]}"
    return Row(name, method, sides, tokens, parameters, counted, more, added, rolled, *rates.values(), ratio)


def table(rows: list[Row]) -> str:
    lines = [
        "| backbone | image | tokens | parameters, M | GFLOP an image | GLCA adds parameters | GLCA adds operations "
        "| rollout adds operations | baseline img/s | method img/s | step ratio | inference img/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        shares = (row.glca_parameters, row.glca_operations, row.rollout_operations)
        more, added, rolled = ("no GLCA" if share is None else f"+{100 * share:.1f} %" for share in shares)
        lines.append(
            f"| {row.backbone} | {row.image_size} | {row.tokens} | {row.parameters / 1e6:.1f} "
            f"| {row.operations / 1e9:.2f} | {more} | {added} | {rolled} | {row.baseline_rate:.1f} "
            f"| {row.method_rate:.1f} ({row.method}) | {row.step_ratio:.2f} | {row.inference_rate:.1f} |"
        )
    return "\n".join(lines)


def image_size(text: str) -> tuple[int, int]:
    height, x, width = text.lower().partition("x")
    if not (x and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected HEIGHTxWIDTH, e.g. 256x128")
    return int(height), int(width)


def main(argv: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    named = [name for name in BACKBONES if name != "vit_toy"]
    parser.add_argument("--backbones", nargs="+", choices=list(BACKBONES), default=named, metavar="NAME")
    parser.add_argument("--image-size", type=image_size, default=(256, 128), metavar="HxW")
    parser.add_argument("--ratio", type=float, default=0.3, help="share of patches that GLCA chooses")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", metavar="FILE", type=Path)
    arguments = parser.parse_args(argv)
    rows = []
    for name in tqdm(arguments.backbones, file=sys.stderr, disable=None):
        rows.append(measure(name, arguments))
        print(f"{name}: step ratio {rows[-1].step_ratio:.2f}", file=sys.stderr)
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(table(rows))
    if arguments.image_size in PUBLISHED:
        print(f"\nGLCA in the paper: {PUBLISHED[arguments.image_size]}")
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"batch {arguments.batch_size}, precision {arguments.precision}, torch {torch.__version__}, {where}")
    return rows


if __name__ == "__main__":
    main()
