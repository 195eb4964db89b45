"""Every dataset by its name, and the one way to load any of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from reid.data.custom import read_csv, read_folder
from reid.data.official import LAYOUTS, official_counts, read_msmt17, read_named
from reid.data.samples import IMAGE_SUFFIXES, ReidDataset

DATASETS: Mapping[str, Callable[..., ReidDataset]] = {
    "market1501": partial(read_named, "market1501", LAYOUTS["market1501"]),
    "dukemtmc": partial(read_named, "dukemtmc", LAYOUTS["dukemtmc"]),
    "msmt17": read_msmt17,
    "veri776": partial(read_named, "veri776", LAYOUTS["veri776"]),
    "csv": read_csv,
    "folder": read_folder,
    "toy": partial(read_named, "toy", LAYOUTS["market1501"]),
}


def load_dataset(
    name: str,
    root: Path,
    *,
    version: str = "v1",
    train_split: str = "train+val",
    strict_counts: bool = False,
) -> ReidDataset:
    """Read the labels of a dataset; no image is opened.

    `root` is the dataset's folder or one above it, or the CSV file. `version` (v1, v2) and `train_split` (train,
    train+val) choose among MSMT17's protocols; no other dataset has a choice. A copy that differs from the official
    counts gets a warning, or is refused with `strict_counts`.

    Raises FileNotFoundError where the dataset is not found and ValueError for an unknown name or option, labels that
    cannot be read, a dataset without any image, and counts refused.
    """
    if name not in DATASETS:
        near = get_close_matches(name.lower(), DATASETS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown dataset {name!r}{hint}; expected one of {', '.join(DATASETS)}")
    if not root.exists():
        raise FileNotFoundError(f"{name}: the data root {root} does not exist")
    if name != "csv" and not root.is_dir():
        raise NotADirectoryError(f"{name}: the data root {root} is a file, expected a folder")
    if name == "msmt17":
        dataset = read_msmt17(root, version=version, train_split=train_split)
    elif (version, train_split) != ("v1", "train+val"):
        raise ValueError(f"{name}: given version={version}, train_split={train_split}, which only msmt17 has to choose")
    else:
        dataset = DATASETS[name](root)
    if not any(dataset.splits.values()):
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ValueError("; ".join([f"{name}: no image ({kinds}) with a label in {dataset.root}", *dataset.warnings]))
    differences = _count_differences(dataset)
    if differences and strict_counts:
        raise ValueError(f"{'; '.join(differences)} (refused by strict_counts)")
    empty = [f"{name} {split}: found no image" for split, samples in dataset.splits.items() if not samples]
    return replace(dataset, warnings=(*dataset.warnings, *(differences or empty)))


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
