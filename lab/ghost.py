"""The ghost: a process outside the guest that inherits the locks of the guest's databases when the guest dies.

It waits in F_SETLKW for the very files that are locked. The moment their owner dies the kernel gives it the locks, with
no gap in which anybody else could take them. Seen from the guest its locks have no owner (l_pid 0), as those that an
NFS server keeps for a client that crashed.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab import locks, processes
from lab.errors import LabError
from lab.processes import ProcessId
from lab.state import Ghost


class WaitingGhost:
    """A ghost that waits for its locks; keep the object until `take_over` has returned."""

    def __init__(self, paths: Sequence[Path], root: Path) -> None:
        """Start the ghost and return when it waits for every one of the files.

        Args:
            paths: Files that are locked now.
            root: The lab's root, to mark the process.

        Raises:
            LabError: It did not come to wait for all files.
        """
        argv = ["/usr/bin/python3", "-I", str(Path(__file__).with_name("ghost_process.py")), *map(str, paths)]
        with (root / "ghost.log").open("ab") as log:
            self._process = processes.start(argv, root=root, stdout=subprocess.PIPE, stderr=log)
        inodes = [path.stat().st_ino for path in paths]
        identity = ProcessId.of(self._process.pid)
        self.record = Ghost(identity.pid, identity.start_ticks, inodes)
        self._expect("waiting")

    def take_over(self) -> None:
        """Return when the ghost owns every lock: the moment after which the guest may boot again."""
        self._expect("holding")
        if self._process.stdout:
            self._process.stdout.close()

    def _expect(self, word: str) -> None:
        stream = self._process.stdout
        line = stream.readline().decode().strip() if stream else ""
        if line != word:
            identity(self.record).kill()
            raise LabError(f"the ghost said {line!r} instead of {word!r}; see ghost.log in the lab's directory")


def identity(ghost: Ghost) -> ProcessId:
    """Return who the ghost is."""
    return ProcessId(ghost.pid, ghost.start_ticks)


def locked_paths(ghosts: Sequence[Ghost], volume: Path) -> list[Path]:
    """Return where the files that living ghosts hold are now: a recreated file's original has another name."""
    inodes = {inode for ghost in ghosts if identity(ghost).alive() for inode in ghost.inodes}
    found = []
    for path in locks.files(volume):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino in inodes and locks.holder(path) is not None:
                found.append(path)
    return sorted(found)
