"""Stamps of logs into moments, for one stream: time zones, the hour that autumn repeats, years that are left out."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from unlatch.errors import ConfigError

REORDERING = timedelta(seconds=60)
"""Threads may write a little out of order. A step back by more is the end of summer time."""

_CLOCKS_DIFFER = timedelta(days=1)
_YEARS = (2000, 2050)  # of which repeated hours are looked for
_LEAP_YEARS = 8  # a 29th of February may be that far back


class WallClock:
    """Turns stamps without a zone into moments, for one stream."""

    def __init__(self, timezone: str, written_after: datetime | None) -> None:
        """Take the zone's IANA name, and since when the lines were written.

        Raises:
            ConfigError: there is no such zone.
        """
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"There is no time zone {timezone!r}.",
                next_step="give the hypervisor's zone by its IANA name, such as Europe/Zurich, in the inventory.",
            ) from error
        self._floor = written_after
        self._name = timezone
        self._last: tuple[str, datetime | None] = ("", None)

    def may_repeat(self, text: str) -> bool:
        """Whether a stamp in the text may be of an hour that autumn repeats: which pass it is, only reading tells."""
        return _may_repeat(text, self._name)

    def repeated_hours(self) -> tuple[str, ...]:
        """How stamps of the hours that autumn repeats begin: a text without any of them has none."""
        return _repeated_hours(self._name)

    def moment(self, stamp: str) -> datetime | None:
        """The stamp as UTC; None for one that no clock shows, such as a 31st of February.

        An hour that the clocks leave out in spring counts on from the last moment before it.
        """
        if stamp != self._last[0]:  # many lines share a second
            self._last = (stamp, self._utc(stamp))
        return self._last[1]

    def moment_of_year(self, day_and_time: str, read_at: datetime) -> datetime | None:
        """The same for a stamp without its year (`-12-05 13:17:39`): the newest year that is not in the future."""
        year = read_at.astimezone(self._zone).year
        for back in range(_LEAP_YEARS + 1):
            try:
                local = datetime.fromisoformat(f"{year - back:04d}{day_and_time}").replace(tzinfo=self._zone)
                if local.astimezone(UTC) <= read_at + _CLOCKS_DIFFER:
                    return self.moment(f"{year - back:04d}{day_and_time}")
            except (ValueError, OverflowError):
                continue
        return None

    def _utc(self, stamp: str) -> datetime | None:
        try:
            local = datetime.fromisoformat(stamp).replace(tzinfo=self._zone)
            moment, again = local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)
        except (ValueError, OverflowError):
            return None
        if self._floor is not None and moment < self._floor - REORDERING and again > moment:
            moment = again
        self._floor = moment if self._floor is None else max(self._floor, moment)
        return moment


@functools.lru_cache(maxsize=2)  # every format asks about the same text
def _may_repeat(text: str, timezone: str) -> bool:
    return any(hour in text for hour in _repeated_hours(timezone))


def _is_repeated(moment: datetime) -> bool:
    return moment.utcoffset() != moment.replace(fold=1).utcoffset()


@functools.lru_cache(maxsize=64)
def _repeated_hours(timezone: str) -> tuple[str, ...]:
    """How stamps of the zone's repeated hours look, whatever the year: `-10-26 02:`, `-10-26T02:`, `Oct 26 02:`."""
    zone, found = ZoneInfo(timezone), set[datetime]()
    day = datetime(_YEARS[0], 1, 1)  # noqa: DTZ001  # a wall clock's
    before = day.replace(tzinfo=zone).utcoffset()
    while day.year < _YEARS[1]:
        day += timedelta(days=1)
        offset = day.replace(tzinfo=zone).utcoffset()
        if offset is not None and before is not None and offset < before:
            half_hours = (day - timedelta(hours=26) + timedelta(minutes=30 * n) for n in range(56))
            found |= {t for t in half_hours if _is_repeated(t.replace(tzinfo=zone))}
        before = offset
    looks = {look for t in found for look in (f"{t:-%m-%d %H:}", f"{t:-%m-%dT%H:}", f"{t:%b} {t.day:2d} {t:%H:}")}
    return tuple(sorted(looks))
