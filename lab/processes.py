"""Processes that outlive the Python program that started them, and how to end exactly those.

A pid alone is no identity: it is recorded together with the start time in clock ticks, and a process is only ever
signalled through a pidfd that was opened before the start time was compared.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

MARK = "UNLATCH_LAB"
"""Environment variable that every process of a lab carries; its value is the lab's root directory."""

_reapable: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class ProcessId:
    """A process, by pid and start time (field 22 of /proc/PID/stat, in clock ticks)."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Return the identity of the process that has this pid now.

        Raises:
            ProcessLookupError: There is none.
        """
        return cls(pid, _start_ticks(pid))

    def alive(self) -> bool:
        """Say whether this very process runs; a zombie does not."""
        try:
            return _start_ticks(self.pid) == self.start_ticks and _state(self.pid) not in "ZX"
        except ProcessLookupError:
            return False

    def kill(self, timeout_s: float = 30.0) -> bool:
        """Send SIGKILL and wait until the process is gone. Idempotent.

        The init process of a PID namespace is gone only when all processes of the namespace are.

        Returns:
            True when the process ran, False when there was nothing to kill.

        Raises:
            TimeoutError: It is still there after `timeout_s`.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive():
                return False
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            if not select.select([descriptor], [], [], timeout_s)[0]:
                raise TimeoutError(f"process {self.pid} did not end within {timeout_s:g} s of SIGKILL")
        finally:
            os.close(descriptor)
            reap()
        return True

    def to_json(self) -> dict[str, int]:
        """Return the form that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, int]) -> ProcessId:
        """Read what `to_json` made."""
        return cls(document["pid"], document["start_ticks"])


def start(
    argv: Sequence[str], *, root: Path, stdout: int | IO[bytes], stderr: int | IO[bytes] = subprocess.STDOUT
) -> subprocess.Popen[bytes]:
    """Start a process of the lab in a session of its own, with the lab's mark and an otherwise clean environment."""
    started = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=environment(root),
        start_new_session=True,
        cwd="/",
    )
    _reapable[started.pid] = started
    return started


def environment(root: Path) -> dict[str, str]:
    """Return the environment of a process of the lab."""
    return {MARK: str(root), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def reap() -> None:
    """Collect the exit codes of children of this Python process that have ended, so that no zombie stays."""
    for pid, child in list(_reapable.items()):
        if child.poll() is not None:
            del _reapable[pid]


def children(pid: int) -> list[int]:
    """Return the pids of the direct children of a process, [] when it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def strays(root: Path) -> Iterator[ProcessId]:
    """Yield processes that carry this lab's mark, whether or not any state file knows them."""
    mark = f"{MARK}={root}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                yield ProcessId.of(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue


def _stat_fields(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None
    return text[text.rindex(")") + 2 :].split()


def _state(pid: int) -> str:
    return _stat_fields(pid)[0]


def _start_ticks(pid: int) -> int:
    return int(_stat_fields(pid)[19])


def parent(pid: int) -> int:
    """Return the pid of a process's parent, 0 when either is gone."""
    try:
        return int(_stat_fields(pid)[1])
    except ProcessLookupError:
        return 0
