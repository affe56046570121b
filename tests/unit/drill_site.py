"""A site for drills: machines, an inventory and a ticket system that answer what a test wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tests.unit.builders import locked
from tests.unit.fakes import Clock
from tests.unit.world_parts import DIED_AT, GUEST, HYPERVISOR, LAB, instance
from unlatch import drill
from unlatch.models import (
    AccessProof,
    Drill,
    DrillCheck,
    FileFact,
    Guest,
    HostFacts,
    Hypervisor,
    Instance,
    Json,
    LockKind,
    MountFact,
    NasView,
    NotifyAnswer,
    OpenerScan,
    Policy,
    Volume,
    VolumeKind,
)
from unlatch.ports import CommandAnswer, Leave

NFS = Volume("dbs03", VolumeKind.NFS, PurePosixPath("/ORA/dbs03"), server="nas", clearer="command", peers=("standby",))
INSTALL = "install -o root -g root -m 0755 unlatch-agent.pyz"
LINE = "dbod ALL=(root) NOPASSWD: "


@dataclass
class Host:
    """A machine, its agent, and the answers that a test changes. An exception as answer is raised."""

    name: str
    user: str = "dbod"
    answers: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, Leave] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def agent(self) -> Host:
        return self

    def _answer(self, question: str, usual: Any) -> Any:
        self.asked.append(question)
        found = self.answers.get(question, usual)
        if isinstance(found, Exception):
            raise found
        return found() if callable(found) else found

    def login_user(self) -> str:
        return str(self._answer("login", self.user))

    def run(self, argv: Sequence[str]) -> CommandAnswer:
        found = self._answer(f"run {argv[0]}", CommandAnswer(0, "|/lib/systemd/systemd-coredump"))
        assert isinstance(found, CommandAnswer)
        return found

    def may_run(self, argv: Sequence[str], granted: Sequence[str] | None = None) -> Leave:
        self._answer("may_run", None)
        words = " ".join(argv)
        return next(
            (
                dataclasses.replace(leave, grant=LINE + " ".join(granted or argv[2:]))
                for part, leave in self.refused.items()
                if part in words
            ),
            Leave(True),
        )

    def version(self) -> str:
        return str(self._answer("version", "1.2.3"))

    def preflight(self, of: Instance) -> Sequence[Json]:
        rows = [
            {"privilege": "space", "path": str(of.datadir), "ok": True, "why": "plenty", "grant": None},
            {"privilege": "see every process", "path": None, "ok": False, "why": "not as mysql", "grant": "misleading"},
        ]
        found: Sequence[Json] = self._answer("preflight", rows)
        return found

    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        self.asked.append("facts")
        version = self.answers.get("facts", "3")
        mounts = tuple(MountFact(p, "/ORA/dbs03", "nfs", version) for p in paths)
        return HostFacts(self.name, "boot", DIED_AT, 1.0, DIED_AT, mounts)

    def check_locks(self, *_: Any) -> tuple[FileFact, ...]:
        usual = (locked("ibdata1", LockKind.LOCAL, size_bytes=500_000_000), locked("server.pid", LockKind.PIDFILE))
        found: tuple[FileFact, ...] = self._answer("check_locks", usual)
        return found

    def openers(self, *_: Any) -> OpenerScan:
        found: OpenerScan = self._answer("openers", OpenerScan((), ()))
        return found

    def notify(self, *, check: bool = False) -> NotifyAnswer:
        assert check, "a drill never notifies"
        found: NotifyAnswer = self._answer("notify", NotifyAnswer(("nas",)))
        return found

    def service(self, _of: Instance, action: str) -> CommandAnswer:
        assert action == "status", "a drill never starts, stops, holds or releases"
        found: CommandAnswer = self._answer("status", CommandAnswer(0, ""))
        return found

    def tail(self, *_: Any) -> str:
        return str(self._answer("tail", "ready for connections"))


@dataclass
class Engine:
    answer: Any = field(default_factory=lambda: AccessProof("10.11", "app", 0.1))

    def lock_paths(self, of: Instance) -> tuple[PurePosixPath, ...]:
        return (of.datadir,)

    def pid_files(self, _of: Instance) -> tuple[PurePosixPath, ...]:
        return ()

    def executables(self, _of: Instance) -> tuple[str, ...]:
        return ("mariadbd",)

    def login(self, _of: Instance, *, write_probe: bool) -> AccessProof:
        assert not write_probe, "a drill never writes"
        if isinstance(self.answer, Exception):
            raise self.answer
        found: AccessProof = self.answer
        return found


@dataclass
class Clearer:
    name: str = "command"
    view: Any = field(default_factory=NasView)
    command: tuple[str, ...] = ("sudo", "-n", "/usr/local/sbin/unlatch-nas-clear", "--json", "/srv/dbod")

    def list(self, _files: Sequence[PurePosixPath]) -> NasView:
        if isinstance(self.view, Exception):
            raise self.view
        found: NasView = self.view
        return found

    def reach(self, _view: NasView) -> Any:
        raise AssertionError("a drill has nothing to clear")

    def clear(self, _locks: Any) -> Any:
        raise AssertionError("a drill never clears")

    def clear_command(self) -> tuple[str, ...]:
        return self.command


class Tickets:
    name = "file"

    def __init__(self) -> None:
        self.answer: Any = "tickets go to /t"

    def check(self) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


@dataclass
class Known:
    """An inventory."""

    volume: Volume = LAB
    guests: dict[str, Guest] = field(default_factory=lambda: {GUEST.name: GUEST})
    hypervisors: dict[str, Hypervisor] = field(default_factory=lambda: {"hv01": HYPERVISOR})
    instances: tuple[Instance, ...] = field(default_factory=lambda: (instance(),))

    @property
    def volumes(self) -> Mapping[str, Volume]:
        return {self.volume.name: self.volume}

    def guest_of(self, domain: str, hypervisor: str | None = None) -> Guest | None:
        raise NotImplementedError

    def instances_of(self, guest: str) -> tuple[Instance, ...]:
        return tuple(i for i in self.instances if i.guest == guest)


@dataclass
class Site:
    """Everything that a drill asks; all is there until a test takes something away."""

    known: Known = field(default_factory=Known)
    policy: Policy = field(default_factory=Policy)
    hosts: dict[str, Host] = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)
    clearer: Clearer = field(default_factory=Clearer)
    tickets: Any = field(default_factory=Tickets)
    told: list[str] = field(default_factory=list)

    def host(self, name: str = GUEST.name) -> Host:
        return self.hosts.setdefault(name, Host(name))

    @contextmanager
    def _machine(self, _conn_id: str, name: str) -> Iterator[Host]:
        yield self.host(name)

    def drill(self, *names: str) -> Drill:
        ports = drill.DrillPorts(
            inventory=self.known,
            policy=self.policy,
            engines={"mariadb": self.engine},  # type: ignore[dict-item]  # only what a drill asks
            machine=self._machine,
            peer_connection=lambda peer: f"unlatch_guest_{peer}",
            clearer=lambda *_: self.clearer,
            ticketing=self.tickets,
            clock=Clock(),
            tell=self.told.append,
        )
        return drill.run(ports, names)

    def check(self, privilege: str, host: str | None = GUEST.name) -> DrillCheck:
        """The one check of that name in a drill of everything."""
        found = [c for c in self.drill().checks() if c.privilege == privilege and c.host == host]
        assert len(found) == 1, (privilege, found)
        return found[0]
