"""Processes as /proc shows them.

A pid alone is no process: it is one only with its start time, its executable and its directory.
"""

import os
from typing import Iterator, List, NamedTuple, Optional

from unlatch_agent import bootclock, texts
from unlatch_agent.errors import Json

PF_KTHREAD = 0x00200000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One process, read at one moment.

    Attributes:
        view: the /proc directory to look through: for a dead main thread with living others (a server
            killed while the NAS hangs) the directory of a living thread.
        exe: None when unreadable or none.
        cwd: None when unreadable.
        uid: the effective user id.
    """

    pid: int
    parent: int
    view: str
    name: str
    state: str
    start_ticks: int
    uid: int
    cmdline: List[str]
    exe: Optional[str]
    cwd: Optional[str]

    @property
    def started_at_s(self) -> float:
        """Return the wall-clock start time in seconds since the epoch."""
        return bootclock.booted_at_s() + self.start_ticks / _TICKS_PER_S

    @property
    def program(self) -> str:
        """Return the base name of the executable, from the best source that is readable."""
        path = self.exe or (self.cmdline[0] if self.cmdline else self.name)
        return os.path.basename(path.replace(" (deleted)", "").split(":")[0].strip())

    def document(self) -> Json:
        """Return the process as JSON."""
        return {
            "pid": self.pid,
            "start_ticks": self.start_ticks,
            "started_at": bootclock.iso(self.started_at_s),
            "exe": self.exe,
            "cwd": self.cwd,
            "cmdline": self.cmdline,
            "uid": self.uid,
            "state": self.state,
        }


def _link(path: str) -> Optional[str]:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _stat_fields(view: str) -> List[str]:
    return texts.read(view + "/stat").rpartition(")")[2].split()


def _living_view(base: str, fields: List[str]) -> str:
    """Return the /proc directory of a living thread; of the main thread when there is none."""
    if fields[0] != "Z" or int(fields[17]) == 1:
        return base
    for thread in sorted(os.listdir(base + "/task"), key=int):
        view = "{}/task/{}".format(base, thread)
        try:
            if _stat_fields(view)[0] not in "ZX":
                return view
        except OSError:
            continue
    return base


def view_of(pid: int) -> Optional[str]:
    """Return the /proc directory to look at a process through; None for kernel threads and no process."""
    base = "/proc/{}".format(pid)
    try:
        fields = _stat_fields(base)
        return None if int(fields[6]) & PF_KTHREAD else _living_view(base, fields)
    except OSError:
        return None


def read(pid: int) -> Optional[Process]:
    """Read one process; None when there is none with that pid. Touches no volume."""
    base = "/proc/{}".format(pid)
    try:
        fields = _stat_fields(base)
        view = _living_view(base, fields)
        status = texts.read(base + "/status")
        cmdline = texts.read(view + "/cmdline")
        name = texts.read(base + "/comm").strip()
    except OSError:
        return None
    uid = next(int(line.split()[2]) for line in status.splitlines() if line.startswith("Uid:"))
    return Process(
        pid=pid,
        parent=int(fields[1]),
        view=view,
        name=name,
        state=fields[0],
        start_ticks=int(fields[19]),
        uid=uid,
        cmdline=[part for part in cmdline.split("\0") if part],
        exe=_link(view + "/exe"),
        cwd=_link(view + "/cwd"),
    )


def pids() -> List[int]:
    """Return the pids that /proc shows, ascending."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def lineage(pid: int) -> Iterator[int]:
    """Yield a pid and its ancestors."""
    while pid > 0:
        yield pid
        process = read(pid)
        if process is None:
            return
        pid = process.parent


def hidden_reason() -> Optional[str]:
    """Say why /proc may not show every process to this user; None when it does."""
    if os.geteuid() == 0:
        return None
    with open("/proc/self/mountinfo", errors="surrogateescape") as source:
        for line in source:
            fields = line.split()
            if fields[4] == "/proc" and "hidepid=" in line and "hidepid=0" not in line and "hidepid=off" not in line:
                return "/proc is mounted with hidepid: other users' processes are invisible"
    return None
