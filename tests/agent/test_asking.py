"""live-locks, connect and samples: questions that help to tell the living from the dead."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_runner import NOBODY, Agent
from tests.agent.conftest import need_root

OFD_SETLK = 37


def named(answer: Any, path: Path) -> list[dict[str, Any]]:
    """The listed locks on a file."""
    return [lock for lock in answer.document["locks"] if lock["inode"] == path.stat().st_ino]


class TestLiveLocks:
    """Locks of this host's own processes."""

    def test_whose(self, agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
        """It should name process, file and mount of a lock, and each file once however many ranges it has."""
        descriptor = holding(volume / "ibdata1")
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 10, 100)
        (lock,) = named(agent.run("live-locks", volume).done(), volume / "ibdata1")
        assert lock["pid"] == os.getpid()
        assert lock["command"] == Path(f"/proc/{os.getpid()}/comm").read_text().strip()
        assert lock["path"] == str(volume / "ibdata1")
        assert lock["type"] == "write"
        assert (volume / "ibdata1").is_relative_to(lock["mountpoint"])
        assert lock["server"] is None

    @pytest.mark.parametrize("kind", ["flock", "description"])
    def test_other_kinds(self, few_agent: Agent, volume: Path, kind: str) -> None:
        """It should also see locks of flock and of open file descriptions, and find whose those are."""
        with (volume / "ibdata1").open("r+b") as file:
            if kind == "flock":
                fcntl.flock(file, fcntl.LOCK_EX)
            else:
                fcntl.fcntl(file, OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            (lock,) = named(few_agent.run("live-locks", volume).done(), volume / "ibdata1")
        assert lock["pid"] == os.getpid()
        assert lock["path"] == str(volume / "ibdata1")

    def test_without_root(self, few_agent: Agent, open_volume: Path, holding: Callable[[Path], int]) -> None:
        """It should name pid and program to anyone, and the file's name only to who may see it."""
        need_root()
        holding(open_volume / "ibdata1")
        (lock,) = named(few_agent.run("live-locks", open_volume, uid=NOBODY).done(), open_volume / "ibdata1")
        assert (lock["pid"], lock["path"]) == (os.getpid(), None)
        assert lock["command"]

    def test_none_of_nfs(self, one_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
        """It should ask about NFS mounts only when no path is named."""
        holding(volume / "ibdata1")
        assert one_agent.run("live-locks", faults={"mounts": ""}).done().document["locks"] == []

    def test_other_hosts_locks(self, one_far_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
        """It should not list locks of processes that are not of this host."""
        holding(volume / "ibdata1")
        assert named(one_far_agent.run("live-locks", volume).done(), volume / "ibdata1") == []

    def test_through_a_symlink(self, one_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
        """It should follow the path to its mount."""
        (volume.parent / "link").symlink_to(volume)
        holding(volume / "ibdata1")
        assert len(named(one_agent.run("live-locks", volume.parent / "link").done(), volume / "ibdata1")) == 1

    def test_in_words(self, one_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
        """It should write a table for people."""
        holding(volume / "ibdata1")
        assert str(os.getpid()) in one_agent.fresh("live-locks", volume).text
        assert "no process" in one_agent.fresh("live-locks", "/proc").text


def states(answer: Any) -> list[str]:
    """The ports' states."""
    return [port["state"] for port in answer.done().document["ports"]]


class TestConnect:
    """Ports of other hosts."""

    def test_open_and_refused(self, agent: Agent) -> None:
        """It should tell a port that takes a connection from one that refuses it, in their order."""
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            ports = [closed.getsockname()[1], listener.getsockname()[1]]
            assert states(agent.run("connect", "127.0.0.1", *ports)) == ["refused", "open"]

    def test_silent(self, one_agent: Agent) -> None:
        """It should not take an address that never answers for one that refuses."""
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            waiting = []
            for _ in range(4):  # the backlog is full, so the next one gets no answer
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
                waiting.append(client)
            assert states(one_agent.run("connect", "127.0.0.1", listener.getsockname()[1])) == ["silent"]
            for client in waiting:
                client.close()

    def test_every_address(self, one_agent: Agent) -> None:
        """It should ask every address of a name before it says that the host refuses."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert states(one_agent.run("connect", "localhost", listener.getsockname()[1])) == ["open"]

    def test_sends_nothing(self, one_agent: Agent) -> None:
        """It should send nothing to the server that it finds."""
        heard: list[bytes] = []
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def listen() -> None:
                connection, _ = listener.accept()
                heard.append(connection.recv(100))
                connection.close()

            thread = threading.Thread(target=listen)
            thread.start()
            one_agent.run("connect", "127.0.0.1", listener.getsockname()[1]).done()
            thread.join()
        assert heard == [b""]

    def test_an_unknown_name(self, few_agent: Agent) -> None:
        """It should say that there is no such host, which is no silence."""
        few_agent.run("connect", "no-such-host.invalid", 3306).refused("unknown_host", 5)

    @pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
    def test_ports(self, one_agent: Agent, port: str) -> None:
        """It should take only port numbers."""
        assert one_agent.run("connect", "127.0.0.1", port).code == 2


def paths(answer: Any) -> list[str]:
    """The names of the sampled files."""
    return [Path(entry["path"]).name for entry in answer.done().files]


class TestSamples:
    """How files look now."""

    def test_files(self, agent: Agent, volume: Path) -> None:
        """It should show size, times and head of files that exist, locked or not, and leave out the others."""
        answer = agent.run("samples", volume / "ibdata1", volume / "nothing", volume / "no/where").done()
        (entry,) = answer.files
        status = (volume / "ibdata1").stat()
        assert (entry["path"], entry["inode"], entry["lock"]["kind"]) == (
            str(volume / "ibdata1"),
            status.st_ino,
            "none",
        )
        assert entry["sample"]["mtime_ns"] == status.st_mtime_ns
        assert entry["sample"]["size_bytes"] == status.st_size

    def test_a_changed_head(self, few_agent: Agent, volume: Path) -> None:
        """It should show a change of the first 64 KiB although size and times are as before."""
        before = few_agent.run("samples", volume / "ibdata1").done().files[0]["sample"]
        status = (volume / "ibdata1").stat()
        with (volume / "ibdata1").open("r+b") as file:
            file.seek(60000)
            file.write(b"12345678")
        os.utime(volume / "ibdata1", ns=(status.st_atime_ns, status.st_mtime_ns))
        after = few_agent.run("samples", volume / "ibdata1").done().files[0]["sample"]
        assert before["mtime_ns"] == after["mtime_ns"]
        assert before["head_sha256"] != after["head_sha256"]

    def test_patterns(self, few_agent: Agent, volume: Path) -> None:
        """It should take a pattern for the files that match, the newest first, and a plain name for itself."""
        for number, name in enumerate(("aria_log.00000001", "aria_log.00000002", "aria_log[1]")):
            (volume / name).write_text(name)
            os.utime(volume / name, (number, number))
        (volume / "aria_log.directory").mkdir()
        assert paths(few_agent.run("samples", volume / "aria_log.0*")) == ["aria_log.00000002", "aria_log.00000001"]
        assert paths(few_agent.run("samples", volume / "aria_log[1]")) == ["aria_log[1]"]
        assert paths(few_agent.run("samples", volume / "undo*")) == []

    def test_a_log_directory(self, few_agent: Agent, volume: Path) -> None:
        """It should take a directory for the newest file in it."""
        (volume / "pg_wal/archive_status").mkdir(parents=True)
        for number in range(3):
            (volume / f"pg_wal/{number:024}").write_text("x")
            os.utime(volume / f"pg_wal/{number:024}", (5 - number, 5 - number))
        assert paths(few_agent.run("samples", volume / "pg_wal")) == [f"{0:024}"]
        assert paths(few_agent.run("samples", volume / "pg_wal/archive_status")) == []

    def test_locked_ones(self, one_far_agent: Agent, volume: Path, holding: Callable[[Path], int]) -> None:
        """It should say of a locked file that it is."""
        holding(volume / "ibdata1")
        assert one_far_agent.run("samples", volume / "ibdata1").done().files[0]["lock"]["kind"] == "remote"

    def test_unreadable(self, few_agent: Agent, open_volume: Path) -> None:
        """It should not leave out a file that exists and that it may not read."""
        need_root()
        os.chown(open_volume / "ibdata1", 0, 0)
        (open_volume / "ibdata1").chmod(0o600)
        few_agent.run("samples", open_volume / "ibdata1", uid=NOBODY).refused("unreadable", 5)
