"""The hours in which people cover the service, and what that means for a repair and for who is told. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from unlatch.limits import weekly_hours
from unlatch.models import Policy

_DAYS_AHEAD = 9  # a week, and what goes on over midnight


def next_covered(hours: Sequence[str], timezone: str, *, now: datetime) -> datetime:
    """The present moment when it lies within one of the weekly hours, else when the next of them begins."""
    zone = ZoneInfo(timezone)
    today = now.astimezone(zone).date()
    days = [today + timedelta(days=number) for number in range(-2, _DAYS_AHEAD)]
    spans = [span for text in hours for day in days if (span := weekly_hours(text).on(day, zone)) is not None]
    if not spans or any(begin <= now < end for begin, end in spans):
        return now
    return min(begin for begin, _ in spans if begin > now)


def is_covered(policy: Policy, *, now: datetime) -> bool:
    """Whether somebody covers the service now; always, when no hours are declared."""
    return next_covered(policy.service_hours, policy.timezone, now=now) == now


def outside_words(policy: Policy, *, now: datetime) -> str | None:
    """What a ticket that is opened now says of the hours; None within them."""
    if is_covered(policy, now=now):
        return None
    begins = next_covered(policy.service_hours, policy.timezone, now=now).astimezone(ZoneInfo(policy.timezone))
    covered = f"The service is covered {', '.join(policy.service_hours)} ({policy.timezone}) only"
    if policy.act_outside_hours:
        return f"{covered}. This is outside of these hours; the repair goes on all the same."
    return f"{covered}. This is outside of these hours: the repair waits for a person, at the latest {begins:%A %H:%M}."


def hold(policy: Policy, *, now: datetime) -> str | None:
    """Why a repair waits for a person; None when it need not."""
    if policy.act_outside_hours or is_covered(policy, now=now):
        return None
    return f"outside of the service's hours ({', '.join(policy.service_hours)}), and policy.act_outside_hours is false"
