"""Other hosts that may mount the volume: every branch of `peers`, and where a volume can hide on a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from tests.unit.evidence_scene import DATADIR, FakeAgent, locked, scene
from unlatch.engines.postgresql import PLUGIN as POSTGRESQL
from unlatch.errors import ConfigError, TransientError
from unlatch.evidence import peers
from unlatch.models import (
    Answer,
    Evidence,
    FileFact,
    HostFacts,
    Instance,
    LiveLock,
    MountFact,
    Opener,
    OpenerScan,
    OpenFile,
    Unchecked,
    Volume,
    VolumeKind,
)
from unlatch.ports import Peer, Scene

VOLUME = Volume("dbs03", VolumeKind.NFS, PurePosixPath("/ORA/dbs03"), "nas")
FILES: tuple[FileFact, ...] = (replace(locked("ibdata1"), inode=11),)
WITNESS = replace(locked("ib_logfile0"), inode=13)
BASE: HostFacts = FakeAgent().host
PORT = 1


def mount(mountpoint: str, source: str, fstype: str = "nfs4") -> MountFact:
    """A mount, as `facts` tells it."""
    return MountFact(PurePosixPath(mountpoint), mountpoint, fstype, "4.2", None, source)


USUAL = mount("/ORA/dbs03", "nas:/srv/dbod/dbs03")


@dataclass
class PeerAgent:
    """A peer with mounts; directories are seen where `directories` says so."""

    mounts: tuple[MountFact, ...] | None = (USUAL,)
    directories: tuple[str, ...] = ("/ORA/dbs03/voms",)
    scans: Mapping[str, OpenerScan] = field(default_factory=dict)
    locks: tuple[LiveLock, ...] = ()
    ports: Mapping[tuple[str, int], str] = field(default_factory=dict)
    inodes: Mapping[str, int] = field(default_factory=dict)
    boot_id: str = "boot of the peer"
    broken: Mapping[str, Exception] = field(default_factory=dict)
    scanned: list[str] = field(default_factory=list)

    def facts(self, paths: Sequence[PurePosixPath] = ()) -> HostFacts:
        self._break("facts")
        seen = [
            replace(on, path=path)
            for path in paths
            if str(path) in self.directories and (on := self._mount_of(path)) is not None
        ]
        return replace(BASE, host="peer", boot_id=self.boot_id, paths=tuple(seen), nfs_mounts=self.mounts)

    def _mount_of(self, path: PurePosixPath) -> MountFact | None:
        known = (mount("/", "/dev/vda1", "ext4"), *((USUAL,) if self.mounts is None else self.mounts))
        on = [m for m in known if path.is_relative_to(m.mountpoint)]
        return max(on, key=lambda m: len(m.mountpoint), default=None)

    def openers(self, instance: Instance, _: Sequence[str]) -> OpenerScan:
        self._break("openers")
        self.scanned.append(str(instance.datadir))
        return self.scans.get(str(instance.datadir), OpenerScan((), ()))

    def samples(self, _: Instance, paths: Sequence[PurePosixPath]) -> tuple[FileFact, ...]:
        self._break("samples")
        return tuple(replace(FILES[0], path=p, inode=self.inodes[str(p)]) for p in paths if str(p) in self.inodes)

    def live_locks(self, *_: Any) -> tuple[LiveLock, ...]:
        self._break("live_locks")
        return self.locks

    def connects(self, host: str, port: int) -> str:
        self._break("connects")
        return self.ports.get((host, port), "refused")

    def _break(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]


def guest() -> FakeAgent:
    host = replace(BASE, boot_id="boot of the guest", paths=(replace(USUAL, path=DATADIR),))
    return FakeAgent(host=host, files=[FILES], unlocked=[(WITNESS,)])


def at(*agents: PeerAgent, foreign: frozenset[int] = frozenset(), **changes: Any) -> Scene:
    named = tuple(Peer(f"peer{n}", agent, foreign) for n, agent in enumerate(agents, start=1))
    return scene(**{"agent": guest(), "volume": VOLUME, "peers": named, **changes})


def look(where: Scene) -> Evidence:
    return peers.PLUGIN.collect(where)


def scan(*openers: Opener, unchecked: tuple[Unchecked, ...] = (), at: str = "/ORA/dbs03/voms") -> dict[str, OpenerScan]:
    return {at: OpenerScan(openers, unchecked)}


SERVER = Opener(4211, ("cmdline",), exe="/usr/sbin/mariadbd", cmdline=("/usr/sbin/mariadbd", f"--datadir={DATADIR}"))
COPIER = Opener(99, ("descriptor",), exe="/usr/bin/rsync", fds=(OpenFile(f"{DATADIR}/ibdata1", 11, 1),))
VISITOR = Opener(7, ("cwd",), exe="/bin/bash", cmdline=("-bash",), cwd=str(DATADIR))


class TestWhoIsAsked:
    """Every declared peer, completely, and each of them another machine."""

    def test_nothing_declared_and_nobody_declared(self) -> None:
        """It should tell an inventory that says nothing from one that says that there is nobody."""
        found = look(at(peers=None))
        assert found.answer is Answer.NOT_OBSERVED
        assert found.summary == "the inventory does not say which other hosts may mount it (volumes.dbs03.peers)"
        found = look(at(peers=()))
        assert found.answer is Answer.CLEAR
        assert found.summary == "the inventory declares that no other host may mount it"

    def test_all_quiet(self) -> None:
        """It should be clear when every peer was looked at, and say where each has the volume."""
        found = look(at(PeerAgent(), PeerAgent(mounts=(), directories=(), boot_id="b2")))
        assert found.answer is Answer.CLEAR, found.summary
        assert "peer1 has the volume at /ORA/dbs03, and nothing there uses voms" in found.summary
        assert "peer2 does not have the volume mounted" in found.summary

    @pytest.mark.parametrize("call", ["facts", "openers", "live_locks", "connects"])
    @pytest.mark.parametrize("error", [TransientError("no route"), ConfigError("no such privilege"), OSError("broken")])
    def test_a_peer_that_cannot_be_asked(self, call: str, error: Exception) -> None:
        """It should name it, and not let the others' quiet count for it."""
        found = look(at(PeerAgent(), PeerAgent(boot_id="b2", broken={call: error})))
        assert found.answer is Answer.NOT_OBSERVED
        assert "peer2: could not be asked" in found.summary
        assert str(error.args[0]) in found.summary

    def test_a_sign_of_life_beside_silence(self) -> None:
        """It should not be hidden by another peer, or the guest, that cannot be asked."""
        silent = PeerAgent(broken={"facts": TransientError("no route")})
        using = PeerAgent(scans=scan(SERVER))
        assert look(at(silent, using)).answer is Answer.ALIVE
        assert look(at(using, agent=FakeAgent(broken=TransientError("gone")))).answer is Answer.ALIVE

    def test_the_guest_must_be_there_to_compare(self) -> None:
        """It should not be clear while the guest cannot be asked: a peer might be the guest itself."""
        found = look(at(PeerAgent(), agent=FakeAgent(broken=TransientError("gone"))))
        assert (found.answer, "gone" in found.summary) == (Answer.NOT_OBSERVED, True)

    def test_a_peer_that_is_the_guest_itself(self) -> None:
        """It should take a connection that leads to the guest for a peer that was not asked, whatever is seen there."""
        found = look(at(PeerAgent(boot_id="boot of the guest", scans=scan(SERVER))))
        assert found.answer is Answer.NOT_OBSERVED
        assert "leads to g itself" in found.summary

    def test_two_peers_that_are_one_machine(self) -> None:
        """It should see that one of them was not asked."""
        found = look(at(PeerAgent(), PeerAgent()))
        assert found.answer is Answer.NOT_OBSERVED
        assert "peer1 and peer2 are one machine" in found.summary


class TestSignsOfLife:
    """What a peer can show."""

    @pytest.mark.parametrize(
        ("opener", "expected", "words"),
        [
            (SERVER, "alive", "on peer1 pid 4211 (/usr/sbin/mariadbd --datadir=/ORA/dbs03/voms) runs on"),
            (COPIER, "alive", "has /ORA/dbs03/voms/ibdata1 open"),
            (replace(SERVER, exe=None, cmdline=()), "alive", "pid 4211"),
            (VISITOR, "clear", "nothing there uses voms"),
        ],
    )
    def test_processes(self, opener: Opener, expected: str, words: str) -> None:
        """It should name host, pid and file; a shell in the directory is no server."""
        found = look(at(PeerAgent(scans=scan(opener))))
        assert found.answer == expected
        assert words in found.summary

    def test_a_scan_with_holes(self) -> None:
        """It should not be clear while one process could not be looked at."""
        hidden = (Unchecked(9, "descriptors are not readable"),)
        found = look(at(PeerAgent(scans=scan(unchecked=hidden))))
        assert (found.answer, "peer1: not every process" in found.summary) == (Answer.NOT_OBSERVED, True)
        assert look(at(PeerAgent(scans=scan(SERVER, unchecked=hidden)))).answer is Answer.ALIVE

    @pytest.mark.parametrize(
        ("lock", "expected"),
        [
            (LiveLock(5, 11, "/ORA/dbs03", "mariadbd", "nas"), "alive"),
            (LiveLock(5, 13, "/ORA/dbs03"), "alive"),
            (LiveLock(5, 12, "/ORA/dbs03"), "clear"),
            (LiveLock(5, 11, "/ORA/dbs04"), "clear"),
        ],
    )
    def test_locks(self, lock: LiveLock, expected: str) -> None:
        """It should see a lock on one of the instance's inodes, and not confuse inodes of other volumes."""
        found = look(at(PeerAgent(locks=(lock,))))
        assert found.answer == expected
        if expected == "alive":
            assert "on peer1 pid 5" in found.summary

    @pytest.mark.parametrize("host", ["127.0.0.1", "peer1"])
    def test_port(self, host: str) -> None:
        """It should see a server that listens on loopback alone, or on the host's address alone."""
        answering = PeerAgent(ports={(host, PORT): "open"})
        found = look(at(answering))
        assert (found.answer, "peer1 accepts connections on port 1" in found.summary) == (Answer.ALIVE, True)
        assert look(at(answering, foreign=frozenset({PORT}))).answer is Answer.CLEAR

    def test_silent_port(self) -> None:
        """It should not take silence on loopback for nothing; a name that the host does not know of itself is."""
        assert look(at(PeerAgent(ports={("127.0.0.1", PORT): "silent"}))).answer is Answer.NOT_OBSERVED
        assert look(at(PeerAgent(ports={("peer1", PORT): "silent"}))).answer is Answer.CLEAR


class TestWhereTheVolumeIs:
    """A volume can be mounted under any path, and exported under several names."""

    @pytest.mark.parametrize(
        ("mounts", "directory"),
        [
            ((mount("/mnt/x", "nas:/srv/dbod/dbs03"),), "/mnt/x/voms"),
            ((mount("/mnt/x", "nas:/srv"),), "/mnt/x/dbod/dbs03/voms"),
            ((mount("/mnt/x", "nas:/"),), "/mnt/x/srv/dbod/dbs03/voms"),
            ((mount("/mnt/x", "nas:/srv/dbod/dbs03/voms"),), "/mnt/x"),
            ((mount("/mnt/x", "nas:/srv/dbod/dbs03/voms/ts1"),), "/mnt/x"),
            ((USUAL, mount("/mnt/x", "nas:/srv/dbod/dbs03", "nfs")), "/mnt/x/voms"),
        ],
    )
    def test_under_another_path(self, mounts: tuple[MountFact, ...], directory: str) -> None:
        """It should scan wherever the instance's directory is, by what was mounted."""
        server = replace(SERVER, cmdline=("/usr/sbin/mariadbd", f"--datadir={directory}"))
        there = ("/ORA/dbs03/voms", directory) if USUAL in mounts else (directory,)
        agent = PeerAgent(mounts=mounts, directories=there, scans=scan(server, at=directory))
        found = look(at(agent))
        assert found.answer is Answer.ALIVE, found.summary
        assert directory in agent.scanned
        quiet = look(at(PeerAgent(mounts=mounts, directories=there)))
        assert (quiet.answer, "/mnt/x" in quiet.summary) == (Answer.CLEAR, True)

    @pytest.mark.parametrize(
        ("source", "directory"),
        [
            ("nas:/dbs03", "/mnt/x/voms"),
            ("nas:/dbs03/voms", "/mnt/x"),
            ("nas:/dbod/dbs03", "/mnt/x/voms"),
            ("nas:/", "/mnt/x/dbs03/voms"),
            ("nas.example.org:/srv/dbod/dbs03", "/mnt/x/voms"),
            ("[fd00::1]:/srv/dbod/dbs03", "/mnt/x/voms"),
            ("nas:/export/srv/dbod/dbs03", "/mnt/x/voms"),
            ("nas:/export/srv", "/mnt/x/dbod/dbs03/voms"),
            ("nas:/export", "/mnt/x/srv/dbod/dbs03/voms"),
        ],
    )
    def test_another_name_of_the_same_export(self, source: str, directory: str) -> None:
        """It should know the instance's directory by its inodes where names do not tell: NFSv4 roots, other servers."""
        same = PeerAgent(
            (mount("/mnt/x", source),), (directory,), scan(SERVER, at=directory), inodes={f"{directory}/ibdata1": 11}
        )
        assert look(at(same)).answer is Answer.ALIVE
        other = replace(same, inodes={f"{directory}/ibdata1": 4711}, scanned=[])
        found = look(at(other))
        assert found.answer is (Answer.NOT_OBSERVED if source == "nas:/" else Answer.CLEAR), found.summary
        assert other.scanned == []
        hidden = look(at(replace(same, inodes={})))
        assert (hidden.answer, directory in hidden.summary) == (Answer.NOT_OBSERVED, True)

    def test_a_mount_that_hides_the_directory(self) -> None:
        """It should not be clear when the right export is mounted and the directory cannot be seen in it."""
        found = look(at(PeerAgent((mount("/mnt/x", "nas:/srv/dbod/dbs03"),), ())))
        assert (found.answer, "/mnt/x/voms cannot be seen" in found.summary) == (Answer.NOT_OBSERVED, True)

    def test_other_volumes_are_left_alone(self) -> None:
        """It should not scan other volumes, nor a local directory of the same name."""
        agent = PeerAgent((USUAL, mount("/ORA/dbs04", "nas:/srv/dbod/dbs04")))
        assert look(at(agent)).answer is Answer.CLEAR
        assert agent.scanned == ["/ORA/dbs03/voms"]
        local = PeerAgent((), ("/ORA/dbs03/voms",), scan(SERVER))
        assert look(at(local)).answer is Answer.CLEAR

    def test_mounts_that_are_not_told(self) -> None:
        """It should not be clear while the volume may be mounted elsewhere without anyone saying so."""
        found = look(at(PeerAgent(mounts=None)))
        assert (found.answer, "does not tell all its mounts" in found.summary) == (Answer.NOT_OBSERVED, True)
        unknown = replace(guest(), host=replace(guest().host, paths=()))
        assert look(at(PeerAgent(), agent=unknown)).answer is Answer.NOT_OBSERVED

    def test_an_engine_without_locks(self) -> None:
        """It should ask a peer about a PostgreSQL just the same: nothing else protects that on shared storage."""
        server = Opener(
            12, ("cmdline",), exe="/usr/lib/postgresql/15/bin/postgres", cmdline=("postgres", "-D", str(DATADIR))
        )
        assert look(at(PeerAgent(scans=scan(server)), engine=POSTGRESQL)).answer is Answer.ALIVE
        assert look(at(PeerAgent(), engine=POSTGRESQL)).answer is Answer.CLEAR
