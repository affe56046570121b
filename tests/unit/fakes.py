"""A world in memory for the runbook: a guest with files, locks and a service, and all other ports. The store is real.

Every call of a port goes through `World.call`, which keeps it in `World.calls` and can die there, as a worker does
that gets SIGKILL: with a `BaseException` that no step may catch. Dying before a call leaves the same world as dying
right after the one before it, so "before" is all that is needed.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from tests.unit.fake_agent import Agent
from tests.unit.fake_plugins import Check, Engine
from tests.unit.world_parts import DIED_AT, GUEST, HYPERVISOR, LAB, Call, Entry, Inode, Killed, Unit, counted, instance
from unlatch import decisions
from unlatch.models import (
    Answer,
    Certainty,
    CrashEvent,
    DomainFact,
    Guest,
    Hypervisor,
    Instance,
    Json,
    LiveLock,
    LockKind,
    OurFile,
    Policy,
    Site,
    Volume,
)
from unlatch.ports import CommandAnswer, IncidentPorts, LockClearer, Neighbour, PeerHost, Ports
from unlatch.recording import Case
from unlatch.store.sql_store import SqlStore

WRITES = frozenset(
    [
        "open_incident",
        "set_state",
        "set_ticket",
        "update_event",
        "begin",
        "end",
        "note",
        "take_lease",
        "release_lease",
        "take_slot",
        "release_slot",
        "record_event",
        "record_events_and_cursor",
        "set_cursor",
        "keep_report",
        "queue",
        "take_delivery",
        "delivered",
        "not_delivered",
    ]
)
"""The store's methods that change it."""


class World:
    """Everything that the steps see and touch, except the store, which is a real one."""

    def __init__(self, store_file: Path, *instances: Instance, volume: Volume = LAB) -> None:
        """Make a guest that crashed: of each instance two files locked by the dead, and a stale pid file."""
        self.clock, self.file = Clock(), store_file
        self._turn = threading.Lock()
        self.calls: list[Call] = []
        self.dies_at: int | None = None
        self.dead = False
        self.then: dict[str, Callable[[], None]] = {}
        self.instances = {i.name: i for i in (instances or (instance(),))}
        self.volume = volume
        self.policy, self.site = Policy(), Site(timezone="Europe/Zurich", country="CH")
        self.stop = False
        self.numbers = itertools.count(100)
        self.names: dict[PurePosixPath, Inode] = {}
        self.journal: dict[tuple[str, PurePosixPath], Entry] = {}
        self.swaps: dict[PurePosixPath, int] = {}
        self.units = {name: Unit() for name in self.instances}
        self.boot_id, self.guest_answers = "boot-2", True
        self.log_lines: Sequence[str] = ()
        self.answers: dict[str, Answer] = {}
        self.evidence_life_s = 120
        self.copy_looks = 2
        self.copy_error: Json | None = None
        self.die_inside_commit_after: int | None = None
        self.die_inside_set_aside = False
        self.die_inside_purge_after: int | None = None
        self.strays: tuple[OurFile, ...] = ()
        self.login_error: Exception | None = None
        self.hypervisor_says: list[DomainFact] | Exception = []
        for each in self.instances.values():
            self._crash(each)
        self.store = CountedStore(self, SqlStore(f"sqlite:///{store_file}", clock=self.clock))
        self.tickets = Tickets(self)
        self.agent = Agent(self)
        self.engine = Engine(self)
        self.hypervisor = HypervisorSays(self)
        self.listening: set[tuple[str, int]] = set()
        self.run_on: list[tuple[str, str, tuple[str, ...]]] = []
        self.commands: dict[str, int] = {}
        self.peers: tuple[PeerHost, ...] | None = None
        self.clearer: LockClearer | None = None
        self.neighbours: tuple[Neighbour, ...] = ()
        self.nfs_version, self.local_lock = "3", "none"
        self.still_notifying = False
        self.live_locks: tuple[LiveLock, ...] = ()
        self.notify_frees, self.notify_error = True, None
        self.lease_over_at: datetime | None = None
        self.checks = {n: Check(self, n) for n in decisions.wanted_checks(instance(engine="postgresql"), volume)}

    def _crash(self, of: Instance) -> None:
        for name in ("ibdata1", "aria_log_control"):
            self.names[of.datadir / name] = Inode(next(self.numbers), f"rows of {of.name}", LockKind.REMOTE)
        self.names[of.datadir / "table.ibd"] = Inode(next(self.numbers), "never locked")
        self.names[of.datadir / "server.pid"] = Inode(next(self.numbers), "321", LockKind.PIDFILE, pid=321)

    def call(self, name: str, arguments: tuple[Any, ...], *, touches: bool) -> None:
        """Count a call, or die instead of making it; the dead call nothing, not even to tidy up behind themselves."""
        with self._turn:
            if self.dies_at == len(self.calls):
                self.dies_at = None
                raise self.death(f"call {len(self.calls)}: {name}")
            if self.dead:
                raise Killed(f"dead before {name}")
            self.calls.append(Call(name, arguments, touches))

    def death(self, words: str) -> Killed:
        """What is raised where the worker dies; it works again once `dead` is false."""
        self.dead = True
        return Killed(words)

    def after(self, name: str, happens: Callable[[], None]) -> None:
        """Let something happen right after the next call of that name."""
        self.then[name] = happens

    def touched(self) -> list[str]:
        """What was changed on the guest, call by call."""
        return [
            f"{c.name} {c.arguments[1] if c.name == 'agent.service' else ''}".strip() for c in self.calls if c.touches
        ]

    @property
    def event(self) -> CrashEvent:
        """The crash, as the watch has read it."""
        return CrashEvent(
            "2130_dbvrtg4037", "hv01", DIED_AT, "device model killed by SIGSEGV", ("Domain has crashed",),
            Certainty.CERTAIN, guest=GUEST.name, signal=11, restarted_at=DIED_AT + timedelta(seconds=6),
        )  # fmt: skip

    @property
    def inventory(self) -> Inventory:
        """What is declared."""
        return Inventory(self)

    @property
    def incident_ports(self) -> IncidentPorts:
        """Ports of the steps on the incident as a whole."""
        return IncidentPorts(
            self.inventory, lambda _: self.agent, self.hypervisor, self.store, self.tickets, self.clock, self.policy,
            "eva", lambda: self.stop, self.site_command, lambda host, port: (host, port) in self.listening,
        )  # fmt: skip

    def site_command(self, where: str, guest: str, argv: Sequence[str]) -> CommandAnswer:
        """A site's own command; its exit code is in the world's `commands` by its first word, 0 when not."""
        self.call("site.run_on", (where, guest, tuple(argv)), touches=True)
        self.run_on.append((where, guest, tuple(argv)))
        return CommandAnswer(self.commands.get(argv[0], 0), f"{argv[0]} says so")

    @property
    def ports(self) -> Ports:
        """Ports of the steps on one instance."""
        return Ports(
            self.agent, self.engine, self.hypervisor, self.checks, self.store, self.tickets, self.clock, self.policy,
            "eva", lambda: self.stop, peers=self.peers, clearer=self.clearer, neighbours=self.neighbours,
        )  # fmt: skip

    def case(self, incident: str, name: str, *, dry_run: bool = False) -> Case:
        """One instance of an incident."""
        return Case(incident, self.instances[name], GUEST, self.volume, self.event, dry_run)


class Clock:
    """Stands still unless somebody waits."""

    def __init__(self) -> None:
        """Three seconds after the crash."""
        self.time = DIED_AT + timedelta(seconds=3)

    def now(self) -> datetime:
        """The present moment."""
        return self.time

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


class Inventory:
    """See `ports.InventoryView`."""

    def __init__(self, world: World) -> None:
        """One guest on one hypervisor."""
        self.guests: Mapping[str, Guest] = {GUEST.name: GUEST}
        self.hypervisors: Mapping[str, Hypervisor] = {"hv01": HYPERVISOR}
        self.volumes: Mapping[str, Volume] = {world.volume.name: world.volume}
        self.site = world.site
        self._instances = tuple(world.instances.values())

    def guest_of(self, domain: str, _hypervisor: str | None = None) -> Guest | None:
        """The guest of a domain."""
        return GUEST if domain.endswith(f"_{GUEST.name}") else None

    def instances_of(self, guest: str) -> tuple[Instance, ...]:
        """The guest's instances."""
        return tuple(i for i in self._instances if i.guest == guest)


class CountedStore:
    """The real store; its writes are calls of the world."""

    def __init__(self, world: World, real: SqlStore) -> None:
        """Make the tables."""
        self.world, self.real = world, real
        real.migrate()

    def __getattr__(self, name: str) -> Any:
        """A method of the real store."""
        method = getattr(self.real, name)
        if name not in WRITES:
            return method

        def called(*arguments: Any, **named: Any) -> Any:
            bound = inspect.signature(method).bind(*arguments, **named).arguments
            self.world.call(f"store.{name}", tuple(bound.values()), touches=False)
            return method(*arguments, **named)

        return called


class Tickets:
    """See `ports.Ticketing`; `down` is the error that every call raises."""

    port = "tickets"

    def __init__(self, world: World) -> None:
        """No ticket yet."""
        self.world, self.down = world, None
        self.down: Exception | None = None
        self.opened: dict[str, tuple[str, str]] = {}
        self.comments: dict[tuple[str, str], str] = {}
        self.states: list[str] = []
        self.files: dict[str, bytes] = {}

    def _reach(self) -> None:
        if self.down is not None:
            raise self.down

    @counted()
    def open(self, incident: str, title: str, body: str, reference: str | None) -> str:
        """Open once."""
        self._reach()
        self.opened.setdefault(incident, (title, body))
        return reference or f"TICKET-{incident}"

    @counted()
    def comment(self, reference: str, marker: str, text: str) -> None:
        """Comment once per marker."""
        self._reach()
        self.comments.setdefault((reference, marker), text)

    @counted()
    def set_state(self, _reference: str, state: str) -> None:
        """Keep the state."""
        self._reach()
        self.states.append(state)

    @counted()
    def attach(self, _reference: str, file_name: str, content: bytes, _content_type: str) -> None:
        """Keep the file, once per name."""
        self._reach()
        self.files.setdefault(file_name, content)

    def link(self, reference: str) -> str:
        """Its address."""
        return f"https://tickets.example.org/{reference}"

    @property
    def text(self) -> str:
        """All comments."""
        return "\n---\n".join(self.comments.values())


class HypervisorSays:
    """See `ports.HypervisorWatch`."""

    port = "hypervisor"

    def __init__(self, world: World) -> None:
        """Says what the world's `hypervisor_says` holds."""
        self.world = world

    def for_one_look(self) -> HypervisorSays:
        """Nothing is remembered here."""
        return self

    @counted()
    def domain_facts(self, _guest: Guest, since: datetime, _back_to: datetime | None = None) -> tuple[DomainFact, ...]:
        """The facts since then."""
        if isinstance(self.world.hypervisor_says, Exception):
            raise self.world.hypervisor_says
        return tuple(f for f in self.world.hypervisor_says if f.at >= since)

    @counted()
    def lines_around(self, _guest: Guest, _moment: datetime, _seconds: float) -> tuple[str, ...]:
        """The world's log lines, or why they cannot be read."""
        if isinstance(self.world.hypervisor_says, Exception):
            raise self.world.hypervisor_says
        return tuple(self.world.log_lines)
