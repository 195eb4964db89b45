"""Photos that are made to take all there is: time, memory, processes."""

import os
import resource
import signal
import struct
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid.data.images import UnknownFormat, UnusableImage
from service.gallery import decoder as decoder_module
from service.gallery import decoders as decoders_module
from service.gallery.batcher import Busy, Closed
from service.gallery.decoders import LEFT, Decoders, Left, OverBudget
from service.gallery.rendering import Order, render
from service.records import Region, UnusableBox
from tests.drawn import encode, noise
from tests.waiting import DEADLINE, wait_until

VIEW = Order(["view"], view=(8, 4))


@pytest.fixture(scope="module")
def decoders():
    with Decoders(3, seconds=0.5) as opened:
        yield opened


def many_scans(side=4000, scans=400):
    """A progressive JPEG file whose last scan, of a few bytes for all the blocks, comes again and again."""
    data = encode(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    end = data.rindex(b"\xff\xd9")
    return data[:end] + data[data.rindex(b"\xff\xda") : end] * scans + data[end:]


def run_lengths(side=4000):
    """A BMP file that says of each row that it has one pixel, and leaves the others to the reader."""
    body = b"\1\0\0\0" * side + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    offset = 14 + len(header) + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + bytes(1024) + body


def deflated_text(size=20 * 2**20):
    """A PNG file with text that is inflated while its header is read."""
    data = encode(noise(), "PNG")
    packed = zlib.compress(bytes(size), 9)
    content = b"iTXta\0\1\0\0\0" + packed
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return data[:33] + chunk + data[33:]


def test_a_decoder_gives_what_this_process_would(decoders):
    data = encode(noise((40, 30)), "JPEG")
    order = Order(
        ["view", "shown", "thumbnail", "picture"], (None, Region(1, 2, 9, 9), Region(39, 0, 2, 2)), (8, 4), copy=True
    )
    there, here = decoders.render("a", data, order), render(data, order)
    assert (there.width, there.height, there.copy) == (here.width, here.height, here.copy)
    for one, other in zip(there.parts[:2], here.parts[:2], strict=True):
        assert [np.asarray(made).tolist() for made in one[:2]] == [np.asarray(made).tolist() for made in other[:2]]
        assert one[2:] == other[2:]
    assert isinstance(there.parts[2], UnusableBox) and str(there.parts[2]) == str(here.parts[2])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF", "PPM"])
def test_every_format_is_read_where_no_file_can_be_opened(decoders, form):
    from pillow_heif import register_heif_opener

    register_heif_opener()
    rendered = decoders.render("a", encode(noise((40, 30)), form), Order(["view"], view=(8, 4), copy=True))
    assert (rendered.width, rendered.height) == (40, 30)


def test_refusals_are_those_of_this_process(decoders):
    with pytest.raises(UnknownFormat, match="^the file is empty$"):
        decoders.render("a", b"", VIEW)
    with pytest.raises(UnusableImage, match="^the image is damaged or cut short"):
        decoders.render("a", encode(noise((400, 300)), "JPEG")[:900], VIEW)


def test_the_limit_of_pixels_is_that_of_the_service(monkeypatch):
    monkeypatch.setenv("REID_MAX_MEGAPIXELS", "0.001")
    with Decoders(2) as some, pytest.raises(UnusableImage, match=r"at most 1,000 \(REID_MAX_MEGAPIXELS\)"):
        some.render("a", encode(noise((40, 30)), "PNG"), VIEW)


@pytest.mark.parametrize("attack", [many_scans, run_lengths])
def test_a_small_file_that_takes_minutes_is_given_up_and_the_next_is_read(decoders, attack, caplog):
    data = attack()
    assert len(data) < 100_000
    with pytest.raises(OverBudget, match=r"takes more than the 1\.03 s of a processor .* \(REID_DECODE_SECONDS\)$"):
        decoders.render("a", data, VIEW)
    assert "warning: ended a process that read a photo of a: the image takes more than" in caplog.text
    assert decoders.render("a", encode(noise(), "PNG"), VIEW).width == noise().width


def test_text_that_is_inflated_is_bounded(decoders):
    with pytest.raises(UnusableImage, match="Decompressed data too large"):
        decoders.render("a", deflated_text(), VIEW)


def test_memory_is_bounded_by_the_size_of_the_picture(monkeypatch):
    monkeypatch.setattr(decoder_module, "SPARE_BYTES", 2**20)
    monkeypatch.setattr(decoder_module, "BYTES_PER_PIXEL", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    occupied = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    try:
        with decoder_module._within(DEADLINE, occupied, 2**20), pytest.raises(MemoryError):
            np.ones(2**27)
        with (
            pytest.raises(UnusableImage, match="^the image takes more than 1 MiB of memory, all that its size allows$"),
            decoder_module._within(DEADLINE, occupied, 2**20),
        ):
            np.ones(2**27)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def signal_all(decoders, number):
    for process in list(decoders._processes):
        os.kill(process.pid, number)


def test_a_process_that_dies_is_replaced(caplog):
    data = encode(noise(), "PNG")
    with Decoders(2, seconds=60) as some:
        wait_until(lambda: len(some._processes) == 2)
        assert some.render("a", data, VIEW).width == 31
        signal_all(some, signal.SIGSTOP)  # so that the photo is sent to one that is there, and ends before it takes it
        innocent = some.submit("a", data, VIEW, lambda rendered: rendered.width)
        wait_until(innocent.running)
        signal_all(some, signal.SIGKILL)
        assert innocent.result(DEADLINE) == 31
        assert "warning" not in caplog.text
        attack = some.submit("a", many_scans(scans=4000), VIEW, id)
        wait_until(lambda: some._pixels)  # by which it was taken
        signal_all(some, signal.SIGKILL)
        with pytest.raises(UnusableImage, match=r"^the image ended the process that read it \(SIGKILL\)$"):
            attack.result(DEADLINE)
        assert some.render("a", data, VIEW).width == 31


def test_processes_that_only_die_are_not_the_fault_of_a_photo(monkeypatch):
    monkeypatch.setattr(decoders_module.sys, "executable", "/bin/false")
    with Decoders(2) as some, pytest.raises(RuntimeError, match=r"ended before it took one \(exit code 1\)$"):
        some.render("a", encode(noise(), "PNG"), VIEW)


def test_no_share_has_all_processes():
    """While the photos of one wait for each other, another is answered."""
    release, begun = threading.Event(), threading.Semaphore(0)

    def hold(rendered):
        begun.release()
        release.wait(DEADLINE)
        return rendered.width

    data = encode(noise(), "PNG")
    with Decoders(3) as some:
        held = [some.submit("a", data, VIEW, hold) for _ in range(5)]
        for _ in range(2):
            assert begun.acquire(timeout=DEADLINE)
        assert some.render("b", data, VIEW).width == 31
        assert not begun.acquire(blocking=False)
        assert [one.running() for one in held] == [True, True, False, False, False]
        release.set()
        assert [one.result(DEADLINE) for one in held] == [31] * 5


def test_the_share_with_least_at_work_is_next():
    release, go_on, order = threading.Event(), threading.Event(), []
    data = encode(noise(), "PNG")

    def hold(share):
        order.append(share)
        assert go_on.wait(DEADLINE)

    with Decoders(2) as some:
        first = some.submit("a", data, VIEW, lambda _: release.wait(DEADLINE))
        wait_until(first.running)
        other = some.submit("c", data, VIEW, lambda _: release.wait(DEADLINE))
        wait_until(other.running)
        later = [some.submit(share, data, VIEW, lambda _, share=share: hold(share)) for share in "aaab"]
        release.set()
        wait_until(lambda: len(order) == 2)  # and no process is free for a third
        assert sorted(order) == ["a", "b"]
        go_on.set()
        for one in later:
            one.result(DEADLINE)


def test_a_photo_is_not_read_once_who_asked_has_left():
    release, left = threading.Event(), threading.Event()
    data = encode(noise(), "PNG")
    with Decoders(2) as some:
        held = [some.submit(share, data, VIEW, lambda _: release.wait(DEADLINE)) for share in "ab"]
        wait_until(lambda: all(one.running() for one in held))
        before = LEFT.set(left)
        gone = some.submit("c", data, VIEW, lambda rendered: pytest.fail("it was read"))
        LEFT.reset(before)
        stays = some.submit("c", data, VIEW, lambda rendered: rendered.width)
        left.set()
        release.set()
        with pytest.raises(Left, match="^whoever asked for this photo has left$"):
            gone.result(DEADLINE)
        assert stays.result(DEADLINE) == 31


def test_large_photos_wait_for_room(monkeypatch):
    monkeypatch.setattr(decoders_module, "PIXELS_AT_ONCE", 10_000_000)
    working, most, changing = 0, 0, threading.Lock()
    with Decoders(4) as some:
        room = some._room

        def watched(pixels):
            nonlocal working, most
            with room(pixels):
                with changing:
                    working += pixels
                    most = max(most, working)
                yield
                with changing:
                    working -= pixels

        monkeypatch.setattr(some, "_room", contextmanager(watched))
        data = encode(Image.new("L", (2100, 2000)), "PNG")
        results = [some.submit("a", data, VIEW, lambda rendered: rendered.width) for _ in range(4)]
        assert [one.result(DEADLINE) for one in results] == [2100] * 4
        alone = encode(Image.new("L", (4000, 3000)), "PNG")  # larger than all the room, and yet read
        assert some.render("a", alone, VIEW).width == 4000
    assert most == 12_000_000
    assert some._pixels == 0


def test_what_comes_while_others_wait_for_room_is_read(monkeypatch):
    """Whoever waits for room comes to be the first that waits, and is not the only one to be told of a photo."""
    monkeypatch.setattr(decoders_module, "PIXELS_AT_ONCE", 1)
    release, asked = threading.Event(), threading.Semaphore(0)
    large, small = encode(Image.new("L", (2100, 2000)), "PNG"), encode(noise(), "PNG")
    with Decoders(4) as some:
        room = some._room

        @contextmanager
        def watched(pixels):
            asked.release()
            with room(pixels):
                release.wait(DEADLINE)
                yield

        monkeypatch.setattr(some, "_room", watched)
        held = [some.submit("a", large, VIEW, lambda rendered: rendered.width) for _ in range(2)]
        for _ in held:
            assert asked.acquire(timeout=DEADLINE)
        for _ in range(4):
            wait_until(lambda: len(some._changed._waiters) == 3)  # one for room, two for something to do
            assert some.submit("b", small, VIEW, lambda rendered: rendered.width).result(DEADLINE) == 31
        assert not any(one.done() for one in held)
        release.set()
        assert [one.result(DEADLINE) for one in held] == [2100, 2100]


def test_a_process_that_cannot_be_started_is_tried_again(monkeypatch, caplog):
    monkeypatch.setattr(decoders_module, "SECONDS_TO_TRY_AGAIN", 0.01)
    failed, start = threading.Semaphore(0), decoders_module.subprocess.Popen

    def fail(*_, **__):
        failed.release()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(decoders_module.subprocess, "Popen", fail)
    with Decoders(2) as some:
        asked = some.submit("a", encode(noise(), "PNG"), VIEW, lambda rendered: rendered.width)
        for _ in range(3):
            assert failed.acquire(timeout=DEADLINE)
        monkeypatch.setattr(decoders_module.subprocess, "Popen", start)
        assert asked.result(DEADLINE) == 31
    assert "a process that reads photos could not be started ([Errno 24] Too many open files)" in caplog.text


def test_a_decoder_is_told_no_secrets(monkeypatch):
    for name in ("REID_ADMIN_KEY", "REID_DATABASE", "REID_MILVUS_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, "not-for-photos")
    monkeypatch.setenv("REID_MAX_MEGAPIXELS", "7")
    with Decoders(2) as some:
        (pid, *_) = wait_until(lambda: [one.pid for one in some._processes])
        some.render("a", encode(noise(), "PNG"), VIEW)
        told = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"not-for-photos" not in told
    assert b"REID_MAX_MEGAPIXELS=7" in told
    assert b"MALLOC_ARENA_MAX=1" in told  # and what it took for a large photo goes back


def test_what_waits_of_one_share_is_bounded(monkeypatch):
    data = encode(noise(), "PNG")
    monkeypatch.setattr(decoders_module, "BYTES_WAITING", 3 * len(data))
    release = threading.Event()
    with Decoders(2) as some:
        held = [some.submit("a", data, VIEW, lambda _: release.wait(DEADLINE)) for _ in range(3)]
        with pytest.raises(Busy, match="jobs are waiting"):
            some.submit("a", data, VIEW, id)
        assert some.render("b", data, VIEW).width == 31
        release.set()
        assert all(one.result(DEADLINE) for one in held)
        assert some.submit("a", data, VIEW, lambda rendered: rendered.width).result(DEADLINE) == 31


def test_a_close_ends_what_is_at_work_and_what_waits():
    some = Decoders(2, seconds=60)
    attack = many_scans(scans=4000)
    pids = wait_until(lambda: len(some._processes) == 2 and [one.pid for one in some._processes])
    waiting = [some.submit("a", attack, VIEW, id) for _ in range(3)]
    wait_until(waiting[0].running)
    some.close()
    for one in waiting:
        with pytest.raises(Closed):
            one.result(0)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(Closed):
        some.submit("a", attack, VIEW, id)


def test_a_decoder_can_open_no_file(decoders):
    """Neither is there one left to it but the socket on which it answers."""

    def files(process):
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        return next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))

    wait_until(lambda: decoders._processes)
    decoders.render("a", encode(noise(), "PNG"), VIEW)
    # The others may be starting yet; each gives up its files before it reads its first photo.
    wait_until(lambda: all(files(process) == ["0", "0"] for process in decoders._processes))
