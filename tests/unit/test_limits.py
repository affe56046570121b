"""Limits in words: old events, storms, guests that keep dying, and windows in which people work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import PurePosixPath
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fakes import World
from tests.unit.lanes import Run, refused
from tests.unit.world_parts import DIED_AT
from unlatch import limits
from unlatch.held_back import repairs_before
from unlatch.lifecycle import IncidentState
from unlatch.models import (
    Certainty,
    CrashEvent,
    Guest,
    LockKind,
    Maintenance,
    Policy,
    Storm,
    Volume,
    VolumeKind,
)

NOW = datetime(2026, 3, 7, 5, 54, 52, tzinfo=UTC)
GUEST = Guest("dbvrtg4037", "hv01", "unlatch_guest_dbvrtg4037")
VOLUME = Volume("dbs03", VolumeKind.LAB, PurePosixPath("/ORA/dbs03"))
ZURICH = "Europe/Zurich"
HOUR = timedelta(hours=1)

# Whole and half hours, summer time that is negative, ends in the night of Ramadan, or once skipped a whole day.
ZONES = st.sampled_from(
    ["UTC", ZURICH, "America/St_Johns", "Australia/Lord_Howe", "Europe/Dublin", "Africa/Casablanca", "Pacific/Apia"]
)
CLOCK_TIMES = st.integers(0, 24 * 60 - 1).map(lambda m: (m // 60, m % 60))


@pytest.mark.parametrize(("deaths", "held"), [(0, False), (5, False), (6, True)])
def test_storm(deaths: int, *, held: bool) -> None:
    """It should hold all repairs from the first death on that is more than the policy allows."""
    assert bool(limits.storm_hold(deaths, Policy(storm=Storm(events=5, window_s=600)))) is held


@pytest.mark.parametrize(("age_s", "refused"), [(0, False), (3600, False), (3601, True), (-300, False), (-301, True)])
def test_old_and_future_events_do_not_act(age_s: int, *, refused: bool) -> None:
    """It should refuse an event that a rewound cursor or a wrong clock brings."""
    event = CrashEvent("d", "hv01", NOW - timedelta(seconds=age_s), "crash", (), Certainty.CERTAIN)
    assert bool(limits.event_refusal(event, Policy(), now=NOW)) is refused


@pytest.mark.parametrize(("before", "held"), [(0, False), (2, False), (3, True), (9, True)])
def test_guest_that_keeps_dying(before: int, *, held: bool) -> None:
    """It should let as many repairs of one guest pass in a day as the policy says, and name the key that says so."""
    words = limits.guest_hold(before, Policy(), "dbvrtg4037")
    assert bool(words) is held
    if words:
        assert f"dbvrtg4037 was repaired {before} times within the last 24 hours" in words
        assert "policy.repairs_per_guest_day" in words


def holds(policy: Policy, *, deaths: int = 0, repairs: int = 0, now: datetime = NOW) -> str | None:
    return limits.holds(policy, guest=GUEST, volume=VOLUME, deaths_in_window=deaths, repairs_before=repairs, now=now)


def test_every_reason_is_told() -> None:
    """It should give all reasons at once, so that a person decides on all of them."""
    open_now = Maintenance("disks are replaced", volumes=("dbs03",), since=NOW - HOUR, until=NOW + HOUR)
    policy = Policy(maintenance=(open_now,))
    assert holds(policy, now=NOW + HOUR) is None
    words = holds(policy, deaths=6, repairs=3)
    assert words is not None
    assert [part.split(" ")[0] for part in words.split("; ")] == ["a", "dbvrtg4037", "maintenance"]
    assert words.endswith("maintenance of dbs03 until 2026-03-07 06:54 UTC: disks are replaced")


@pytest.mark.parametrize(
    ("where", "held"),
    [
        ({"guests": ("dbvrtg4037",)}, "dbvrtg4037"),
        ({"hypervisors": ("hv01",)}, "hv01"),
        ({"volumes": ("dbs03",)}, "dbs03"),
        ({"guests": ("dbvrtg4037",), "volumes": ("dbs03",)}, "dbvrtg4037, dbs03"),
        ({"guests": ("other",), "hypervisors": ("hv02",), "volumes": ("dbs04",)}, None),
    ],
)
def test_maintenance_holds_what_it_names(where: dict[str, tuple[str, ...]], held: str | None) -> None:
    """It should hold repairs of a guest by its own name, its hypervisor's, or its volume's, and no others."""
    window = Maintenance("work", since=NOW, until=NOW + HOUR, **where)  # type: ignore[arg-type]  # its three fields
    words = holds(Policy(maintenance=(window,)))
    assert words == (held and f"maintenance of {held} until 2026-03-07 06:54 UTC: work")


@given(st.integers(-7200, 7200))
def test_a_window_has_its_first_moment_and_not_its_last(offset_s: int) -> None:
    """It should be open from `from` up to, but not at, `until`, whatever offsets they are written with."""
    since = datetime(2026, 3, 7, 6, 54, 52, tzinfo=ZoneInfo(ZURICH))
    window = Maintenance("work", guests=("g",), since=since, until=since + HOUR)
    moment = NOW + timedelta(seconds=offset_s)
    assert (limits.closes_at(window, now=moment) is not None) is (0 <= offset_s < 3600)


@pytest.mark.parametrize(
    ("weekly", "moment", "open_for_h"),
    [
        # An ordinary Sunday, in winter.
        ("Sun 02:00-04:00", "2026-02-01T01:59:59+01:00", None),
        ("Sun 02:00-04:00", "2026-02-01T02:00:00+01:00", 2),
        ("Sun 02:00-04:00", "2026-02-01T03:59:59+01:00", 1 / 3600),
        ("Sun 02:00-04:00", "2026-02-01T04:00:00+01:00", None),
        ("Sun 02:00-04:00", "2026-02-02T03:00:00+01:00", None),
        # In spring 02:00 is 03:00 at once; in autumn the hour from 02:00 is there twice.
        ("Sun 02:00-04:00", "2026-03-29T01:59:59+01:00", 1 + 1 / 3600),  # what is not shown makes it longer
        ("Sun 02:00-04:00", "2026-03-29T03:59:59+02:00", 1 / 3600),
        ("Sun 02:00-04:00", "2026-10-25T02:00:00+02:00", 3),
        ("Sun 02:00-04:00", "2026-10-25T02:00:00+01:00", 2),
        ("Sun 01:00-02:30", "2026-10-25T02:45:00+02:00", 0.75),  # open through the repeated half hour
        # Over midnight, into the next week, and over the changed clock.
        ("Sun 22:00-06:00", "2026-02-02T05:00:00+01:00", 1),
        ("Sat 22:00-06:00", "2026-03-29T05:00:00+02:00", 1),
        ("Mon-Fri 12:00-13:00", "2026-02-06T12:30:00+01:00", 0.5),
        ("Mon-Fri 12:00-13:00", "2026-02-07T12:30:00+01:00", None),
        ("sat,sun 00:00-24:00", "2026-02-07T00:00:00+01:00", 24),
        ("Fri-Mon 08:00-09:00", "2026-02-02T08:00:00+01:00", 1),
        ("Fri-Mon 08:00-09:00", "2026-02-03T08:00:00+01:00", None),
    ],
)
def test_weekly_hours(weekly: str, moment: str, open_for_h: float | None) -> None:
    """It should follow the clock on the wall at the site, over midnight and over the changes of the clock."""
    window = Maintenance("work", guests=("g",), weekly=weekly, timezone=ZURICH)
    now = datetime.fromisoformat(moment)
    closes = limits.closes_at(window, now=now)
    found = None if closes is None else (closes - now.astimezone(UTC)) / HOUR
    assert found == (None if open_for_h is None else pytest.approx(open_for_h))


@given(
    ZONES,
    st.datetimes(datetime(1995, 1, 1), datetime(2037, 12, 31)),  # noqa: DTZ001  # in UTC, below
    CLOCK_TIMES,
    st.integers(1, 24 * 60),
)
def test_every_moment_that_the_clock_shows_is_in(
    zone: str, moment: datetime, start: tuple[int, int], minutes: int
) -> None:
    """It should be open whenever the clock at the site shows one of the hours, and hardly ever otherwise.

    The hours may only get longer, and by no more than what the clock was changed by.
    """
    now = moment.replace(tzinfo=UTC)
    shown = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    begins = time(*start)
    ends = (datetime.combine(date(2000, 1, 1), begins) + timedelta(minutes=minutes)).time()
    text = f"Mon-Sun {begins:%H:%M}-{ends:%H:%M}"
    if begins == ends:
        text = "Mon-Sun 00:00-24:00"
    hours = limits.weekly_hours(text)
    window = Maintenance("work", guests=("g",), weekly=text, timezone=zone)
    closes = limits.closes_at(window, now=now)
    todays = [datetime.combine(shown.date() - timedelta(days=n), hours.start) for n in (0, 1)]
    on_the_wall = any(opened <= shown < opened + hours.length for opened in todays)
    if on_the_wall:
        assert closes is not None
    elif closes is not None:
        zoned = ZoneInfo(zone)
        offsets = {(now + n * HOUR).astimezone(zoned).utcoffset() for n in range(-48, 49)}
        assert len(offsets) > 1, "open although no clock was changed"
    if closes is not None:
        assert now < closes <= now + hours.length + timedelta(hours=24)


@given(ZONES, st.dates(date(1995, 1, 1), date(2037, 12, 31)), CLOCK_TIMES, st.integers(1, 23 * 60))
def test_hours_are_one_piece(zone: str, day: date, start: tuple[int, int], minutes: int) -> None:
    """It should last as long as is written, and up to twice the clock's change longer."""
    hours = limits.WeeklyHours(frozenset(range(7)), time(*start), timedelta(minutes=minutes))
    span = hours.on(day, ZoneInfo(zone))
    assert span is not None
    begin, end = span
    assert hours.length - timedelta(hours=24) <= end - begin <= hours.length + timedelta(hours=48)
    assert begin < end


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sunday 02:00-04:00",
        "Sun 2:00-4:00",
        "Sun 02:00-24:01",
        "Sun 02:00-02:00",
        "Sun 25:00-26:00",
        "Sun 02:00",
        "Sun02:00-04:00",
        "02:00-04:00",
        "Sun, Mon 02:00-04:00",
        "Sun ٠٢:00-04:00",
    ],
)
def test_hours_that_nobody_can_mean(text: str) -> None:
    """It should say how hours are written."""
    with pytest.raises(ValueError, match=r"^must .*(as in Sun 02:00-04:00|write 00:00-24:00)"):
        limits.weekly_hours(text)


# --- in a world ------------------------------------------------------------------------------------------------------


def _repaired_before(world: World, number: int, *, ago: timedelta, **changes: object) -> str:
    """An earlier incident of the same guest that held its service."""
    name = f"inc-before-{number}"
    row = world.store.incident(Run(world).incident)
    earlier = dataclasses.replace(
        row, incident=name, opened_at=world.clock.now() - ago, state=IncidentState.DETECTED, event=None, **changes
    )
    world.store.open_incident(earlier)
    world.store.begin(name, "voms", "hold_service", actor="eva", detail={})
    world.store.end(name, "voms", "hold_service", phase="done", actor="eva", result={"held": True})
    return name


def test_only_real_repairs_of_this_guest_count(world: World) -> None:
    """It should count incidents of the last 24 hours that touched this guest, and not this one, dry runs, others."""
    run = Run(world)
    run.open()
    run.lane(end="hold_service")
    case = world.case(run.incident, "voms")
    for number in range(60):
        _repaired_before(world, number, ago=timedelta(minutes=number), guest="other")
    _repaired_before(world, 100, ago=timedelta(hours=25))
    _repaired_before(world, 101, ago=timedelta(hours=2), dry_run=True)
    looked = _repaired_before(world, 102, ago=timedelta(hours=3))
    world.store.end(looked, "voms", "hold_service", phase="done", actor="eva", result={"held": False})
    assert repairs_before(case, world.store, now=world.clock.now()) == 0
    _repaired_before(world, 103, ago=timedelta(hours=23, minutes=59))
    assert repairs_before(case, world.store, now=world.clock.now()) == 1


def test_the_fourth_repair_of_a_day_waits_for_a_person(world: World) -> None:
    """It should hold the repair with its reason, touch nothing, and go on when a person has agreed."""
    run = Run(world)
    run.open()
    for number in range(3):
        _repaired_before(world, number, ago=timedelta(hours=number + 1))
    run.lane(end="verdict")
    assert "dbvrtg4037 was repaired 3 times within the last 24 hours already" in (run.question() or "")
    refused(lambda: run.step("clear_locks"))
    assert world.touched() == ["agent.service hold"]
    run.answer(approved=True)
    run.lane(start="clear_locks")
    assert world.units["voms"].running


def test_repairs_wait_while_people_work_there(new_world: Callable[..., World]) -> None:
    """It should ask a person inside a window on the volume, and nobody in a world without one."""
    world = new_world()
    window = Maintenance("new disks", volumes=("dbs03",), weekly="Sat 05:00-07:00")
    world.policy = Policy(maintenance=(window,))
    assert DIED_AT.strftime("%a %H") == "Sat 05"
    run = Run(world)
    run.open()
    run.lane(end="verdict")
    assert "maintenance of dbs03 until 2026-03-07 07:00 UTC: new disks" in (run.question() or "")
    refused(lambda: run.step("clear_locks"))
    assert all(inode.lock is not LockKind.NONE for path, inode in world.names.items() if path.name == "ibdata1")
