from pathlib import Path

import pytest

from reid.data.holding_out import hold_out
from reid.data.samples import Sample


def samples(counts: list[int], camera: int | None = None) -> list[Sample]:
    return [
        Sample(Path(f"{identity}_{n}.jpg"), identity, n if camera is None else camera)
        for identity, count in enumerate(counts)
        for n in range(count)
    ]


def test_nobody_is_on_both_sides_and_no_image_is_lost():
    given = samples([3] * 50)
    kept, held = hold_out(given, 0.2, 0, "camera")
    assert sorted([*kept, *held], key=given.index) == given
    trained, asked = ({sample.identity for sample in part} for part in (kept, held))
    assert not trained & asked
    assert len(asked) == 10


def test_the_seed_draws_them_whatever_the_order_of_the_rows():
    given = samples([3] * 50)

    def drawn(seed, rows):
        return {sample.identity for sample in hold_out(rows, 0.2, seed, "camera")[1]}

    assert drawn(1, given) == drawn(1, given[::-1])
    assert drawn(1, given) != drawn(2, given)


@pytest.mark.parametrize(("junk", "camera", "expected"), [("camera", None, 10), ("camera", 0, 0), ("none", 0, 10)])
def test_only_who_can_be_found_is_held_out(junk, camera, expected):
    """Of identities of one image nobody is, nor of one camera where images of that do not count."""
    held = hold_out(samples([1] * 40 + [2] * 10, camera), 0.5, 0, junk)[1]
    assert len({sample.identity for sample in held}) == expected
    assert all(sample.identity >= 40 for sample in held)


def test_images_of_unknown_cameras_match_any_other():
    held = hold_out(samples([2] * 10, -1), 0.5, 0, "camera")[1]
    assert len(held) == 10


@pytest.mark.parametrize(("identities", "share", "expected"), [(24, 0.2, 5), (22, 0.2, 0), (50, 0.0, 0), (8, 0.1, 0)])
def test_too_few_to_say_anything_are_not_held_out(identities, share, expected):
    kept, held = hold_out(samples([4] * identities), share, 0, "camera")
    assert len({sample.identity for sample in held}) == expected
    assert len(kept) + len(held) == 4 * identities
