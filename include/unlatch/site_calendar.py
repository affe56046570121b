"""The site's working days: the country's week and public holidays, and the dates that the site adds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import date, time

from unlatch.models import Site
from unlatch.working_days import WorkCalendar

_SATURDAY = 5


def calendar_of(site: Site) -> WorkCalendar:
    """When people of the site work."""
    national, own = _national(site.country, site.region), frozenset(site.holidays)

    def works_on(day: date) -> bool:
        return national(day) and not {f"{day:%Y-%m-%d}", f"{day:%m-%d}"} & own

    return WorkCalendar(site.timezone, time.fromisoformat(site.clean_up_at), works_on)


@functools.lru_cache(maxsize=8)
def _national(country: str | None, region: str | None) -> Callable[[date], bool]:
    """Whether people of a country work on a day. Not every country's week begins on Monday."""
    if country is None:
        return lambda day: day.weekday() < _SATURDAY
    import holidays  # noqa: PLC0415  # it takes a fifth of a second, and a site need not name a country

    known = holidays.country_holidays(country, subdiv=region)
    return lambda day: bool(known.is_working_day(day))
