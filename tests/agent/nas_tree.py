"""A NAS's process file system as files, for the root commands that read and write it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.agent.test_nas_texts import INFO, TCP
from unlatch_agent.naslist import Places

LOCKD, NFSD, PROCESS = 169, 171, 812
_DEVICE = "fe:10"


@dataclass
class NasTree:
    """`volume` is exported; the lock list and the clients are what the test puts there."""

    root: Path

    def __post_init__(self) -> None:
        self.volume.mkdir()
        for name in ("voms/ibdata1", "voms/aria_log_control"):
            (self.volume / name).parent.mkdir(exist_ok=True)
            (self.volume / name).write_text(name)
        self.put(
            "self/mountinfo", f"1 0 254:0 / / rw - ext4 /dev/a rw\n2 1 254:16 / {self.volume} rw - xfs /dev/b rw\n"
        )
        for pid, name in ((LOCKD, "lockd"), (NFSD, "nfsd"), (PROCESS, "tar")):
            self.put(f"{pid}/comm", name + "\n")
        self.put("net/tcp", TCP)
        self.put("fs/nfsd/exports", "# Version 1.1\n# Path Client(Flags) # IPs\n")
        self.put("fs/nfsd/nfsv4leasetime", "90\n")
        self.put("fs/nfsd/unlock_filesystem", "")
        (self.proc / "fs/nfsd/clients").mkdir()
        (self.root / "etab").write_text(f"{self.volume}\t10.77.0.0/24(rw,sync,fsid=1)\n")
        self.locks()

    @property
    def proc(self) -> Path:
        """The process file system."""
        return self.root / "proc"

    @property
    def volume(self) -> Path:
        """The exported directory."""
        return self.root / "dbod"

    @property
    def places(self) -> Places:
        """Where the commands find all this."""
        return Places(proc=str(self.proc), etab=str(self.root / "etab"))

    def inode(self, name: str) -> int:
        """The inode of a file of the volume."""
        return (self.volume / name).stat().st_ino

    def put(self, name: str, text: str) -> None:
        """Write a file of the process file system."""
        path = self.proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def locks(self, *held: tuple[int, str, str]) -> None:
        """Set the kernel's list: pid, kind and file of each lock; and one lock on another device."""
        lines = [
            f"{number}: {kind}  ADVISORY  WRITE {pid} {_DEVICE}:{self.inode(name)} 0 EOF"
            for number, (pid, kind, name) in enumerate(held, 1)
        ]
        self.put("locks", "\n".join([*lines, f"99: POSIX  ADVISORY  WRITE {LOCKD} 00:19:1 0 EOF", ""]))

    def client(self, number: int, status: str, *states: tuple[str, str]) -> Path:
        """Set an NFSv4 client: its status, and kind and file of each state. Its control file."""
        base = f"fs/nfsd/clients/{number}/"
        self.put(base + "info", INFO.replace("status: confirmed", f"status: {status}"))
        lines = [
            f'- 0x{number:032x}: {{ type: {kind}, superblock: "{_DEVICE}:{self.inode(name)}", '
            f'filename: "{name}", owner: "lock id:\\x00" }}\n'
            for kind, name in states
        ]
        self.put(base + "states", "".join(lines))
        self.put(base + "ctl", "")
        return self.proc / base / "ctl"

    def asked(self, control: str) -> str:
        """What was written into a control file."""
        return (self.proc / "fs/nfsd" / control).read_text()


def names(document: dict[str, object], volume: Path) -> list[str | None]:
    """The files of the listed locks, relative to the volume."""
    locks = document["locks"]
    assert isinstance(locks, list)
    return [lock["path"] and os.path.relpath(lock["path"], volume) for lock in locks]
