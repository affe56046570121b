"""Limits of what may be repaired, and when, without a person. Pure: no IO, no clock; the moment is always an argument.

The rules are the safety rules of docs/safety.md; the numbers in the comments are theirs. docs/limits.md is the manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from unlatch.models import CrashEvent, Guest, Maintenance, Policy, Volume, utc

CLOCK_SLACK = timedelta(minutes=5)
"""How far in the future a log's time may lie before it is taken for a wrong clock or zone."""

GUEST_DAY = timedelta(hours=24)
"""The time in which the repairs of one guest are counted: any 24 hours, so that midnight forgets nothing."""


def event_refusal(event: CrashEvent, policy: Policy, *, now: datetime) -> str | None:
    """Why this crash event must not start a repair (rule 12), or None.

    A rewound cursor or a replayed message looks just like a crash; only its age gives it away.
    """
    age = now - event.at
    if age > timedelta(seconds=policy.max_event_age_s):
        limit = f"policy.max_event_age_s ({policy.max_event_age_s} s)"
        return f"the crash at {event.at:%Y-%m-%d %H:%M:%S} UTC is older than {limit}"
    if age < -CLOCK_SLACK:
        return (
            f"the crash at {event.at:%Y-%m-%d %H:%M:%S} UTC lies in the future: the log's time zone or a clock is wrong"
        )
    return None


def storm_hold(deaths_in_window: int, policy: Policy, together: str | None = None) -> str | None:
    """Why all repairs wait for a person (rule 14), or None; `together` says who died with this one."""
    if deaths_in_window <= policy.storm.events:
        return None
    return (
        f"a storm: {deaths_in_window} machines died within {policy.storm.window_s} s, "
        f"more than the {policy.storm.events} that the policy lets pass without a person"
    ) + (f", {together}" if together else "")


def guest_hold(repairs_before: int, policy: Policy, guest: str) -> str | None:
    """Why one more repair of this guest waits for a person, or None.

    A guest that keeps dying has a cause that no repair of its databases removes, and each repair keeps its originals.
    """
    if repairs_before < policy.repairs_per_guest_day:
        return None
    times = "once" if repairs_before == 1 else f"{repairs_before} times"
    return (
        f"{guest} was repaired {times} within the last 24 hours already, and the policy lets "
        f"{policy.repairs_per_guest_day} pass without a person (policy.repairs_per_guest_day): "
        "find out why it keeps dying"
    )


def holds(
    policy: Policy,
    *,
    guest: Guest,
    volume: Volume,
    deaths_in_window: int,
    repairs_before: int,
    now: datetime,
    together: str | None = None,
) -> str | None:
    """Every reason why a repair waits for a person although the proof of death is complete, or None.

    Args:
        policy: The site's limits.
        guest: The guest whose instance is to be repaired.
        volume: The volume that holds its files.
        deaths_in_window: Deaths of any machine within `policy.storm.window_s`, this one included.
        repairs_before: Repairs of the guest within `GUEST_DAY` before this incident's.
        now: The present moment.
        together: Who died with it, in words.
    """
    reasons = [
        storm_hold(deaths_in_window, policy, together),
        guest_hold(repairs_before, policy, guest.name),
        *maintenance_holds(policy.maintenance, guest, volume, now=now),
    ]
    return "; ".join(reason for reason in reasons if reason is not None) or None


# --- maintenance windows ---------------------------------------------------------------------------------------------


def maintenance_holds(windows: Iterable[Maintenance], guest: Guest, volume: Volume, *, now: datetime) -> Iterator[str]:
    """Why repairs of this guest on this volume wait: somebody is working there. One sentence per open window."""
    for window in windows:
        touched = [
            *([guest.name] if guest.name in window.guests else []),
            *([guest.hypervisor] if guest.hypervisor in window.hypervisors else []),
            *([volume.name] if volume.name in window.volumes else []),
        ]
        closes = closes_at(window, now=now) if touched else None
        if closes is not None:
            local = closes.astimezone(ZoneInfo(window.timezone))
            yield f"maintenance of {', '.join(touched)} until {local:%Y-%m-%d %H:%M %Z}: {window.why}"


def closes_at(window: Maintenance, *, now: datetime) -> datetime | None:
    """When the window that is open now closes, in UTC; None while it is not open."""
    if window.since is not None and window.until is not None and window.since <= now < window.until:
        return utc(window.until)
    if window.weekly is None:
        return None
    hours, zone = weekly_hours(window.weekly), ZoneInfo(window.timezone)
    today = now.astimezone(zone).date()
    # From the day before yesterday: hours may go on over midnight, and a repeated hour makes them longer still.
    opened = (hours.on(today + timedelta(days=n), zone) for n in range(-2, 2))
    return max(
        (end for span in opened if span is not None for begin, end in [span] if begin <= now < end), default=None
    )


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = rf"(?:{'|'.join(_DAYS)})"
_WEEKLY = re.compile(
    rf"({_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*) ([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class WeeklyHours:
    """Hours on the clock, on some days of the week (0: Monday). An end that is not later than the start is tomorrow."""

    days: frozenset[int]
    start: time
    length: timedelta

    def on(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime] | None:
        """First moment, and first moment after, of the hours that start on `day`, in UTC; None on other days.

        Where the clocks are changed, an hour is shown twice or never: the hours then get longer, never shorter. Every
        moment at which the clock on the wall shows one of them is in.
        """
        if day.weekday() not in self.days:
            return None
        start = datetime.combine(day, self.start)
        return min(_moments(start, zone)), max(_moments(start + self.length, zone))


def _moments(shown: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Both moments that a clock's time may mean; the same twice on all but two days of the year."""
    return (
        shown.replace(tzinfo=zone, fold=0).astimezone(UTC),
        shown.replace(tzinfo=zone, fold=1).astimezone(UTC),
    )


def weekly_hours(text: str) -> WeeklyHours:
    """What `Sun 02:00-04:00`, `Mon-Fri 12:00-13:00` or `Sat,Sun 22:00-06:00` says.

    Raises:
        ValueError: it is none of these.
    """
    found = _WEEKLY.fullmatch(text)
    if found is None or (found[4] == "24" and found[5] != "00"):
        raise ValueError("must be days and hours, as in Sun 02:00-04:00 or Mon-Fri 22:00-06:00")
    start = timedelta(hours=int(found[2]), minutes=int(found[3]))
    end = timedelta(hours=int(found[4]), minutes=int(found[5]))
    if start == end:
        raise ValueError("must not start and end at the same time: write 00:00-24:00 for a whole day")
    length = end - start if end > start else end - start + timedelta(days=1)
    return WeeklyHours(frozenset(_days(found[1])), time(int(found[2]), int(found[3])), length)


def _days(text: str) -> Iterator[int]:
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        begin = _DAYS.index(first)
        count = (_DAYS.index(last) - begin) % 7 + 1 if last else 1
        yield from ((begin + n) % 7 for n in range(count))
