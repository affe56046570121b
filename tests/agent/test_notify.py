"""unlatch-notify: the real sm-notify, statd's directory, and locks that must not be lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.agent.conftest import need_root
from tests.agent.test_nas_texts import RECORD
from unlatch_agent import nsm

SM_NOTIFY = shutil.which("sm-notify", path="/usr/sbin:/sbin")
needs_sm_notify = pytest.mark.skipif(SM_NOTIFY is None, reason="sm-notify is not installed (package nfs-common)")
STATD_UID = 65534
MOUNTED = "2 1 0:50 / /ORA/dbs03 rw - nfs {}:/srv rw,vers=3,local_lock=none\n"
KILLED = -signal.SIGKILL


@dataclass
class Host:
    """A database host's statd directory and process file system, and its network with one NFS server."""

    root: Path

    def __post_init__(self) -> None:
        for name in ("nfs/sm", "nfs/sm.bak", "proc/self/ns", "scratch"):
            (self.root / name).mkdir(parents=True)
        (self.proc / "self/ns/net").symlink_to("net:[1]")
        (self.proc / "self/ns/mnt").symlink_to("mnt:[1]")
        (self.nfs / "state").write_bytes(b"")
        self.mounted()
        self.locks("")
        for path in (self.nfs, self.nfs / "sm", self.nfs / "sm.bak", self.nfs / "state"):
            os.chown(path, STATD_UID, STATD_UID)

    @property
    def nfs(self) -> Path:
        """What is statd's."""
        return self.root / "nfs"

    @property
    def proc(self) -> Path:
        """The process file system."""
        return self.root / "proc"

    def mounted(self, *servers: str) -> None:
        """Set the NFSv3 mounts."""
        root = "1 0 254:0 / / rw - ext4 /dev/a rw\n"
        (self.proc / "self/mountinfo").write_text(root + "".join(map(MOUNTED.format, servers)))

    def locks(self, text: str) -> None:
        """Set the kernel's lock list."""
        (self.proc / "locks").write_text(text)

    def process(self, pid: int, name: str) -> None:
        """Let a process run."""
        (self.proc / str(pid)).mkdir()
        (self.proc / str(pid) / "comm").write_text(name + "\n")

    def entry(self, name: str, directory: str = "sm", text: str | None = None) -> Path:
        """Let statd monitor a server."""
        path = self.nfs / directory / name
        path.write_text(text or RECORD.replace("nas", name))
        os.chown(path, STATD_UID, STATD_UID)
        return path

    @property
    def state(self) -> int | None:
        """The state number on disk."""
        return nsm.parse_state((self.nfs / "state").read_bytes())

    def entries(self) -> dict[str, str]:
        """All that statd has on disk but its state number."""
        return {str(p.relative_to(self.nfs)): p.read_text() for p in self.nfs.rglob("*/*") if p.is_file()}

    def begin(self, **changes: Any) -> subprocess.Popen[str]:
        """Begin a run in a network of its own."""
        request = {
            "directory": str(self.nfs),
            "proc": str(self.proc),
            "scratch": str(self.root / "scratch"),
            "path": "/usr/sbin:/sbin",
            "limit_s": 20,
            "check": False,
            "answers": True,
            **changes,
        }
        (self.root / "request.json").write_text(json.dumps(request))
        script = Path(__file__).with_name("nsm_server.py")
        command = ["unshare", "--net", sys.executable, str(script), str(self.root / "request.json")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def run(self, **changes: Any) -> dict[str, Any]:
        """The answer of a run, and what the server heard."""
        with self.begin(**changes) as running:
            output, _ = running.communicate()
        assert running.returncode == 0
        found: dict[str, Any] = json.loads(output)
        return found


@pytest.fixture
def host() -> Iterator[Host]:
    """A database host that has monitored the server `127.0.0.1`, where statd's user can get to."""
    need_root()
    with tempfile.TemporaryDirectory(prefix="unlatch-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        made = Host(Path(name))
        made.entry("127.0.0.1")
        made.mounted("127.0.0.1")
        yield made


@needs_sm_notify
class TestNotifying:
    """What the server hears."""

    def test_the_server_hears(self, host: Host) -> None:
        """It should notify under the name that the server knows, with a number never used, and keep the entries."""
        before = host.entries()
        found = host.run()
        assert found["answer"]["acknowledged"] == found["answer"]["servers"] == ["127.0.0.1"]
        assert found["answer"]["unanswered"] == []
        assert found["heard"] == [["dbvrtg4037", host.state]]
        assert host.state is not None
        assert host.state % 2 == 1
        assert host.state >= int(time.time()) - 600
        assert host.entries() == before
        assert (host.nfs / "state").stat().st_uid == STATD_UID
        assert {p.name for p in (host.root / "scratch").iterdir()} == {"unlatch-notify.lock", "sm-notify.pid"}

    def test_again(self, host: Host) -> None:
        """It should use another, higher number each time: a server ignores one that it knows."""
        (host.nfs / "state").write_bytes(struct.pack("@i", 2**31 - 9))
        numbers = [host.run()["heard"][0][1] for _ in range(2)]
        assert numbers == [2**31 - 7, 2**31 - 5]

    def test_a_host_that_lost_its_disk(self, host: Host) -> None:
        """It should notify servers that are mounted but not monitored, and leave no entry for them with statd."""
        (host.nfs / "sm/127.0.0.1").unlink()
        (host.nfs / "state").unlink()
        found = host.run()
        assert found["answer"]["acknowledged"] == ["127.0.0.1"]
        assert found["heard"] == [[socket.gethostname(), host.state]] or "." in socket.gethostname()
        assert host.entries() == {}

    def test_entries_of_the_last_boot(self, host: Host) -> None:
        """It should notify servers that the boot's notification has not reached yet, and leave their entries."""
        before = host.entry("127.0.0.1", "sm.bak").read_text()
        (host.nfs / "sm/127.0.0.1").unlink()
        host.mounted()
        assert host.run()["answer"]["acknowledged"] == ["127.0.0.1"]
        assert host.entries() == {"sm.bak/127.0.0.1": before}

    def test_servers_that_do_not_answer(self, host: Host) -> None:
        """It should say who did not answer and what to look at, within its limit, and keep all entries."""
        host.entry("gone.invalid")
        before = host.entries()
        found = host.run(answers=False, limit_s=2)["answer"]
        assert (found["acknowledged"], sorted(found["unanswered"])) == ([], ["127.0.0.1", "gone.invalid"])
        assert "DNS" in found["why"]["gone.invalid"]
        assert "no answer for 2 s" in found["why"]["127.0.0.1"]
        assert host.entries() == before

    def test_killed(self, host: Host) -> None:
        """It should lose nothing when it is killed at work, and finish when it is run again."""
        before = host.entries()
        with host.begin(answers=False) as running:
            own = host.root / "scratch/unlatch-notify/sm.bak/127.0.0.1"
            while not own.exists():
                assert running.poll() is None
                time.sleep(0.01)
            os.killpg(running.pid, signal.SIGKILL)
        first = host.state
        assert host.entries() == before
        found = host.run()
        assert found["answer"]["acknowledged"] == ["127.0.0.1"]
        assert found["heard"][0][1] > first
        assert host.entries() == before

    def test_the_notification_of_the_boot(self, host: Host) -> None:
        """It should end an older sm-notify: one that gets through late would free the locks of new servers."""
        other = Host(host.root / "other")
        other.entry("127.0.0.2")
        assert SM_NOTIFY is not None
        first = [SM_NOTIFY, "-d", "-f", "-n", "-P", str(other.nfs)]
        found = host.run(proc="/proc", first=first)["answer"]
        assert found["first"] == [found["stopped"][0], KILLED]
        assert len(found["stopped"]) == 1
        assert found["acknowledged"] == ["127.0.0.1"]

    def test_check(self, host: Host) -> None:
        """It should only say whom it would notify."""
        before = host.entries()
        host.mounted("127.0.0.1", "nas2")
        found = host.run(check=True)
        assert found["answer"]["servers"] == ["127.0.0.1", "nas2"]
        assert found["heard"] == found["answer"]["acknowledged"] == []
        assert (host.entries(), (host.nfs / "state").read_bytes()) == (before, b"")

    def test_nobody(self, host: Host) -> None:
        """It should have nothing to do on a host without NFSv3."""
        (host.nfs / "sm/127.0.0.1").unlink()
        host.mounted()
        found = host.run()
        assert found == {"answer": {**found["answer"], "servers": [], "acknowledged": []}, "heard": []}


class TestRefusing:
    """What keeps it from notifying."""

    @needs_sm_notify
    @pytest.mark.parametrize("check", [True, False])
    @pytest.mark.parametrize("kind", ["POSIX", "FLOCK"])
    def test_live_locks(self, host: Host, check: bool, kind: str) -> None:
        """It should refuse while a process of the host holds a lock that the server would drop, and name it."""
        host.locks(f"1: {kind}  ADVISORY  WRITE 4711 00:32:77 0 EOF\n")
        host.process(4711, "mariadbd")
        found = host.run(check=check)
        code, exit_code, message = found["answer"]["error"]
        assert (code, exit_code) == ("live_locks", 3)
        assert "4711 (mariadbd)" in message
        assert [lock["inode"] for lock in found["answer"]["live_locks"]] == [77]
        assert found["heard"] == []
        assert host.state is None

    @needs_sm_notify
    def test_live_locks_of_a_container(self, host: Host) -> None:
        """It should see locks on a mount that only another mount namespace has."""
        host.locks("1: POSIX  ADVISORY  WRITE 4711 00:60:77 0 EOF\n")
        host.process(4711, "mariadbd")
        assert host.run(check=True)["answer"]["live_locks"] == []
        view = host.proc / "4711"
        (view / "ns").mkdir()
        (view / "ns/mnt").symlink_to("mnt:[2]")
        (view / "mountinfo").write_text(MOUNTED.format("127.0.0.1").replace("0:50", "0:96"))
        assert host.run(check=True)["answer"]["error"][0] == "live_locks"

    @needs_sm_notify
    def test_locks_that_are_not_concerned(self, host: Host) -> None:
        """It should not mind locks of local files, or of NFSv4, which a notification does not touch."""
        four = "3 1 0:51 / /ORA/four rw - nfs4 nas4:/srv rw,vers=4.2,local_lock=none\n"
        with (host.proc / "self/mountinfo").open("a") as table:
            table.write(four)
        host.locks("1: POSIX ADVISORY WRITE 1 00:33:7 0 EOF\n2: POSIX ADVISORY WRITE 1 fe:00:7 0 EOF\n")
        assert host.run()["answer"]["acknowledged"] == ["127.0.0.1"]

    def test_without_sm_notify(self, host: Host) -> None:
        """It should say what to install."""
        assert host.run(path=str(host.root))["answer"]["error"][:2] == ["no_sm_notify", 5]

    @needs_sm_notify
    def test_two_at_once(self, host: Host, running: Callable[[], subprocess.Popen[str]]) -> None:
        """It should let one run at a time."""
        first = running()
        while not (host.root / "scratch/unlatch-notify/sm.bak/127.0.0.1").exists():
            assert first.poll() is None
            time.sleep(0.01)
        assert host.run()["answer"]["error"][:2] == ["busy", 6]

    @pytest.fixture
    def running(self, host: Host) -> Any:
        """Begins a run that gets no answer; ends it after the test."""
        begun: list[subprocess.Popen[str]] = []

        def begin() -> subprocess.Popen[str]:
            begun.append(host.begin(answers=False))
            return begun[0]

        yield begin
        for process in begun:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
