"""When the next working day begins. Pure: which days are free is asked of the calendar that is given.

Nothing is planned ahead: whoever wants to know whether something is due computes it anew from the moment at which it
began. So a holiday that is declared later moves it, and a machine that was off on the day finds it due on a later one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from unlatch.errors import ConfigError
from unlatch.models import utc

_LONGEST_DAYS = 366


@dataclass(frozen=True)
class WorkCalendar:
    """When people of a site work.

    Attributes:
        timezone: IANA name of the zone of their clocks.
        begins: When their working day begins there.
        works_on: Whether they work on a day.
    """

    timezone: str
    begins: time
    works_on: Callable[[date], bool]


def next_working_morning(after: datetime, calendar: WorkCalendar) -> datetime:
    """The beginning of the first working day after the day of a moment, in UTC.

    A clock that jumps over that time on that day gives the moment as many minutes later; of a time that comes twice it
    is the first.

    Args:
        after: Any moment; which day it is on is said by the site's clock.
        calendar: When people work.

    Raises:
        ConfigError: a year without a working day: the calendar is wrong.
    """
    zone = ZoneInfo(calendar.timezone)
    today = utc(after).astimezone(zone).date()
    for days in range(1, _LONGEST_DAYS + 1):
        day = today + timedelta(days=days)
        if calendar.works_on(day):
            return datetime.combine(day, calendar.begins, zone).astimezone(UTC)
    raise ConfigError(
        f"There is no working day within a year after {today}.",
        next_step="correct site.country, site.region and site.holidays in the inventory.",
    )


def in_words(moment: datetime, timezone: str) -> str:
    """A moment as people of the site say it, as in `Mon 2026-03-09 09:00 Europe/Zurich`."""
    return f"{utc(moment).astimezone(ZoneInfo(timezone)):%a %Y-%m-%d %H:%M} {timezone}"
