"""Several datasets as one to train on, with their identities and cameras kept apart."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from reid.data.samples import ReidDataset


def add_training(dataset: ReidDataset, others: Sequence[ReidDataset]) -> ReidDataset:
    """The dataset with the training images of the others too; what it is tested on stays as it is.

    The others' identities and cameras get numbers after its own, and names with the set before them: two that are
    called alike in two sets are not the same.
    """
    train = list(dataset.train)
    identities, cameras = dict(dataset.identity_names), dict(dataset.camera_names)
    everybody = [*dataset.train, *dataset.query, *dataset.gallery]
    for number, other in enumerate(others, start=2):
        first_identity, first_camera = _next(s.identity for s in everybody), _next(s.camera for s in everybody)
        for sample in other.train:
            identity = first_identity + sample.identity
            camera = -1 if sample.camera < 0 else first_camera + sample.camera
            identities[identity] = f"{other.name} {number}: {other.identity_name(sample.identity)}"
            if camera >= 0:
                cameras[camera] = f"{other.name} {number}: {other.camera_name(sample.camera)}"
            train.append(replace(sample, identity=identity, camera=camera))
        everybody = [*train, *dataset.query, *dataset.gallery]
    own_cameras = {s.camera for s in (*dataset.train, *dataset.query, *dataset.gallery)} - {-1}
    added = [f"{other.name} ({len(other.train):,} images)" for other in others]
    return replace(
        dataset,
        train=tuple(train),
        identity_names=identities,
        camera_names={**{camera: dataset.camera_name(camera) for camera in own_cameras}, **cameras},
        protocol={**dataset.protocol, "also": " and ".join(added)},
        warnings=(*dataset.warnings, *(warning for other in others for warning in other.warnings)),
    )


def _next(numbers: Iterable[int]) -> int:
    return 1 + max(numbers, default=-1)
