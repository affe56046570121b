"""A world on shared storage with the real checks; guest, peers, hypervisors and NAS count what they are asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path, PurePosixPath

from tests.unit.fake_agent import Agent
from tests.unit.fakes import World
from tests.unit.world_parts import DIED_AT, GUEST, NFS, counted
from unlatch import discovery
from unlatch.crash_sources.xend import PLUGIN as XEND
from unlatch.models import ClearAnswer, HostFacts, Hypervisor, HypervisorLog, MountFact, NasLock, NasView, Reach
from unlatch.ports import PeerHost
from unlatch.transport.hypervisor_log import LogHypervisorWatch
from unlatch.transport.ssh import RemoteAnswer

LIST = ("sudo", "-n", "xl", "list")
MOUNT = MountFact(PurePosixPath("/ORA/dbs03"), "/ORA/dbs03", "nfs", "3", "none", "nas:/srv/dbs03")
_DEATH = "[2026-03-07 05:54:52 1234] WARNING (XendDomainInfo:1994) Domain has crashed: name=2130_dbvrtg4037 id=7.\n"
_OTHERS = "[2026-03-07 01:00:00 1234] INFO (XendDomainInfo:99) Domain has shutdown: name=other id=1 reason=poweroff.\n"


def _on_volume(paths: Sequence[PurePosixPath]) -> tuple[MountFact, ...]:
    return tuple(replace(MOUNT, path=path) for path in paths)


class Guest(Agent):
    """The guest, whose mount has a source, so that the peers' mounts can be compared with it."""

    @counted()
    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        """Up since 2 s after the crash."""
        now, booted_at = self.world.clock.now(), DIED_AT + timedelta(seconds=2)
        uptime_s = (now - booted_at).total_seconds()
        return HostFacts(GUEST.name, self.world.boot_id, booted_at, uptime_s, now, _on_volume(paths), (MOUNT,))


class Peer(Agent):
    """Another host with the volume mounted, on which nothing uses it."""

    def __init__(self, world: World, name: str) -> None:
        """Take its name, under which its calls are counted."""
        super().__init__(world)
        self.port = name

    @counted()
    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        """A boot of its own, and the volume where the guest has it."""
        now = self.world.clock.now()
        return HostFacts(self.port, f"boot of {self.port}", DIED_AT, 1.0, now, _on_volume(paths), (MOUNT,))


class Nas:
    """A lock clearer that lists nothing and tells no client."""

    name, port = "fake", "nas"

    def __init__(self, world: World) -> None:
        """Take the world that counts."""
        self.world = world

    @counted()
    def list(self, _files: Sequence[PurePosixPath]) -> NasView:
        """Locks without a client, as Linux lists those of NFSv3."""
        inodes = [inode.number for inode in self.world.names.values() if inode.lock.value == "remote"]
        return NasView(tuple(NasLock(None, number, "nfsv3", None) for number in inodes))

    def reach(self, _view: NasView) -> Reach:
        """Everybody's."""
        return Reach.VOLUME

    @counted(touches=True)
    def clear(self, locks: Sequence[NasLock]) -> ClearAnswer:
        """Free them all."""
        self.world.agent._free_all()  # the same world
        return ClearAnswer(len(locks), "freed")


@dataclass
class Shell:
    """A hypervisor over SSH: the first one runs the guest's domain, and its log has the death."""

    world: World
    name: str

    def run(self, argv: Sequence[str], *, timeout_s: float) -> RemoteAnswer:
        """Its list of domains, or its log."""
        assert timeout_s > 0
        own = self.name == "hv01"
        question = "domains" if "xl" in argv else "log"
        self.world.call(f"{self.name}.{question}", tuple(argv), touches=False)
        self.world.then.pop(self.name, lambda: None)()
        if question == "domains":
            return RemoteAnswer(0, f"Name ID\n{'2130_dbvrtg4037' if own else 'other'} 8\n".encode(), b"")
        return RemoteAnswer(0, f"UNLATCH-LOG-1\nT\n{_DEATH if own else _OTHERS}".encode(), b"")


def wide_world(directory: Path, *, peers: int = 3, hypervisors: int = 4, listing: bool = True) -> World:
    """The world: NFSv3, the first hypervisor is the guest's own."""
    world = World(directory / "store.db", volume=NFS)
    names = [f"hv{n:02d}" for n in range(1, hypervisors + 1)]
    log = HypervisorLog("xend", PurePosixPath("/x.log"), "UTC")
    declared = {n: Hypervisor(n, f"c_{n}", (log,), LIST if listing else ()) for n in names}
    world.agent = Guest(world)
    world.hypervisor = LogHypervisorWatch(declared, lambda _, name: Shell(world, name), {"xend": XEND})
    world.peers = tuple(PeerHost(f"peer{n}", Peer(world, f"peer{n}")) for n in range(1, peers + 1))
    world.clearer = Nas(world)
    world.checks = {name: module.PLUGIN for name, module in discovery.load_plugins("unlatch.evidence").items()}
    return world


def asked(world: World) -> dict[str, Counter[str]]:
    """How often each machine was asked what; the store, tickets and logins are none."""
    found: dict[str, Counter[str]] = {}
    for call in world.calls:
        host, _, question = call.name.partition(".")
        if host not in {"store", "tickets", "engine", "checks"}:
            found.setdefault(host, Counter())[question] += 1
    return found
