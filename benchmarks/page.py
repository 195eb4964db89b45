"""How the page's Browse fares with many photos, in Chromium: until it is open, a step of scrolling, memory of the tab.

    python -m benchmarks.page --items 100000

The gallery has rows of one photo each that are made up, all with one picture; the network is that of this machine.
"""

import argparse
import io
import re
import socket
import statistics
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import torch
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from reid.config import load_config
from reid.data.preprocessing import Preprocessing
from reid.inference.checkpoint import Checkpoint, save_model
from reid.models.dcal import build_dcal
from service.api.app import create_app
from service.gallery.gallery import Gallery
from service.opening import open_gallery
from service.records import Crop, Details, Medium, NewItem
from service.settings import Settings
from service.storage.jobs import Jobs
from service.upkeep.jobs import JobRunner

CHROMIUM = "/usr/bin/chromium"
AT_ONCE = 5000  # rows of a transaction
FIRST, OPENINGS, STEPS = 5, 9, 60


def untrained(folder: Path) -> Path:
    """A small model that nobody trained, for pictures of 32x16 pixels."""
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (32, 16), 3)
    options = {"model.backbone": "vit_toy", "model.weights": "none", "data.image_size": "32x16"}
    config = load_config("csv", None, options | {"model.method": "dcal", "data.root": "images.csv"})
    preprocessing = Preprocessing((32, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    save_model(folder / "model.safetensors", model, Checkpoint(config, preprocessing, ("a", "b", "c"), {}, 1))
    return folder


def fill(gallery: Gallery, count: int) -> None:
    """Made-up photos of ten cameras over five years, with thumbnails for the newest."""
    drawn = np.random.default_rng(0)
    written = io.BytesIO()
    Image.fromarray(drawn.integers(0, 256, (192, 256, 3), dtype=np.uint8)).save(written, "JPEG", quality=85)
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(count, start + AT_ONCE))
        vectors = drawn.standard_normal((len(numbers), gallery.embedder.size)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        photos = [
            NewItem(
                Medium(f"{number:064x}", 256, 192, f"IMG_{number:06}.jpg"),
                vector,
                Details(camera=f"camera {number % 10}", captured_at=begin + timedelta(minutes=26 * number)),
            )
            for number, vector in zip(numbers, vectors, strict=True)
        ]
        gallery.store.enrol(photos)
        gallery.holdings.thumbnails.keep({Crop(photo.medium.sha256): written.getvalue() for photo in photos})


def seconds_to_open(tab: Page, address: str) -> float:
    """From the request for the page until photos are drawn."""
    tab.goto("about:blank")
    begun = time.perf_counter()
    tab.goto(f"{address}/#/browse")
    tab.wait_for_selector("#enrolled li img")
    drawn = "[...document.querySelectorAll('#enrolled img')].slice(0, 12).every((one) => one.complete)"
    while not tab.evaluate(drawn):  # the page's policy lets nobody wait for a text that is evaluated within it
        tab.wait_for_timeout(5)
    return time.perf_counter() - begun


def seconds_of_a_step(tab: Page) -> float:
    """Of one screen of scrolling: until what belongs there is in the page and painted."""
    return float(
        tab.evaluate(
            """() => new Promise((done) => {
                const begun = performance.now();
                scrollBy(0, innerHeight);
                requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - begun) / 1000)));
            })"""
        )
    )


def megabytes_of_tabs(browser: Browser) -> float:
    """Of the largest process of a tab: its own memory, decoded pictures too, and its share of what processes share."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    rollups = [Path(f"/proc/{one['id']}/smaps_rollup") for one in processes if one["type"] == "renderer"]
    return max(float(re.findall(r"^Pss: +(\d+) kB", rollup.read_text(), re.M)[0]) for rollup in rollups) / 1024


def measure(address: str) -> None:
    """Print the table."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        screen = ViewportSize(width=1440, height=900)
        tab = browser.new_page(viewport=screen)
        empty = megabytes_of_tabs(browser)
        first = []
        for _ in range(FIRST):
            with browser.new_context(viewport=screen) as profile:  # which has kept nothing
                first.append(seconds_to_open(profile.new_page(), address))
        openings = [seconds_to_open(tab, address) for _ in range(OPENINGS)]
        steps = []
        for _ in range(STEPS):
            steps.append(seconds_of_a_step(tab))
            tab.wait_for_timeout(100)  # as a person looks
        cards, nodes = (tab.evaluate(f"document.querySelectorAll('{what}').length") for what in ("#enrolled li", "*"))
        print(f"open in a new profile: median {statistics.median(first):.2f} s, worst {max(first):.2f} s, of {FIRST}")
        print(f"open: median {statistics.median(openings):.2f} s, worst {max(openings):.2f} s, of {OPENINGS}")
        middle, worst = (1000 * what(steps) for what in (statistics.median, max))
        print(f"scroll step: median {middle:.0f} ms, worst {worst:.0f} ms, of {STEPS}")
        print(f"then: {cards} cards and {nodes} nodes in the page")
        print(f"memory of the tab's process: {megabytes_of_tabs(browser):.0f} MB, of an empty tab's: {empty:.0f} MB")
        browser.close()


def main() -> None:
    """Make the gallery, serve it, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    count = parser.parse_args().items
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        checkpoint = untrained(path)
        with (
            open_gallery(path / "gallery", checkpoint, "cpu") as gallery,
            JobRunner(Jobs(gallery.database), {}) as runner,
        ):
            begun = time.perf_counter()
            fill(gallery, count)
            print(f"{count:,} items made in {time.perf_counter() - begun:.0f} s")
            settings = Settings(checkpoint=checkpoint, gallery=path / "gallery")
            server = uvicorn.Server(uvicorn.Config(create_app(gallery, runner, settings), log_level="error"))
            listening = socket.create_server(("127.0.0.1", 0))
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            try:
                measure(f"http://127.0.0.1:{listening.getsockname()[1]}")
            finally:
                server.should_exit = True
                thread.join()
                listening.close()


if __name__ == "__main__":
    main()
