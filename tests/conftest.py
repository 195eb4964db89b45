"""Small things that many tests need: pictures on disk, a dataset of them, a tiny model. All offline, all on the CPU."""

import csv
import gc
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / "shared"
TINY = {
    "model.backbone": "vit_toy",
    "model.method": "dcal",
    "model.weights": "none",
    "data.image_size": "16x16",
    "data.pad": 2,
    "train.batch_size": 8,
    "train.images_per_identity": 2,
    "train.optimizer": "adamw",
    "train.lr": 1e-3,
    "train.epochs": 2,
    "train.eval_every": 0,
}


# Tests on a shared machine: one thread each, also in the processes that they start, and the same sums every time.
os.environ["OMP_NUM_THREADS"] = "1"

# Tests wait some hundred thousand times until something is on the disk, and are not about the disk: theirs is memory,
# where a tmpfs has room and lets programs run. TMPDIR chooses another place.
MEMORY = Path("/dev/shm")
ROOM = 8 * 2**30  # bytes; a run takes less than one, since what a test that passes has written goes with it
if "TMPDIR" not in os.environ and MEMORY.is_dir() and os.access(MEMORY, os.W_OK):
    there = os.statvfs(MEMORY)
    if there.f_bavail * there.f_frsize >= ROOM and not there.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays: no look for garbage goes through it, now or while tests run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """At the end it is cleared away as always; nanobind would tell of what is left."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """The loggers of this process, left as they were."""
    loggers = [
        logging.getLogger(name) for name in ("", "reid", "reid.access", "uvicorn", "uvicorn.error", "uvicorn.access")
    ]
    kept = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    with warnings.catch_warnings():
        yield
        logging.captureWarnings(False)
    for logger, handlers, level, propagate in kept:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def write_photos(folder: Path, identities: int = 8, photos: int = 4, size: int = 20, tested: int = 2) -> Path:
    """Write coloured noise, alike within an identity, and `images.csv`; the last `tested` identities are tested."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for identity in range(identities):
        base = random.integers(0, 256, 3)
        for photo in range(photos):
            pixels = np.clip(base + random.normal(0, 30, (size, size, 3)), 0, 255).astype(np.uint8)
            name = f"{identity:02d}_{photo}.png"
            Image.fromarray(pixels).save(folder / name)
            split = "train" if identity < identities - tested else "query" if photo == 0 else "gallery"
            rows.append({"path": name, "split": split, "identity": f"animal-{identity}", "camera": f"c{photo}"})
    with open(folder / "images.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "split", "identity", "camera"])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "images.csv"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The CSV of a dataset of 8 identities with 4 photos each."""
    return write_photos(tmp_path / "photos")


@pytest.fixture(scope="session", name="write_photos")
def _write_photos():
    """The function that writes a dataset of one's own choice."""
    return write_photos


@pytest.fixture
def tiny() -> dict[str, object]:
    """Options of a training that takes a second or two."""
    return dict(TINY)


@pytest.fixture(scope="session")
def vit_tiny_weights() -> Path:
    """Real ViT-Tiny weights, where the repository's sibling `shared` holds them."""
    path = SHARED / "weights" / "vit_tiny_patch16_224.fp16.safetensors"
    if not path.exists():
        pytest.skip(f"no real weights at {path}")
    return path


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """The folder of real photo sets, where the repository's sibling `shared` holds it."""
    path = SHARED / "data"
    if not path.exists():
        pytest.skip(f"no real photos at {path}")
    return path


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A readable image file."""
    path = tmp_path_factory.mktemp("picture") / "4x4.jpg"
    Image.new("RGB", (4, 4), "red").save(path)
    return path


@pytest.fixture
def link(picture: Path) -> Callable[[Path, Iterable[str]], Path]:
    """A function (root, file names) that makes image files below a folder, all one picture, and returns the folder."""

    def create(root: Path, files: Iterable[str]) -> Path:
        for file in files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            os.link(picture, root / file)
        return root

    return create


VOID = {"meta", "link", "img", "source", "br"}


class Page(HTMLParser):
    """A page's tags, attributes and text; open and closed tags must match."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.open, self.text = [], [], ""
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page_of():
    """The function that parses a report's page."""
    return Page


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of reports are drawn in light colours as pixels alone, a third of the work.

    Dark ones and SVG are as in a test without this; each file is there.
    """
    from reid.report import figures

    written = io.BytesIO()
    Image.new("RGB", (1, 1)).save(written, "PNG")
    png, dark = figures.png, written.getvalue()
    monkeypatch.setattr(
        figures,
        "png",
        lambda draw, size=figures.SIZE, colours=figures.LIGHT, **dots: (
            dark if colours is figures.DARK else png(draw, size, colours, **dots)
        ),
    )
    monkeypatch.setattr(figures, "svg", lambda *_, **__: b"<svg/>")


@pytest.fixture
def undrawn(drawn_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of reports are a dot each, for tests of what is told beside the usual ones; each file is there."""
    from reid.report import figures

    drawn = figures.png
    monkeypatch.setattr(figures, "png", lambda *_, **__: drawn(lambda figure: None, colours=figures.DARK))


@pytest.fixture
def shown_offline():
    """A function that opens a page in a browser, light and dark, narrow and wide, and finds nothing wrong with it."""

    def check(path):
        playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
        chromium = "/usr/bin/chromium"
        with playwright.sync_playwright() as started:
            try:
                browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            except playwright.Error as error:
                pytest.skip(f"no browser at {chromium}: {str(error).splitlines()[0]}")
            for scheme in ("light", "dark"):
                for width in (390, 1280):
                    context = browser.new_context(
                        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
                    )
                    tab = context.new_page()
                    problems = []
                    tab.on("console", lambda message, found=problems: found.append(message.text))
                    tab.on("pageerror", lambda error, found=problems: found.append(str(error)))
                    tab.on("requestfailed", lambda request, found=problems: found.append(request.url[:100]))
                    tab.goto(path.as_uri())
                    assert problems == []
                    assert tab.evaluate("document.documentElement.scrollWidth") == width
                    shown = "[...document.images].map(image => image.complete && image.naturalWidth * image.width > 0)"
                    assert all(tab.evaluate(shown))
                    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
                    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 28)"}[scheme]
                    context.close()
            browser.close()

    return check
