"""Folders of files of all kinds through the reader: every file is accounted for, and nothing but a refusal is raised.

`REID_CORPUS=DIR pytest -k corpus` walks a folder of one's own, without links to folders.
"""

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import PIL
import pytest

from reid.data.capture import read_capture
from reid.data.folders import LeftOut, pictures_below
from reid.data.images import UnknownFormat, UnusableImage, decode, read_image, upright_size
from reid.data.preprocessing import Decoding
from tests.conftest import SHARED

CASES = Path(__file__).with_name("cases")
MOST_SECONDS = 20.0  # of processor time for one picture; the largest that are read take 3
DOWNLOAD = ("-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:")

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of much on the way to its errors


@pytest.fixture
def pillows_own(pytestconfig) -> Path:
    """The test pictures of Pillow's source distribution, downloaded once."""
    if pytestconfig.cache is None:
        pytest.skip("no cache to keep a download in")
    place = pytestconfig.cache.mkdir("pillow")
    archive = place / f"pillow-{PIL.__version__}.tar.gz"
    if not archive.exists():
        asked = [*DOWNLOAD, "--dest", str(place), f"pillow=={PIL.__version__}"]
        told = subprocess.run([sys.executable, *asked], capture_output=True, text=True)
        if told.returncode or not archive.exists():
            pytest.skip(f"pip cannot download Pillow's source: {told.stderr.strip().splitlines()[-1:]}")
    folder = place / f"pillow-{PIL.__version__}" / "Tests" / "images"
    if not folder.exists():
        with tarfile.open(archive) as opened:
            members = [one for one in opened if "/Tests/images/" in one.name]
            opened.extractall(place, members, filter="data")
    return folder


def walk(root: Path) -> tuple[int, int]:
    """How many pictures below a folder are read, and how many are refused, in one line that names them."""
    read = refused = 0
    left_out = LeftOut()
    for inside in pictures_below(root, left_out):
        path, begun = root / inside, time.process_time()
        try:
            image = read_image(path)
            assert image.mode == "RGB" and image.size == upright_size(path) and not image.info
            data = path.read_bytes()
            assert decode(data, Decoding(profiles=False)).size == image.size
            read_capture(data)
            read += 1
        except (UnknownFormat, UnusableImage) as refusal:
            told = str(refusal).removeprefix(f"{path}: ")
            assert told != str(refusal) and told.isprintable() and "0x" not in told, told
            refused += 1
        assert time.process_time() - begun < MOST_SECONDS, f"{path} takes {time.process_time() - begun:.1f} s"
    assert read + refused + left_out.total == files_below(root)
    return read, refused


def files_below(root: Path) -> int:
    """Files, as `os.walk` finds them: for folders without links to folders."""
    return sum(len(files) for _, _, files in os.walk(root))


def test_corpus_of_cases():
    assert walk(CASES) == (len(list(CASES.iterdir())), 0)


@pytest.mark.slow  # a panorama, and a picture of 99 megapixels
def test_corpus_of_the_neighbour():
    if not (SHARED / "cases").exists():
        pytest.skip(f"no cases at {SHARED}")
    read, refused = walk(SHARED / "cases")
    assert read >= 39 and refused == 0


@pytest.mark.slow
def test_corpus_of_pillow(pillows_own):
    read, refused = walk(pillows_own)
    assert read > 650 and refused > 20  # made to be refused


def test_corpus_of_ones_own():
    if not os.environ.get("REID_CORPUS"):
        pytest.skip("REID_CORPUS names no folder")
    assert any(walk(Path(os.environ["REID_CORPUS"])))
