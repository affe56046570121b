"""Pid files: what they record, and who has that pid now."""

import hashlib
import os
from typing import List, NamedTuple, Optional

from unlatch_agent import bootclock, processes
from unlatch_agent.errors import Json

POSTMASTER = "postmaster.pid"
_MOST_BYTES = 64 * 1024
_START_LINE = 2  # the third line of postmaster.pid is its start time in seconds since the epoch


class PidFile(NamedTuple):
    """What a pid file says.

    Attributes:
        pid: None when the first line is no number.
        started_s: the recorded start time in seconds since the epoch; None when none is recorded.
    """

    pid: Optional[int]
    started_s: Optional[int]
    content_sha256: str

    def document(self) -> Json:
        """Return the keys that ``check-locks`` adds for a pid file, with the process of that pid."""
        process = processes.read(self.pid) if self.pid else None
        return {
            "recorded_pid": self.pid,
            "recorded_start_s": self.started_s,
            "recorded_started_at": None if self.started_s is None else bootclock.iso(self.started_s),
            "process": None if process is None else process.document(),
            "content_sha256": self.content_sha256,
        }


def parse(name: str, content: bytes) -> PidFile:
    """Parse a pid file; only a file named postmaster.pid has a start time inside.

    A standalone backend writes its pid as a negative number.
    """
    lines = content.decode("utf-8", "replace").splitlines()
    return PidFile(
        pid=_number(lines, 0),
        started_s=_number(lines, _START_LINE) if name == POSTMASTER else None,
        content_sha256=hashlib.sha256(content).hexdigest(),
    )


def _number(lines: List[str], index: int) -> Optional[int]:
    try:
        return abs(int(lines[index].strip())) or None
    except (IndexError, ValueError):
        return None


def read(path: str) -> PidFile:
    """Read and parse a pid file. Touches the volume."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return parse(os.path.basename(path), os.read(descriptor, _MOST_BYTES))
    finally:
        os.close(descriptor)
