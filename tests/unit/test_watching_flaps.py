"""A guest that keeps dying: so many incidents an hour, the newest death when there is room, and people are told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.fake_reader import FakeReader
from tests.unit.fakes import World
from tests.unit.test_watching import Site, crashed, created, opened
from unlatch.crash_sources.xend import PLUGIN as XEND
from unlatch.errors import TransientError
from unlatch.models import Policy
from unlatch.watching import WatchPorts, read_new_crashes


class Told:
    """Titles of alerts; an error stands in their way."""

    def __init__(self) -> None:
        """Nothing told."""
        self.titles: list[str] = []
        self.error: Exception | None = None

    def alert(self, key: str, title: str, words: str) -> None:
        """See `ports.Alerts`."""
        assert key == "flapping:db1"
        assert "incidents_per_guest_hour" in words
        if self.error:
            raise self.error
        self.titles.append(title)


@pytest.fixture
def told() -> Told:
    """Nobody was told."""
    return Told()


@pytest.fixture
def reader() -> FakeReader:
    """An empty log."""
    return FakeReader()


@pytest.fixture
def ports(world: World, reader: FakeReader, told: Told) -> WatchPorts:
    """Two incidents an hour."""
    policy = Policy(incidents_per_guest_hour=2)
    return WatchPorts(Site(world), {"xend": XEND}, reader, world.store, world.clock, policy=policy, alerts=told)


def dies_and_returns(reader: FakeReader, at: float, guest: str = "db1") -> None:
    """A death and the restart after it."""
    lines = reader.lines.setdefault("hv01", [])
    lines += [crashed(f"1_{guest}", at=at, number=int(at) + 1), created(f"1_{guest}", at=at + 5)]


def test_further_deaths_wait_for_room(ports: WatchPorts, reader: FakeReader, world: World, told: Told) -> None:
    """It should open two incidents an hour, tell once, let other guests be, and open the newest when there is room."""
    wanted = []
    for number in range(6):
        dies_and_returns(reader, 60 * number)
        for one in read_new_crashes(ports):
            opened(world, one)
            wanted.append(one.incident)
        world.clock.pause(60)
    assert len(wanted) == 2
    assert len(told.titles) == 1
    dies_and_returns(reader, 400, "db2")
    (other,) = read_new_crashes(ports)
    assert other.guest == "db2"
    opened(world, other)
    world.clock.pause(3600)
    (newest,) = read_new_crashes(ports)
    assert newest.crashed_at == max(e.at for e in world.store.events(newest.crashed_at) if e.guest == "db1")
    opened(world, newest)
    assert read_new_crashes(ports) == []


def test_many_deaths_read_at_once(ports: WatchPorts, reader: FakeReader) -> None:
    """It should ask for the newest only when a log is read late that tells of many."""
    for number in range(5):
        dies_and_returns(reader, 60 * number)
    ports.clock.pause(400)
    (wanted,) = read_new_crashes(ports)
    assert wanted.crashed_at.second == (ports.clock.now() - timedelta(seconds=400 + 3) + timedelta(seconds=240)).second


def test_within_the_limit_nobody_is_told(ports: WatchPorts, reader: FakeReader, told: Told) -> None:
    """It should open both at once where there is room for both."""
    for number in range(2):
        dies_and_returns(reader, 60 * number)
    ports.clock.pause(100)
    assert len(read_new_crashes(ports)) == 2
    assert told.titles == []


def test_told_at_the_next_look_when_nobody_could_be(ports: WatchPorts, reader: FakeReader, told: Told) -> None:
    """It should try again until somebody was told, and let no failure stop the watch."""
    told.error = TransientError("the mail server is down")
    for number in range(3):
        dies_and_returns(reader, 60 * number)
    ports.clock.pause(200)
    assert len(read_new_crashes(ports)) == 1
    told.error = None
    for _ in range(3):
        read_new_crashes(ports)
    assert len(told.titles) == 1
