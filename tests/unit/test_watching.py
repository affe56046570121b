"""From hypervisor logs to requests for repair: every crash once, none lost, whatever dies in between."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath

import pytest

from tests.unit.fake_reader import FakeReader
from tests.unit.fakes import Inventory, World
from tests.unit.lanes import Run
from tests.unit.world_parts import DIED_AT, GUEST, HYPERVISOR, Killed
from unlatch import casebook
from unlatch.crash_sources.xend import PLUGIN as XEND
from unlatch.errors import ConfigError, TransientError
from unlatch.lifecycle import IncidentState
from unlatch.models import HypervisorLog, incident_id
from unlatch.ports import IncidentRow
from unlatch.watching import LONGEST_WAIT_S, OFFER_AGAIN_AFTER, Wanted, WatchPorts, longest_wait_s, read_new_crashes


class Site(Inventory):
    """Guests whose domains are called `<number>_<guest>`, on two hypervisors."""

    def __init__(self, world: World) -> None:
        """Add a second hypervisor, and guests that the tests let crash."""
        super().__init__(world)
        second = dataclasses.replace(HYPERVISOR, name="hv02", conn_id="unlatch_hv_hv02")
        self.hypervisors = {"hv01": HYPERVISOR, "hv02": second}
        names = (GUEST.name, "db1", "db2", "db3")
        self.guests = {name: dataclasses.replace(GUEST, name=name) for name in names}

    def guest_of(self, domain: str, _hypervisor: str | None = None) -> object:
        """The guest behind the number."""
        return self.guests.get(domain.partition("_")[2])


@pytest.fixture
def reader() -> FakeReader:
    """Logs that are empty yet."""
    return FakeReader()


@pytest.fixture
def ports(world: World, reader: FakeReader) -> WatchPorts:
    """A watch over two hypervisors."""
    return WatchPorts(Site(world), {"xend": XEND}, reader, world.store, world.clock)


def stamp(seconds: float) -> str:
    """A xend stamp so long after the crash."""
    return f"[{DIED_AT + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S} 4572]"


def crashed(domain: str, *, at: float = 0, number: int = 2) -> str:
    """The line that says that a domain is dead."""
    return f"{stamp(at)} WARNING (XendDomainInfo:1907) Domain has crashed: name={domain} id={number}."


def created(domain: str, *, at: float) -> str:
    """The line that says that it is started again."""
    return f"{stamp(at)} DEBUG (XendDomainInfo:117) XendDomainInfo.create_from_dict({{'name_label': '{domain}'}})"


def opened(world: World, wanted: Wanted, state: IncidentState = IncidentState.REPAIRING) -> IncidentRow:
    """What detect_crash of the started run does, as far as the watch sees it."""
    event = next(e for e in world.store.events(DIED_AT - timedelta(days=1)) if e.at == wanted.crashed_at)
    now = world.clock.now()
    return world.store.open_incident(
        IncidentRow(wanted.incident, wanted.guest, state, now, event.at, False, wanted.reason, None, event)
    )


def test_three_at_once(ports: WatchPorts, reader: FakeReader) -> None:
    """It should want three repairs for three crashes written together, oldest first, each once."""
    reader.lines["hv01"] = [crashed(f"{n}_db{n}", at=n, number=n) for n in (1, 2, 3)]
    wanted = read_new_crashes(ports)
    assert [w.guest for w in wanted] == ["db1", "db2", "db3"]
    assert len({w.incident for w in wanted}) == 3
    assert wanted[0].incident == incident_id(DIED_AT + timedelta(seconds=1), "db1")
    assert read_new_crashes(ports) == []


def test_nothing_new(ports: WatchPorts, reader: FakeReader) -> None:
    """It should want nothing for lines that tell of no death."""
    reader.lines["hv01"] = ["junk", created("1_db1", at=1)]
    assert read_new_crashes(ports) == []


def test_killed_anywhere_none_is_lost_or_doubled(new_world: Callable[..., World]) -> None:
    """It should offer every crash after a kill at any write; twice only under the same run id, which starts once."""
    counting = new_world()
    lines = [crashed(f"{n}_db{n}", at=n, number=n) for n in (1, 2, 3)]
    _watch(counting, lines)
    for index, call in enumerate(counting.calls):
        world = new_world()
        world.dies_at = index
        with pytest.raises(Killed):
            _watch(world, lines)
        world.dead = False
        started = {w.incident for w in _watch(world, lines)}
        world.clock.pause(OFFER_AGAIN_AFTER.total_seconds() + 1)
        started |= {w.incident for w in _watch(world, lines)}
        assert len(started) == 3, f"killed before call {index}: {call.name}"
        assert len(world.store.events(DIED_AT)) == 3


def _watch(world: World, lines: list[str]) -> list[Wanted]:
    reader = FakeReader()
    reader.lines["hv01"] = lines
    return read_new_crashes(WatchPorts(Site(world), {"xend": XEND}, reader, world.store, world.clock))


def test_request_whose_run_never_began_is_made_again(ports: WatchPorts, reader: FakeReader, world: World) -> None:
    """It should offer a crash again when its incident is not there after a while, until it is."""
    reader.lines["hv01"] = [crashed("1_db1")]
    (first,) = read_new_crashes(ports)
    assert read_new_crashes(ports) == []
    world.clock.pause(OFFER_AGAIN_AFTER.total_seconds() + 1)
    (again,) = read_new_crashes(ports)
    assert again == first
    opened(world, again)
    world.clock.pause(OFFER_AGAIN_AFTER.total_seconds() + 1)
    assert read_new_crashes(ports) == []


def test_watch_wakes_for_a_lost_request(ports: WatchPorts, reader: FakeReader, world: World) -> None:
    """It should not sleep past the moment at which a request is due again, and ask less and less often."""
    assert longest_wait_s(ports) == LONGEST_WAIT_S
    reader.lines["hv01"] = [crashed("1_db1")]
    read_new_crashes(ports)
    waits = []
    for _ in range(4):
        waits.append(longest_wait_s(ports))
        world.clock.pause(waits[-1] + 1)
        (again,) = read_new_crashes(ports)
    first = OFFER_AGAIN_AFTER.total_seconds()
    assert waits[:2] == [first, first + 1]
    assert waits[3] > waits[2] > waits[1]
    opened(world, again)
    assert longest_wait_s(ports) == LONGEST_WAIT_S


def test_second_death_before_a_restart_is_the_same_incident(
    ports: WatchPorts, reader: FakeReader, world: World
) -> None:
    """It should not start a second repair for a guest that died again before it was restarted."""
    reader.lines["hv01"] = [crashed("1_db1")]
    opened(world, read_new_crashes(ports)[0])
    reader.lines["hv01"].append(crashed("1_db1", at=200))
    world.clock.pause(200)
    assert read_new_crashes(ports) == []


def test_second_death_before_the_first_run_began(ports: WatchPorts, reader: FakeReader) -> None:
    """It should want one repair for two deaths without a restart between, also when both are read together."""
    reader.lines["hv01"] = [crashed("1_db1"), crashed("1_db1", at=200)]
    ports.clock.pause(200)
    (wanted,) = read_new_crashes(ports)
    assert wanted.crashed_at == DIED_AT


def test_second_death_after_a_restart_is_another_incident(ports: WatchPorts, reader: FakeReader, world: World) -> None:
    """It should want a second repair when the guest was up in between."""
    reader.lines["hv01"] = [crashed("1_db1"), created("1_db1", at=6)]
    opened(world, read_new_crashes(ports)[0])
    reader.lines["hv01"].append(crashed("1_db1", at=300, number=3))
    world.clock.pause(300)
    (second,) = read_new_crashes(ports)
    assert second.incident == incident_id(DIED_AT + timedelta(seconds=300), "db1")


@pytest.mark.parametrize("opened_first", [True, False])
def test_restart_is_learned_later(ports: WatchPorts, reader: FakeReader, world: World, opened_first: bool) -> None:
    """It should add the restart to the incident, whether its line is read before or after the incident is opened."""
    reader.lines["hv01"] = [crashed("1_db1")]
    (wanted,) = read_new_crashes(ports)
    if opened_first:
        opened(world, wanted)
    reader.lines["hv01"].append(created("1_db1", at=6))
    read_new_crashes(ports)
    if not opened_first:
        opened(world, wanted)
    row = world.store.incident(wanted.incident)
    assert row.event.restarted_at == DIED_AT + timedelta(seconds=6)
    reader.lines["hv01"].append(crashed("1_db1", at=300, number=3))
    world.clock.pause(300)
    assert len(read_new_crashes(ports)) == 1


def test_restart_that_is_read_while_the_incident_is_being_opened(
    ports: WatchPorts, reader: FakeReader, world: World
) -> None:
    """It should bring an incident up to date that was opened with what was known a moment before."""
    reader.lines["hv01"] = [crashed("1_db1")]
    (wanted,) = read_new_crashes(ports)
    known_before = world.store.events(DIED_AT)[0]
    reader.lines["hv01"].append(created("1_db1", at=6))
    read_new_crashes(ports)
    row = opened(world, wanted)
    world.store.update_event(row.incident, known_before)
    read_new_crashes(ports)
    assert world.store.incident(wanted.incident).event.restarted_at is not None


def test_unknown_guest_gets_a_request_of_its_own(ports: WatchPorts, reader: FakeReader) -> None:
    """It should ask for an incident under the domain's name when no inventory knows it, so that a person is told."""
    reader.lines["hv01"] = [crashed("77_nobody")]
    (wanted,) = read_new_crashes(ports)
    assert wanted.guest == "77_nobody"
    assert wanted.incident == incident_id(DIED_AT, "77_nobody")


@pytest.mark.parametrize("error", [TransientError("hv01 does not answer"), ConfigError("its host key is another")])
def test_hypervisor_that_cannot_be_read_does_not_stop_the_others(
    ports: WatchPorts, reader: FakeReader, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """It should read the others, say which one it could not read, and read that one on when it is back."""
    reader.lines = {"hv01": [crashed("1_db1")], "hv02": [crashed("2_db2", at=1)]}
    reader.errors["hv01"] = error
    with caplog.at_level(logging.WARNING):
        assert [w.guest for w in read_new_crashes(ports)] == ["db2"]
    assert "hv01" in caplog.text
    reader.errors.clear()
    assert [w.guest for w in read_new_crashes(ports)] == ["db1"]


def test_old_crashes_are_told_for_a_day(ports: WatchPorts, reader: FakeReader, world: World) -> None:
    """It should want a run for a crash that was read late: that run refuses and tells people; but not for ever."""
    world.clock.pause(7200)
    reader.lines["hv01"] = [crashed("1_db1")]
    assert [w.guest for w in read_new_crashes(ports)] == ["db1"]
    world.clock.pause(86_400)
    assert read_new_crashes(ports) == []


def test_ambiguous_sign_starts_nothing(ports: WatchPorts, reader: FakeReader) -> None:
    """It should want no repair for a dead device model alone, and one as soon as the domain's end is said."""
    reader.lines["hv01"] = [
        f"{stamp(0)} WARNING (image:490) domain 1_db1: device model failure: pid 1: died due to signal 11;"
    ]
    assert read_new_crashes(ports) == []
    reader.lines["hv01"].append(crashed("1_db1", at=1))
    (wanted,) = read_new_crashes(ports)
    assert wanted.crashed_at == DIED_AT


def test_each_log_has_its_own_position(ports: WatchPorts, reader: FakeReader, world: World) -> None:
    """It should keep a position per log of a hypervisor."""
    two = (*HYPERVISOR.logs, HypervisorLog("xend", PurePosixPath("/y.log"), "UTC"))
    ports.inventory.hypervisors["hv01"] = dataclasses.replace(HYPERVISOR, logs=two)
    reader.lines["hv01"] = [crashed("1_db1")]
    assert len(read_new_crashes(ports)) == 1
    assert {world.store.cursor(f"log:hv01:xend:{log.path}")["log"]["line"] for log in two} == {1}


def test_offered_incident_is_what_detect_crash_opens(world: World, reader: FakeReader) -> None:
    """It should name the incident as detect_crash does, which then finds the event that the watch kept."""
    ports = WatchPorts(world.inventory, {"xend": XEND}, reader, world.store, world.clock)
    reader.lines["hv01"] = [crashed("2130_dbvrtg4037")]
    (wanted,) = read_new_crashes(ports)
    run = Run(world)
    found = casebook.detect_crash(run.request, world.incident_ports)
    assert wanted.incident == run.incident == found["incident"]
    assert world.store.incident(run.incident).event.lines == (crashed("2130_dbvrtg4037"),)
