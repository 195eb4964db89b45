"""A network as others trained it, ready to embed images: built for the size, the patches and the parts that its weights
tell of.
"""

import warnings
from dataclasses import dataclass, replace

from torch import Tensor

from reid.models.backbones import build_backbone, native_size, normalisation, opens, timm_name
from reid.models.dcal import DCAL
from reid.models.layers import TimmModule
from reid.models.layouts import JIGSAW, MIEWID_SIZE, NECK_OF_POOLED, POOL, SIDES, Cut, Grid, guess_cut
from reid.models.options import DcalOptions
from reid.models.pooled import PooledNetwork, build_pooled
from reid.models.weights import Source, WeightsReport, load_weights, patch_size, prefix_places, read_weights

Triple = tuple[float, float, float]

REID_NORMALISATION = (0.5, 0.5, 0.5)  # mean and standard deviation of TransReID and its kin
SHIFTS = {False: 5, True: 8}  # of TransReID's jigsaw module: for persons, and for vehicles, whose images are squares


@dataclass(frozen=True, eq=False)
class PretrainedNetwork:
    """A model of one branch and no head, and how its images are prepared: size, mean and standard deviation.

    It is told of `sides` combinations of camera and view. `fingerprint` tells the tensors from all others, whatever
    file they came in.
    """

    model: DCAL | PooledNetwork
    image_size: Grid
    mean: Triple
    std: Triple
    report: WeightsReport
    fingerprint: str
    sides: int = 0


def build_pretrained(backbone: str, weights: str, image_size: Grid | None = None) -> PretrainedNetwork:
    """The network `backbone` with `weights`, `imagenet` or a file, for images of `image_size` (height, width).

    By default that is the size that the weights were trained at, as far as their positions tell it, and else that of
    timm's network. TransReID's overlapping patches, jigsaw module and embeddings of cameras and views are those of its
    file, as are MiewID's pooling and neck. Networks that the method does not open, as those of convolutions, are taken
    whole. Raises what `build_backbone` raises, and ValueError for a file of a run, and for one whose size is unclear.
    """
    build = _build_opened if opens(backbone) else _build_whole
    return build(backbone, weights, image_size)


def _build_whole(backbone: str, weights: str, image_size: Grid | None) -> PretrainedNetwork:
    size = image_size or native_size(backbone)
    network, width = build_pooled(backbone, size)
    source = _read(network, backbone, weights)
    parts = {name: value for name, value in source.state.items() if name == POOL or name.startswith(NECK_OF_POOLED)}
    if parts and image_size is None:
        size = MIEWID_SIZE
    report = _reported(load_weights(network, source), parts)
    model = PooledNetwork(network, width, parts)
    return PretrainedNetwork(model.eval(), size, *normalisation(network), report, source.fingerprint())


def _build_opened(backbone: str, weights: str, image_size: Grid | None) -> PretrainedNetwork:
    native = native_size(backbone)
    probe, _ = build_backbone(backbone, image_size or native)
    source = _read(probe, backbone, weights)
    cut = _cut(source, image_size or native, image_size, patch_size(probe), prefix_places(probe))
    stride = None if cut.stride == cut.patch else cut.stride
    network, _ = build_backbone(backbone, cut.image_size, stride=stride)
    parts = {name: value for name, value in source.state.items() if name.startswith(JIGSAW) or name == SIDES}
    report = _reported(load_weights(network, source), parts)
    jigsaw = SHIFTS[cut.image_size[0] == cut.image_size[1]] if any(name.startswith(JIGSAW) for name in parts) else 0
    options = DcalOptions(
        "baseline", drop_path=0.0, stride=stride, jigsaw=jigsaw, sides=len(parts[SIDES]) if SIDES in parts else 0
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        model = DCAL(network, 0, options)
    model.load_state_dict(parts, strict=False)
    mean, std = (REID_NORMALISATION, REID_NORMALISATION) if source.reid else normalisation(network)
    return PretrainedNetwork(model.eval(), cut.image_size, mean, std, report, source.fingerprint(), options.sides)


def _read(network: TimmModule, backbone: str, weights: str) -> Source:
    source = read_weights(network, weights, timm_name(backbone))
    if source.grid is not None:
        raise ValueError(f"weights {weights!r}: a file of reid-train or fgvc-train; give it as --checkpoint")
    return source


def _reported(report: WeightsReport, parts: dict[str, Tensor]) -> WeightsReport:
    """A report of what the network took, with the parts that go elsewhere."""
    ignored = tuple(name for name in report.ignored if name not in parts)
    return replace(report, loaded=(*report.loaded, *parts), ignored=ignored)


def _cut(source: Source, usual: Grid, wanted: Grid | None, patch: int, prefix: int) -> Cut:
    """How images are cut: so that the patches are as many as the positions in the file, if that can be."""
    places = source.state.get("pos_embed")
    if places is None or places.ndim != 3:
        return Cut(usual, patch, patch)
    count = places.shape[1] - prefix
    guess = guess_cut(count, patch, reid=source.reid)
    if wanted is None:
        if guess is None:
            raise ValueError(
                f"weights {source.name!r}: {count} positions are those of no usual image size; give --image-size HxW"
            )
        return guess
    exact = (cut for stride in range(patch, patch // 2 - 1, -1) if (cut := Cut(wanted, patch, stride)).count == count)
    return next(exact, Cut(wanted, patch, guess.stride if guess and source.reid else patch))
