"""Record locks: who holds one on a file, and holding one on a file of our own.

The probes ask and never take, and the agent never holds a POSIX lock: closing any descriptor of a file
would drop it. On an expired NFSv4 client even a probe can expire that client on the server.
"""

import errno
import fcntl
import os
import struct
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

from unlatch_agent import identity, proclocks
from unlatch_agent.errors import HostError, Json

# The fcntl module has these names from Python 3.9 on only.
F_OFD_GETLK = 36
F_OFD_SETLK = 37
# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("@hhqqi4x")
_WHOLE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
# How an answer begins that no lock stands in the way.
_FREE = struct.pack("@h", fcntl.F_UNLCK)
# A file can carry many small locks; this many questions find the holders that matter.
_MOST_QUESTIONS = 64
_REFUSED = (errno.EAGAIN, errno.EACCES)

Inode = proclocks.Inode
# The pids that hold a lock on a file.
Holders = Dict[Inode, Set[int]]


class Lock(NamedTuple):
    """One lock that stands in the way of a write lock."""

    is_write: bool
    pid: int


def _ask(descriptor: int, command: int, start: int, length: int) -> Optional[Tuple[Lock, int, int]]:
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, _, found, size, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, command, request))
    if kind == fcntl.F_UNLCK:
        return None
    return Lock(kind == fcntl.F_WRLCK, pid), found, size


def _standing(descriptor: int, command: int) -> List[Lock]:
    """Return the locks that one kind of probe sees, over the whole file."""
    if fcntl.fcntl(descriptor, command, _WHOLE).startswith(_FREE):
        return []  # nearly always
    found: List[Lock] = []
    ranges = [(0, 0)]  # a length of 0 reaches to the end
    for _ in range(_MOST_QUESTIONS):
        if not ranges:
            break
        start, length = ranges.pop()
        answer = _ask(descriptor, command, start, length)
        if answer is None:
            continue
        lock, lock_start, lock_length = answer
        found.append(lock)
        if lock_start > start:
            ranges.append((start, lock_start - start))
        lock_end = lock_start + lock_length
        if lock_length and (not length or lock_end < start + length):
            ranges.append((lock_end, start + length - lock_end if length else 0))
    return found


def standing(descriptor: int) -> List[Lock]:
    """Return every lock on an open file that would refuse a write lock on the whole file.

    Asks in both ways: with F_GETLK on NFSv3 after a reboot the first asker may be taken for the
    dead owner and told "free"; only F_GETLK tells the pid of a local holder on some systems.

    Raises:
        HostError: the lock service does not work (``enolck``).
        OSError: any other answer.
    """
    try:
        found = _standing(descriptor, F_OFD_GETLK)
        return found + _standing(descriptor, fcntl.F_GETLK)
    except OSError as error:
        if error.errno == errno.ENOLCK:
            raise enolck() from error
        raise


def enolck() -> HostError:
    """Return the error for a lock service that is not there."""
    return HostError(
        "enolck",
        "no lock can be asked for or taken on this mount (ENOLCK): statd is missing. The files are not at fault",
        "systemctl start rpc-statd on this host (or look at its mount options); never repair files for this",
    )


def parse_proc_locks(text: str) -> Holders:
    """Return the pids in the text of /proc/locks by (device, inode); -1 is an unnamed holder."""
    holders: Holders = {}
    for held in proclocks.parse(text):
        holders.setdefault(held.inode, set()).add(held.pid)
    return holders


def listed_here() -> Holders:
    """Return the locks that this machine's kernel lists. Touches no volume."""
    with open("/proc/locks") as source:
        return parse_proc_locks(source.read())


def _lives_here(pid: int) -> bool:
    return pid > 0 and os.path.exists("/proc/{}".format(pid))


def describe(found: List[Lock], listed: Set[int], opener_with_lock: Optional[int] = None) -> Json:
    """Turn what was found about one file into the answer's ``lock`` object.

    Args:
        found: from :func:`standing`.
        listed: pids that /proc/locks lists for the file.
        opener_with_lock: a local process whose descriptor of the file carries a lock (the only way to
            name the holder of an open file description lock).

    Returns:
        ``kind`` is local when any holder is a process of this host; anything else that is locked is
        remote, whatever its pid says.
    """
    if not found and not listed and opener_with_lock is None:
        return {"kind": "none", "type": None, "pid": None}
    local = sorted(pid for pid in set(listed) | {lock.pid for lock in found} if _lives_here(pid))
    if not local and opener_with_lock is not None:
        local = [opener_with_lock]
    if not found and not local:
        return {"kind": "none", "type": None, "pid": None}
    # A lock that only /proc/locks lists is a whole-file flock; it excludes as a write lock does.
    writes = any(lock.is_write for lock in found) or not found
    pid = local[0] if local else found[0].pid
    return {"kind": "local" if local else "remote", "type": "write" if writes else "read", "pid": pid}


def on_file(path: str, listed: Optional[Holders] = None) -> Optional[Json]:
    """Probe one file by name; None when it is not there. Touches the volume.

    Args:
        path: its name.
        listed: the kernel's list, when many files are looked at; read now when it is not given.
    """
    try:
        descriptor = identity.open_to_read(path)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        found = standing(descriptor)
        holders = (listed_here() if listed is None else listed).get((status.st_dev, status.st_ino), set())
        return describe(found, holders)
    finally:
        os.close(descriptor)


def take(descriptor: int) -> bool:
    """Take a write lock on a whole file, bound to this descriptor. False when someone has one.

    Raises:
        HostError: ``enolck``.
        OSError: the file system knows no such locks.
    """
    try:
        fcntl.fcntl(descriptor, F_OFD_SETLK, _WHOLE)
    except OSError as error:
        if error.errno in _REFUSED:
            return False
        if error.errno == errno.ENOLCK:
            raise enolck() from error
        raise
    return True
