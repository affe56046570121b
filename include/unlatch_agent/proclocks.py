"""The kernel's list of record locks: the text of /proc/locks, and the lock lines of /proc/PID/fdinfo. Pure."""

import os
from typing import List, NamedTuple, Optional, Tuple

# Of a line that names a holder: number, kind, advisory, mode, pid, file, start, end.
_FIELDS = 8
# The kinds that stand in the way of another's lock. Leases and delegations are given back when asked for.
KINDS = ("POSIX", "OFDLCK", "FLOCK")

Inode = Tuple[int, int]


class HeldLock(NamedTuple):
    """One granted lock.

    Attributes:
        kind: ``POSIX``, ``OFDLCK`` (open file description) or ``FLOCK``.
        mode: ``write``, ``read``, or another of the kernel's words in lower case.
        pid: its holder; -1 for an open file description lock, which has no process of its own.
        inode: device and inode. On an NFS client the device is that of the mount's superblock.
        start: first byte.
        end: last byte; None when it reaches to the end of the file, however long that gets.
    """

    kind: str
    mode: str
    pid: int
    inode: Inode
    start: int
    end: Optional[int]


def _parsed(fields: List[str]) -> HeldLock:
    """Read the fields of one line.

    Raises:
        ValueError: it is no such line.
    """
    major, minor, number = fields[5].split(":")
    return HeldLock(
        kind=fields[1],
        mode=fields[3].lower(),
        pid=int(fields[4]),
        inode=(os.makedev(int(major, 16), int(minor, 16)), int(number)),
        start=int(fields[6]),
        end=None if fields[7] == "EOF" else int(fields[7]),
    )


def parse(text: str) -> List[HeldLock]:
    """Parse lock lines; those that only wait (``->``), leases and delegations are left out."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < _FIELDS or fields[1] not in KINDS:
            continue
        try:
            found.append(_parsed(fields))
        except (ValueError, OverflowError):
            continue
    return found


def of_fdinfo(text: str) -> List[HeldLock]:
    """Parse the locks that the text of a /proc/PID/fdinfo file lists: those taken through that descriptor."""
    lines = [line[len("lock:") :] for line in text.splitlines() if line.startswith("lock:")]
    return parse("\n".join(lines))


def device_name(device: int) -> str:
    """Write a device number as the kernel does in these lists: ``fe:10``."""
    return "{:02x}:{:02x}".format(os.major(device), os.minor(device))
