import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from reid.data.times import AmbiguousDates, Clock, choose_clock, read_zone, with_clock

MINUTE = datetime(2026, 5, 3, 6, 41)
SECOND = datetime(2026, 5, 3, 6, 41, 9)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-05-03", datetime(2026, 5, 3)),
        ("20260503", datetime(2026, 5, 3)),
        ("2026-5-3", datetime(2026, 5, 3)),
        ("2026/05/03 06:41", MINUTE),
        ("2026-05-03 06:41", MINUTE),
        ("2026-05-03T06:41:09", SECOND),
        ("2026:05:03 06:41:09", SECOND),
        ("2026:05:03 06:41:09.25", SECOND.replace(microsecond=250_000)),
        ("03.05.2026 06:41", MINUTE),
        ("3.5.2026, 6:41", MINUTE),
        ("13/05/2026", datetime(2026, 5, 13)),
        ("05/13/2026 6:41 PM", datetime(2026, 5, 13, 18, 41)),
        ("05/13/2026 12:05 AM", datetime(2026, 5, 13, 0, 5)),
        ("05/13/2026 00:05 AM", datetime(2026, 5, 13, 0, 5)),
        ("05/13/2026 18:41 PM", datetime(2026, 5, 13, 18, 41)),
        ("05/05/2026", datetime(2026, 5, 5)),
        ("3 May 2026", datetime(2026, 5, 3)),
        ("03-May-26", datetime(2026, 5, 3)),
        ("3-may-1998 6:41", MINUTE.replace(year=1998)),
        ("May 3, 2026 6:41:09 AM", SECOND),
        ("13 Sept. 2026", datetime(2026, 9, 13)),
        ("46145", datetime(2026, 5, 3)),
        ("46145,278576388890", SECOND),  # of a table with semicolons between cells
        ("46145.278576388890", SECOND),
        ("2026-05-03T06:41:09Z", SECOND.replace(tzinfo=UTC)),
        ("2026-05-03 06:41:09 +0200", SECOND.replace(tzinfo=timezone(timedelta(hours=2)))),
        ("2026:05:03 06:41:09-03:30", SECOND.replace(tzinfo=timezone(-timedelta(hours=3, minutes=30)))),
    ],
)
def test_one_moment_in_many_forms(text: str, time: datetime) -> None:
    assert Clock().read(text) == time
    assert (Clock().read(text).tzinfo is None) == (time.tzinfo is None)


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "2026", "12.5", "2026-13-01", "2026-02-30", "05/03/26", "6:41", "1e4", "nan"),
        *("3 Mai 2026", "32 May 2026", "46,145", "26-May"),
        *("2026-05-13 17:00 AM", "2026:05:03 06:41:09+24:00"),
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"found '{text}'")):
        Clock().read(text)


@pytest.mark.parametrize(
    ("date", "time", "text"),
    [
        ("2026-05-03", "06:41", "2026-05-03 06:41"),
        ("3-May-26", "6:41:09 AM", "3-May-26 6:41:09 AM"),
        ("2026-05-03 06:41", "07:00", "2026-05-03 06:41"),  # which has its clock
        ("2026-05-03", "night", "2026-05-03"),
        ("2026-05-03", "", "2026-05-03"),
        ("", "06:41", ""),
    ],
)
def test_date_and_clock_in_two_columns(date: str, time: str, text: str) -> None:
    assert with_clock(date, time) == text


def test_day_and_month_are_not_guessed() -> None:
    with pytest.raises(
        AmbiguousDates, match="'05/03/2026' may have the day or the month first; say --dates day-first or"
    ):
        Clock().read("05/03/2026")
    assert Clock(dates="day-first").read("05/03/2026") == datetime(2026, 3, 5)
    assert Clock(dates="month-first").read("05-03-2026") == datetime(2026, 5, 3)
    assert Clock(dates="month-first").read("13/05/2026") == datetime(2026, 5, 13)  # there is no 13th month


@pytest.mark.parametrize(("shown", "month"), [("25/03/2026", 3), ("03/25/2026", 5)])
def test_another_date_of_the_column_shows_the_order(shown: str, month: int) -> None:
    assert choose_clock(["05/03/2026", shown], UTC).read("05/03/2026").month == month


def test_dates_that_contradict_each_other() -> None:
    with pytest.raises(
        ValueError, match="'25/03/2026' and '03/25/2026' have the day and the month in different places"
    ):
        choose_clock(["25/03/2026", "03/25/2026"], UTC)


def test_the_zone_of_clocks_that_do_not_say_it() -> None:
    with pytest.raises(ValueError, match="1 of 2 times do not say their time zone, such as '2026-05-03'; .*--timezone"):
        choose_clock(["2026-05-03", "2026-05-03T06:00:00Z"])
    summer = choose_clock(["2026-07-01 12:00"], read_zone("Europe/Berlin"))
    assert summer.read("2026-07-01 12:00").isoformat() == "2026-07-01T12:00:00+02:00"
    assert summer.read("2026-01-01 12:00").isoformat() == "2026-01-01T12:00:00+01:00"
    assert summer.read("2026-07-01T12:00:00Z").isoformat() == "2026-07-01T12:00:00+00:00"
    assert choose_clock(["soon", ""]) == Clock()


def test_zones() -> None:
    assert read_zone("+02:00").utcoffset(None) == read_zone("+0200").utcoffset(None) == timedelta(hours=2)
    assert read_zone("utc") is UTC
    for text in ("Mars/Olympus", "", "../etc/passwd", "+2", "+25:00", "+02:60"):
        with pytest.raises(ValueError, match="expected a time zone such as Africa/Johannesburg or"):
            read_zone(text)
