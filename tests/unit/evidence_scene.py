"""A scene for evidence checks: a guest, a hypervisor and a clock that say what a test wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from unlatch.engines.mariadb import PLUGIN as MARIADB
from unlatch.models import (
    DomainChange,
    DomainFact,
    FileFact,
    Guest,
    HostFacts,
    Instance,
    LiveLock,
    Lock,
    LockKind,
    MountFact,
    Opener,
    OpenerScan,
    OpenFile,
    ProcessFact,
    Sample,
    Service,
    Volume,
    VolumeKind,
)
from unlatch.ports import Scene

DIED = datetime(2026, 3, 1, 5, 54, 52, tzinfo=UTC)
BOOTED = DIED + timedelta(seconds=9)
NOW = DIED + timedelta(minutes=1)
DATADIR = PurePosixPath("/ORA/dbs03/voms")
DEATH_NS = int(DIED.timestamp() * 1e9)
WORDS = ("true",)


class FakeClock:
    def __init__(self) -> None:
        self.paused: list[float] = []

    def now(self) -> datetime:
        return NOW + timedelta(seconds=sum(self.paused))

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)


@dataclass
class FakeAgent:
    """Answers what the test says; a callable or a list gives one answer after the other."""

    host: HostFacts = field(
        default_factory=lambda: HostFacts(
            "g", "boot", BOOTED, 51.0, NOW, (MountFact(DATADIR, "/ORA/dbs03", "ext4", None, None),)
        )
    )
    files: list[tuple[FileFact, ...]] = field(default_factory=lambda: [()])
    unlocked: list[tuple[FileFact, ...]] = field(default_factory=lambda: [()])
    scan: OpenerScan = field(default_factory=lambda: OpenerScan((), ()))
    broken: Exception | None = None
    locks: tuple[LiveLock, ...] = ()
    ports: dict[tuple[str, int], str] = field(default_factory=dict)

    def facts(self, *_: Any) -> HostFacts:
        self._break()
        return self.host

    def check_locks(self, *_: Any) -> tuple[FileFact, ...]:
        self._break()
        return self.files.pop(0) if len(self.files) > 1 else self.files[0]

    def samples(self, *_: Any) -> tuple[FileFact, ...]:
        self._break()
        return self.unlocked.pop(0) if len(self.unlocked) > 1 else self.unlocked[0]

    def openers(self, *_: Any) -> OpenerScan:
        self._break()
        return self.scan

    def live_locks(self, *_: Any) -> tuple[LiveLock, ...]:
        self._break()
        return self.locks

    def connects(self, host: str, port: int) -> str:
        self._break()
        return self.ports.get((host, port), "refused")

    def clock_skew(self, *_: Any) -> timedelta:
        self._break()
        return self.host.now - NOW

    def anew(self) -> FakeAgent:
        """Every question is asked anew here."""
        return self

    def _break(self) -> None:
        if self.broken:
            raise self.broken


@dataclass
class FakeHypervisor:
    facts: tuple[DomainFact, ...] = ()
    since: datetime | None = None

    def domain_facts(self, _: Guest, since: datetime, _back_to: datetime | None = None) -> tuple[DomainFact, ...]:
        self.since = since
        return self.facts

    def facts_elsewhere(self, *_: Any) -> dict[str, tuple[DomainFact, ...]]:
        return {}

    def running_on(self, *_: Any) -> dict[str, bool | None]:
        return {"hv01": None}


def scene(**changes: Any) -> Scene:
    instance = Instance(
        name="voms",
        guest="g",
        engine="mariadb",
        volume="dbs03",
        os_user="mysql",
        datadir=DATADIR,
        host="127.0.0.1",
        port=1,
        service=Service(WORDS, WORDS, WORDS, WORDS, WORDS),
    )
    made: dict[str, Any] = {
        "instance": instance,
        "guest": Guest("g", "hv01", "c"),
        "volume": Volume("dbs03", VolumeKind.LAB, PurePosixPath("/ORA/dbs03")),
        "died_at": DIED,
        "domain_id": 2,
        "agent": FakeAgent(),
        "engine": MARIADB,
        "hypervisor": FakeHypervisor(),
        "clock": FakeClock(),
        "held": True,
    }
    return Scene(**{**made, **changes})


def fact(change: DomainChange, seconds: float, domain_id: int | None = None) -> DomainFact:
    return DomainFact("2130_g", change, DIED + timedelta(seconds=seconds), f"{change} line", domain_id)


def locked(name: str = "ibdata1", kind: LockKind = LockKind.REMOTE, seconds: float = -10, **sample: Any) -> FileFact:
    values = {"size_bytes": 100, "mtime_ns": DEATH_NS + int(seconds * 1e9), "ctime_ns": 1, "head_sha256": "a", **sample}
    pid = 77 if kind is LockKind.LOCAL else None
    return FileFact(DATADIR / name, 11, 22, values["size_bytes"], Lock(kind, "write", pid), Sample(**values))


def redo(seconds: float = -10, **sample: Any) -> FileFact:
    return locked("ib_logfile0", LockKind.NONE, seconds, **sample)


def left_pid_file(process: ProcessFact | None, started: datetime | None, pid: int | None = 412) -> FileFact:
    lock = Lock(LockKind.PIDFILE, "excl", pid, started, process, "c")
    written = int((started or DIED).timestamp() * 1e9)
    return FileFact(DATADIR / "postmaster.pid", 11, 22, 80, lock, Sample(80, written, written, "a"))


C = DomainChange

SERVER = Opener(
    315,
    ("arguments",),
    exe="/usr/sbin/mariadbd",
    cmdline=("/usr/sbin/mariadbd", f"--datadir={DATADIR}"),
    fds=(OpenFile(f"{DATADIR}/ddl_recovery.log", 7, 1),),
)
