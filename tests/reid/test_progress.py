import logging

import pytest

from reid import progress
from reid.progress import Progress, duration, track


@pytest.fixture
def said(monkeypatch, caplog):
    """What is logged where no terminal is, with a clock that each look at it moves by 10 s and a line every 20 s."""
    ticks = iter(range(0, 10_000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 20)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO, "reid")
    return caplog


def test_lines_tell_what_is_done_and_what_is_left(said):
    assert list(track("abcdef", 6, "reading")) == list("abcdef")
    assert said.messages == [
        "reading: 2 of 6, 0.1 a second, about 40s left",
        "reading: 4 of 6, 0.1 a second, about 20s left",
    ]


def test_blocks_and_a_later_start_count(said):
    show = Progress("ranking", initial=100)
    for done in (100, 150, 200, 300):
        show(done, 300)
    assert said.messages == ["ranking: 150 of 300, 2.5 a second, about 1m00s left"]


def test_one_of_several_processes_has_lines_on_a_terminal_too(said, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    show = Progress("embedding", bar=False)
    for done in (0, 90_000, 100_000):
        show(done, 100_000)
    assert said.messages == ["embedding: 90000 of 100000, 4,500 a second, about 2s left"]


def test_durations_read_like_a_clock():
    assert [duration(seconds) for seconds in (0.4, 42, 185, 7800)] == ["0s", "42s", "3m05s", "2h10m"]
