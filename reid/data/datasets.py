"""Every dataset by its name, and the one way to load any of them."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from reid.cli import UsageError
from reid.config import ReidDataOptions
from reid.data.custom import read_csv, read_folder
from reid.data.folders import EVERYTHING, Patterns
from reid.data.joining import add_training
from reid.data.layout import require_folder
from reid.data.listed import read_msmt17, read_vehicleid, read_veriwild
from reid.data.official import official_counts, read_cuhk03, read_named, read_toy
from reid.data.opening import make_usable
from reid.data.overlap import describe_overlap
from reid.data.samples import IMAGE_SUFFIXES, ReidDataset
from reid.data.synthetic import generate
from reid.data.tables import parse_columns
from reid.names import counted

log = logging.getLogger("reid")

TOY_ROOT = "data/toy"
DATASETS: Mapping[str, Callable[..., ReidDataset]] = {
    "market1501": partial(read_named, "market1501"),
    "dukemtmc": partial(read_named, "dukemtmc"),
    "occludedduke": partial(read_named, "occludedduke"),
    "cuhk03": read_cuhk03,
    "msmt17": read_msmt17,
    "veri776": partial(read_named, "veri776"),
    "vehicleid": read_vehicleid,
    "veriwild": read_veriwild,
    "csv": read_csv,
    "folder": read_folder,
    "toy": read_toy,
}
# What a dataset's protocol leaves to choose; the first of each is the default.
CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cuhk03": {"version": ("detected", "labeled")},
    "msmt17": {"version": ("v1", "v2"), "train_split": ("train+val", "train")},
    "vehicleid": {"version": ("small", "medium", "large")},
    "veriwild": {"version": ("small", "medium", "large")},
}


def choose_protocol(name: str, *, version: str | None = None, train_split: str | None = None) -> dict[str, str]:
    """The choices in force for a dataset: those given, else its defaults; empty for one that has nothing to choose.

    Raises ValueError for an unknown dataset or choice, and for a choice that the dataset does not have.
    """
    if name not in DATASETS:
        near = get_close_matches(name.lower(), DATASETS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown dataset {name!r}{hint}; expected one of {', '.join(DATASETS)}")
    choices = CHOICES.get(name, {})
    given = {"version": version, "train_split": train_split}
    for option, value in given.items():
        if value is not None and option not in choices:
            others = [f"{other} ({', '.join(its[option])})" for other, its in CHOICES.items() if option in its]
            raise ValueError(f"{name}: given {option}={value}, but only these have a {option}: {', '.join(others)}")
        if value is not None and value not in choices[option]:
            raise ValueError(f"{name}: unknown {option} {value!r}; expected {' or '.join(choices[option])}")
    return {option: given[option] or values[0] for option, values in choices.items()}


def load_dataset(
    name: str,
    root: Path,
    *,
    version: str | None = None,
    train_split: str | None = None,
    strict_counts: bool = False,
    columns: Mapping[str, str] | None = None,
    wanted: Patterns = EVERYTHING,
) -> ReidDataset:
    """Read the labels of a dataset; no image is opened.

    `root` is the dataset's folder or one above it, or the CSV file, whose headings `columns` may name as in `read_csv`.
    `wanted` chooses among the files of `folder`.
    `version` and `train_split` are one of the dataset's `CHOICES`, None its default. A copy that differs from the
    official counts gets a warning, or is refused with `strict_counts`.

    Raises FileNotFoundError where the dataset is not found and ValueError for an unknown name or option, labels that
    cannot be read, a dataset without any image, and counts refused.
    """
    protocol = choose_protocol(name, version=version, train_split=train_split)
    if name != "csv" or not root.exists():
        require_folder(name, root)
    if columns and name != "csv":
        raise ValueError(f"{name}: given columns {', '.join(columns)}, but only dataset csv has columns")
    if wanted != EVERYTHING and name != "folder":
        raise ValueError(f"{name}: given patterns{wanted}, which choose among the files of dataset folder alone")
    given = {"columns": columns} if columns else {"wanted": wanted} if wanted != EVERYTHING else {}
    dataset = DATASETS[name](root, **protocol, **given)
    dataset = replace(dataset, protocol={**dataset.protocol, **protocol})
    if not any(dataset.splits.values()):
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ValueError("; ".join([f"{name}: no image ({kinds}) with a label in {dataset.root}", *dataset.warnings]))
    differences = _count_differences(dataset)
    if differences and strict_counts:
        raise ValueError(f"{'; '.join(differences)} (refused by strict_counts)")
    empty = [f"{name} {split}: found no image" for split, samples in dataset.splits.items() if not samples]
    return replace(dataset, warnings=(*dataset.warnings, *(differences or empty)))


def open_dataset(options: ReidDataOptions, splits: Collection[str] | None = None) -> ReidDataset:
    """Load the dataset that the options name, generating the toy one; log its counts and warnings.

    The images of the `splits`, all by default, are looked at. Raises what `load_dataset` raises, UsageError for a
    dataset that needs a root, and ValueError for images that cannot be read, unless the options leave them out.
    """
    root = options.root
    if options.dataset == "toy":
        root = str(generate(Path(root or TOY_ROOT)))
    if root is None and options.dataset in DATASETS:
        raise UsageError(f"dataset {options.dataset!r} needs --data-root, the folder or file that holds it")
    dataset = load_dataset(
        options.dataset,
        Path(root or ""),
        version=options.version,
        train_split=options.train_split,
        strict_counts=options.strict_counts,
        columns=parse_columns(options.columns),
        wanted=Patterns(options.include, options.exclude),
    )
    if dataset.understood:
        log.info("%s", dataset.understood)
    if splits is None and options.also:
        dataset = add_training(dataset, [_open_other(text, options) for text in options.also])
    if splits is None:
        dataset = replace(dataset, warnings=(*dataset.warnings, *describe_overlap(dataset)))
    return make_usable(dataset, options, splits)


def _open_other(text: str, options: ReidDataOptions) -> ReidDataset:
    """A further dataset, given as NAME=ROOT or NAME:VERSION=ROOT, with the training images that it must have."""
    name, equals, root = text.partition("=")
    if not equals or not root:
        raise UsageError(f"data.also has {text!r}, expected NAME=ROOT, such as market1501=/data/market")
    name, _, version = name.partition(":")
    other = load_dataset(name, Path(root), version=version or None, strict_counts=options.strict_counts)
    if not other.train:
        raise ValueError(f"{name} at {other.root} has no training images to add")
    if other.understood:
        log.info("%s", other.understood)
    return other


def _count_differences(dataset: ReidDataset) -> list[str]:
    differences = []
    counts = dataset.counts
    for split, (images, identities) in official_counts(dataset).items():
        found = counts[split]
        if (found.images, found.identities) != (images, identities):
            differences.append(
                f"{dataset.name} {split}: found {counted(found.images, 'image')} of "
                f"{counted(found.identities, *dataset.unit)}, "
                f"official {images:,} of {identities:,}"
            )
    return differences
