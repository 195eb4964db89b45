"""What is done to the page and expected of it, in words of the page."""

import base64
from datetime import UTC, datetime

import pytest

from tests.waiting import DEADLINE, wait_until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=1000 * DEADLINE)

HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
ADMIN = "a-secret-of-the-test-for-everything-0123"
NOON = datetime(2024, 5, 12, 12, tzinfo=UTC)


def files(*contents, kind="image/png"):
    return [{"name": f"{i}.png", "mimeType": kind, "buffer": content} for i, content in enumerate(contents)]


def named(name, content):
    """A file to choose."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def transfer(tab, *contents, name="photo.png"):
    """What a drop or a paste brings."""
    return tab.evaluate_handle(
        """([name, contents]) => {
            const transfer = new DataTransfer();
            for (const text of contents) {
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type: "image/png" }));
            }
            return transfer;
        }""",
        [name, [base64.b64encode(content).decode() for content in contents]],
    )


def drop(tab, *contents, name="photo.png"):
    tab.dispatch_event("main", "drop", {"dataTransfer": transfer(tab, *contents, name=name)})


def close_viewer(tab):
    """Close the large view by its key, and wait until its entry of the history is gone: it takes along what follows."""
    tab.keyboard.press("Escape")
    wait_until(lambda: tab.evaluate("!document.querySelector('dialog[open]') && !history.state?.viewer"))


def cards(tab):
    return tab.locator("#results .card:visible")


def expect_ranks(tab, ranks):
    expect(cards(tab).locator("b")).to_have_text([f"Rank {rank}" for rank in ranks])


def expect_cameras(tab, cameras):
    expect(cards(tab).locator(".camera")).to_have_text(cameras)


def ask(client, *images, **fields):
    sent = [("image", ("a.png", image)) for image in images]
    return client.post("/query", files=sent, data=fields).json()
