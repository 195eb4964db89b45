"""One training step of DCAL over one of the plain timm model: time, memory, operations.

    python -m benchmarks.train_step                                     # DeiT-Tiny, 256 x 128, batch 32, on the CPU
    python -m benchmarks.train_step --device cuda --compile             # ViT-B, batch 64, bfloat16
    python -m benchmarks.train_step --image-size 448x448 --ratio 0.1 --batch-size 8 --checkpointing

A step is forward, loss, backward and optimiser. The two are run in turn, and the medians are compared. The plain step
is timm's own ViT with its head, cross-entropy and the triplet, that is what `--method baseline` computes. Peak memory
is measured in a process of its own for each, on the CPU as the process's peak less what it held before the first step.
With --checkpointing, a step that computes its blocks again in the backward pass is a third line.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.backbones import image_size, seconds
from reid.device import choose_precision
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions
from reid.models.specs import BACKBONES
from reid.training.loop import draw_partners
from reid.training.losses import ReidLoss, batch_hard_triplet, branch_losses, total_loss
from reid.training.runs import keep_freed_memory

CLASSES = 751  # Market-1501's training identities

Step = Callable[[], None]


def dcal_step(arguments: argparse.Namespace, images: Tensor, labels: Tensor, *, checkpointing: bool = False) -> Step:
    """A step of DCAL as reid-train runs it."""
    torch.manual_seed(0)
    model, _ = build_dcal(
        arguments.backbone,
        arguments.image_size,
        CLASSES,
        DcalOptions(ratio=arguments.ratio, checkpointing=checkpointing),
    )
    model.to(images.device).train()
    forward = torch.compile(model) if arguments.compile else model
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, fused=images.is_cuda)
    precision = choose_precision("auto", images.device)
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        partner = draw_partners(len(images), (0, 0, count)).to(images.device)
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            output = forward(images, partner)
        loss = total_loss(branch_losses(output, labels, ReidLoss()), model.log_variances)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def plain_step(arguments: argparse.Namespace, images: Tensor, labels: Tensor) -> Step:
    """A step of timm's own model with the same losses on its class token and logits."""
    torch.manual_seed(0)
    spec = BACKBONES[arguments.backbone]
    model = timm.create_model(
        spec.architecture, img_size=arguments.image_size, num_classes=CLASSES, drop_path_rate=0.1, **spec.overrides
    )
    model.to(images.device).train()

    def both(images: Tensor) -> tuple[Tensor, Tensor]:
        token = model.forward_head(model.forward_features(images), pre_logits=True)
        return token, model.head(token)

    forward = torch.compile(both) if arguments.compile else both
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, fused=images.is_cuda)
    precision = choose_precision("auto", images.device)

    def step() -> None:
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            token, logits = forward(images)
        loss = F.cross_entropy(logits.float(), labels) + batch_hard_triplet(token, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


STEPS = {"plain": plain_step, "dcal": dcal_step, "checkpointed": partial(dcal_step, checkpointing=True)}


def batch(arguments: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Noise for images, and labels of 4 images an identity."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(arguments.batch_size, 3, *arguments.image_size, generator=generator)
    labels = torch.arange(arguments.batch_size) // 4
    return images.to(arguments.device), labels.to(arguments.device)


def operations(step: Step) -> int:
    """Floating-point operations of a step, a multiply-add counted as two."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def matrix_rate(device: str, precision: torch.dtype) -> float:
    """Operations per second of a large square matrix product on random numbers, median of 7."""
    size = 8192 if device == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device).to(precision) for _ in range(2))
    product = torch.empty_like(a)

    def multiply() -> None:
        torch.mm(a, b, out=product)

    runs = [seconds(multiply, device) for _ in range(10)][3:]
    return float(2 * size**3 / statistics.median(runs))


def peak_mib(arguments: argparse.Namespace, name: str) -> float:
    """Peak memory of three steps beyond what was held before them; meant for a process of its own."""
    keep_freed_memory()
    step = STEPS[name](arguments, *batch(arguments))
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far, which a child inherits from its parent
    for _ in range(3):
        step()
    if arguments.device == "cuda":
        return float(torch.cuda.max_memory_allocated() / 2**20)
    return resident_mib("VmHWM") - before


def resident_mib(field: str) -> float:
    """This process's resident memory now (VmRSS) or at its peak (VmHWM), from Linux's own account."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field))) / 1024


def peak_elsewhere(name: str) -> float:
    """`peak_mib` in a new process with this one's arguments."""
    command = [sys.executable, "-m", "benchmarks.train_step", *sys.argv[1:], "--memory-of", name]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def compare(arguments: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each step in rounds in turn, and the operations of each."""
    keep_freed_memory()
    images, labels = batch(arguments)
    wanted = {name: make for name, make in STEPS.items() if name != "checkpointed" or arguments.checkpointing}
    steps = {name: make(arguments, images, labels) for name, make in wanted.items()}
    plain_arguments = argparse.Namespace(**{**vars(arguments), "compile": False})
    counted = {name: operations(make(plain_arguments, images, labels)) for name, make in wanted.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(arguments.warmup + arguments.rounds):
        for name, step in steps.items():
            taken = seconds(step, arguments.device)
            if round_ >= arguments.warmup:
                times[name].append(taken)
    return times, counted


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything the table shows."""
    times, counted = compare(arguments)
    precision = choose_precision("auto", torch.device(arguments.device))
    return {
        "times": times,
        "operations": counted,
        "rate": matrix_rate(arguments.device, precision),
        "peak_mib": {name: peak_elsewhere(name) for name in times},
        "precision": str(precision).removeprefix("torch."),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    able = sorted(name for name, spec in BACKBONES.items() if spec.offers.glca)
    parser.add_argument("--backbone", choices=able, help="default: deit_tiny on the CPU, vit_base on CUDA")
    parser.add_argument("--batch-size", type=int, help="default: 32 on the CPU, 64 on CUDA")
    parser.add_argument("--image-size", type=image_size, default=(256, 128), metavar="HxW")
    parser.add_argument("--ratio", type=float, default=0.3, help="share of patches that GLCA chooses")
    parser.add_argument("--checkpointing", action="store_true", help="also DCAL that computes its blocks again")
    parser.add_argument("--compile", action="store_true", help="compile both models")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--memory-of", choices=list(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.backbone = arguments.backbone or ("vit_base" if arguments.device == "cuda" else "deit_tiny")
    arguments.batch_size = arguments.batch_size or (64 if arguments.device == "cuda" else 32)
    if arguments.memory_of:
        print(peak_mib(arguments, arguments.memory_of))
        return
    found = measure(arguments)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    size = "x".join(str(side) for side in arguments.image_size)
    print(f"{arguments.backbone}, {size}, batch {arguments.batch_size}, {found['precision']}, {where}, ", end="")
    print(f"torch {torch.__version__}, {arguments.rounds} interleaved rounds")
    print(f"matrix product: {found['rate'] / 1e12:.3f} TFLOP/s\n")
    print(f"{'step':<14}{'median s':>10}{'min':>9}{'max':>9}{'images/s':>10}{'GFLOP':>9}{'of rate':>9}{'peak MiB':>10}")
    for name, times in found["times"].items():
        median, count = statistics.median(times), found["operations"][name]
        share = count / median / found["rate"]
        print(
            f"{name:<14}{median:10.4f}{min(times):9.4f}{max(times):9.4f}{arguments.batch_size / median:10.1f}"
            f"{count / 1e9:9.1f}{share:9.1%}{found['peak_mib'][name]:10.0f}"
        )
    pairs = [d / p for d, p in zip(found["times"]["dcal"], found["times"]["plain"], strict=True)]
    ratio = statistics.median(found["times"]["dcal"]) / statistics.median(found["times"]["plain"])
    print(f"\nDCAL over plain: {ratio:.2f} x of medians, {statistics.median(pairs):.2f} x median of pairs; ", end="")
    print(f"operations {found['operations']['dcal'] / found['operations']['plain']:.2f} x")
    if arguments.checkpointing:
        again = statistics.median(found["times"]["checkpointed"]) / statistics.median(found["times"]["dcal"])
        memory = found["peak_mib"]["checkpointed"] / found["peak_mib"]["dcal"]
        print(f"Checkpointed over DCAL: {again:.2f} x the time, {memory:.2f} x the peak memory")


if __name__ == "__main__":
    main()
