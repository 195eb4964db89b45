"""The published Re-ID sets: where they lie, the size of a complete copy, and those that file names alone describe."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reid.data.layout import Layout, locate_any
from reid.data.samples import ReidDataset, Sample, is_image

_MSMT17_COUNTS = {
    "train": (30_248, 1_041),
    "train+val": (32_621, 1_041),
    "query": (11_659, 3_060),
    "gallery": (82_161, 3_060),
}
# (images, identities) by name, version and split, for MSMT17 also by training split. Market's gallery is counted
# without its 3,819 junk images and with its distractors, identity 0; of VERI-Wild's tests its authors give query and
# gallery together: 41,861, 69,389 and 138,517 images.
OFFICIAL_COUNTS: Mapping[tuple[str, str | None], Mapping[str, tuple[int, int]]] = {
    ("market1501", None): {"train": (12_936, 751), "query": (3_368, 750), "gallery": (15_913, 751)},
    ("dukemtmc", None): {"train": (16_522, 702), "query": (2_228, 702), "gallery": (17_661, 1_110)},
    ("occludedduke", None): {"train": (15_618, 702), "query": (2_210, 519), "gallery": (17_661, 1_110)},
    ("cuhk03", "detected"): {"train": (7_365, 767), "query": (1_400, 700), "gallery": (5_332, 700)},
    ("cuhk03", "labeled"): {"train": (7_368, 767), "query": (1_400, 700), "gallery": (5_328, 700)},
    ("veri776", None): {"train": (37_778, 576), "query": (1_678, 200), "gallery": (11_579, 200)},
    ("msmt17", "v1"): _MSMT17_COUNTS,
    ("msmt17", "v2"): _MSMT17_COUNTS,
    ("vehicleid", "small"): {"train": (113_346, 13_164), "query": (5_693, 800), "gallery": (800, 800)},
    ("vehicleid", "medium"): {"train": (113_346, 13_164), "query": (11_777, 1_600), "gallery": (1_600, 1_600)},
    ("vehicleid", "large"): {"train": (113_346, 13_164), "query": (17_377, 2_400), "gallery": (2_400, 2_400)},
    ("veriwild", "small"): {"train": (277_797, 30_671), "query": (3_000, 3_000), "gallery": (38_861, 3_000)},
    ("veriwild", "medium"): {"train": (277_797, 30_671), "query": (5_000, 5_000), "gallery": (64_389, 5_000)},
    ("veriwild", "large"): {"train": (277_797, 30_671), "query": (10_000, 10_000), "gallery": (128_517, 10_000)},
}
OFFICIAL_CAMERAS = {"market1501": 6, "dukemtmc": 8, "occludedduke": 8, "cuhk03": 2, "msmt17": 15, "veri776": 20}


@dataclass(frozen=True)
class NamedLayout(Layout):
    """The layout of a set that tells its labels in its file names; `needed` are the train, query and gallery folders.

    `pattern` matches a file name without its extension; its groups are the identity, the camera (from 1) and, in some
    sets, the sequence, counted anew in each camera.
    """

    title: str
    pattern: re.Pattern[str]

    def match(self, file: str) -> re.Match[str] | None:
        """Match the name of an image file."""
        return self.pattern.fullmatch(os.path.splitext(file)[0])

    def fits(self, home: Path) -> bool:
        """Whether the first image of any folder in `home` has a name of this set."""
        return any(self.match(file) for folder in self.needed for file in _list_images(home / folder)[:1])


_MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
_DUKE_NAMES = re.compile(r"(\d{4})_c(\d)_f\d+")

NAMED_LAYOUTS: Mapping[tuple[str, str | None], NamedLayout] = {
    ("market1501", None): NamedLayout(
        (".", "Market-1501-v15.09.15", "Market-1501", "Market1501", "market1501", "market1501/Market-1501-v15.09.15"),
        _MARKET_FOLDERS,
        "Market-1501",
        re.compile(r"(-1|\d{4})_c(\d)s(\d)_\d{6}_\d{2}"),
    ),
    ("dukemtmc", None): NamedLayout(
        (".", "DukeMTMC-reID", "DukeMTMC", "dukemtmcreid", "dukemtmc-reid", "dukemtmc", "dukemtmc-reid/DukeMTMC-reID"),
        _MARKET_FOLDERS,
        "DukeMTMC-reID",
        _DUKE_NAMES,
    ),
    ("occludedduke", None): NamedLayout(
        (
            ".",
            "Occluded_Duke",
            "Occluded-Duke",
            "Occluded-DukeMTMC",
            "occluded_duke",
            "occludedduke",
            "Occluded-DukeMTMC-Dataset/Occluded_Duke",
        ),
        _MARKET_FOLDERS,
        "DukeMTMC-reID",
        _DUKE_NAMES,
    ),
    **{
        # Not ".": the two versions have the same folders and file names, so only the folder above tells them apart.
        ("cuhk03", version): NamedLayout(
            (
                *(above + version for above in ("", "cuhk03-np/", "CUHK03-NP/", "cuhk03/", "CUHK03/")),
                *(joined + version for joined in ("cuhk03_np_", "cuhk03-np-", "CUHK03_NP_", "cuhk03_")),
            ),
            _MARKET_FOLDERS,
            "CUHK03-NP",
            re.compile(r"(\d{4})_c(\d)_\d+"),
        )
        for version in ("detected", "labeled")
    },
    ("veri776", None): NamedLayout(
        (".", "VeRi", "VeRi-776", "VeRi776", "veri", "veri776"),
        ("image_train", "image_query", "image_test"),
        "VeRi-776",
        re.compile(r"(\d{4})_c(\d+)_.+"),  # cameras have three digits: a pattern for one reads 0 everywhere
    ),
}
LISTED_LAYOUTS: Mapping[tuple[str, str | None], Layout] = {
    **{
        ("msmt17", version): Layout(
            (".", official, "MSMT17", "msmt17", f"MSMT17/{official}", f"msmt17/{official}"),
            (train, test, "list_query.txt", "list_gallery.txt"),
        )
        for version, official, train, test in (
            ("v1", "MSMT17_V1", "train", "test"),
            ("v2", "MSMT17_V2", "mask_train_v2", "mask_test_v2"),
        )
    },
    **{
        ("vehicleid", version): Layout(
            (".", "VehicleID_V1.0", "VehicleID", "vehicleid", "PKU-VehicleID"),
            ("image", "train_test_split/train_list.txt", f"train_test_split/test_list_{size}.txt"),
        )
        for version, size in (("small", 800), ("medium", 1600), ("large", 2400))
    },
    **{
        ("veriwild", version): Layout(
            (".", "VERI-Wild", "VeRI-Wild", "VeRi-Wild", "veri-wild", "veriwild"),
            (
                "images",
                "train_test_split/vehicle_info.txt",
                "train_test_split/train_list.txt",
                f"train_test_split/test_{size}_query.txt",
                f"train_test_split/test_{size}.txt",
            ),
        )
        for version, size in (("small", 3000), ("medium", 5000), ("large", 10_000))
    },
}
LAYOUTS: Mapping[tuple[str, str | None], Layout] = {**NAMED_LAYOUTS, **LISTED_LAYOUTS}


def official_counts(dataset: ReidDataset) -> dict[str, tuple[int, int]]:
    """(images, identities) of a complete copy by split, under the dataset's protocol; empty for a set of one's own."""
    table = OFFICIAL_COUNTS.get((dataset.name, dataset.protocol.get("version")))
    if table is None:
        return {}
    train_split = dataset.protocol.get("train_split", "train")
    return {"train": table[train_split], "query": table["query"], "gallery": table["gallery"]}


def recognise(root: Path) -> str | None:
    """Name the published sets that what lies at `root`, or at their usual places below, may be; for error messages."""
    found: dict[str, str] = {}
    for (name, version), layout in LAYOUTS.items():
        home = layout.find(root)
        if home and (not isinstance(layout, NamedLayout) or layout.fits(home)):
            found.setdefault(name, f"{name}, version={version}" if version else name)
    return " or ".join(found.values()) or None


def locate(name: str, version: str | None, root: Path, also: Sequence[str] = ()) -> Path:
    """The folder, `root` or one below, that holds a published set, and the files `also`.

    Raises ValueError where only another version of the set is found; FileNotFoundError, with every place looked at,
    where none is.
    """
    layout = LAYOUTS[name, version]
    home = layout.find(root, also)
    if home:
        return home
    for (its_name, other), its_layout in LAYOUTS.items():
        home = its_layout.find(root) if its_name == name and other != version else None
        if home:
            entries = ", ".join(entry for entry in its_layout.needed if entry not in layout.needed)
            raise ValueError(
                f"{name}: found version {other} ({entries or home.name}) in {home}, but version={version} was asked "
                f"for; use version={other} (results on different versions do not compare)"
            )

    def hint() -> str:
        known = recognise(root)
        return f"; found what looks like dataset {known}" if known else ""

    return locate_any(name, [layout], root, also, hint)[1]


def read_named(name: str, root: Path, *, version: str | None = None) -> ReidDataset:
    """Read a set that tells its labels in its file names; images of identity -1 (Market's junk) are dropped.

    Where names tell the sequence, `Sample.extra` has it as camera and number within the camera, e.g. "1-3".

    Raises what `locate` raises, and ValueError where the folders hold images of another naming.
    """
    home = locate(name, version, root)
    layout = NAMED_LAYOUTS[name, version]
    warnings: list[str] = []
    train, query, gallery = (_read_folder(name, layout, home / folder, warnings) for folder in layout.needed)
    return ReidDataset(name, home, train, query, gallery, warnings=tuple(warnings))


def read_cuhk03(root: Path, *, version: str) -> ReidDataset:
    """Read CUHK03-NP, the split of Zhong et al. (CVPR 2017): people found by a detector, or labeled by hand.

    `root` may also be the folder of the version itself.

    Raises what `read_named` raises, and ValueError for the raw release, which holds no image files.
    """
    try:
        return read_named("cuhk03", root.parent if root.name.endswith(version) else root, version=version)
    except FileNotFoundError:
        places = ("", "cuhk03_release", "cuhk03", "cuhk03/cuhk03_release")
        raw = next((file for place in places if (file := root / place / "cuhk-03.mat").exists()), None)
        if raw is None:
            raise
        raise ValueError(
            f"cuhk03: {raw} is the raw release; expected the images of CUHK03-NP, e.g. "
            f"cuhk03-np/{version}/{{{','.join(_MARKET_FOLDERS)}}}/0001_c1_1.png"
        ) from None


def read_toy(root: Path) -> ReidDataset:
    """Read the built-in toy set, which has the layout of Market-1501; raises what `read_named` raises."""
    return replace(read_named("market1501", root), name="toy")


def _read_folder(name: str, layout: NamedLayout, folder: Path, warnings: list[str]) -> tuple[Sample, ...]:
    files = _list_images(folder)
    samples = []
    strangers = []
    for file in files:
        match = layout.match(file)
        if match is None:
            strangers.append(file)
            continue
        identity, camera, *sequence = match.groups()
        if identity != "-1":
            extra = {"sequence": f"{camera}-{sequence[0]}"} if sequence else {}
            samples.append(Sample(folder / file, identity=int(identity), camera=int(camera) - 1, extra=extra))
    if strangers and len(strangers) == len(files):
        others = (f": {other.title}-style names" for other in NAMED_LAYOUTS.values() if other.match(files[0]))
        raise ValueError(f"{name}: expected {layout.title}-style names in {folder}, found {files[0]}{next(others, '')}")
    if strangers:
        warnings.append(
            f"{name}: left out {len(strangers):,} of {len(files):,} images in {folder}, not named in {layout.title} "
            f"style, e.g. {strangers[0]}"
        )
    return tuple(samples)


def _list_images(folder: Path) -> list[str]:
    return sorted(file for file in os.listdir(folder) if is_image(file))
