"""Forms of DCAL against their baseline over many seeds: on a CPU the last blocks of a ViT, on a GPU all of it.

    python -m benchmarks.forms --data ../shared/data --weights vit_tiny.safetensors
    python -m benchmarks.forms --data ../shared/data --weights deit_small.safetensors --gpu

Augmentations of each image, and what frozen blocks make of them, are computed once, so that a run is little but its
steps. With --frozen 0 none is frozen, which asks for another --rate. With --gpu none is, images have 224 x 224 pixels,
and the backbone is DeiT-Small.

A run is a row of --runs/SET.jsonl; one that is there is not repeated, so the same command can be given again. What runs
is given as SET:FORMS:STEPS:SEEDS, by default PLAN or GPU_PLAN; with :RATES the baseline is tried on a third of the
training identities (or images) that is held out. All runs of a set have one recipe; a form differs from the baseline in
its row of FORMS alone. Runs of one seed see the same batches, augmentations and initial weights. Gains are paired by
seed and query; their intervals come of drawing both seeds and identities anew. The tables are printed and written to
--results.
"""

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from fgvc.datasets import read_cub
from reid.data.custom import read_csv
from reid.data.images import read_image
from reid.data.preprocessing import Preprocessing
from reid.data.sampler import PKSampler, ShuffledSampler
from reid.data.samples import Sample
from reid.data.transforms import evaluation_transform, training_transform
from reid.device import emulates
from reid.models.backbones import build_backbone, embed_tokens, normalisation
from reid.models.cross_attention import derangement, self_attention
from reid.models.dcal import DCAL, DcalOutput, embedding, probabilities
from reid.models.layers import Layer
from reid.models.options import DcalOptions
from reid.names import BRANCHES, Features, Prediction
from reid.retrieval.metrics import evaluate_features
from reid.training.losses import BranchLoss, FgvcLoss, ReidLoss, branch_losses, total_loss
from reid.training.optim import build_optimizer, learning_rate_factor, set_learning_rate

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
RESULTS = Path(__file__).parent / "results"
VIEWS = 6  # augmentations of each image
FROZEN = 8  # of the 12 blocks, on a CPU
BATCH = 32
WARMUP = 30  # steps
STEPS = 300  # of the table of all forms
RESAMPLES = 10_000


@dataclass(frozen=True)
class Form:
    """What a form changes: the model's options, how partners are drawn, the losses' weights, and what is used of it.

    `partners` are `random` others, of another `identity`, the `hardest` of another identity, or `self`: the image
    itself, which computes what self-attention computes, the control for a second stream without a partner.
    `probability` is that with which an image has a partner at all, `layers` the first and last of the backbone's, from
    1 on, in which it looks at it; in others the second stream looks at itself.

    `equal` keeps the loss weights w at their `start`, of which log(1/2) gives each branch the gradient of a baseline;
    otherwise they learn at `weights_rate` times the rate. `shared` has GLCA use the backbone's last norm, not a copy.
    Of re-identification `tokens` says whether embeddings are of SA's and GLCA's tokens `before` or after the `neck`,
    one behind the other, or of the `sum` of both.

    Of the backbone, `stride` is that of its patches, which then overlap, and `renewed` has its last block start anew.
    `scale` is that of the images' sides, over those of the set.
    """

    options: DcalOptions
    partners: Literal["random", "identity", "hardest", "self"] = "random"
    probability: float = 1.0
    equal: bool = False
    layers: tuple[int, int] | None = None
    start: float = 0.0
    weights_rate: float = 1.0
    shared: bool = False
    tokens: Literal["before", "neck", "sum"] = "before"
    stride: int | None = None
    renewed: bool = False
    scale: float = 1.0


PLAIN = DcalOptions(method="baseline")
PAPER = DcalOptions(method="dcal")
PWCA = DcalOptions(method="pwca")
GLCA = DcalOptions(method="glca")
FORMS: dict[str, Form] = {
    "baseline": Form(PLAIN),
    "dcal": Form(PAPER),
    "control": Form(PAPER, "self"),
    "quarter": Form(PAPER, probability=0.25),
    "half": Form(PAPER, probability=0.5),
    "identity": Form(PAPER, "identity"),
    "hardest": Form(PAPER, "hardest", 0.5),
    "always hardest": Form(PAPER, "hardest"),
    "stream": Form(replace(PAPER, partner_stream="pwca")),
    "layers 6-9": Form(PAPER, layers=(6, 9)),
    "layers 9-10": Form(PAPER, layers=(9, 10)),
    "layers 11-12": Form(PAPER, layers=(11, 12)),
    "equal": Form(PAPER, equal=True),
    "gradient": Form(PAPER, start=math.log(0.5)),
    "fast weights": Form(PAPER, weights_rate=10),
    "norm": Form(PAPER, shared=True),
    "sum": Form(PAPER, tokens="sum"),
    "neck": Form(PAPER, tokens="neck"),
    "baseline neck": Form(PLAIN, tokens="neck"),
    "glca": Form(GLCA),
    "pwca": Form(PWCA),
    "overlap": Form(PLAIN, stride=12),
    "dcal overlap": Form(PAPER, stride=12),
    "control overlap": Form(PAPER, "self", stride=12),
    "larger": Form(PLAIN, scale=1.25),
    "renewed": Form(PLAIN, renewed=True),
}


Splits = list[list[Sample]]
Read = Callable[[Path], Splits]


@dataclass(frozen=True)
class Set:
    """A set of images and the recipe of all its runs.

    `read(root)` gives the training samples and those to evaluate; of re-identification the queries and the gallery, of
    categories the test. `size` is the side of what the model sees, in pixels, and `resize` that of what it is cropped
    from. `rate` is the one that was best for the baseline on images held out of training.
    """

    task: Literal["reid", "fgvc"]
    read: Read
    size: int
    rate: float
    resize: int | None = None
    pad: int = 0
    erasing: float = 0.0


def _table(path: str) -> Read:
    def read(root: Path) -> Splits:
        found = read_csv(root / path)
        return [list(found.train), list(found.query), list(found.gallery)]

    return read


def _birds(root: Path) -> Splits:
    found = read_cub(root / "cub30")
    return [list(found.train), list(found.test)]


def enlarged(chosen: Set, scale: float) -> Set:
    """The set with images so many times as large."""
    resize = None if chosen.resize is None else round(scale * chosen.resize)
    return replace(chosen, size=round(scale * chosen.size), resize=resize, pad=round(scale * chosen.pad))


def held_out(chosen: Set) -> Read:
    """The set with a third of its identities, or images, to train on in the place of the test, as `read` gives it."""

    def split(root: Path) -> Splits:
        train = chosen.read(root)[0]
        if chosen.task == "fgvc":
            return [[sample for i, sample in enumerate(train) if i % 3 < 2], train[2::3]]
        out = [sample for sample in train if sample.identity % 3 == 2]
        first = list({(sample.identity, sample.camera): sample for sample in reversed(out)}.values())
        if len(first) == len(
            out
        ):  # each photo is a camera of its own, which leaves nobody to be found: these say nothing
            first = list({sample.identity: sample for sample in reversed(out)}.values())
        kept = [sample for sample in train if sample.identity % 3 != 2]
        return [kept, first, [sample for sample in out if sample not in first]]

    return split


SETS: dict[str, Set] = {
    "eth80": Set("reid", _table("eth80/images.csv"), 64, 2e-3, pad=4, erasing=0.5),
    "nyala": Set("reid", _table("nyala/sides.csv"), 64, 1e-3, pad=4, erasing=0.5),
    "cub30": Set("fgvc", _birds, 64, 1e-3, resize=76),
}


ON_A_GPU: dict[str, Set] = {  # all of the network at 224 x 224 pixels, by the rate of `configs/reid/csv.yaml`
    name: replace(chosen, size=224, rate=3e-4, pad=10 if chosen.pad else 0, resize=256 if chosen.resize else None)
    for name, chosen in SETS.items()
}
LEARNING = [form for form, one in FORMS.items() if not one.layers or one.layers[0] > FROZEN]
WITHOUT_NECK = [form for form in LEARNING if FORMS[form].tokens == "before"]  # as heads of categories are
PLAN = [
    "eth80:baseline:300:0:3e-4,1e-3,2e-3,4e-3",
    "cub30:baseline:300:0:3e-4,1e-3,2e-3",
    "nyala:baseline:300:0:1e-4,3e-4,1e-3,2e-3,4e-3",
    *(f"{name}:{','.join(LEARNING)}:300:0,1,2,3,4" for name in ("eth80", "nyala")),
    f"cub30:{','.join(WITHOUT_NECK)}:300:0,1,2,3,4",
    *(f"{name}:baseline,dcal,control,overlap:600:0,1,2,3,4" for name in SETS),
    *(f"{name}:baseline,dcal,control:1200:0,1,2,3,4" for name in SETS),
]
GPU_PLAN = [  # what says most first: it may be stopped, and goes on where it was
    *(f"{name}:baseline,dcal,control:300:0,1,2,3,4" for name in ("eth80", "cub30", "nyala")),
    *(f"{name}:baseline:600:0,1,2,3,4" for name in ("eth80", "cub30", "nyala")),
    *(f"{name}:hardest,half,equal,glca:300:0,1,2,3,4" for name in ("eth80", "cub30")),
]


@dataclass(frozen=True)
class Network:
    """The backbone of all runs: its name, its weights, how many of its first blocks are frozen, and where it runs."""

    backbone: str
    weights: str
    frozen: int
    device: torch.device
    stride: int | None = None

    def split(self, size: int) -> tuple[Any, nn.Sequential]:
        """The backbone with the blocks to train, and the frozen ones."""
        network, _ = build_backbone(
            self.backbone, (size, size), weights=self.weights, drop_path=0.1, stride=self.stride
        )
        lower = nn.Sequential(*network.blocks[: self.frozen])
        network.blocks = network.blocks[self.frozen :]
        return network, lower.eval()

    def trained(self, size: int) -> Any:
        """The backbone with the blocks to train; where others are frozen it takes what they give, and no images."""
        network, _ = self.split(size)
        if self.frozen:
            network.patch_embed = nn.Identity()
            network._pos_embed = lambda tokens: tokens
        return network


@dataclass
class Inputs:
    """What the trained part of the network takes, in bfloat16: images, or tokens where blocks are frozen.

    `train` is (views, images, ...), with a label each; `test` are the images to evaluate, of re-identification the
    queries and the gallery, with their `samples`.
    """

    train: Tensor
    labels: Tensor
    test: list[Tensor]
    samples: list[list[Sample]]


def precision(device: torch.device) -> Literal["bfloat16", "float32"]:
    """What products are computed in: float32 on a CPU that would emulate bfloat16, some 70 times slower."""
    return "float32" if emulates(torch.bfloat16, device) else "bfloat16"


def mixed(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision(device) == "bfloat16")


@torch.no_grad()
def prepare(chosen: Set, root: Path, network: Network, stored: Path) -> Inputs:
    """Read and augment all images, and run them through the frozen blocks, once; then from the file `stored`."""
    if stored.exists():
        found: Inputs = torch.load(stored, weights_only=False)
        return found
    train, *test = chosen.read(root)
    whole, lower = network.split(chosen.size)
    whole.eval().to(network.device), lower.to(network.device)
    resize = None if chosen.resize is None else (chosen.resize, chosen.resize)
    preprocessing = Preprocessing((chosen.size, chosen.size), *normalisation(whole), resize)
    augment = training_transform(preprocessing, flip=0.5, pad=chosen.pad, erasing=chosen.erasing)
    plain = evaluation_transform(preprocessing)

    def enter(images: Tensor) -> Tensor:
        if not network.frozen:
            return images.bfloat16()
        with mixed(network.device):
            tokens: Tensor = lower(embed_tokens(whole, images.to(network.device))).bfloat16().cpu()
        return tokens

    def inputs(samples: list[Sample], transform: Callable[[Any], Tensor], views: int) -> Tensor:
        parts = []
        for start in range(0, len(samples), 16):
            pictures = [read_image(sample.path, sample.box) for sample in samples[start : start + 16]]
            parts.append(torch.stack([enter(torch.stack([transform(p) for p in pictures])) for _ in range(views)]))
        return torch.cat(parts, dim=1)

    torch.manual_seed(0)
    number = {identity: i for i, identity in enumerate(sorted({sample.identity for sample in train}))}
    test = [samples for samples in test if samples]
    found = Inputs(
        inputs(train, augment, VIEWS),
        torch.tensor([number[sample.identity] for sample in train]),
        [inputs(samples, plain, 1)[0] for samples in test],
        test,
    )
    stored.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, stored)
    return found


def partners_of(form: Form, labels: Tensor, last: Tensor, generator: torch.Generator) -> Tensor:
    """Each image's partner; `last` (B, D) are the features that its images had when they were last seen."""
    count = len(labels)
    itself = torch.arange(count)
    if form.partners == "random":
        partner = derangement(count, generator)
    elif form.partners == "self":
        return itself
    else:
        other = labels.unsqueeze(0) != labels.unsqueeze(1)
        if form.partners == "hardest":
            near = torch.nn.functional.normalize(last, dim=1)
            near = near @ near.T
            known = last.abs().sum(dim=1) > 0
            near = near.masked_fill(~known.unsqueeze(0), -2) + 1e-6 * torch.rand(count, count, generator=generator)
            partner = near.masked_fill(~other, -3).argmax(dim=1)
        else:
            partner = torch.multinomial(other.float(), 1, generator=generator).squeeze(1)
    paired = torch.rand(count, generator=generator) < form.probability
    return torch.where(paired, partner, itself)


class PairedInLayers(DCAL):
    """A model whose second stream looks at partners in some of its layers, and at itself in the others."""

    def __init__(self, backbone: Any, classes: int, options: DcalOptions, paired: range) -> None:
        super().__init__(backbone, classes, options)
        self.paired = [layer for i, layer in enumerate(self.layers) if i in paired]

    def _advance(self, layer: Layer, tokens: Tensor, partner: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if partner is None or any(layer is other for other in self.paired):
            return super()._advance(layer, tokens, partner)
        streams = torch.cat([tokens, tokens]) if len(tokens) == len(partner) else tokens
        streams, query, key = self_attention(layer, streams)
        return streams, query[: len(partner)], key[: len(partner)]

    def _conclude(
        self, layer: Layer, tokens: Tensor, partner: Tensor | None, whole: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        if partner is None or any(layer is other for other in self.paired):
            return super()._conclude(layer, tokens, partner, whole)
        streams, query, key = self._advance(layer, tokens, partner)
        tokens, paired = streams.chunk(2)
        return tokens, paired, query, key


def build(chosen: Set, form: Form, classes: int, network: Network) -> DCAL:
    """The form's model, of the blocks to train."""
    first, last = (layer - 1 - network.frozen for layer in form.layers or (1 + network.frozen, 12))
    if first < 0:
        raise ValueError(f"layers {form.layers}, of which the first {network.frozen} are frozen: see --frozen")
    options = replace(form.options, head=chosen.task)
    model = PairedInLayers(network.trained(chosen.size), classes, options, range(first, last + 1))
    if form.renewed:
        for module in model.backbone.blocks[-1].modules():
            init_weights_vit_timm(module)
    if form.shared and model.glca is not None:
        model.glca.norm = model.backbone.norm
    if len(BRANCHES[model.method]) > 1:
        nn.init.constant_(model.log_variances, form.start)
        model.log_variances.requires_grad_(not form.equal)
    return model


def optimizer_of(model: DCAL, chosen: Set, form: Form) -> torch.optim.Optimizer:
    optimizer = build_optimizer(model, "adamw", lr=chosen.rate, weight_decay=0.05, fused=True)
    if form.weights_rate != 1:
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter is not model.log_variances]
        rate = chosen.rate * form.weights_rate
        optimizer.add_param_group({"params": [model.log_variances], "lr": rate, "base_lr": rate, "weight_decay": 0.0})
    return optimizer


def train(chosen: Set, form: Form, inputs: Inputs, network: Network, steps: int, seed: int) -> tuple[DCAL, float]:
    """A model trained for so many steps, and the mean cross-entropy of its SA branch over the last tenth of them."""
    torch.manual_seed(seed)
    device = network.device
    model = build(chosen, form, int(inputs.labels.max()) + 1, network)
    model.train().to(device)
    loss: BranchLoss = ReidLoss() if chosen.task == "reid" else FgvcLoss()
    optimizer = optimizer_of(model, chosen, form)
    partners, views = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + seed)
    last = torch.zeros(len(inputs.labels), model.width)
    late = torch.zeros((), device=device)
    for step, batch in zip(range(steps), _batches(chosen, inputs.labels.tolist(), seed), strict=False):
        factor = learning_rate_factor(
            step, epochs=steps, warmup_epochs=min(WARMUP, steps / 4), warmup_start=0.01, floor=0.002
        )
        set_learning_rate(optimizer, factor)
        at = torch.tensor(batch)
        images = inputs.train[torch.randint(VIEWS, (len(at),), generator=views), at].to(device).float()
        labels = inputs.labels[at]
        partner = partners_of(form, labels, last[at], partners).to(device) if model.pairs else None
        with mixed(device):
            output = model(images, partner)
        parts = branch_losses(output, labels.to(device), loss)
        total_loss(parts, getattr(model, "log_variances", None)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        optimizer.zero_grad()
        if form.partners == "hardest":
            last[at] = output.sa.token.detach().float().cpu()
        if step >= int(0.9 * steps):
            late += parts["sa"]["ce"].detach() / (steps - int(0.9 * steps))
    return model.eval(), late.item()


def _batches(chosen: Set, labels: list[int], seed: int) -> Iterator[list[int]]:
    sampler = (
        PKSampler(labels, p=BATCH // 4, k=4, seed=seed)
        if chosen.task == "reid"
        else ShuffledSampler(len(labels), batch_size=BATCH, seed=seed)
    )
    epoch = 0
    while True:
        yield from sampler.epoch(epoch)
        epoch += 1


@torch.no_grad()
def measure(chosen: Set, form: Form, model: DCAL, inputs: Inputs, device: torch.device) -> dict[str, list[float]]:
    """By what is used of the model: each query's average precision, or whether each image is classified rightly."""
    with mixed(device):
        found = [[model(part.to(device).float()) for part in images.split(64)] for images in inputs.test]
    used = ("all", "sa", "glca") if model.glca is not None else ("sa",)
    if chosen.task == "fgvc":
        predictions: dict[str, Prediction] = {"all": "sum", "sa": "sa", "glca": "glca"}
        truth = torch.tensor([sample.identity for sample in inputs.samples[0]])
        rows = {name: torch.cat([probabilities(o, predictions[name]).cpu() for o in found[0]]) for name in used}
        return {name: (row.argmax(dim=1) == truth).float().tolist() for name, row in rows.items()}
    features: dict[str, Features] = {"all": "concat", "sa": "sa", "glca": "glca"}
    embedded = {
        name: [torch.cat([embed(o, features[name], form).cpu() for o in part]) for part in found] for name in used
    }
    return {name: _precisions(query, gallery, *inputs.samples) for name, (query, gallery) in embedded.items()}


def embed(output: DcalOutput, features: Features, form: Form) -> Tensor:
    """Unit embeddings (B, E) of the tokens that the form uses; where it says nothing, those of `embedding`."""
    if form.tokens == "neck":
        necks = {
            name: replace(branch, token=branch.features)
            for name, branch in output.branches().items()
            if branch.features is not None
        }
        return embedding(DcalOutput(necks["sa"], necks.get("glca")), features)
    if form.tokens == "sum" and features == "concat":
        return nn.functional.normalize(embedding(output, "sa") + embedding(output, "glca"), dim=1)
    return embedding(output, features)


def _precisions(q: Tensor, g: Tensor, query: list[Sample], gallery: list[Sample]) -> list[float]:
    """Average precision of each query among the gallery images of its own view, where views are known."""
    views = [s.extra.get("view", "") for s in query], [s.extra.get("view", "") for s in gallery]
    precision = np.full(len(query), np.nan)
    for view in sorted(set(views[0])):
        rows = [i for i, other in enumerate(views[0]) if other == view]
        columns = [i for i, other in enumerate(views[1]) if other == view]
        precision[rows] = evaluate_features(
            q[rows],
            np.array([query[i].identity for i in rows]),
            np.array([query[i].camera for i in rows]),
            g[columns],
            np.array([gallery[i].identity for i in columns]),
            np.array([gallery[i].camera for i in columns]),
        ).average_precision
    return [float(value) for value in precision]


Run = tuple[str, str, int, int, float | None]  # set, form, steps, seed and, on images held out, rate


def run(plan: list[Run], data: Path, network: Network, folder: Path, sets: Mapping[str, Set]) -> None:
    """Train and measure what of the plan is not in `folder` yet."""
    for name, form, steps, seed, rate in plan:
        chosen = sets[name]
        file = folder / f"{name}{'-held-out' if rate else ''}.jsonl"
        if (form, steps, seed, rate) in {
            (row["form"], row["steps"], row["seed"], row.get("rate")) for row in rows(file)
        }:
            continue
        if rate:
            chosen = replace(chosen, rate=rate, read=held_out(chosen))
        changed, chosen = replace(network, stride=FORMS[form].stride), enlarged(chosen, FORMS[form].scale)
        overlap = f"-stride{changed.stride}" if changed.stride else ""
        inputs = prepare(chosen, data, changed, file.with_name(f"{file.stem}-{chosen.size}{overlap}.pt"))
        begun, work = time.monotonic(), time.process_time()
        model, loss = train(chosen, FORMS[form], inputs, changed, steps, seed)
        found = measure(chosen, FORMS[form], model, inputs, changed.device)
        row = {"form": form, "steps": steps, "seed": seed, "rate": rate, "cross_entropy": round(loss, 4)}
        row["precision"] = precision(network.device)
        row |= {
            "seconds": round(time.monotonic() - begun, 1),
            "processor_seconds": round(time.process_time() - work, 1),
        }
        if len(BRANCHES[model.method]) > 1:
            row["log_variances"] = [round(w, 3) for w in model.log_variances.tolist()]
        row["values"] = {used: [None if np.isnan(v) else round(v, 4) for v in values] for used, values in found.items()}
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        means = ", ".join(f"{used} {100 * float(np.nanmean(values)):.2f}" for used, values in found.items())
        print(f"{name} {form} {steps} steps, seed {seed}{f', rate {rate}' if rate else ''}: {means}", file=sys.stderr)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _short(found: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """What tables are made of, in few characters."""
    return {
        used: [int(value) if value in (0, 1) else value for value in found[used]]
        for used in ("all", "sa")
        if used in found
    }


def parse(text: str) -> list[Run]:
    """SET:FORM,FORM:STEPS:SEEDS[:RATES] to runs, seed by seed."""
    name, forms, steps, seeds, *rates = text.split(":")
    return [
        (name, form, int(step), int(seed), rate)
        for seed in seeds.split(",")
        for step in steps.split(",")
        for form in forms.split(",")
        for rate in ([float(r) for r in rates[0].split(",")] if rates else [None])
    ]


def interval(base: Floats, form: Floats, groups: Integers, confidence: float = 0.95) -> tuple[float, float, float]:
    """The mean of `form - base`, (seeds, queries), and the central interval of its means over seeds and groups redrawn.

    `groups` (queries,) are what is redrawn as one: identities, each with all its queries, or single images.
    """
    scored = ~np.isnan(base[0])
    gains, subject = (form - base)[:, scored], np.unique(groups[scored], return_inverse=True)[1]
    sums = np.stack([np.bincount(subject, row) for row in gains])
    sizes = np.bincount(subject)
    random = np.random.default_rng(0)
    seeds = random.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    subjects = random.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), RESAMPLES)
    means = ((seeds @ sums) * subjects).sum(axis=1) / (len(sums) * (subjects @ sizes))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(gains.mean()), float(low), float(high)


COLUMNS = ("form", "steps", "of it", "mean", "each seed", "over baseline", "over control")
COLUMNS += ("over baseline, twice the steps", "CPU s")


@dataclass
class Done:
    """What is finished of a set: rows by form and steps, then seed, and which group each query is redrawn with."""

    runs: dict[tuple[str, int], dict[int, dict[str, Any]]]
    groups: Integers

    @property
    def by_length(self) -> list[tuple[str, int]]:
        """Forms and steps, short ones first, in the order of FORMS; those that are no longer there come last."""
        known = [*FORMS, *sorted({form for form, _ in self.runs} - FORMS.keys())]
        return sorted(self.runs, key=lambda key: (key[1], known.index(key[0])))


def gather(folder: Path, root: Path, sets: Mapping[str, Set]) -> dict[str, Done]:
    """What is finished of the sets of which anything is."""
    gathered = {}
    for name, chosen in sets.items():
        if found := sorted(rows(folder / f"{name}.jsonl"), key=lambda row: row["seed"]):
            queries = chosen.read(root)[1]
            groups = np.array([sample.identity if chosen.task == "reid" else i for i, sample in enumerate(queries)])
            done = gathered[name] = Done({}, groups)
            for row in found:
                done.runs.setdefault((row["form"], row["steps"]), {})[row["seed"]] = row
    return gathered


def summary(gathered: Mapping[str, Done], steps: int) -> str:
    """The gains of all forms over their baseline of as many steps, a column a set, with the number of their seeds."""
    forms = {form: None for done in gathered.values() for form, taken in done.by_length if taken == steps}
    titles = ["form", *(part for name in gathered for part in (name, "over baseline", "seeds"))]
    text = [
        f"Means after {steps} steps, and gains, in bold where the interval leaves 0 out:",
        "",
        f"| {' | '.join(titles)} |",
        f"|{' --- |' * len(titles)}",
    ]
    for form in sorted(forms, key=[*FORMS, *forms].index):
        cells = [form]
        for done in gathered.values():
            by_seed = done.runs.get((form, steps), {})
            part = _whole(by_seed)
            other, *_ = _compared_with(form, steps)
            told = _gain(done.runs.get(other, {}), by_seed, part, done.groups)
            bold = "**" if told and (" [+" in told or ", -" in told) else ""
            mean = f"{np.mean(_means(by_seed, part)):.2f}" if by_seed else ""
            cells += [mean, f"{bold}{told}{bold}", str(len(by_seed) or "")]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join([*text, ""])


def tables(gathered: Mapping[str, Done], sets: Mapping[str, Set]) -> str:
    """A table a set: what each form reaches, and its gains over the baseline, the control and a longer baseline."""
    text, compared = [], 0
    for name, done in gathered.items():
        text += [
            f"{name}, {sets[name].size} px, {'mAP' if sets[name].task == 'reid' else 'top-1'}:",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"|{' --- |' * len(COLUMNS)}",
        ]
        for form, steps in done.by_length:
            by_seed = done.runs[form, steps]
            for part in dict.fromkeys((_whole(by_seed), "sa")):
                others = [done.runs.get(other, {}) for other in _compared_with(form, steps)]
                gains = [_gain(other, by_seed, part, done.groups) for other in others]
                compared += sum(gain != "" for gain in gains)
                marks = ["*" if row["precision"] == "float32" else "" for row in by_seed.values()]
                means = _means(by_seed, part)
                each = ", ".join(f"{mean:.1f}{mark}" for mean, mark in zip(means, marks, strict=True))
                seconds = np.mean([row["processor_seconds"] for row in by_seed.values()])
                cells = (form, steps, part, f"{np.mean(means):.2f}", each, *gains, f"{seconds:.0f}")
                text.append(f"| {' | '.join(map(str, cells))} |")
        text.append("")
    if any("*" in line for line in text):
        text.append("Seeds with * were computed in float32, the others in bfloat16.")
    text.append(f"{compared} comparisons stand here; where nothing has an effect, one interval in twenty leaves 0 out.")
    return "\n".join(text)


def _whole(by_seed: dict[int, dict[str, Any]]) -> str:
    """What is used of a form's runs: all of its tokens, or those of its SA branch where it has no others."""
    return "all" if any("all" in row["values"] for row in by_seed.values()) else "sa"


def _means(by_seed: dict[int, dict[str, Any]], part: str) -> list[float]:
    """The mean of each seed, in percent."""
    return [100 * float(np.nanmean(values(row, part))) for row in by_seed.values()]


def _compared_with(form: str, steps: int) -> list[tuple[str, int]]:
    """The runs that a form's gains are over, a column each; ("", 0) for none. Where patches overlap, so do theirs."""
    overlap = form in FORMS and FORMS[form].stride is not None and form != "overlap"
    baseline, control = ("overlap", "control overlap") if overlap else ("baseline", "control")
    others = [(baseline, steps), (control, steps), (baseline, 2 * steps)]
    none = ("", 0)
    if form == "baseline":
        return [none, none, others[2]]
    return [none if other == (form, steps) else other for other in others]


def _gain(others: dict[int, Any], own: dict[int, Any], part: str, groups: Integers) -> str:
    """The gain by seeds that both have, with its interval; of others that lack the part, over their SA branch."""
    seeds = sorted(own.keys() & others.keys())
    if not seeds:
        return ""
    base = np.stack([values(others[seed], part if part in others[seed]["values"] else "sa") for seed in seeds])
    mean, low, high = interval(base, np.stack([values(own[seed], part) for seed in seeds]), groups)
    return f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def values(row: dict[str, Any], part: str) -> Floats:
    """A value a query, NaN for those that were skipped."""
    return np.array(row["values"][part], dtype=float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds eth80, nyala and cub30")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument(
        "--frozen", type=int, choices=range(12), metavar="0...11", help="blocks not trained (8, or 0 with --gpu)"
    )
    parser.add_argument("--rate", type=float, help="of learning, in the place of that of the recipe")
    parser.add_argument("--backbone", help="default: vit_tiny, deit_small with --gpu")
    parser.add_argument("--runs", type=Path, help="default: runs/forms, runs/forms-gpu with --gpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table-only", action="store_true", help="print what is finished, train nothing")
    parser.add_argument("plan", nargs="*", metavar="SET:FORMS:STEPS:SEEDS[:RATES]")
    arguments = parser.parse_args()
    gpu = arguments.gpu
    sets = ON_A_GPU if gpu else SETS
    if arguments.rate is not None:
        sets = {name: replace(chosen, rate=arguments.rate) for name, chosen in sets.items()}
    folder = arguments.runs or Path("runs/forms-gpu" if gpu else "runs/forms")
    network = Network(
        arguments.backbone or ("deit_small" if gpu else "vit_tiny"),
        arguments.weights,
        (0 if gpu else FROZEN) if arguments.frozen is None else arguments.frozen,
        torch.device("cuda" if gpu else "cpu"),
    )
    if not arguments.table_only:
        plan = [one for text in arguments.plan or (GPU_PLAN if gpu else PLAN) for one in parse(text)]
        run(plan, arguments.data, network, folder, sets)
    machine = torch.cuda.get_device_name() if gpu else f"{platform.machine()} CPU"
    rate = "" if arguments.rate is None else f", rate {arguments.rate:g}"
    heading = (
        f"{network.backbone}, {network.frozen} blocks frozen{rate}, on {machine}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {date.today()}"
    )
    gathered = gather(folder, arguments.data, sets)
    text = f"{heading}\n\n{summary(gathered, STEPS)}\n{tables(gathered, sets)}"
    print(text)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / f"{folder.name}.md").write_text(text + "\n")
    kept = {name: [row | {"values": _short(row["values"])} for row in rows(folder / f"{name}.jsonl")] for name in sets}
    (arguments.results / f"{folder.name}.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
