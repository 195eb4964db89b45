import random
from pathlib import Path

from reid.data.overlap import describe_overlap, number_copies, shared_contents
from reid.data.samples import ReidDataset, Sample


def test_copies_are_those_that_a_loop_over_all_pairs_finds(tmp_path: Path) -> None:
    drawn = random.Random(0)
    samples: list[Sample] = []
    for number in range(60):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(bytes([drawn.randrange(4)]) * drawn.randrange(1, 4))
        samples.append(Sample(path, drawn.randrange(5)))
    query, gallery = samples[:25], samples[20:]  # some are in both
    expected = {
        (a.path, b.path)
        for a in query
        for b in gallery
        if a.path != b.path and a.identity == b.identity and a.path.read_bytes() == b.path.read_bytes()
    }
    numbers = number_copies(query, gallery)
    found = {
        (a.path, b.path)
        for a in query
        for b in gallery
        if a.path != b.path and a.identity == b.identity and numbers.get(a.path, -1) == numbers.get(b.path, -2)
    }
    assert expected == found
    assert len(expected) > 10
    assert set(numbers) == {path for pair in expected for path in pair}


def test_what_is_in_training_and_test_is_told() -> None:
    sample = Sample(Path("a.jpg"), 3)
    others = (Sample(Path("b.jpg"), 3),)
    dataset = ReidDataset("csv", Path(), (sample,), others, others, identity_names={3: "rex"})
    assert "1 identity is in both training and test, e.g. rex" in next(describe_overlap(dataset))
    both = ReidDataset("csv", Path(), (sample,), others, (sample,), identity_names={3: "rex"})
    assert "1 picture is in both training and test, e.g. a.jpg" in next(describe_overlap(both))
    apart = ReidDataset("csv", Path(), (Sample(Path("a.jpg"), 4),), others, others)
    assert list(describe_overlap(apart)) == []


def test_pictures_of_test_that_training_has_under_another_name_are_found_and_told(tmp_path: Path) -> None:
    """Against a loop over all pairs: files of few contents, sizes and ends, with and without boxes."""
    drawn = random.Random(1)
    samples: list[Sample] = []
    for number in range(60):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(bytes([drawn.randrange(3)]) + b"x" * drawn.choice((1, 300)) + bytes([drawn.randrange(2)]))
        samples.append(Sample(path, number, box=drawn.choice((None, (0, 0, 2, 2)))))
    train, test = samples[:35], [*samples[30:], Sample(tmp_path / "gone.jpg", 99)]
    expected = {
        str(b.path)
        for a in train
        for b in test[:-1]
        if a.path != b.path and a.box == b.box and a.path.read_bytes() == b.path.read_bytes()
    }
    found = shared_contents(train, test)
    alone = {str(sample.path) for sample in samples[35:]}
    assert {path for _, path in found} & alone == expected & alone and len(expected) > 10
    assert all(Path(a).read_bytes() == Path(b).read_bytes() and a != b for a, b in found)
    dataset = ReidDataset("csv", tmp_path, tuple(samples[:30]), tuple(samples[30:]), ())
    assert "pictures of test are also in training, e.g. " in next(describe_overlap(dataset))
