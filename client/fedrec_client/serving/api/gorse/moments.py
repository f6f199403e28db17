"""Moments and durations as Gorse's clients write them, and as Gorse writes them back."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from dateutil import parser

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = datetime(1, 1, 1, tzinfo=UTC)  # Go's zero time: nobody said when
_LONGEST = 64
# Go prints an offset and then its name: "2020-02-02 20:20:02 +0000 UTC".
_NAMED_OFFSET = re.compile(r"([+-]\d{4}) [A-Z]{1,5}$")
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MOST_S = 9.2e9  # as in Go, whose durations are nanoseconds in 64 bits


def read_moment(told: object) -> float:
    """Unix seconds of a moment in nearly any format; 0 where nobody said: nothing, the epoch, or Go's zero time.

    Digits alone are seconds, milliseconds, microseconds or nanoseconds, by how many there are. Without a zone it is
    UTC, and month before day where a date could be read either way.

    Raises: ValueError: no moment; the words do not show it.

    >>> read_moment("2020-02-02T20:20:02.5Z"), read_moment("1580674802"), read_moment("1580674802500"), read_moment("")
    (1580674802.5, 1580674802.0, 1580674802.5, 0.0)
    >>> read_moment("May 8, 2009 5:57:51 PM") == read_moment("2009-05-08 17:57:51")
    True
    """
    if told is None or isinstance(told, int | float):
        return float(told or 0.0)
    if not isinstance(told, str):
        raise ValueError("is neither text nor a number")
    text = told.strip()
    if not text:
        return 0.0
    found = _of_digits(text) if text.isascii() and text.isdigit() and len(text) > 8 else _of_text(text)
    return 0.0 if found == _ZERO else (found - _EPOCH) / timedelta(seconds=1)


def tell_moment(seconds: float) -> str:
    """RFC 3339 in UTC, to the microsecond, without zeros at its end; Go's zero time for 0 and what no calendar has.

    >>> tell_moment(1580674802.5), tell_moment(0.0)
    ('2020-02-02T20:20:02.5Z', '0001-01-01T00:00:00Z')
    """
    try:
        moment = _EPOCH + timedelta(microseconds=round(seconds * 1e6)) if seconds else _ZERO
    except OverflowError:
        moment = _ZERO
    text = moment.replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def read_duration(told: object) -> float:
    """Seconds of a duration as Go writes them.

    Raises: ValueError: none, or beyond 292 years.

    >>> read_duration("10m"), read_duration("1h30m"), read_duration("-1.5h"), read_duration("300ms"), read_duration("")
    (600.0, 5400.0, -5400.0, 0.3, 0.0)
    """
    if not told or told == "0":
        return 0.0
    text = told.strip() if isinstance(told, str) else ""
    unsigned = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    parts = _PARTS.findall(unsigned) if len(unsigned) <= _LONGEST else []
    if not parts or "".join(number + unit for number, unit in parts) != unsigned:
        raise ValueError("is no duration such as 10m or 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _MOST_S:
        raise ValueError("is longer than 292 years")
    return -seconds if text.startswith("-") else seconds


def _of_digits(text: str) -> datetime:
    if len(text) == 14:
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    for most, per_second in ((10, 1), (13, 1000), (16, 1_000_000), (19, 1_000_000_000)):
        if len(text) <= most:
            return _EPOCH + timedelta(seconds=int(text) / per_second)
    raise ValueError("is no moment that can be read")


def _of_text(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = _in_words(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _in_words(text: str) -> datetime:
    """What a text leaves open is taken from two days; if they differ in the year, it names no date at all."""
    if len(text) > _LONGEST:
        raise ValueError("is longer than a moment can be")
    plain = _NAMED_OFFSET.sub(r"\1", text)
    found, other = _on(plain, 1996), _on(plain, 2004)  # years that have a 29 February
    if found != other:
        raise ValueError("names no year")
    return found


def _on(text: str, year: int) -> datetime:
    try:
        found: datetime = parser.parse(text, default=datetime(year, 1, 1), tzinfos=_zone)
    except (ValueError, OverflowError):
        raise ValueError("is no moment that can be read") from None
    return found


def _zone(_: str | None, offset_s: int | None) -> tzinfo:
    """By its offset; a name alone means another one in every country, and counts as UTC, as in Go."""
    return timezone(timedelta(seconds=offset_s or 0))
