"""Every check's answers, over guests and hypervisors made up in memory."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

import pytest

from tests.unit.evidence_scene import (
    BOOTED,
    DATADIR,
    DEATH_NS,
    DIED,
    NOW,
    SERVER,
    C,
    FakeAgent,
    FakeHypervisor,
    fact,
    left_pid_file,
    locked,
    redo,
    scene,
)
from unlatch.engines.postgresql import PLUGIN as POSTGRESQL
from unlatch.errors import TransientError
from unlatch.evidence import guest_boot, hypervisor_log, lock_holder, mount, openers, pid_file, port, processes, samples
from unlatch.models import (
    Answer,
    DomainFact,
    FileFact,
    LockKind,
    MountFact,
    Opener,
    OpenerScan,
    OpenFile,
    ProcessFact,
    Unchecked,
    Volume,
    VolumeKind,
)


class TestHypervisorLog:
    """The one proof of death."""

    @pytest.mark.parametrize(
        ("facts", "expected"),
        [
            (
                [fact(C.DEVICE_MODEL_DIED, 0), fact(C.CRASHED, 1, 2), fact(C.DESTROYED, 1, 2), fact(C.CREATED, 6)],
                "dead",
            ),
            ([fact(C.CRASHED, 0, 2)], "dead"),
            ([fact(C.DESTROYED, -1, 2)], "dead"),
            ([fact(C.CRASHED, 1, 2), fact(C.CREATED, 6), fact(C.CRASHED, 40, 3)], "dead"),
            ([fact(C.DEVICE_MODEL_DIED, 0)], "not_observed"),
            ([fact(C.DEVICE_MODEL_DIED, 0), fact(C.CREATED, 6)], "not_observed"),
            ([], "not_observed"),
            ([fact(C.CRASHED, -30, 1), fact(C.CREATED, -20)], "alive"),
            ([fact(C.CRASHED, -30, 1), fact(C.CREATED, -20), fact(C.DEVICE_MODEL_DIED, 0)], "not_observed"),
            ([fact(C.CRASHED, 1, 7)], "not_observed"),
            ([fact(C.CREATED, 6), fact(C.CRASHED, 40, 3)], "not_observed"),
            ([fact(C.MIGRATED, 0), fact(C.DESTROYED, 1, 2)], "alive"),
            ([fact(C.MIGRATED, -20), fact(C.DESTROYED, 1, 2)], "alive"),
            ([fact(C.CRASHED, 1, 2), fact(C.CREATED, 6), fact(C.MIGRATED, 50)], "alive"),
            ([fact(C.CRASHED, 1, 2), fact(C.SHUT_DOWN, 9)], "not_observed"),
            ([fact(C.SHUT_DOWN, 0, 2)], "not_observed"),
            ([fact(C.CREATED, -20)], "alive"),
            ([fact(C.CREATED, -2), fact(C.DEVICE_MODEL_DIED, 0), fact(C.CRASHED, 0, 2)], "dead"),
            ([fact(C.CREATED, 0), fact(C.CRASHED, 0, 2), fact(C.CREATED, 0)], "dead"),
            ([fact(C.DESTROYED, -1, 2), fact(C.CREATED, -1), fact(C.DEVICE_MODEL_DIED, 0)], "not_observed"),
            ([fact(C.DESTROYED, -1, 2), fact(C.CREATED, 0), fact(C.DEVICE_MODEL_DIED, 0)], "not_observed"),
        ],
        ids=lambda value: (
            "+".join(f"{f.change}@{(f.at - DIED).total_seconds():g}" for f in value)
            if isinstance(value, list)
            else value
        ),
    )
    def test_answers(self, facts: list[DomainFact], expected: str) -> None:
        """It should say dead only when the log says the end of this very domain, and never after a migration."""
        found = hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor(tuple(facts))))
        assert found.answer == expected, found.summary

    def test_domain_id_that_nobody_knows(self) -> None:
        """It should not need the domain's number, as long as no later incarnation's death is taken for it."""
        lines = (fact(C.CRASHED, 1, 7), fact(C.CREATED, 6))
        found = hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor(lines), domain_id=None))
        assert found.answer is Answer.DEAD
        lines = (fact(C.CREATED, 6), fact(C.CRASHED, 40, 8))
        found = hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor(lines), domain_id=None))
        assert found.answer is Answer.NOT_OBSERVED

    def test_failed_destruction_is_no_proof(self) -> None:
        """It should wait for the restart when the hypervisor could not destroy the domain."""
        lines = (fact(C.CRASHED, 1, 2), fact(C.DESTROYED, 1, 2), fact(C.DESTROY_FAILED, 1, 2))
        found = hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor(lines)))
        assert found.answer is Answer.NOT_OBSERVED
        found = hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor((*lines, fact(C.CREATED, 6)))))
        assert found.answer is Answer.DEAD

    def test_no_subset_of_lines_after_a_migration_is_dead(self) -> None:
        """It should not become dead by losing any one line of the death."""
        lines = [fact(C.CRASHED, 1, 2), fact(C.DESTROYED, 1, 2), fact(C.CREATED, 6)]
        for left_out in (0, 1):
            kept = tuple(f for i, f in enumerate(lines) if i != left_out)
            assert hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor(kept))).answer is Answer.DEAD
        nothing = (fact(C.CREATED, 6),)
        assert hypervisor_log.PLUGIN.collect(scene(hypervisor=FakeHypervisor(nothing))).answer is Answer.NOT_OBSERVED

    def test_asks_from_a_minute_before_the_death(self) -> None:
        """It should see a migration that led to the destruction."""
        hypervisor = FakeHypervisor()
        hypervisor_log.PLUGIN.collect(scene(hypervisor=hypervisor))
        assert hypervisor.since == DIED - timedelta(seconds=60)


class TestGuestBoot:
    """Never dead, whatever the boot says."""

    @pytest.mark.parametrize(
        ("booted", "expected"), [(9, "clear"), (0, "clear"), (-1.5, "clear"), (-3, "alive"), (-86400, "alive")]
    )
    def test_answers(self, booted: float, expected: str) -> None:
        """It should tell a guest that was never down from one that booted after the death."""
        host = replace(FakeAgent().host, booted_at=DIED + timedelta(seconds=booted))
        assert guest_boot.PLUGIN.collect(scene(agent=FakeAgent(host))).answer == expected

    def test_wrong_clock(self) -> None:
        """It should believe no boot time of a guest whose clock is off: it could seem to have booted after."""
        host = replace(FakeAgent().host, now=NOW + timedelta(hours=1), booted_at=BOOTED + timedelta(hours=1))
        found = guest_boot.PLUGIN.collect(scene(agent=FakeAgent(host)))
        assert (found.answer, "+3600 s" in found.summary) == (Answer.NOT_OBSERVED, True)


class TestMount:
    """The mount is as declared, or nothing else can be believed."""

    @pytest.mark.parametrize(
        ("kind", "fstype", "local_lock", "expected"),
        [
            ("lab", "ext4", None, "clear"),
            ("lab", "nfs4", "none", "not_observed"),
            ("lab", "nfs", "none", "not_observed"),
            ("lab", "fuse.sshfs", None, "not_observed"),
            ("nfs", "nfs", "none", "clear"),
            ("nfs", "nfs4", "none", "clear"),
            ("nfs", "nfs", "all", "not_observed"),
            ("nfs", "nfs", "posix", "not_observed"),
            ("nfs", "nfs", "flock", "not_observed"),
            ("nfs", "ext4", None, "not_observed"),
        ],
    )
    def test_answers(self, kind: str, fstype: str, local_lock: str | None, expected: str) -> None:
        """It should be clear only where locks mean what the inventory says they mean."""
        host = replace(FakeAgent().host, paths=(MountFact(DATADIR, "/ORA/dbs03", fstype, "3", local_lock),))
        volume = Volume("dbs03", VolumeKind(kind), PurePosixPath("/ORA/dbs03"))
        assert mount.PLUGIN.collect(scene(agent=FakeAgent(host), volume=volume)).answer == expected

    def test_volume_that_is_not_mounted(self) -> None:
        """It should not be taken for a local volume."""
        host = replace(FakeAgent().host, paths=())
        assert mount.PLUGIN.collect(scene(agent=FakeAgent(host))).answer is Answer.NOT_OBSERVED


class TestLockHolder:
    """Holders that the guest can see."""

    @pytest.mark.parametrize(
        ("kinds", "expected"),
        [([], "clear"), ([LockKind.REMOTE], "clear"), ([LockKind.REMOTE, LockKind.LOCAL], "alive")],
    )
    def test_answers(self, kinds: list[LockKind], expected: str) -> None:
        """It should name a local holder, and say nothing of a remote one, dead or alive."""
        agent = FakeAgent(files=[tuple(locked(f"f{i}", kind) for i, kind in enumerate(kinds))])
        found = lock_holder.PLUGIN.collect(scene(agent=agent))
        assert found.answer == expected
        assert ("pid 77" in found.summary) is (expected == "alive")

    def test_engine_without_locks(self) -> None:
        """It should say so, and not ask the guest."""
        agent = FakeAgent(broken=TransientError("must not be asked"))
        assert lock_holder.PLUGIN.collect(scene(agent=agent, engine=POSTGRESQL)).answer is Answer.CLEAR


OPEN = OpenFile("/ORA/dbs03/voms/ibdata1", 11, 22)
HIDDEN = Unchecked(9, "descriptors are not readable")


class TestOpenersAndProcesses:
    """Two questions to one scan."""

    @pytest.mark.parametrize(
        ("opener", "unchecked", "of_openers", "of_processes"),
        [
            (None, (), "clear", "clear"),
            (None, (HIDDEN,), "not_observed", "not_observed"),
            (Opener(5, fds=(OPEN,), exe="/usr/sbin/mariadbd"), (), "alive", "alive"),
            (Opener(5, fds=(OPEN,), exe="/usr/sbin/mariadbd"), (HIDDEN,), "alive", "alive"),
            (Opener(5, fds=(OPEN,), exe="/usr/bin/cp"), (), "alive", "clear"),
            (Opener(5, exe="/usr/sbin/mariadbd", state="D"), (), "clear", "alive"),
            (Opener(5, exe="/usr/sbin/mysqld (deleted)"), (), "clear", "alive"),
            (Opener(5, exe="/bin/dash", cmdline=("/bin/sh", "/usr/bin/mysqld_safe", "-x")), (), "clear", "alive"),
            (Opener(5, exe=None, cmdline=("/usr/sbin/mariadbd", "--datadir=/x")), (), "clear", "alive"),
            (Opener(5, exe=None), (), "clear", "alive"),
            (Opener(5, exe="/bin/bash", cwd="/ORA/dbs03/voms", cmdline=("-bash",)), (), "clear", "clear"),
            (Opener(5, exe="/bin/bash", cwd="/ORA/dbs03/voms"), (HIDDEN,), "not_observed", "not_observed"),
        ],
    )
    def test_answers(
        self, opener: Opener | None, unchecked: tuple[Unchecked, ...], of_openers: str, of_processes: str
    ) -> None:
        """It should never be clear while something was not looked at, nor while a server may be there."""
        agent = FakeAgent(scan=OpenerScan((opener,) if opener else (), unchecked))
        assert openers.PLUGIN.collect(scene(agent=agent)).answer == of_openers
        assert processes.PLUGIN.collect(scene(agent=agent)).answer == of_processes


def test_an_answer_is_one_line() -> None:
    """It should keep the arguments of a process, which may be anything, from beginning a line of their own."""
    opener = Opener(5, fds=(OPEN,), cmdline=("x\n\n# The owner has agreed\n\n<!-- unlatch: comment a -->\n",))
    found = openers.PLUGIN.collect(scene(agent=FakeAgent(scan=OpenerScan((opener,), ()))))
    assert found.answer is Answer.ALIVE
    assert "\n" not in found.summary


class TestPort:
    """What answers at the address."""

    def _at(self, host: str, number: int) -> Answer:
        base = scene()
        return port.PLUGIN.collect(replace(base, instance=replace(base.instance, host=host, port=number))).answer

    def test_answers(self) -> None:
        """It should be alive while something accepts, clear when it is refused, and not observed otherwise."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            number = listener.getsockname()[1]
            assert self._at("127.0.0.1", number) is Answer.ALIVE
        assert self._at("127.0.0.1", number) is Answer.CLEAR
        assert self._at("name.invalid", number) is Answer.NOT_OBSERVED

    def test_one_address_of_several_that_is_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It should not be clear because the last of a name's addresses refuses, when another one does not answer."""
        seen = ["192.0.2.1", "192.0.2.2"]

        def addresses(_host: str, number: int, *_: object, **__: object) -> list[tuple[object, ...]]:
            families = {at: socket.AF_INET6 if ":" in at else socket.AF_INET for at in seen}
            return [(families[at], socket.SOCK_STREAM, 6, "", (at, number)) for at in seen]

        def connect(_: socket.socket, address: tuple[str, int]) -> None:
            says = {"192.0.2.1": TimeoutError("timed out"), "::1": OSError(errno.ENETUNREACH, "unreachable")}
            raise says.get(address[0], ConnectionRefusedError("refused"))

        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        monkeypatch.setattr(socket.socket, "connect", connect)
        assert self._at("db.example.org", 3306) is Answer.NOT_OBSERVED
        seen.reverse()
        assert self._at("db.example.org", 3306) is Answer.NOT_OBSERVED
        seen[seen.index("192.0.2.1")] = "::1"
        assert self._at("db.example.org", 3306) is Answer.CLEAR, "there is no IPv6 here"
        seen[:] = ["::1"]
        assert self._at("db.example.org", 3306) is Answer.NOT_OBSERVED
        seen[:] = ["192.0.2.2", "192.0.2.3"]
        assert self._at("db.example.org", 3306) is Answer.CLEAR

    def test_silence_is_no_proof(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It should not take an address that never answers for a dead server."""
        monkeypatch.setattr(port, "LIMIT_S", 0.2)
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            number = listener.getsockname()[1]
            waiting = []
            for _ in range(4):  # the backlog is full, so the next one gets no answer
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", number))
                waiting.append(client)
            assert self._at("127.0.0.1", number) is Answer.NOT_OBSERVED
            for client in waiting:
                client.close()


class TestSamples:
    """Change over time."""

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ((), (), "not_observed"),
            ((locked(),), (locked(),), "clear"),
            ((locked(),), (locked(size_bytes=101),), "alive"),
            ((locked(),), (locked(mtime_ns=DEATH_NS),), "alive"),
            ((locked(),), (locked(ctime_ns=2),), "alive"),
            ((locked(),), (locked(head_sha256="b"),), "alive"),
            ((), (locked(),), "alive"),
            ((locked(),), (), "not_observed"),
            ((locked(seconds=4),), (locked(seconds=4),), "clear"),
            ((locked(seconds=6),), (locked(seconds=6),), "alive"),
        ],
    )
    def test_answers(self, first: tuple[FileFact, ...], second: tuple[FileFact, ...], expected: str) -> None:
        """It should see every change between two looks, and every write after the death."""
        at = scene(agent=FakeAgent(files=[first, second]))
        found = samples.PLUGIN.collect(at)
        assert found.answer == expected, found.summary
        assert at.clock.paused == [samples.BETWEEN_S]  # type: ignore[attr-defined]
        assert samples.BETWEEN_S >= 2

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ((redo(),), (redo(),), "clear"),
            ((redo(seconds=3600),), (redo(seconds=3600),), "clear"),
            ((redo(),), (redo(mtime_ns=DEATH_NS),), "alive"),
            ((redo(),), (redo(head_sha256="b"),), "alive"),
            ((redo(),), (redo(size_bytes=200),), "alive"),
            ((), (redo(),), "alive"),
            ((redo(),), (), "alive"),
        ],
    )
    def test_files_that_nobody_locks(
        self, first: tuple[FileFact, ...], second: tuple[FileFact, ...], expected: str
    ) -> None:
        """It should take a redo log that is written during the look for a living server, and nothing else of it."""
        at = scene(agent=FakeAgent(unlocked=[first, second]))
        found = samples.PLUGIN.collect(at)
        assert found.answer == expected, found.summary
        assert "ib_logfile0" in found.summary

    def test_the_guests_own_start_attempt(self) -> None:
        """It should not take what this guest's own start attempt writes for the life of another server."""
        starting = OpenerScan((Opener(77, exe="/usr/sbin/mariadbd", cmdline=("mariadbd",)),), ())
        for held, expected in ((False, Answer.NOT_OBSERVED), (True, Answer.ALIVE)):
            agent = FakeAgent(unlocked=[(redo(),), (redo(head_sha256="b"),)], scan=starting)
            assert samples.PLUGIN.collect(scene(agent=agent, held=held)).answer is expected

    def test_pid_file_of_this_boot(self) -> None:
        """It should take a server that was started after the boot for alive, and an old one for what it is."""
        old, new = (left_pid_file(None, at) for at in (DIED - timedelta(days=9), BOOTED + timedelta(seconds=3)))
        for file, expected in ((old, Answer.CLEAR), (new, Answer.ALIVE)):
            agent = FakeAgent(files=[(file,), (file,)])
            assert samples.PLUGIN.collect(scene(agent=agent, engine=POSTGRESQL)).answer is expected


INNOCENT = ProcessFact(412, exe="/usr/bin/sleep", cwd="/", cmdline=("sleep", "9"))
OWN_SERVER = ProcessFact(412, exe="/usr/lib/postgresql/15/bin/postgres", cwd=str(DATADIR), cmdline=("postgres",))
LONG_AGO = DIED - timedelta(days=9)


class TestPidFile:
    """Whose pid it is."""

    @pytest.mark.parametrize(
        ("process", "started", "pid", "expected"),
        [
            (None, LONG_AGO, 412, "clear"),
            (INNOCENT, LONG_AGO, 412, "clear"),
            (OWN_SERVER, LONG_AGO, 412, "alive"),
            (replace(OWN_SERVER, cwd="/var/lib/other", cmdline=("postgres", "-D", "/o")), LONG_AGO, 412, "clear"),
            (replace(OWN_SERVER, cwd="/", cmdline=("postgres", "-D", str(DATADIR))), LONG_AGO, 412, "alive"),
            (replace(OWN_SERVER, cwd=None, cmdline=()), LONG_AGO, 412, "alive"),
            (ProcessFact(412), LONG_AGO, 412, "not_observed"),
            (None, BOOTED + timedelta(seconds=3), 412, "alive"),
            (INNOCENT, BOOTED + timedelta(seconds=3), 412, "alive"),
            (INNOCENT, BOOTED - timedelta(seconds=1), 412, "alive"),
            (None, None, 412, "clear"),
            (None, None, None, "not_observed"),
        ],
    )
    def test_answers(
        self, process: ProcessFact | None, started: datetime | None, pid: int | None, expected: str
    ) -> None:
        """It should tell a reused pid from a server, and never guess."""
        agent = FakeAgent(files=[(left_pid_file(process, started, pid),)])
        found = pid_file.PLUGIN.collect(scene(agent=agent, engine=POSTGRESQL))
        assert found.answer == expected, found.summary

    def test_none_there(self) -> None:
        """It should be clear when there is no pid file, or the engine has none."""
        assert pid_file.PLUGIN.collect(scene(engine=POSTGRESQL)).answer is Answer.CLEAR
        assert pid_file.PLUGIN.collect(scene()).answer is Answer.CLEAR

    def test_unreadable(self) -> None:
        """It should not be clear when the agent could not read it as a pid file."""
        agent = FakeAgent(files=[(locked("postmaster.pid"),)])
        assert pid_file.PLUGIN.collect(scene(agent=agent, engine=POSTGRESQL)).answer is Answer.NOT_OBSERVED


STRANGER = Opener(99, ("open files",), exe="/usr/bin/rsync", fds=(OpenFile(f"{DATADIR}/ibdata1", 8, 1),))


class TestOwnStartAttempts:
    """A dry run holds no service, so this guest's own start attempts are in the way of the look."""

    @pytest.mark.parametrize("check", [openers.PLUGIN, processes.PLUGIN], ids=lambda c: c.name)
    def test_own_start_is_neither_life_nor_its_absence(self, check: Any) -> None:
        """It should be not observed while the service is not held, and a sign of life once it is."""
        agent = FakeAgent(scan=OpenerScan((SERVER,), ()))
        found = check.collect(scene(agent=agent, held=False))
        assert found.answer is Answer.NOT_OBSERVED
        assert "315" in found.summary
        assert check.collect(scene(agent=agent, held=True)).answer is Answer.ALIVE

    def test_stranger_is_a_sign_of_life_in_a_dry_run_too(self) -> None:
        """It should not take any other program for a start attempt."""
        agent = FakeAgent(scan=OpenerScan((SERVER, STRANGER), ()))
        found = openers.PLUGIN.collect(scene(agent=agent, held=False))
        assert found.answer is Answer.ALIVE
        assert "rsync" in found.summary
