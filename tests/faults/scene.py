"""A volume with two database files, the commands of a repair, and what must hold at each point of it."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

from tests.agent.agent_runner import NOBODY, Answer, our_files, permit
from tests.agent.test_set_aside import BOOTED_S, content, leave_for
from tests.faults import ptrace
from tests.faults.stoppable import Ran, Stop, StoppableAgent

INCIDENT = ["--incident", "inc-1"]
_HOLE_BYTES = 256 * 1024
# With them a batch is larger than what is swapped file by file.
_TABLES = 40
LATE = b"late"
# One file that is copied in pieces, with a mark in the middle: what takes hours when it has terabytes.
_HUGE_BYTES, _MARK_BYTES = (5 << 20) + 77, 3 << 20


def _metadata(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        "mode": status.st_mode,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
        "xattrs": {name: os.getxattr(path, name) for name in os.listxattr(path)},
    }


class Scene:
    """The volume, which can be brought back to its first state any time."""

    def __init__(self, agent: StoppableAgent, base: Path) -> None:
        """Make it below a directory of the file system that is to be tested."""
        self.agent = agent
        self.volume = base / "volume"
        self.volume.mkdir()
        os.chown(self.volume, NOBODY, NOBODY)
        self.roots = {"volume": self.volume, "state": base / "state"}
        block = hashlib.sha256(b"ibdata1").digest() * 512
        self.contents = {
            self.volume / "ibdata1": block + bytes(_HOLE_BYTES) + block,
            self.volume / "aria_log_control": b"aria" * 13,
        }
        self.paths = list(self.contents)
        self.pidfile = self.volume / "postmaster.pid"
        self.pid_text = content(self.volume, os.getpid(), BOOTED_S - 1000)
        self.is_thorough = True
        self.constants: list[list[Any]] = []
        self.old: dict[Path, int] = {}
        self.originals: dict[Path, dict[str, Any]] = {}
        self.metadata: dict[Path, dict[str, Any]] = {}

    def widen(self) -> None:
        """Add so many tables that the agent swaps files in groups, and uses several processes."""
        self.constants = [["batches", "BATCH_FILES", 8], ["swapping", "_TOGETHER", 16]]
        for number in range(_TABLES):
            self.contents[self.volume / f"t{number:02}.ibd"] = b"%05d" % number * 7
        self.paths = sorted(self.contents)

    def enlarge(self) -> None:
        """Have one file so large that the agent keeps marks of how far its copy is."""
        noise = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(_HUGE_BYTES // 32 + 1))
        self.contents = {self.volume / "users01.ibd": noise[:_HUGE_BYTES]}
        self.paths = list(self.contents)

    def close(self) -> None:
        """Let go of the old inodes."""
        for descriptor in self.old.values():
            os.close(descriptor)
        self.old = {}

    def clean(self) -> None:
        """Bring back fresh originals and nothing else; a descriptor of each stays open, as a late writer's would."""
        self.close()
        for directory in (self.volume, self.roots["state"]):
            for path in directory.iterdir() if directory.exists() else ():
                path.unlink()
        for path, data in self.contents.items():
            with path.open("wb") as file:
                for offset in range(0, len(data), 1 << 14):
                    part = data[offset : offset + (1 << 14)]
                    if any(part):
                        os.pwrite(file.fileno(), part, offset)
                file.truncate(len(data))
            os.chown(path, NOBODY, NOBODY)
            path.chmod(0o640)
            os.setxattr(path, "user.unlatch_test", b"kept")
            os.utime(path, ns=(1_400_000_000_123_456_789, 1_400_000_001_987_654_321))
            self.old[path] = os.open(path, os.O_RDWR)
            self.metadata[path] = _metadata(path)
            status = path.stat()
            self.originals[path] = {
                "path": str(path),
                "inode": status.st_ino,
                "dev": status.st_dev,
                "size_bytes": status.st_size,
                "mtime_ns": status.st_mtime_ns,
            }

    def add_pidfile(self) -> None:
        """Add a pid file that a crash in an earlier boot has left behind."""
        self.pidfile.write_text(self.pid_text)
        os.utime(self.pidfile, (BOOTED_S - 900, BOOTED_S - 900))
        self.pid_permit = leave_for(self.pidfile)

    # The commands.

    def run(self, verb: str, *argv: object, stdin: str = "", stop: Stop | None = None, deep: bool = False) -> Ran:
        """Run a verb for the incident."""
        self.agent.constants = [["streaming", "MARK_BYTES", _MARK_BYTES], *self.constants]
        arguments = [verb, *INCIDENT, *[str(argument) for argument in argv]]
        return self.agent.run(arguments, self.roots, stdin=stdin, stop=stop, deep=deep)

    def prepare(self, **how: Any) -> Ran:
        """Run prepare."""
        return self.run("prepare", *self.paths, **how)

    def commit(self, **how: Any) -> Ran:
        """Run commit under a permit for the originals, as a controller that remembers them makes it."""
        leave = permit({"files": [self.originals[path] for path in self.paths]})
        return self.run("commit", "--permit", "-", stdin=leave, **how)

    def recreate(self, **how: Any) -> Ran:
        """Run recreate."""
        return self.run("recreate", "--confirm", "inc-1", *self.paths, **how)

    def restore(self, **how: Any) -> Ran:
        """Run restore; copies that were never swapped go too."""
        return self.run("restore", "--discard-temps", self.volume, **how)

    def purge(self, **how: Any) -> Ran:
        """Run purge."""
        return self.run("purge", self.volume, **how)

    def set_aside(self, **how: Any) -> Ran:
        """Run set-aside for the pid file."""
        return self.run("set-aside", "--permit", "-", self.pidfile, stdin=self.pid_permit, **how)

    def verify(self, **how: Any) -> Ran:
        """Run verify."""
        return self.run("verify", self.volume, **how)

    def status(self, **how: Any) -> Ran:
        """Run status."""
        return self.run("status", self.volume, **how)

    # What must hold.

    def check_whole(self) -> None:
        """Each name stands for a whole file, quarantined originals are untouched, and status names what is ours."""
        for path, data in self.contents.items():
            assert path.read_bytes() == data, f"{path.name} is not whole"
            assert _read(self.old[path]) == data, f"the original of {path.name} was written to"
            assert os.fstat(self.old[path]).st_nlink > 0, f"the original of {path.name} is gone"
        self.check_nothing_unreported()

    def check_nothing_unreported(self) -> None:
        """Status names every file of ours."""
        status = self.status().answer.done().document
        told = set(status["journals"])
        for entry in status["files"]:
            told |= {entry["temp"], entry["quarantine"]} - {None}
        left = {str(self.volume / name) for name in our_files(self.volume)}
        assert left <= told, f"status does not tell of {sorted(left - told)}"

    def check_committed(self, committed: Answer) -> None:
        """Each name has a new inode with the original's metadata, each original is in quarantine."""
        files = {entry["path"]: entry for entry in self.verify().answer.done().files}
        lost = {entry["path"]: entry["metadata_lost"] for entry in committed.files}
        for path in self.paths:
            entry = files[str(path)]
            assert path.stat().st_ino == entry["inode_after"] != self.originals[path]["inode"]
            assert path.stat().st_nlink == 1
            assert entry["quarantine_inode"] == self.originals[path]["inode"]
            same = _metadata(path) == self.metadata[path]
            assert same or lost[str(path)], f"{path.name} lost metadata and nobody was told: {_metadata(path)}"
        self.check_whole()

    def check_restored(self) -> None:
        """Each name has its original, nothing is in quarantine."""
        for path in self.paths:
            assert path.stat().st_ino == self.originals[path]["inode"]
            assert path.stat().st_nlink == 1
        assert not [name for name in our_files(self.volume) if name.endswith(".orig")]
        self.check_whole()

    def own_names(self, path: Path) -> tuple[str, str]:
        """The names that the agent gives to the copy and to the original of a file."""
        stem = hashlib.sha256(b"inc-1\0" + os.fsencode(path.name)).hexdigest()[:16]
        return f".unlatch-{stem}.new", f".unlatch-{stem}.orig"

    def check_clean(self) -> None:
        """Nothing of ours is left."""
        assert our_files(self.volume) == set()
        assert {path.name for path in self.volume.iterdir()} >= {path.name for path in self.paths}

    def quarantined(self, path: Path) -> bool:
        """Say whether a name's original is out of the way: the name has another inode."""
        return path.stat().st_ino != self.originals[path]["inode"]

    def write_late(self, path: Path) -> None:
        """Write into the old inode, as a process that lives elsewhere does."""
        os.pwrite(self.old[path], LATE, os.fstat(self.old[path]).st_size - len(LATE))

    def check_late_writer(self, path: Path) -> None:
        """A write to an original after the swap is seen, and neither purge nor restore go over it.

        What an error leads to is also what a kill there leads to, so this is tried after kills only.
        """
        if not self.is_thorough:
            return
        self.write_late(path)
        self.verify().answer.refused("late_writer", 4)
        self.purge().answer.refused("late_writer")
        self.restore().answer.refused("late_writer")
        assert os.fstat(self.old[path]).st_nlink == 1


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size + 1, 0)


# Calls whose failure must not end in success: the volume may not have what was promised.
_NEVER_SWALLOWED = {"write", "pwrite64", "writev", "pwritev", "fsync", "fdatasync", "ftruncate", "rename", "linkat"}
_NEVER_SWALLOWED |= {"fchmod", "fchown", "utimensat"}


def check_answer(ran: Ran, stop: Stop) -> None:
    """An agent that was stopped says so: killed, or an error with its three texts; it never shows a traceback."""
    answer = ran.answer
    assert ran.was_hit, "the run did not come to this call: boundaries are not the same in every run"
    if stop.is_kill:
        # Killed as a whole, or its supervising process tells that the worker is gone.
        assert answer.code == -9 or answer.error_code == "worker_died", answer
        return
    assert answer.code in (0, 3, 4, 5, 6), answer
    assert answer.error_code != "internal", answer.document["error"]["message"]
    if answer.code:
        answer.refused(str(answer.error_code), answer.code)
        return
    is_done = stop.answer > ptrace.DONE_BUT
    is_swallowed = not is_done and stop.at.call in _NEVER_SWALLOWED and stop.at.subject.startswith("volume/")
    assert not is_swallowed or stop.answer == errno.EINTR, "the agent took this failure for success"
