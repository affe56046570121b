"""live-locks: locks that processes of this host itself hold. Of a volume only PATH's symlinks are looked at."""

import contextlib
import os
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from unlatch_agent import ioguard, mounts, proclocks, texts
from unlatch_agent.errors import HostError, Json
from unlatch_agent.mounts import Mount
from unlatch_agent.proclocks import HeldLock, Inode

_UNNAMED = -1


class Holder(NamedTuple):
    """A process, and the name under which it has a locked file open."""

    pid: int
    path: str


def run(path: Optional[str], io_timeout_s: float) -> Json:
    """Answer ``live-locks``.

    Args:
        path: only locks on files of the mount that this is on; None: of every NFS mount of every namespace.
        io_timeout_s: limit for following symlinks in ``path``. One that does not answer is taken as it is
            written when that is on NFS: the answer itself needs no look at the volume.

    Raises:
        HostError: the mount cannot be told: no answer must not look like no locks.
    """
    if path is None:
        return {"locks": found(texts.read("/proc/locks"), [m for m in mounts.of_all_namespaces() if m.is_nfs])}
    (resolved,) = ioguard.each([path], lambda name, _: _resolved(name), io_timeout_s)
    mount = mounts.mount_of(os.path.abspath(path) if resolved.timed_out else resolved.value, mounts.read_mounts())
    if resolved.timed_out and (mount is None or not mount.is_nfs):
        raise ioguard.io_timeout(path, io_timeout_s)
    if mount is None:
        raise HostError("no_mount", "the mount of {} is not known".format(path), "look at /proc/self/mountinfo")
    return {"locks": found(texts.read("/proc/locks"), [mount])}


def _resolved(path: str) -> str:
    return os.path.realpath(path)


def found(lock_list: str, wanted: Sequence[Mount], proc: str = "/proc") -> List[Json]:
    """Return the locks on files of mounts, with the processes that hold them.

    Args:
        lock_list: the text of /proc/locks.
        wanted: the mounts that count; of several with one device, the first names the lock.
        proc: the process file system.

    Returns:
        per lock ``pid`` (-1: a holder that this user may not see), ``command``, ``inode``, ``path`` (None: not
        visible to this user), ``type``, ``mountpoint``, ``server``.
    """
    by_device: Dict[int, Mount] = {}
    for mount in wanted:
        by_device.setdefault(mount.device, mount)
    held = [lock for lock in proclocks.parse(lock_list) if lock.inode[0] in by_device]
    holders = _holders(held, proc)
    answer = []
    for lock in dict.fromkeys(lock._replace(start=0, end=None) for lock in held):  # a file's ranges are one entry
        mount = by_device[lock.inode[0]]
        holder = holders.get((lock.pid, lock.inode))
        pid = holder.pid if holder is not None else lock.pid
        answer.append(
            {
                "pid": pid,
                "command": _command(pid, proc),
                "inode": lock.inode[1],
                "path": holder.path if holder is not None else None,
                "type": lock.mode,
                "mountpoint": mount.mountpoint,
                "server": mount.server,
            }
        )
    return answer


def words(locks: Sequence[Json]) -> str:
    """Name holders and files in a sentence."""
    named = ["{} ({}) holds {}".format(lock["pid"], lock["command"] or "?", _file_words(lock)) for lock in locks[:5]]
    more = ["and {} more".format(len(locks) - 5)] if len(locks) > 5 else []  # noqa: PLR2004 (as many as a line takes)
    return "; ".join(["process " + name for name in named] + more)


def _file_words(lock: Json) -> str:
    return str(lock["path"] or "inode {} of {}".format(lock["inode"], lock["mountpoint"]))


def _command(pid: int, proc: str) -> Optional[str]:
    """Return a process's short name: unlike its command line, reading that cannot hang with the process."""
    with contextlib.suppress(OSError):
        return texts.read("{}/{}/comm".format(proc, pid)).strip()
    return None


def _holders(held: Sequence[HeldLock], proc: str) -> Dict[Tuple[int, Inode], Holder]:
    """Find who holds each lock, and under which name. What this user may not see is not in the answer."""
    wanted = {(lock.pid, lock.inode) for lock in held}
    if not wanted:
        return {}
    pids = sorted({pid for pid, _ in wanted if pid != _UNNAMED})
    if any(pid == _UNNAMED for pid, _ in wanted):  # only its descriptor tells whose such a lock is
        pids = sorted(int(name) for name in os.listdir(proc) if name.isdigit())
    answer: Dict[Tuple[int, Inode], Holder] = {}
    for pid in pids:
        for lock, path in _through_descriptors(pid, proc):
            key = (lock.pid, lock.inode)
            if key in wanted:
                answer.setdefault(key, Holder(pid, path))
    return answer


def _through_descriptors(pid: int, proc: str) -> Iterator[Tuple[HeldLock, str]]:
    with contextlib.suppress(OSError):
        for number in os.listdir("{}/{}/fdinfo".format(proc, pid)):
            with contextlib.suppress(OSError):
                locks = proclocks.of_fdinfo(texts.read("{}/{}/fdinfo/{}".format(proc, pid, number)))
                if locks:
                    path = os.readlink("{}/{}/fd/{}".format(proc, pid, number))
                    for lock in locks:
                        yield lock, path
