"""Files and names that mean harm or are merely odd, over HTTP: each has its answer and changes nothing else."""

import asyncio
import io
import json
import struct
import zipfile
import zlib
from contextlib import contextmanager
from itertools import product

import numpy as np
import pillow_heif
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.responses import Response

from service.api import uploads
from service.api.app import create_app
from service.settings import Settings
from service.storage.jobs import Jobs
from service.upkeep.jobs import JobRunner

ORIENTATION = 0x0112
pillow_heif.register_heif_opener()  # also writes HEIC

# How the stored pixels (height, width, channels) must be turned to stand upright.
TURNS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
}


@pytest.fixture
def client(gallery, checkpoint, tmp_path, monkeypatch):
    """A client in a working folder that must stay as it is, beside the gallery."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "passwd").write_text("root")
    monkeypatch.chdir(tmp_path / "beside")
    settings = Settings(checkpoint=checkpoint, gallery=gallery.folder, allowed_hosts=["testserver"])
    with JobRunner(Jobs(gallery.database), {}) as runner:
        yield TestClient(create_app(gallery, runner, settings), raise_server_exceptions=False)


def noise(seed=0, size=(30, 20)):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def encode(pixels, form, **save):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    written = io.BytesIO()
    image.save(written, form, **save)
    return written.getvalue()


def oriented(turn):
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    return encode(noise(turn), "PNG", exif=exif)


def bomb(width, height):
    """A PNG file of some KB that holds as many pixels as it says."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + width // 8)) for _ in range(height)) + rows.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def archive():
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as zipped:
        zipped.writestr("hidden.txt", "hidden words")
    return written.getvalue()


def palette():
    """Two colours, of which the second is clear: white is behind it."""
    image = Image.new("P", (8, 8))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1] * 32)
    expected = np.tile(np.array([[255, 0, 0], [255, 255, 255]], np.uint8), (8, 4, 1))
    return encode(image, "PNG", transparency=1), expected


def sixteen_bit():
    values = (np.arange(240, dtype=np.uint16) * 257).reshape(12, 20)
    expected = np.arange(240, dtype=np.uint8).reshape(12, 20, 1).repeat(3, axis=2)
    return encode(Image.fromarray(values), "PNG"), expected


def animated(form):
    others = [Image.fromarray(noise(1)), Image.fromarray(noise(2))]
    return encode(noise(), form, save_all=True, append_images=others, **({"lossless": True} if form == "WEBP" else {}))


def lossy(data):
    return data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


GOOD = {
    **{f"orientation-{turn}.png": (oriented(turn), TURNS[turn](noise(turn))) for turn in TURNS},
    "cmyk.jpg": lossy(encode(Image.fromarray(noise()).convert("CMYK"), "JPEG")),
    "sixteen-bit.png": sixteen_bit(),
    "palette.png": palette(),
    "animated.png": (animated("PNG"), noise()),
    "animated.webp": (animated("WEBP"), noise()),
    "moving.gif": lossy(animated("GIF")),
    "moving-in-truth.jpg": lossy(animated("GIF")),
    "pages.tif": (animated("TIFF"), noise()),
    "phone.avif": lossy(encode(noise(), "AVIF")),
    "phone.heic": lossy(encode(noise(), "HEIF")),
    "a-png-in-truth.jpg": (encode(noise(), "PNG"), noise()),
    "a-picture-in-truth.txt": (encode(noise(), "BMP"), noise()),
    "polyglot-html.png": (encode(noise(), "PNG") + b"<script>alert(1)</script>", noise()),
    "polyglot-zip.png": (encode(noise(), "PNG") + archive(), noise()),
}
REFUSED = {
    "bomb.png": (bomb(12_000, 12_000), 422, "unusable_image"),
    "truncated.jpg": (encode(noise(size=(200, 200)), "JPEG")[:8000], 422, "unusable_image"),
    "empty.png": (b"", 415, "unknown_format"),
    "text.png": (b"no image", 415, "unknown_format"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 415, "unknown_format"),
    "html-first.jpg": (b"<html>" + encode(noise(), "JPEG"), 415, "unknown_format"),
}
TRICKS = [
    "../../etc/passwd",
    "..\\..\\etc\\passwd",
    "/etc/passwd",
    "..",
    "a\0b",
    "a\r\nSet-Cookie: a=b",
    "\u202egnp.exe",
    "'; DROP TABLE items;--",
    '" OR 1=1 --',
    "%2e%2e%2fpasswd%00",
    "<img src=x onerror=alert(1)>",
    "$(touch here)",
    "{{7*7}}",
    "x" * 200,
]
IMPOSSIBLE = ["", "x" * 201, "x" * 10_000, "\ud800"]


def enrol(client, data, name="a.png", **said):
    files = {"images": (name, data, "image/png")}
    return client.post("/v1/items", files=files, data={"metadata": json.dumps([said])})


def others(tmp_path):
    """All that lies beside the gallery."""
    return {path: path.is_file() and path.read_bytes() for path in (tmp_path / "beside").rglob("*")} | {
        path: None for path in tmp_path.iterdir()
    }


@pytest.fixture
def each(client, subtests):
    """A function that gives one subtest of many, which leaves the gallery as it was, whatever becomes of it."""

    def items():
        return {item["item_id"] for item in client.get("/v1/items").json()["items"]}

    @contextmanager
    def one(**named):
        before = items()
        with subtests.test(**named):
            yield
        for item_id in items() - before:
            assert client.delete(f"/v1/items/{item_id}").status_code == 204

    return one


def test_an_odd_picture_is_enrolled_upright_and_found(client, each):
    for name, (data, expected) in GOOD.items():
        with each(name=name):
            (result,) = enrol(client, data, name).json()["results"]
            assert (result["result"], result["filename"]) == ("created", name)
            item = result["item"]
            assert (item["width"], item["height"], item["source"]) == (expected.shape[1], expected.shape[0], name)
            kept = client.get(item["image_url"]).content
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(kept))), expected)
            assert b"script" not in kept and b"hidden" not in kept and b"Exif" not in kept
            answer = client.post("/query", files={"image": (name, data)})
            assert answer.status_code == 200
            (match,) = answer.json()["matches"]
            assert match["score"] == pytest.approx(1, abs=1e-5)


def test_what_is_no_sound_picture_is_refused_alone(client, gallery, tmp_path, each):
    before = others(tmp_path)
    for name, (data, status, code) in REFUSED.items():
        with each(name=name):
            assert len(data) < 60_000
            refused = client.post("/query", files={"image": (name, data)})
            assert (refused.status_code, refused.json()["code"]) == (status, code)
            assert client.post("/v1/attention", files={"image": (name, data)}).json()["code"] == code
            sound = ("b.png", encode(noise(), "PNG"))
            both = client.post("/v1/items", files=[("images", (name, data)), ("images", sound)])
            assert both.status_code == 207
            first, second = both.json()["results"]
            assert (first["result"], first["error"]["status"], first["error"]["code"]) == ("error", status, code)
            assert (second["result"], second["item"]["source"]) == ("created", "b.png")
            assert len(list((gallery.folder / "pictures").glob("*/*"))) == 1
            assert others(tmp_path) == before


def test_a_name_is_text_and_nothing_else(client, gallery, tmp_path, each):
    before = others(tmp_path)
    other = enrol(client, encode(noise(9), "PNG"), key="other", label="ada", camera="gate").json()["results"][0]["item"]
    for trick in TRICKS:
        with each(trick=ascii(trick[:30])):
            require_text(client, gallery, other, trick)
            assert others(tmp_path) == before


def require_text(client, gallery, other, trick):
    """It names an item, beside another one, and is found, edited and deleted as any text."""
    said = {"key": trick, "label": trick, "camera": trick, "attributes": {trick: trick}}
    (result,) = enrol(client, encode(noise(), "PNG"), **said).json()["results"]
    if any(character in trick for character in "\0\r\n\u202e"):  # which no list could show as it is
        assert (result["item"], result["error"]["code"]) == (None, "unusable_text")
        return
    item = result["item"]
    assert {name: item[name] for name in said} == said
    url = f"/v1/items/{item['item_id']}"
    assert client.patch(url, json={"label": "bob"}).json()["label"] == "bob"
    assert client.patch(url, json={"label": trick}).json() == client.get(url).json() == item
    for field, listing in (("cameras", "cameras"), ("labels", "labels")):
        found = client.get("/v1/items", params={field: trick}).json()["items"]
        assert [one["item_id"] for one in found] == [item["item_id"]]
        assert {"name": trick, "items": 1} in client.get(f"/v1/{listing}").json()[listing]
        answer = client.post("/query", files={"image": encode(noise(9), "PNG")}, data={field: trick}).json()
        assert [match["item_id"] for match in answer["matches"]] == [item["item_id"]]
    assert client.post("/query", data={"item_id": trick}).json()["code"] == "not_found"
    wanted = {"filter": {"labels": [trick]}, "dry_run": False, "expected": 1}
    assert client.post("/v1/items/delete", json=wanted).json()["items"] == 1
    assert client.get("/v1/items").json()["items"] == [other]
    assert len(list((gallery.folder / "pictures").glob("*/*"))) == 1


def test_a_name_that_cannot_be_is_refused(client, subtests):
    item = enrol(client, encode(noise(), "PNG")).json()["results"][0]["item"]
    for field, trick in product(("key", "label", "camera"), IMPOSSIBLE):
        with subtests.test(field=field, trick=ascii(trick[:9])):
            refused = enrol(client, encode(noise(1), "PNG"), **{field: trick})
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
            body = json.dumps({field: trick}).encode()
            headers = {"Content-Type": "application/json"}
            edited = client.patch(f"/v1/items/{item['item_id']}", content=body, headers=headers)
            assert (edited.status_code, edited.json()["code"]) == (422, "invalid_request")
            assert client.get("/v1/items").json()["items"] == [item]


def test_a_file_name_is_text_that_the_gallery_never_opens(client, gallery, tmp_path, each):
    before = others(tmp_path)
    for trick in [*TRICKS, "x" * 10_000]:
        with each(trick=ascii(trick[:30]), length=len(trick)):
            # as browsers and clients send them
            name = trick.encode().replace(b"\r\n", b"%0D%0A").replace(b'"', b"%22")
            body = b'--b\r\nContent-Disposition: form-data; name="images"; filename="' + name + b'"\r\n\r\n'
            body += encode(noise(), "PNG") + b"\r\n--b--\r\n"
            form = {"Content-Type": "multipart/form-data; boundary=b"}
            answer = client.post("/v1/items", content=body, headers=form)
            pictures = list((gallery.folder / "pictures").glob("*/*"))
            assert all(path.suffix == ".webp" and len(path.stem) == 64 for path in pictures)
            assert others(tmp_path) == before
            if answer.status_code == 201:
                (result,) = answer.json()["results"]
                assert (result["result"], result["item"]["source"]) == ("created", name.decode()[-255:])
            else:
                assert answer.status_code in (400, 422) and gallery.worker.size() == 0
                assert "\0" in trick or len(trick) > 200


def test_a_form_is_read_as_utf_8_alone(client, gallery, each):
    # The name of the file is half a surrogate pair by two of these codecs, and no text that can be stored.
    body = b'--b\r\nContent-Disposition: form-data; name="images"; filename="\\ud800+2AA-"\r\n\r\n'
    body += encode(noise(), "PNG") + b"\r\n--b--\r\n"
    for charset in ["latin-1", "utf-7", "unicode_escape", "punycode", "no\0"]:
        with each(charset=charset):
            answer = client.post("/v1/items", content=body, headers=form_in(charset))
            assert (answer.status_code, answer.json()["code"], gallery.worker.size()) == (400, "bad_request", 0)
    for charset in ["utf-8", "UTF8", '"utf-8"']:
        with each(charset=charset):
            (result,) = client.post("/v1/items", content=body, headers=form_in(charset)).json()["results"]
            assert (result["result"], result["item"]["source"]) == ("created", "\\ud800+2AA-")


def form_in(charset):
    return {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}


def test_a_form_that_is_wrong_a_thousand_times_is_told_a_few(client):
    answer = client.post("/query", files=[("image", b"x")], data={f"field{i}": "x" for i in range(900)})
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 20)


def test_lists_have_an_end(client):
    image = {"images": ("a.png", encode(noise(), "PNG"))}
    answer = client.post("/v1/items", files=image, data={"metadata": json.dumps([1] * 300_000)})
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, ["body.metadata"])
    wanted = {name: [str(i) for i in range(10_000)] for name in ("cameras", "exclude_cameras", "labels")}
    assert client.post("/v1/items/delete", json={"filter": wanted}).json() == {"dry_run": True, "items": 0}
    wanted["labels"].append("one more")
    answer = client.post("/v1/items/delete", json={"filter": wanted})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.filter.labels")


def test_an_id_is_no_path(client, tmp_path, subtests):
    before = others(tmp_path)
    enrol(client, encode(noise(), "PNG"))
    tricks = ["%2e%2e%2f%2e%2e%2fpasswd", "..%5c..%5cpasswd", "%00", "'%20OR%201=1", "x" * 300]
    for trick, path in product(tricks, ("image", "thumbnail", "attention", "")):
        with subtests.test(trick=trick[:30], path=path):
            answer = client.get(f"/v1/items/{trick}/{path}".rstrip("/"))
            assert answer.status_code in (404, 422) and "root" not in answer.text
            assert client.delete(f"/v1/items/{trick}").status_code in (404, 405, 422)
            assert len(client.get("/v1/items").json()["items"]) == 1
            assert others(tmp_path) == before


class Sender:
    """A body of some pieces of 1 kB, or without end, and what became of it."""

    def __init__(self, pieces):
        self.pieces, self.taken, self.answers, self.taken_before = pieces, 0, [], None

    async def receive(self):
        self.taken += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": self.taken != self.pieces}

    async def send(self, message):
        if message.get("body"):
            self.taken_before = self.taken
        self.answers.append(message)

    def ask(self, app, **headers):
        named = [(name.encode(), value.encode()) for name, value in headers.items()]
        asyncio.run(uploads.Drained(app)({"type": "http", "headers": named}, self.receive, self.send))


@pytest.mark.parametrize("status", [401, 413])
def test_a_body_that_is_refused_is_read_before_the_answer_ends(status):
    sender = Sender(300)
    sender.ask(Response(b"why", status))
    assert (sender.taken_before, sender.taken) == (0, 300)
    assert [message.get("more_body", False) for message in sender.answers] == [False, True, False]
    assert b"".join(message.get("body", b"") for message in sender.answers) == b"why"


def test_not_more_than_so_much_of_it(monkeypatch):
    monkeypatch.setattr(uploads, "MAX_DRAINED", 10_000)
    sender = Sender(None)
    sender.ask(Response(b"why", 413))
    assert sender.taken == 10


def test_a_body_that_was_read_or_will_not_come_is_not_waited_for():
    async def reads(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        await Response(b"why", 422)(scope, receive, send)

    read, first_asked, taken = Sender(5), Sender(5), Sender(5)
    read.ask(reads)
    assert read.taken == 5
    first_asked.ask(Response(b"why", 413), expect="100-continue")
    assert first_asked.taken == 0
    taken.ask(Response(b"fine", 200))
    assert taken.taken == 0
