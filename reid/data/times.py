"""Times as people write them in tables: ISO 8601, EXIF, with slashes, dots or months in English, and as numbers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Literal, NoReturn
from zoneinfo import ZoneInfo

from reid.names import counted

DateOrder = Literal["day-first", "month-first"]

SPREADSHEET_START = datetime(1899, 12, 30)
SPREADSHEET_DAYS = (20_000, 80_000)  # 1954 to 2119: other numbers are no dates
DATE = r"(?P<a>\d{1,4})(?P<between>[-:./])(?P<b>\d{1,2})(?P=between)(?P<c>\d{1,4})"
CLOCK = r"(?P<hour>\d{1,2})[:h](?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d{1,9}))?)?"
HALF = r"(?: ?(?P<half>[ap])\.?m\.?)?"
ZONE = r" ?(?P<zone>Z|[+-]\d{2}:?\d{2})?"
WRITTEN = re.compile(rf"{DATE}(?:(?:[ T]+|, ?){CLOCK}{HALF})?{ZONE}", re.IGNORECASE)
TIME_OF_DAY = re.compile(rf"{CLOCK}{HALF}{ZONE}", re.IGNORECASE)
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
MONTH = rf"(?P<month>{'|'.join(MONTHS)})[a-z]*\.?"
# 3 May 2026, 03-May-26 as Excel writes it, May 3, 2026, each perhaps with a clock behind it.
IN_WORDS = (
    re.compile(rf"(?P<day>\d{{1,2}})[ -]{MONTH}[ -](?P<year>\d{{4}}|\d\d)(?P<rest>\D.*)?", re.IGNORECASE),
    re.compile(rf"{MONTH} (?P<day>\d{{1,2}}),? (?P<year>\d{{4}})(?P<rest>\D.*)?", re.IGNORECASE),
)
CENTURY_SPLIT = 70  # 69 is 2069 and 70 is 1970, as in POSIX
OFFSET = re.compile(r"([+-])([01]\d|2[0-3]):?([0-5]\d)")
EXPECTED = "expected a date or a time, as 2025-03-01 or 2025-03-01 09:30:00"


class AmbiguousDates(ValueError):
    """Dates that could be read with the day or with the month first."""


@dataclass(frozen=True)
class Clock:
    """How the times of a table are read: in which `zone` those are that do not say theirs, and in which order dates."""

    zone: tzinfo | None = None
    dates: DateOrder | None = None

    def read(self, text: str) -> datetime:
        """The time that a text means, a date alone at its first moment; without a zone where none is known.

        Raises AmbiguousDates for one of which the day cannot be told from the month, ValueError for what is no time.
        """
        time = _number(text) or self._written(text.strip())
        return time.replace(tzinfo=self.zone) if time.tzinfo is None else time

    def _written(self, text: str) -> datetime:
        match = WRITTEN.fullmatch(_in_digits(text))
        if match is None:
            try:
                if "-" in text or len(text) == 8:  # by itself it takes fewer digits for a part of a date, too
                    return datetime.fromisoformat(text)
            except ValueError:
                pass
            _refuse(text)
        a, b, c = (match[name] for name in "abc")
        if len(a) == 4 and len(c) <= 2:
            year, month, day = a, b, c
        elif len(c) != 4 or len(a) > 2 or match["between"] == ":":
            _refuse(text)
        elif _day_first(match, self.dates):
            day, month, year = a, b, c
        else:
            month, day, year = a, b, c
        hour, half = int(match["hour"] or 0), (match["half"] or "").lower()
        zone = read_offset(match["zone"] or "")
        if (half == "a" and hour > 12) or (match["zone"] and zone is None):
            _refuse(text)
        if half:
            hour = hour % 12 + 12 * (half == "p")
        part = int((match["part"] or "")[:6].ljust(6, "0"))
        try:
            return datetime(
                int(year), int(month), int(day), hour, int(match["minute"] or 0), int(match["second"] or 0), part
            ).replace(tzinfo=zone)
        except ValueError as error:
            raise ValueError(f"found {text!r}, which is no time ({error})") from None


def choose_clock(texts: Iterable[str], zone: tzinfo | None = None, dates: DateOrder | None = None) -> Clock:
    """The clock that reads all the times of a column; what it cannot know is asked for here, once.

    Dates such as 05/03/2026 are read in the order that another of the column shows, 25/03/2026 or 03/25/2026, if
    `dates` does not say. Raises AmbiguousDates where none does, and ValueError for times without a zone where `zone`
    is not given. Texts that are no times are left to the reading.
    """
    texts = list(texts)
    dates = dates or _shown_order(texts)
    clock = Clock(zone, dates)
    unzoned = []
    for text in texts:
        try:
            if clock.read(text).tzinfo is None:
                unzoned.append(text)
        except AmbiguousDates:
            raise
        except ValueError:
            continue
    if unzoned:
        raise ValueError(
            f"{len(unzoned):,} of {counted(len(texts), 'time does not say its', 'times do not say their')} time zone, "
            f"such as {unzoned[0]!r}; say where "
            "the clocks were, as --timezone Africa/Johannesburg or --timezone +02:00"
        )
    return clock


def _shown_order(texts: Iterable[str]) -> DateOrder | None:
    """Whether the day or the month comes first in dates such as 25/03/2026 and 03/25/2026; None where none shows it."""
    shown: dict[DateOrder, str] = {}
    for text in texts:
        match = WRITTEN.fullmatch(text.strip())
        if match and match["between"] in "/-" and len(match["c"]) == 4 and len(match["a"]) <= 2:
            if int(match["a"]) > 12:
                shown.setdefault("day-first", text)
            elif int(match["b"]) > 12:
                shown.setdefault("month-first", text)
    if len(shown) == 2:
        both = " and ".join(repr(text) for text in shown.values())
        raise ValueError(f"{both} have the day and the month in different places; write dates as 2025-03-01")
    return next(iter(shown), None)


def read_zone(text: str) -> tzinfo:
    """A time zone by its name, such as Africa/Johannesburg, or its offset, such as +02:00; raises ValueError."""
    if text.upper() == "UTC":
        return UTC
    if offset := read_offset(text):
        return offset
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, LookupError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"found {text!r}, expected a time zone such as Africa/Johannesburg or +02:00") from None


def read_offset(text: str) -> timezone | None:
    """An offset from UTC of less than a day, such as +02:00, -0330 or Z; None for other text."""
    if text.upper() == "Z":
        return UTC
    match = OFFSET.fullmatch(text)
    if match is None:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-offset if match[1] == "-" else offset)


def with_clock(date: str, time: str) -> str:
    """A date and a time of day that stand in two columns as one text; the date alone where they cannot."""
    written = WRITTEN.fullmatch(_in_digits(date.strip()))
    alone = written is not None and not (written["hour"] or written["zone"])
    return f"{date.strip()} {time.strip()}" if alone and TIME_OF_DAY.fullmatch(time.strip()) else date


def _in_digits(text: str) -> str:
    """A date whose month is a word as day.month.year, which is not ambiguous; other text as it is."""
    for form in IN_WORDS:
        if match := form.fullmatch(text):
            year, month = int(match["year"]), 1 + MONTHS.index(match["month"].lower())
            if len(match["year"]) == 2:
                year += 2000 if year < CENTURY_SPLIT else 1900
            return f"{match['day']}.{month}.{year}{match['rest'] or ''}"
    return text


def _day_first(match: re.Match[str], dates: DateOrder | None) -> bool:
    first, second = int(match["a"]), int(match["b"])
    if match["between"] == "." or first > 12 or first == second:  # dots stand between dates of day, month, year only
        return True
    if second > 12:
        return False
    if dates is None:
        raise AmbiguousDates(_two_ways(match[0]))
    return dates == "day-first"


def _two_ways(text: str) -> str:
    return f"{text!r} may have the day or the month first; say --dates day-first or --dates month-first"


def _number(text: str) -> datetime | None:
    """The time that a spreadsheet means by a number of days since its start, to the second; None for other text."""
    try:
        days = float(text.replace(",", "."))
    except ValueError:
        return None
    if not SPREADSHEET_DAYS[0] <= days < SPREADSHEET_DAYS[1]:
        return None
    return SPREADSHEET_START + timedelta(seconds=round(days * 86_400))


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"found {text!r}, {EXPECTED}")
