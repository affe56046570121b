"""The same crash in several logs is one incident, whichever is read first; which hypervisors are read, and when."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import timedelta
from pathlib import PurePosixPath

import pytest

from tests.unit.fakes import Inventory, World
from tests.unit.world_parts import DIED_AT, GUEST, HYPERVISOR
from unlatch.crash_sources.kernel import PLUGIN as KERNEL
from unlatch.crash_sources.pacemaker import PLUGIN as PACEMAKER
from unlatch.crash_sources.xend import PLUGIN as XEND
from unlatch.lifecycle import IncidentState
from unlatch.models import Guest, Hypervisor, HypervisorLog, Json, SourceHealth, SourceState
from unlatch.ports import IncidentRow
from unlatch.watching import (
    AT_ONE_LOOK,
    LONGEST_WAIT_S,
    NAME_WITHIN,
    Wanted,
    WatchPorts,
    longest_unread,
    longest_wait_s,
    never_read,
    read_logs,
    read_new_crashes,
)

XEND_LOG = HypervisorLog("xend", PurePosixPath("/x.log"), "UTC")
MESSAGES = PurePosixPath("/var/log/messages")
KERNEL_LOG = HypervisorLog("kernel", MESSAGES, "UTC")
FENCES = HypervisorLog("pacemaker", MESSAGES, "UTC")
NAME = GUEST.name


class Reader:
    """Lines by log; a hypervisor without any was never written to."""

    def __init__(self) -> None:
        """Nothing written yet."""
        self.lines: dict[tuple[str, str], list[str]] = {}
        self.read: list[str] = []

    def read_new(self, hypervisor: Hypervisor, log: HypervisorLog, cursor: Json | None) -> tuple[list[str], Json]:
        """Lines behind the cursor."""
        self.read.append(hypervisor.name)
        every = self.lines.get((hypervisor.name, log.format), [])
        return every[(cursor or {}).get("line", 0) :], {"line": len(every), "read_at": DIED_AT.isoformat()}

    def write(self, log: HypervisorLog, line: str, hypervisor: str = "hv01") -> None:
        """One more line."""
        self.lines.setdefault((hypervisor, log.format), []).append(line)


class Site(Inventory):
    """A hypervisor with two logs, and a cluster's log host, whose file is read in two formats."""

    def __init__(self, world: World) -> None:
        """The guest is on hv01; node is what the cluster calls it."""
        super().__init__(world)
        first = dataclasses.replace(HYPERVISOR, logs=(XEND_LOG, KERNEL_LOG))
        cluster = dataclasses.replace(HYPERVISOR, name="cluster", conn_id="c", logs=(FENCES, KERNEL_LOG))
        self.hypervisors = {"hv01": first, "cluster": cluster}

    def guest_of(self, domain: str, hypervisor: str | None = None) -> Guest | None:
        """As an inventory answers: guests of another hypervisor are left out."""
        is_it = domain in {NAME, f"2130_{NAME}"} and hypervisor in {None, "hv01"}
        return GUEST if is_it else None


@pytest.fixture
def reader() -> Reader:
    """Logs that are empty yet."""
    return Reader()


@pytest.fixture
def ports(world: World, reader: Reader) -> WatchPorts:
    """A watch over both."""
    sources = {"xend": XEND, "kernel": KERNEL, "pacemaker": PACEMAKER}
    return WatchPorts(Site(world), sources, reader, world.store, world.clock)


def at(seconds: float) -> str:
    """A stamp so long after the crash."""
    return f"{DIED_AT + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}"


def crashed(seconds: float = 0) -> tuple[HypervisorLog, str, str]:
    """What xend says."""
    return XEND_LOG, f"[{at(seconds)} 1] WARNING (X:1907) Domain has crashed: name=2130_{NAME} id=2.", "hv01"


def restarted(seconds: float) -> tuple[HypervisorLog, str, str]:
    """What xend says when it is started again."""
    line = f"[{at(seconds)} 1] DEBUG (X:117) XendDomainInfo.create_from_dict({{'name_label': '2130_{NAME}'}})"
    return XEND_LOG, line, "hv01"


def segfault(seconds: float = 1, pid: int = 1385) -> tuple[HypervisorLog, str, str]:
    """What the host's kernel says: a process, no name."""
    line = f"{at(seconds)}+00:00 hv01 kernel: qemu-kvm[{pid}]: segfault at 8 ip 0055 sp 007f error 4 in qemu-kvm[5580]"
    return KERNEL_LOG, line, "hv01"


def fenced(seconds: float = 20) -> tuple[HypervisorLog, str, str]:
    """What the cluster says of its node."""
    line = (
        f"{at(seconds)}+00:00 cluster stonith-ng: notice: Peer {NAME} was terminated (reboot) by node2 "
        "on behalf of crmd.1: OK"
    )
    return FENCES, line, "cluster"


def opened(world: World, wanted: Wanted) -> None:
    """What detect_crash of the started run does, as far as the watch sees it."""
    event = next(e for e in world.store.events(DIED_AT - timedelta(days=1)) if e.at == wanted.crashed_at)
    now, state = world.clock.now(), IncidentState.REPAIRING
    world.store.open_incident(
        IncidentRow(wanted.incident, wanted.guest, state, now, event.at, False, wanted.reason, None, event)
    )


ORDERS = [
    *itertools.permutations([crashed(), segfault(), fenced()]),
    *(  # xend's log is read in its own order
        told
        for told in itertools.permutations([crashed(5), segfault(4), restarted(6), fenced(3)])
        if told.index(crashed(5)) < told.index(restarted(6))
    ),
]


@pytest.mark.parametrize("told", ORDERS, ids=lambda told: "-".join(log.format for log, *_ in told))
@pytest.mark.parametrize("looks", ["after each", "at the end"])
def test_one_incident_whatever_is_heard_first(
    ports: WatchPorts, reader: Reader, world: World, told: tuple[tuple[HypervisorLog, str, str], ...], looks: str
) -> None:
    """It should want one repair of one guest for what three logs tell of one crash, and keep all that they say."""
    wanted: list[Wanted] = []
    for line in told:
        reader.write(*line)
        if looks == "after each":
            world.clock.pause(2)
            for new in read_new_crashes(ports):
                opened(world, new)
                wanted.append(new)
    world.clock.pause(NAME_WITHIN.total_seconds() + 10)
    for new in read_new_crashes(ports):
        opened(world, new)
        wanted.append(new)
    assert [w.guest for w in wanted] == [NAME]
    world.clock.pause(600)
    assert read_new_crashes(ports) == []
    row = world.store.incident(wanted[0].incident)
    assert len(row.event.lines) == 3


def test_nameless_death_waits_for_its_name_and_tells_a_person_then(
    ports: WatchPorts, reader: Reader, world: World
) -> None:
    """It should want nothing for a process that nobody names yet, and wake up to tell a person when nobody does."""
    reader.write(*segfault(3))
    assert read_new_crashes(ports) == []
    assert longest_wait_s(ports) == NAME_WITHIN.total_seconds()
    world.clock.pause(NAME_WITHIN.total_seconds())
    (wanted,) = read_new_crashes(ports)
    assert wanted.guest == "?qemu-kvm[1385]"
    assert longest_wait_s(ports) < LONGEST_WAIT_S


def test_second_process_of_the_same_second_is_somebody_elses(ports: WatchPorts, reader: Reader, world: World) -> None:
    """It should not hide a second nameless death behind the first guest's."""
    for line in (crashed(), segfault(1), segfault(1, pid=1400)):
        reader.write(*line)
    world.clock.pause(NAME_WITHIN.total_seconds() + 1)
    assert sorted(w.guest for w in read_new_crashes(ports))[1:] == [NAME]


def test_death_after_the_restart_is_another_whoever_tells_it(ports: WatchPorts, reader: Reader, world: World) -> None:
    """It should want a second repair when the guest was up in between, although another log tells of it."""
    reader.write(*crashed())
    opened(world, read_new_crashes(ports)[0])
    reader.write(*restarted(6))
    reader.write(*fenced(60))
    world.clock.pause(60)
    (second,) = read_new_crashes(ports)
    assert second.crashed_at == DIED_AT + timedelta(seconds=60)


def test_earlier_word_that_comes_late_joins_the_open_incident(ports: WatchPorts, reader: Reader, world: World) -> None:
    """It should not open another incident for an older death that a hypervisor tells when it is back."""
    reader.write(*fenced(300))
    world.clock.pause(300)
    opened(world, read_new_crashes(ports)[0])
    reader.write(*crashed())
    assert read_new_crashes(ports) == []


def test_one_file_in_two_formats_has_two_positions(ports: WatchPorts, reader: Reader, world: World) -> None:
    """It should read every line of a file once in each of its formats, and go on from a position of an older time."""
    world.store.set_cursor(f"log:cluster:{MESSAGES}", {"log": {"line": 1, "read_at": None}})
    reader.write(*fenced(-30))
    reader.write(*fenced(1))
    read_logs(ports)
    assert len(world.store.events(DIED_AT - timedelta(days=1))) == 1
    assert {world.store.cursor(f"log:cluster:{f}:{MESSAGES}")["log"]["line"] for f in ("pacemaker", "kernel")} == {2, 0}


# --- who is read -----------------------------------------------------------------------------------------------------


def many(ports: WatchPorts, count: int) -> None:
    """So many hypervisors with one log each."""
    names = [f"hv{n:03d}" for n in range(count)]
    ports.inventory.hypervisors = {name: dataclasses.replace(HYPERVISOR, name=name) for name in names}


def test_only_those_that_rang_are_read(ports: WatchPorts, reader: Reader) -> None:
    """It should ask the named hypervisors only: with hundreds of them a crash must not wait for all the others."""
    many(ports, 100)
    read_new_crashes(ports, ["hv003", "hv099"])
    assert set(reader.read) == {"hv003", "hv099"}


def test_everyone_gets_a_turn(ports: WatchPorts, reader: Reader) -> None:
    """It should move the positions of all, those that were read longest ago first, and leave out who is away."""
    many(ports, 2 * AT_ONE_LOOK + 1)
    ports.store.keep_source(SourceHealth("hv000:xend:/x.log", "hv000", SourceState.UNREACHABLE, DIED_AT))
    for _ in range(2):
        read_logs(ports, longest_unread(ports))
    assert set(reader.read) == set(ports.inventory.hypervisors) - {"hv000"}
    assert longest_wait_s(ports) == pytest.approx(LONGEST_WAIT_S * AT_ONE_LOOK / (2 * AT_ONE_LOOK + 1))


def test_at_the_beginning_only_what_nobody_has_read(ports: WatchPorts, reader: Reader) -> None:
    """It should note the ends of new logs first, and leave the others to the bell."""
    many(ports, 3)
    read_logs(ports, ["hv001"])
    assert never_read(ports) == ["hv000", "hv002"]
    read_logs(ports, never_read(ports))
    assert never_read(ports) == []


def test_many_are_read_at_the_same_time(ports: WatchPorts, reader: Reader) -> None:
    """It should lose none when several threads read."""
    many(ports, 40)
    for name in ports.inventory.hypervisors:
        reader.write(XEND_LOG, f"[{at(0)} 1] WARNING (X:1907) Domain has crashed: name=1_{name} id=2.", name)
    wanted = read_new_crashes(dataclasses.replace(ports, at_once=8))
    assert len({w.incident for w in wanted}) == 40
