"""Every dataset by its name, and the one way to load any of them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from reid.cli import UsageError
from reid.config import ReidDataOptions
from reid.data.custom import read_csv, read_folder
from reid.data.listed import read_msmt17, read_vehicleid, read_veriwild
from reid.data.official import official_counts, read_cuhk03, read_named, read_toy
from reid.data.opening import make_usable
from reid.data.samples import IMAGE_SUFFIXES, ReidDataset
from reid.data.synthetic import generate
from reid.data.tables import parse_columns

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
) -> ReidDataset:
    """Read the labels of a dataset; no image is opened.

    `root` is the dataset's folder or one above it, or the CSV file, whose headings `columns` may name as in `read_csv`.
    `version` and `train_split` are one of the dataset's `CHOICES`, None its default. A copy that differs from the
    official counts gets a warning, or is refused with `strict_counts`.

    Raises FileNotFoundError where the dataset is not found and ValueError for an unknown name or option, labels that
    cannot be read, a dataset without any image, and counts refused.
    """
    protocol = choose_protocol(name, version=version, train_split=train_split)
    if not root.exists():
        raise FileNotFoundError(f"{name}: the data root {root} does not exist")
    if name != "csv" and not root.is_dir():
        raise NotADirectoryError(f"{name}: the data root {root} is a file, expected a folder")
    if columns and name != "csv":
        raise ValueError(f"{name}: given columns {', '.join(columns)}, but only dataset csv has columns")
    dataset = DATASETS[name](root, **protocol, **({"columns": columns} if columns else {}))
    dataset = replace(dataset, protocol={**dataset.protocol, **protocol})
    if not any(dataset.splits.values()):
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ValueError("; ".join([f"{name}: no image ({kinds}) with a label in {dataset.root}", *dataset.warnings]))
    differences = _count_differences(dataset)
    if differences and strict_counts:
        raise ValueError(f"{'; '.join(differences)} (refused by strict_counts)")
    empty = [f"{name} {split}: found no image" for split, samples in dataset.splits.items() if not samples]
    return replace(dataset, warnings=(*dataset.warnings, *(differences or empty)))


def open_dataset(options: ReidDataOptions) -> ReidDataset:
    """Load the dataset that the options name, generating the toy one; log its counts and warnings.

    Raises what `load_dataset` raises, and UsageError for a dataset that needs a root.
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
    )
    if dataset.understood:
        log.info("%s", dataset.understood)
    return make_usable(dataset, options)


def _count_differences(dataset: ReidDataset) -> list[str]:
    differences = []
    counts = dataset.counts
    for split, (images, identities) in official_counts(dataset).items():
        found = counts[split]
        if (found.images, found.identities) != (images, identities):
            differences.append(
                f"{dataset.name} {split}: found {found.images:,} images of {found.identities:,} identities, "
                f"official {images:,} of {identities:,}"
            )
    return differences
