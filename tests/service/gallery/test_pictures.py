import hashlib
import io
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid.data.images import MAX_SIDE, decode, read_image
from service.gallery.copies import WEBP_SIDE, lossless
from service.gallery.pictures import Pictures
from service.records import NotFound
from tests.drawn import SRGB, clear_palette, encode, frames, noise, oriented, pixels, sixteen_bit, zip_archive
from tests.waiting import DEADLINE

ACCEPTED = (
    {
        "rgb.jpg": lambda: encode(noise(), "JPEG"),
        "progressive.jpg": lambda: encode(noise(), "JPEG", progressive=True),
        "grey.jpg": lambda: encode(noise().convert("L"), "JPEG"),
        "cmyk.jpg": lambda: encode(noise().convert("CMYK"), "JPEG"),
        "profile.jpg": lambda: encode(noise(), "JPEG", icc_profile=SRGB, comment="taken at home"),
        "several.jpg": lambda: frames("MPO"),  # as many phones write it
        "jpeg_and_zip.jpg": lambda: encode(noise(), "JPEG") + zip_archive(),
        "jpeg_and_html.jpg": lambda: encode(noise(), "JPEG") + b"<html><script>alert(1)</script></html>",
        "rgb.png": lambda: encode(noise(), "PNG"),
        "alpha.png": lambda: encode(Image.merge("RGBA", [*noise().split(), noise().convert("L")]), "PNG"),
        "grey_alpha.png": lambda: encode(Image.merge("LA", noise().split()[:2]), "PNG"),
        "key.png": lambda: encode(noise(), "PNG", transparency=noise().getpixel((3, 3))),
        "one_bit.png": lambda: encode(noise().convert("1"), "PNG"),
        "sixteen_bit.png": lambda: encode(sixteen_bit(), "PNG"),
        "palette.png": lambda: encode(noise().convert("P"), "PNG"),
        "palette_clear.png": clear_palette,
        "animated.png": lambda: frames("PNG"),
        "profile.png": lambda: encode(noise(), "PNG", icc_profile=SRGB),
        "wide.png": lambda: encode(noise((MAX_SIDE, 1)), "PNG"),
        "lossy.webp": lambda: encode(noise(), "WEBP"),
        "alpha.webp": lambda: encode(noise().convert("RGBA"), "WEBP", lossless=True),
        "animated.webp": lambda: frames("WEBP"),
        "rgb.bmp": lambda: encode(noise(), "BMP"),
        "palette.bmp": lambda: encode(noise().convert("P"), "BMP"),
        "jpeg_inside.png": lambda: encode(noise(), "JPEG"),  # the bytes decide, not the name
    }
    | {
        f"orientation_{n}.{extension}": lambda n=n, form=form: encode(noise(), form, exif=oriented(n))
        for n in range(1, 9)
        for extension, form in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"))
    }
)


def sha256_of(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_copy_holds_the_very_pixels_and_nothing_else(tmp_path, name):
    data = ACCEPTED[name]()
    image = decode(data)
    pictures = Pictures(tmp_path / "images")
    pictures.save({sha256_of(data): lossless(image)})
    copy = pictures.read(sha256_of(data))
    assert np.array_equal(pixels(decode(copy)), pixels(image))
    chunks = Image.open(io.BytesIO(copy))
    assert chunks.format == ("PNG" if max(image.size) > WEBP_SIDE else "WEBP")
    assert not {"exif", "icc_profile", "xmp", "comment"} & set(chunks.info)
    assert not any(word in copy for word in (b"maker-of-cameras", b"hidden", b"script", b"at home", b"PK\x03\x04"))


def test_a_copy_sheds_what_the_picture_still_carries(tmp_path):
    """Also pictures that were read elsewhere; the colour profile alone stays, for pixels that it was not applied to."""
    image = Image.open(io.BytesIO(encode(noise(), "PNG", exif=oriented(1), icc_profile=SRGB)))
    image.load()
    pictures = Pictures(tmp_path)
    pictures.save({"a" * 64: lossless(image)})
    kept = Image.open(io.BytesIO(pictures.read("a" * 64)))
    assert "exif" not in kept.info and kept.info["icc_profile"] == SRGB
    assert {"exif", "icc_profile"} <= set(image.info)  # the caller's picture is as it was


def test_saving_again_changes_nothing_but_replaces_other_bytes(tmp_path):
    pictures, copy = Pictures(tmp_path), lossless(noise(seed=0))
    pictures.save({"a" * 64: copy})
    before = pictures.path("a" * 64).stat().st_ino
    pictures.save({"a" * 64: copy})
    assert pictures.path("a" * 64).stat().st_ino == before
    pictures.path("a" * 64).write_bytes(copy[:-1] + b"x")
    pictures.save({"a" * 64: copy})
    assert Pictures(tmp_path).read("a" * 64) == copy


def test_a_copy_is_given_only_as_it_was_written(tmp_path):
    pictures, copy = Pictures(tmp_path), lossless(noise())
    pictures.save({"a" * 64: copy})
    checksum = sha256_of(copy)
    assert pictures.read("a" * 64, checksum) == copy
    assert pictures.sound("a" * 64, checksum) and pictures.sound("a" * 64, None)
    damaged = bytearray(copy)
    damaged[len(copy) // 2] ^= 1
    pictures.path("a" * 64).write_bytes(damaged)
    with pytest.raises(NotFound, match="damaged; enrolling the photo again mends it"):
        pictures.read("a" * 64, checksum)
    assert not pictures.sound("a" * 64, checksum) and not pictures.sound("b" * 64, None)


def test_many_threads_may_save_the_same_picture(tmp_path):
    pictures, start, image = Pictures(tmp_path), threading.Barrier(8), noise((200, 200))

    def save(_):
        start.wait(DEADLINE)
        for digit in "abcdef":
            pictures.save({digit * 64: lossless(image)})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(save, range(8)))
    for digit in "abcdef":
        assert np.array_equal(pixels(decode(pictures.read(digit * 64))), pixels(image))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 6


def test_a_folder_is_made_with_its_first_copy_and_is_durable_with_it(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr("os.fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    pictures, copies = Pictures(tmp_path / "pictures"), {"a" * 64: lossless(noise())}
    assert not list((tmp_path / "pictures").iterdir())
    pictures.save(copies)
    assert {str(tmp_path), str(tmp_path / "pictures"), str(tmp_path / "pictures" / "aa")} <= {*synced}
    synced.clear()
    Pictures(tmp_path / "pictures").save(copies)  # another process, which cannot know that the first got so far
    assert str(tmp_path / "pictures") in synced
    synced.clear()
    pictures.save(copies)
    assert synced == [str(tmp_path / "pictures" / "aa")]


def test_a_copy_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    pictures = Pictures(tmp_path)
    pictures.make_folders(["a" * 64])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"a\.webp: could not be written \(No space left on device\)"):
            pictures.save({"a" * 64: lossless(noise())})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    pictures.save({"a" * 64: lossless(noise())})
    assert pictures.read("a" * 64)


def test_a_deleted_copy_is_gone(tmp_path):
    pictures = Pictures(tmp_path)
    pictures.save({"a" * 64: lossless(noise())})
    pictures.delete("a" * 64)
    pictures.delete("a" * 64)
    with pytest.raises(NotFound, match=f"picture {'a' * 64}: no copy of it is kept"):
        pictures.read("a" * 64)


def test_a_sweep_takes_orphans_and_what_a_kill_left(tmp_path):
    pictures = Pictures(tmp_path)
    for digit in "abc":
        pictures.save({digit * 64: lossless(noise())})
    half = tmp_path / "aa" / f".{'a' * 64}.webp.{'0' * 32}.tmp"
    half.write_bytes(b"RIFF")
    foreign = tmp_path / "aa" / "notes.txt"
    foreign.write_text("not ours to remove")
    pictures.save({"d" * 64: lossless(noise())})
    (aside,) = pictures.sweep({"a" * 64, "b" * 64}, lambda asked: {"d" * 64: datetime.now(UTC)})
    assert not half.exists() and foreign.exists()
    assert pictures.read("a" * 64) and pictures.read("b" * 64)
    for digit in "cd":
        with pytest.raises(NotFound):
            pictures.read(digit * 64)
    assert aside.name == f"{'c' * 64}.webp" and list(aside.parent.iterdir()) == [aside]  # the other was to go
    long_ago = datetime(2025, 1, 1, tzinfo=UTC)
    assert pictures.sweep({"a" * 64, "c" * 64}, lambda asked: {"b" * 64: long_ago}) == [
        aside.with_name(f"{'b' * 64}.webp")
    ]
    assert pictures.read("c" * 64)
    removed, size = pictures.remove_orphans({"a" * 64, "c" * 64})  # the copy of b, written after that deletion
    assert removed == 1 and size > 0
    assert not aside.parent.exists() and pictures.read("a" * 64)


def nothing_deleted(asked):
    return {}


def test_removing_what_was_set_aside_spares_what_is_known_again(tmp_path):
    pictures = Pictures(tmp_path)
    pictures.save({digit * 64: lossless(noise()) for digit in "abc"})
    assert len(pictures.sweep(set(), nothing_deleted)) == 3
    pictures.save({"b" * 64: lossless(noise())})  # enrolled again
    removed, _ = pictures.remove_orphans({"a" * 64, "b" * 64})
    assert removed == 1
    assert pictures.read("a" * 64) and pictures.read("b" * 64)
    assert not pictures.holds("c" * 64)
    assert not list((tmp_path / "orphans").iterdir())


def test_a_photo_that_is_deleted_leaves_no_copy_that_was_set_aside(tmp_path):
    """Whether a start came between its second enrolment and its deletion or not."""
    pictures = Pictures(tmp_path)
    pictures.save({digit * 64: lossless(noise()) for digit in "ab"})
    assert len(pictures.sweep(set(), nothing_deleted)) == 2
    pictures.save({"a" * 64: lossless(noise())})
    assert pictures.sweep({"a" * 64}, nothing_deleted) == []
    pictures.delete("a" * 64)
    assert pictures.sweep(set(), lambda asked: {one: datetime.now(UTC) for one in asked}) == []
    assert not list(tmp_path.rglob("*.webp"))


def test_what_another_process_has_just_finished_does_not_stop_a_sweep(tmp_path, monkeypatch):
    gone = tmp_path / "aa" / f".{'a' * 64}.webp.{'0' * 32}.tmp"
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: [gone] if pattern == "??/*" else [])
    assert Pictures(tmp_path).sweep(set(), nothing_deleted) == []


def test_deleting_waits_until_nobody_keeps(tmp_path):
    pictures = Pictures(tmp_path)
    for digit in "abc":
        pictures.save({digit * 64: lossless(noise())})
    with pictures.kept():
        with pictures.kept():
            pictures.delete("a" * 64)
            pictures.delete("b" * 64)
        pictures.delete("d" * 64)  # never there
        assert pictures.path("a" * 64).is_file() and pictures.path("b" * 64).is_file()
        assert [pictures.holds(digit * 64) for digit in "abcd"] == [False, False, True, False]
        pictures.save({"b" * 64: lossless(noise())})
        assert pictures.holds("b" * 64)
    assert [pictures.path(digit * 64).is_file() for digit in "abc"] == [False, True, True]
    pictures.delete("b" * 64)
    assert not pictures.path("b" * 64).exists()


def test_what_was_deleted_goes_also_when_the_keeper_fails(tmp_path):
    pictures = Pictures(tmp_path)
    pictures.save({"a" * 64: lossless(noise())})
    with pytest.raises(RuntimeError), pictures.kept():
        pictures.delete("a" * 64)
        raise RuntimeError
    assert not pictures.path("a" * 64).exists()


def test_a_kill_while_deletions_wait_leaves_them_to_the_sweep(tmp_path):
    killed = Pictures(tmp_path)
    for digit in "ab":
        killed.save({digit * 64: lossless(noise())})
    with killed.kept():
        killed.delete("a" * 64)
        restarted = Pictures(tmp_path)
        assert restarted.sweep({"b" * 64}, lambda asked: {"a" * 64: datetime.now(UTC)}) == []
        assert [restarted.path(digit * 64).is_file() for digit in "ab"] == [False, True]


def test_threads_may_keep_save_and_delete_at_once(tmp_path):
    """Each thread owns some copies, so it knows at any moment which of them must be there."""
    pictures, image = Pictures(tmp_path), noise((4, 4))

    def change(digit):
        chance, wanted = random.Random(digit), set()
        for _ in range(100):
            sha256 = digit * 63 + chance.choice("0123")
            if chance.random() < 0.5:
                pictures.save({sha256: lossless(image)})
                wanted.add(sha256)
            else:
                with pictures.kept():
                    pictures.delete(sha256)
                    assert pictures.path(sha256).exists() or sha256 not in wanted
                wanted.discard(sha256)
            assert all(pictures.path(one).is_file() for one in wanted)
        return wanted

    with ThreadPoolExecutor(4) as threads:
        wanted = set.union(*threads.map(change, "abcd"))
    assert {path.stem for path in tmp_path.rglob("*.webp")} == wanted


@pytest.mark.parametrize(
    "sha256",
    ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "../" * 21 + "a", "/" + "a" * 63, "a" * 63 + "\0"],
)
def test_only_a_sha256_names_a_copy(tmp_path, sha256):
    pictures = Pictures(tmp_path / "images")
    before = sorted(tmp_path.rglob("*"))
    for ask in (pictures.path, pictures.holds, pictures.read, pictures.delete):
        with pytest.raises(ValueError, match="expected a SHA-256 of 64 hexadecimal digits in lower case"):
            ask(sha256)
    with pytest.raises(ValueError, match="expected a SHA-256"):
        pictures.save({sha256: lossless(noise())})
    assert sorted(tmp_path.rglob("*")) == before


def test_real_photos_are_kept_as_they_are(tmp_path, real_photos):
    pictures = Pictures(tmp_path)
    for path in sorted((real_photos / "nyala" / "image_query").glob("*.jpg"))[:10]:
        data = path.read_bytes()
        pictures.save({sha256_of(data): lossless(decode(data))})
        assert np.array_equal(pixels(decode(pictures.read(sha256_of(data)))), pixels(read_image(path)))
