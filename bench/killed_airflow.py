"""Kill triggerer, scheduler and sshd of a watched hypervisor, again and again: is any crash lost, or told twice?

Crashes are written into the logs of some hypervisors, which a real Airflow follows over SSH. Now and then one of the
three is killed with SIGKILL, all its children along, and started again moments later. Most crashes are too old to start
anything, as Unlatch counts them, so that Airflow has not ten thousand runs to do; some are of this moment, and
each must start one run.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from bench.killed_reader import BEGIN, NOISE, crash_of, tally
from lab.private_sshd import LOGIN_USER, PrivateSshd
from lab.standalone import SCHEDULER, TRIGGERER, Standalone
from unlatch.assembly import SystemClock
from unlatch.models import incident_id
from unlatch.store.sql_store import SqlStore

INVENTORY = """\
version: 1
site: {timezone: UTC}
policy: {storm: {events: 100000, window_s: 600}}
hypervisors:
"""
HYPERVISOR = "  {name}: {{conn_id: {conn}, logs: [{{format: xend, path: {log}, timezone: UTC}}]}}\n"
NOTHING_MORE = "volumes: {}\nguests: {}\ninstances: {}\n"
FRESH = "[{at:%Y-%m-%d %H:%M:%S} 4572] WARNING (XendDomainInfo:1907) Domain has crashed: name={name} id=7.\n"

SSHD = "sshd"
_KILLED_EVERY_S = (4.0, 14.0)
_DOWN_S = (0.0, 3.0)
_BURST = 25
_BURST_EVERY_S = 0.7
_ROTATED_EVERY = 1000
_LIMIT_S = 900.0
_QUIET_S = 20.0


class Told(NamedTuple):
    """What came of it: `lost` and `doubled` events, `runs_lost` and `runs_doubled` of those that had to start one."""

    events: int
    lost: int
    doubled: int
    unended: int
    runs: int
    runs_lost: int
    runs_doubled: int
    kills: dict[str, int]
    rotations: int
    seconds: float


class _Site:
    """Logs, who reads them, and who is killed."""

    def __init__(self, directory: Path, hypervisors: int) -> None:
        logs = directory / "logs"
        logs.mkdir()
        logs.chmod(0o755)
        self.logs = [logs / f"hv{number:02d}.log" for number in range(hypervisors)]
        for log in self.logs:
            log.write_text(NOISE)
        self.sshd = PrivateSshd(directory / "sshd").start()
        inventory = directory / "inventory.yaml"
        rows = [HYPERVISOR.format(name=log.stem, conn=f"unlatch_hv_{log.stem}", log=log) for log in self.logs]
        inventory.write_text("".join([INVENTORY, *rows, NOTHING_MORE]))
        login = {
            "conn_type": "ssh",
            "host": "127.0.0.1",
            "port": self.sshd.port,
            "login": LOGIN_USER,
            "extra": {"key_file": str(self.sshd.client_key), "host_key": self.sshd.host_key, "look_for_keys": "false"},
        }
        connections = {f"unlatch_hv_{log.stem}": login for log in self.logs}
        self.airflow = Standalone(
            directory / "airflow", inventory=inventory, connections=connections, var=directory / "unlatch"
        )
        self.kills: Counter[str] = Counter()
        self.rotations = 0

    def kill(self, what: str, dice: random.Random) -> None:
        """End one of them by SIGKILL, and start it again after moments."""
        self.kills[what] += 1
        if what == SSHD:
            self.sshd.stop()
        else:
            self.airflow.kill(what)
        time.sleep(dice.uniform(*_DOWN_S))
        if what == SSHD:
            self.sshd.start()
        else:
            self.airflow.launch(what)

    def rotate(self, log: Path) -> None:
        """Rename a log, as logrotate does, and begin it anew. The predecessor's name is the usual one."""
        self.rotations += 1
        log.rename(f"{log}.1")
        log.touch()
        log.chmod(0o644)


def run(directory: Path, events: int, *, fresh: int = 10, hypervisors: int = 4, seed: int = 5) -> Told:
    """Let so many guests crash, each once, while components are killed.

    Args:
        directory: For logs, store and Airflow. Other users must be able to enter it.
        events: How many crashes; every second guest is started again.
        fresh: How many more crashes are of this moment, and start a run each.
        hypervisors: How many logs they are spread over.
        seed: Of the random moments.

    Raises:
        RuntimeError: not all had been read a long time after the last kill.
    """
    dice = random.Random(seed)  # noqa: S311  # moments, no secrets
    place = _Site(directory, hypervisors)
    try:
        place.airflow.start()
        store = SqlStore(place.airflow.store_url, clock=SystemClock())
        store.migrate()
        _until_watched(place, store)
        begun = time.perf_counter()
        started = _let_them_crash(place, events, fresh, dice)
        _until_read(place, store, events + fresh)
        return _counted(place, store, events, started, time.perf_counter() - begun)
    finally:
        place.airflow.stop()
        place.sshd.stop()


def _until_watched(place: _Site, store: SqlStore) -> None:
    """Each log has a position: what is written from now on is new."""
    deadline = time.monotonic() + _LIMIT_S
    while len(store.sources()) < len(place.logs):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the watch does not begin:\n{place.airflow.log_tail()}")
        time.sleep(0.5)


def _let_them_crash(place: _Site, events: int, fresh: int, dice: random.Random) -> dict[str, str]:
    """Write all crashes while one after the other is killed; the names of the fresh ones with their incidents."""
    left, started = list(range(events))[::-1], dict[str, str]()
    every = max(1, events // fresh)
    next_kill = time.monotonic() + dice.uniform(*_KILLED_EVERY_S)
    while left:
        log = dice.choice(place.logs)
        for _ in range(min(len(left), _BURST)):
            number = left.pop()
            with log.open("a") as opened:
                opened.write(crash_of(number))
                if number % every == 0 and len(started) < fresh:
                    at, name = datetime.now(UTC), f"fresh{number:05d}"
                    opened.write(FRESH.format(at=at, name=name))
                    started[name] = incident_id(at.replace(microsecond=0), name)
        if dice.random() < _BURST / _ROTATED_EVERY and not Path(f"{log}.1").exists():
            place.rotate(log)
        time.sleep(_BURST_EVERY_S)
        if time.monotonic() >= next_kill:
            place.kill(dice.choice((TRIGGERER, SCHEDULER, SSHD)), dice)
            next_kill = time.monotonic() + dice.uniform(*_KILLED_EVERY_S)
    return started


def _until_read(place: _Site, store: SqlStore, events: int) -> None:
    """All are in the store, and for a while after that nothing more came."""
    deadline = time.monotonic() + _LIMIT_S
    while (found := len(store.events(BEGIN - timedelta(days=1)))) < events:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {found} of {events} were read:\n{place.airflow.log_tail()}")
        time.sleep(1.0)
    time.sleep(_QUIET_S)  # what is told twice comes late


def _counted(place: _Site, store: SqlStore, events: int, started: dict[str, str], seconds: float) -> Told:
    found = store.events(BEGIN - timedelta(days=1))
    old, names = tally(found, events), {event.domain for event in found}
    runs = [row["dag_run_id"] for row in _runs(place.airflow)]
    return Told(
        events=events + len(started),
        lost=old.lost + sum(name not in names for name in started),
        doubled=old.doubled,
        unended=old.unended,
        runs=len(started),
        runs_lost=sum(incident not in runs for incident in started.values()),
        runs_doubled=len(runs) - sum(incident in runs for incident in started.values()),
        kills=dict(place.kills),
        rotations=place.rotations,
        seconds=seconds,
    )


def _runs(airflow: Standalone) -> list[dict[str, str]]:
    return list(airflow.call("GET", "/dags/remediate_guest/dagRuns?limit=100")["dag_runs"])
