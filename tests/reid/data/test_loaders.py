import csv
from pathlib import Path

import pytest
import torch

from reid.data.images import read_image
from reid.data.loaders import TrainingLoader, evaluation_batches, worker_count
from reid.data.opening import drop_unreadable
from reid.data.preprocessing import Preprocessing
from reid.data.sampler import PKSampler
from reid.data.samples import Sample
from reid.data.transforms import evaluation_transform, training_transform

PREPROCESSING = Preprocessing((16, 16), (0.5,) * 3, (0.5,) * 3)


def samples_of(path: Path) -> list[Sample]:
    with open(path) as file:
        return [Sample(path.parent / row["path"], int(row["identity"].split("-")[1])) for row in csv.DictReader(file)]


def loader(path: Path, workers=0, seed=0):
    samples = samples_of(path)
    labels = [sample.identity for sample in samples]
    transform = training_transform(PREPROCESSING, flip=0.5, pad=2, erasing=0.5)
    return TrainingLoader(
        samples, labels, PKSampler(labels, p=4, k=2, seed=seed), transform, seed=seed, workers=workers
    )


def drawn(batches):
    return [(batch.positions, batch.labels.tolist(), batch.images) for batch in batches]


def same(one, other):
    return all(a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(one, other, strict=True))


def test_batches_depend_on_seed_and_epoch_not_on_workers_or_history(photos):
    plain, working = loader(photos), loader(photos, workers=2)
    list(plain.epoch(0))
    torch.manual_seed(99)
    one = drawn(plain.epoch(1))
    assert same(one, drawn(working.epoch(1)))
    assert not same(one, drawn(plain.epoch(2)))
    assert len(one) == len(plain) == 4


def test_skipping_gives_the_rest_of_the_same_epoch(photos):
    plain = loader(photos)
    assert same(drawn(plain.epoch(1))[3:], drawn(plain.epoch(1, skip=3)))


def test_augmentation_leaves_the_loops_random_numbers_alone(photos):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(loader(photos).epoch(0))
    assert torch.equal(torch.rand(1), expected)


def test_repeats_of_one_image_are_augmented_differently(photos):
    sample = samples_of(photos)[0]
    labels = [0, 1]
    transform = training_transform(PREPROCESSING, flip=0, pad=8, erasing=0)
    repeating = TrainingLoader([sample, sample], labels, PKSampler(labels, p=2, k=4), transform, seed=0)
    (batch,) = list(repeating.epoch(0))
    assert len({image.numpy().tobytes() for image in batch.images}) > 4


def test_evaluation_images_come_as_asked(photos):
    samples = samples_of(photos)
    transform = evaluation_transform(PREPROCESSING)
    batches = evaluation_batches(samples, transform, [[0, 1, 2], [3, 5]], workers=0, pin_memory=False)
    images = torch.cat(list(batches))
    assert len(images) == 5
    torch.testing.assert_close(images[4], transform(read_image(samples[5].path)))


def test_a_bad_image_stops_the_batch_by_name(photos):
    (photos.parent / "00_0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00_0.png: the file is empty"):
        drawn(loader(photos).epoch(0))


def test_unreadable_images_are_left_out_and_told(photos):
    (photos.parent / "00_0.png").write_bytes(b"")
    (photos.parent / "03_1.png").unlink()
    samples = samples_of(photos)
    kept, problems = drop_unreadable(samples)
    assert len(kept) == 30
    assert [sample for sample in samples if sample in kept] == list(kept)
    assert "00_0.png: the file is empty" in problems[0]
    assert "03_1.png: no such image" in problems[1]


def test_worker_count():
    assert worker_count(3, "cpu") == 3
    assert worker_count(-1, "cpu") == 0
    assert 1 <= worker_count(-1, "cuda") <= 8
