"""Names that cannot be seen, or that have others read otherwise, are refused at every door."""

import csv
import json
import unicodedata

import pytest
from fastapi.testclient import TestClient

from reid.data.tables import AS_IT_IS
from service.api.app import create_app
from service.bulk.enrolling import enrol
from service.bulk.sources import find_photos, source_of
from service.fields import Filter
from service.records import Details, UnusableText, Upload, require_name
from service.settings import Settings
from service.storage.identities import Identities

UNSEEN = [" ", "\u00a0\u2003", "\u200b", "\t", "a\0b", "a\nb", "a\u2028b", "\x7f", "a\u202eb", "\u2067ada", "a\x1b[2J"]
PLAIN = ["ada", " ada", "a b", "Ñandú", "\u200f\u05e9\u05dc", "\u0639\u062f", "👩\u200d🔬", "e\u0301", "-", "<b>"]


@pytest.mark.parametrize("name", UNSEEN)
def test_what_cannot_be_shown_is_no_name(name):
    with pytest.raises(UnusableText, match="label") as refused:
        require_name("label", name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", PLAIN)
def test_names_of_every_script_are(name):
    require_name("label", name)


@pytest.fixture
def client(gallery, runner):
    settings = Settings(checkpoint="unused", gallery="unused", allowed_hosts=["testserver"])
    with TestClient(create_app(gallery, runner, settings)) as client:
        yield client


def test_over_http(client, picture, subtests):
    for number, field in enumerate(["label", "camera", "site", "viewpoint", "origin", "key"]):
        with subtests.test(field):
            said = {"metadata": json.dumps([{field: "a\u202eb"}, {field: "ada"}])}
            images = [("images", ("a.png", picture(99))), ("images", ("b.png", picture(number)))]
            answer = client.post("/v1/items", files=images, data=said)
            refused, taken = answer.json()["results"]
            assert (answer.status_code, refused["error"]["code"], taken["result"]) == (207, "unusable_text", "created")
            path = f"/v1/items/{taken['item']['item_id']}"
            changed = client.patch(path, json={field: " "})
            assert (changed.status_code, changed.json()["code"]) == (422, "unusable_text")
            assert client.get(path).json()[field] == "ada"


def test_in_folders_and_tables(gallery, picture, tmp_path, caplog):
    for number, folder in enumerate(["ada", "b\u202eb", "\u3000"]):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        (tmp_path / "photos" / folder / "a.png").write_bytes(picture(number))
    with open(tmp_path / "table.csv", "w", newline="") as file:
        written = csv.writer(file)
        written.writerow(["path", "label"])
        for number, label in enumerate(["cleo", "d\u2066d"], 3):
            (tmp_path / f"{number}.png").write_bytes(picture(number))
            written.writerow([f"{number}.png", label])
    photos = [*source_of(tmp_path / "photos", AS_IT_IS, by_folder=True).photos(), *find_photos(tmp_path / "table.csv")]
    counts = enrol(gallery, photos)
    assert [name for name, _ in gallery.store.labels(Filter())] == ["cleo"]
    assert {name for name, _ in gallery.store.cameras(Filter())} == {"ada"}
    assert counts["failed"] == 3
    assert caplog.text.count("which a list cannot show") == 2


def test_renaming_somebody(gallery, picture):
    gallery.enrol([Upload("a.png", picture(1), Details(label="ada"))])
    identities = Identities(gallery.database)
    (item,) = gallery.store.page(Filter(), 0, 1)
    with pytest.raises(UnusableText, match="U\\+202E"):
        identities.rename(item.identity_id, "\u202eada")
    assert identities.get(item.identity_id).name == "ada"


def test_every_character_is_taken_or_refused_by_its_kind_alone_and_among_letters():
    """Also where Python can tell sooner."""
    letters = {"Cc", "Zl", "Zp"}
    overrides = set(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
    for character in map(chr, [*range(0x3100), *range(0xD7F0, 0xFFFF + 1), *range(0xE0000, 0xE0100)]):
        kind = unicodedata.category(character)
        for name, taken in (
            (character, kind[0] not in "CZ"),
            (f"a{character}", kind not in letters and character not in overrides),
        ):
            if taken:
                require_name("label", name)
            else:
                with pytest.raises(UnusableText):
                    require_name("label", name)
