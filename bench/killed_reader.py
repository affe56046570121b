"""Kill the reader of logs while it reads, again and again: is any crash lost, or told twice?

Crashes are written into the logs of some hypervisors, which are rotated now and then. A process reads them as the watch
does, into a real store, and is killed with SIGKILL at random moments. What the store holds at the end is counted.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import NamedTuple

from unlatch.assembly import SystemClock
from unlatch.crash_sources.xend import PLUGIN as XEND
from unlatch.models import CrashEvent, Hypervisor, HypervisorLog, SourceState
from unlatch.store.sql_store import SqlStore
from unlatch.transport.log_reader import PositionReader
from unlatch.transport.shell import Shell
from unlatch.watching import WatchPorts, read_logs

BEGIN = datetime(2026, 3, 7, 5, 54, 53, tzinfo=UTC)
CRASH = "[{at:%Y-%m-%d %H:%M:%S} 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name={name} id={number}.\n"
START = "[{at:%Y-%m-%d %H:%M:%S} 4572] DEBUG (XendDomainInfo:103) XendDomainInfo.create(['vm', ['name', '{name}']])\n"
NOISE = "[2026-03-07 05:54:52 4572] DEBUG (DevController:151) Waiting for devices vif.\n"

_LONGEST_LIFE_S = 1.0
_ROTATED_EVERY = 400
"""Crashes."""


class Told(NamedTuple):
    """What came of it; `unended` are deaths whose restart the store does not know."""

    events: int
    lost: int
    doubled: int
    unended: int
    kills: int
    rotations: int
    seconds: float


@dataclass
class Site:
    """Logs, the store, and who reads."""

    directory: Path
    hypervisors: Mapping[str, Hypervisor]
    rotations: int = 0

    def read(self) -> bool:
        """Read what is new in all logs, as the watch does; whether all could be read."""
        inventory = SimpleNamespace(hypervisors=self.hypervisors, guest_of=lambda _domain, _hypervisor=None: None)
        ports = WatchPorts(
            inventory=inventory,  # type: ignore[arg-type]  # what reading needs of it
            sources={"xend": XEND},
            reader=PositionReader(_no_shell),
            store=self.store(),
            clock=SystemClock(),
        )
        return all(sight.state is SourceState.OK for sight in read_logs(ports).values())

    def store(self) -> SqlStore:
        """The store, connected anew: in a process of its own."""
        return SqlStore(f"sqlite:///{self.directory / 'store.db'}", clock=SystemClock())

    def write(self, log: Path, text: str) -> None:
        """Add to a log."""
        with log.open("a") as opened:
            opened.write(text)

    def rotate(self, log: Path) -> None:
        """Rename a log, as logrotate does, and begin it anew."""
        self.rotations += 1
        log.rename(f"{log}.{self.rotations}")
        log.touch()


def _no_shell(conn_id: str, hypervisor: str) -> Shell:
    raise AssertionError(f"the logs are local: nobody needs {conn_id} of {hypervisor}")


def site(directory: Path, hypervisors: int) -> Site:
    """Make the logs and an empty store; the reader has noted where the logs end."""
    found = {}
    for number in range(hypervisors):
        name = f"hv{number:02d}"
        (directory / f"{name}.log").write_text(NOISE)
        log = HypervisorLog("xend", PurePosixPath(directory / f"{name}.log"), local=True)
        found[name] = Hypervisor(name, f"unlatch_hv_{name}", (log,))
    made = Site(directory, found)
    made.store().migrate()
    _in_a_child(made.read)()
    return made


def _forked(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):  # nothing of the parent's may run in the child
            work()
            code = 0
        os._exit(code)
    return pid


def _in_a_child(work: Callable[[], object]) -> Callable[[], int]:
    return lambda: os.waitpid(_forked(work), 0)[1]


def _for_ever(place: Site) -> None:
    while True:
        place.read()


def run(directory: Path, events: int, *, hypervisors: int = 10, a_life: int = 100, seed: int = 5) -> Told:
    """Let so many guests crash, each once, while the reader lives for moments only.

    Args:
        directory: For logs and store.
        events: How many crashes; every second guest is started again.
        hypervisors: How many logs they are spread over.
        a_life: How many crashes happen in each life of the reader, on average.
        seed: Of the random moments.

    Raises:
        RuntimeError: the last reader, which nobody kills, failed.
    """
    dice = random.Random(seed)  # noqa: S311  # moments, no secrets
    place, kills, begun = site(directory, hypervisors), 0, time.perf_counter()
    logs = [directory / f"{name}.log" for name in place.hypervisors]
    left = list(range(events))[::-1]
    while left:
        reader = _forked(lambda: _for_ever(place))
        dies_at = time.monotonic() + dice.uniform(0.05, _LONGEST_LIFE_S)
        for _ in range(min(len(left), dice.randint(1, 2 * a_life))):
            place.write(dice.choice(logs), crash_of(left.pop()))
            if dice.random() < 1 / _ROTATED_EVERY:
                place.rotate(dice.choice(logs))
        time.sleep(max(0.0, dies_at - time.monotonic()))
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
        kills += 1
    for _ in range(2):  # a rotation may end one reading
        if _in_a_child(place.read)():
            raise RuntimeError(f"the last reader failed; its store is in {directory}: read its logs by hand")
    return counted(place, events, kills, time.perf_counter() - begun)


def crash_of(number: int) -> str:
    """Return the lines of one crash, and of the restart after every second."""
    at, name = BEGIN + timedelta(seconds=number), f"db{number:05d}"
    text = CRASH.format(at=at, name=name, number=number)
    return text + (START.format(at=at + timedelta(seconds=5), name=name) if number % 2 else "")


class Tally(NamedTuple):
    """What a store lacks, and has too often; `unended` are deaths whose restart it does not know."""

    lost: int
    doubled: int
    unended: int


def tally(found: Collection[CrashEvent], events: int) -> Tally:
    """Hold what a store has against the crashes that were written: `crash_of(0)` to `crash_of(events - 1)`."""
    times = Counter(event.domain for event in found)
    ended = {event.domain for event in found if event.restarted_at is not None}
    return Tally(
        lost=sum(f"db{number:05d}" not in times for number in range(events)),
        doubled=sum(count - 1 for count in times.values()),
        unended=sum(f"db{number:05d}" not in ended for number in range(1, events, 2)),
    )


def counted(place: Site, events: int, kills: int, seconds: float) -> Told:
    """Return what the store holds of so many crashes."""
    found = tally(place.store().events(BEGIN - timedelta(days=1)), events)
    return Told(
        events=events,
        lost=found.lost,
        doubled=found.doubled,
        unended=found.unended,
        kills=kills,
        rotations=place.rotations,
        seconds=seconds,
    )
