"""Every image is looked at before any is used, without reading all of it where a look is enough."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid.config import ReidDataOptions
from reid.data import opening
from reid.data.opening import find_problem, make_usable, require_readable
from reid.data.samples import Box, ReidDataset, Sample


def draw(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp", ".gif"])
def test_a_file_that_was_not_copied_whole_is_found(tmp_path: Path, suffix: str) -> None:
    path = draw(tmp_path / f"a{suffix}")
    assert find_problem(Sample(path, 0)) == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert find_problem(Sample(path, 0)).startswith(f"{path}: the image is damaged or cut short (")


def test_whole_files_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "read_image", None)
    for suffix in (".jpg", ".png", ".webp"):
        assert find_problem(Sample(draw(tmp_path / f"a{suffix}"), 0, box=(0, 0, 80, 60))) == ""


@pytest.mark.parametrize(
    ("box", "inside"),
    [((79, 59, 1, 1), True), ((79, 0, 2, 1), False), ((0, 59, 1, 2), False), ((-1, 0, 2, 2), False)],
)
def test_a_box_beyond_the_picture_is_found_as_by_reading(tmp_path: Path, box: Box, inside: bool) -> None:
    sample = Sample(draw(tmp_path / "a.jpg"), 0, box=box)
    assert find_problem(sample) == opening.drop_unreadable([sample])[1][0] if not inside else not find_problem(sample)


def test_the_split_and_the_first_of_what_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    good, bad = Sample(draw(tmp_path / "a.jpg"), 0), Sample(tmp_path / "empty.jpg", 1)
    dataset = ReidDataset("csv", tmp_path, (good,), (good,), (good, bad, Sample(tmp_path / "gone.jpg", 2)))
    with pytest.raises(ValueError, match="csv gallery: 2 of 3 images cannot be read, the first: .*empty.jpg: the file"):
        require_readable(dataset)
    require_readable(dataset, ("train", "query"))
    usable = make_usable(dataset, ReidDataOptions(dataset="csv", on_error="skip"))
    assert usable.gallery == (good,)
