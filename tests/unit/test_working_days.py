"""When a clean-up is due: every day of a year, in three zones, with the clocks going forth and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlatch.errors import ConfigError
from unlatch.models import Site
from unlatch.site_calendar import calendar_of
from unlatch.working_days import WorkCalendar, in_words, next_working_morning

GENEVA = Site(timezone="Europe/Zurich", country="CH", region="GE")
CHICAGO = Site(timezone="America/Chicago", country="US", clean_up_at="07:30")
TEL_AVIV = Site(timezone="Asia/Jerusalem", country="IL", holidays=("12-31",))
SITES = (GENEVA, CHICAGO, TEL_AVIV)
NAMES = ("Geneva", "Chicago", "Tel Aviv")


def due(confirmed: str, site: Site = GENEVA) -> str:
    """When the clean-up of an access that was confirmed at a local time is due, in words."""
    moment = datetime.fromisoformat(confirmed).replace(tzinfo=ZoneInfo(site.timezone))
    return in_words(next_working_morning(moment, calendar_of(site)), site.timezone)


@pytest.mark.parametrize("site", SITES, ids=NAMES)
def test_every_hour_of_a_year(site: Site) -> None:
    """It should be at the site's hour, on a working day after the day itself, with no working day in between."""
    calendar, zone = calendar_of(site), ZoneInfo(site.timezone)
    hour = datetime(2026, 1, 1, tzinfo=UTC)
    earlier = None
    while hour.year == 2026:
        found = next_working_morning(hour, calendar)
        local, confirmed = found.astimezone(zone), hour.astimezone(zone)
        assert f"{local:%H:%M}" == site.clean_up_at
        assert calendar.works_on(local.date())
        between = (local.date() - confirmed.date()).days
        assert between >= 1
        assert not any(calendar.works_on(confirmed.date() + timedelta(days=n)) for n in range(1, between))
        assert earlier is None or found >= earlier, "time never goes back"
        earlier, hour = found, hour + timedelta(hours=1)


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001  # hypothesis adds it
    st.sampled_from(SITES),
    st.times().map(lambda t: t.replace(second=0, microsecond=0, tzinfo=None)),
)
def test_any_moment_and_any_hour(moment: datetime, site: Site, begins: time) -> None:
    """It should be after the moment, within a fortnight, and off the hour only where the clocks jump over it."""
    calendar = WorkCalendar(site.timezone, begins, calendar_of(site).works_on)
    found = next_working_morning(moment, calendar)
    assert moment < found < moment + timedelta(days=14)
    local = found.astimezone(ZoneInfo(site.timezone))
    if local.time().replace(tzinfo=None) != begins:
        wanted = datetime.combine(local.date(), begins, ZoneInfo(site.timezone))
        assert wanted.astimezone(UTC).astimezone(wanted.tzinfo).replace(tzinfo=None) != wanted.replace(tzinfo=None)
        assert local.time().replace(tzinfo=None) > begins


@pytest.mark.parametrize(
    ("confirmed", "expected"),
    [
        ("2014-10-18 18:40", "Mon 2014-10-20 09:00 Europe/Zurich"),  # the incident of 2014: a Saturday
        ("2026-03-06 17:00", "Mon 2026-03-09 09:00 Europe/Zurich"),  # Friday
        ("2026-03-09 00:00", "Tue 2026-03-10 09:00 Europe/Zurich"),  # the day itself does not count
        ("2026-03-09 23:59", "Tue 2026-03-10 09:00 Europe/Zurich"),
        ("2026-03-28 23:00", "Mon 2026-03-30 09:00 Europe/Zurich"),  # the clocks go forth in between
        ("2026-10-24 23:00", "Mon 2026-10-26 09:00 Europe/Zurich"),  # and back
        ("2026-12-24 12:00", "Mon 2026-12-28 09:00 Europe/Zurich"),  # Christmas Day is a Friday
        ("2026-09-09 12:00", "Fri 2026-09-11 09:00 Europe/Zurich"),  # the Genevan Fast
        ("2026-12-30 12:00", "Mon 2027-01-04 09:00 Europe/Zurich"),  # Restoration of the Republic, New Year
    ],
)
def test_by_the_calendar(confirmed: str, expected: str) -> None:
    """It should know weekends, public holidays of country and region, and the changes of the clocks."""
    assert due(confirmed) == expected


def test_another_week() -> None:
    """It should know that not every country works from Monday to Friday."""
    assert due("2026-01-08 12:00", TEL_AVIV) == "Sun 2026-01-11 09:00 Asia/Jerusalem"


def test_the_sites_own_dates() -> None:
    """It should leave out single days and days of every year; a date that is added later moves what is due."""
    assert due("2026-12-28 12:00") == "Tue 2026-12-29 09:00 Europe/Zurich"
    closed = Site(timezone="Europe/Zurich", country="CH", holidays=("2026-12-29", "12-30"))
    assert due("2026-12-28 12:00", closed) == "Thu 2026-12-31 09:00 Europe/Zurich"
    assert due("2027-12-29 12:00", closed) == "Fri 2027-12-31 09:00 Europe/Zurich"


def test_without_a_country() -> None:
    """It should work from Monday to Friday, Christmas included, when no country is declared."""
    assert due("2026-12-24 12:00", Site(timezone="UTC")) == "Fri 2026-12-25 09:00 UTC"


def test_hour_that_the_clocks_jump_over() -> None:
    """It should be due when that hour would have been, and once only where it comes twice."""
    every_day = WorkCalendar("Europe/Zurich", time(2, 30), lambda _: True)
    spring = next_working_morning(datetime(2026, 3, 28, 12, tzinfo=UTC), every_day)
    assert in_words(spring, "Europe/Zurich") == "Sun 2026-03-29 03:30 Europe/Zurich"
    autumn = next_working_morning(datetime(2026, 10, 24, 12, tzinfo=UTC), every_day)
    assert autumn == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_calendar_without_a_working_day() -> None:
    """It should say that the calendar is wrong instead of looking for ever."""

    def never(_: date) -> bool:
        return False

    with pytest.raises(ConfigError, match="no working day within a year"):
        next_working_morning(datetime(2026, 1, 1, tzinfo=UTC), WorkCalendar("UTC", time(9), never))


def test_moment_without_a_zone() -> None:
    """It should refuse to guess where a moment is."""
    with pytest.raises(ValueError, match="no time zone"):
        next_working_morning(datetime(2026, 1, 1), calendar_of(GENEVA))  # noqa: DTZ001  # that is the point
