"""Any number of image files on disk, quickly: they are all one picture under many names."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A readable image file."""
    path = tmp_path_factory.mktemp("picture") / "4x4.jpg"
    Image.new("RGB", (4, 4), "red").save(path)
    return path


@pytest.fixture
def link(picture: Path) -> Callable[[Path, Iterable[str]], Path]:
    """A function (root, file names) that makes image files below a folder and returns it."""

    def create(root: Path, files: Iterable[str]) -> Path:
        for file in files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            os.link(picture, root / file)
        return root

    return create
