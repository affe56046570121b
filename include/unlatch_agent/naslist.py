"""nas-list: the locks on one exported file system of this NFS server, and the clients that may hold them."""

import contextlib
import os
import time
from typing import Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from unlatch_agent import ioguard, mounts, nfsd, proclocks, texts
from unlatch_agent.errors import HostError, Json, RefusedError, UsageError
from unlatch_agent.proclocks import HeldLock, Inode

# Names are found by walking the directory, but not through a whole archive.
_MOST_NAMES = 50000
_NAMES_S = 5.0
_NO_PROCESS = -1
_THREADS = {"lockd": "nfsv3", "nfsd": "nfsv4"}


class Places(NamedTuple):
    """Where things are on a NAS."""

    proc: str = "/proc"
    etab: str = "/var/lib/nfs/etab"

    @property
    def nfsd(self) -> str:
        """The NFS server's control files."""
        return self.proc + "/fs/nfsd"


class Seen(NamedTuple):
    """An NFSv4 client, its id, and its state on the file system in question."""

    id: str
    client: nfsd.Client
    states: Sequence[nfsd.State]


class Export(NamedTuple):
    """An exported directory: free of symlinks, with the mount that it is on."""

    directory: str
    mount: mounts.Mount


def run(directory: str, io_timeout_s: float, places: Places = Places()) -> Json:  # noqa: B008 (immutable)
    """Answer ``nas-list``. Changes nothing.

    Args:
        directory: an exported directory, or one below it.
        io_timeout_s: limit for a look at the volume.
        places: where things are.

    Raises:
        AgentError: ``not_root``, ``no_nfsd``, ``not_exported``, ``io_timeout``.
    """
    return ioguard.supervise(
        lambda beat: listed(export_of(directory, places), places, beat), io_timeout_s, ioguard.untold
    )


def export_of(directory: str, places: Places) -> Export:
    """Check that clients can mount a directory. Touches the volume.

    Raises:
        UsageError: it is no absolute name.
        HostError: this is no NFS server, or not root asks.
        RefusedError: it is not exported.
    """
    if not os.path.isabs(directory) or not directory.isprintable():
        raise UsageError("usage", "{!r} is no absolute path".format(directory), "name the directory as the NAS does")
    if os.geteuid() != 0:
        raise HostError("not_root", "only root may see the locks of NFS clients", "run it through sudo, or as root")
    if not os.path.exists(places.nfsd + "/exports"):
        raise HostError(
            "no_nfsd",
            "this host is no Linux NFS server: {} is not there".format(places.nfsd),
            "run it on the NAS; if this is one: mount -t nfsd nfsd /proc/fs/nfsd",
        )
    exports: List[str] = []
    for path in (places.etab, places.nfsd + "/exports"):
        with contextlib.suppress(FileNotFoundError):
            exports += nfsd.parse_exports(texts.read(path))
    resolved = os.path.realpath(directory)
    if not nfsd.is_exported(resolved, exports) or not os.path.isdir(resolved):
        raise RefusedError(
            "not_exported",
            "{} is not a directory that this server exports".format(directory),
            "name one of {}, or a directory below".format(", ".join(exports) or "none (nothing is exported)"),
        )
    mount = mounts.mount_of(resolved, mounts.parse_mountinfo(texts.read(places.proc + "/self/mountinfo")))
    if mount is None:
        raise HostError("no_mount", "the mount of {} is not known".format(resolved), "look at /proc/self/mountinfo")
    return Export(resolved, mount)


def clients_of(device: int, places: Places) -> List[Seen]:
    """Return all NFSv4 clients, with their state on one file system; one that goes away meanwhile is left out."""
    found = []
    base = places.nfsd + "/clients"
    for name in sorted(os.listdir(base), key=lambda name: (len(name), name)) if os.path.isdir(base) else []:
        with contextlib.suppress(FileNotFoundError):
            states = nfsd.parse_states(texts.read("{}/{}/states".format(base, name)))
            here = [state for state in states if state.inode is None or state.inode[0] == device]
            found.append(Seen(name, nfsd.parse_info(texts.read("{}/{}/info".format(base, name))), here))
    return found


def _held(device: int, places: Places) -> List[HeldLock]:
    return [lock for lock in proclocks.parse(texts.read(places.proc + "/locks")) if lock.inode[0] == device]


def listed(export: Export, places: Places, beat: ioguard.Beat) -> Json:
    """Make the answer. Runs in a guarded child."""
    device = export.mount.device
    held = _held(device, places)
    clients = clients_of(device, places)
    held = list(dict.fromkeys(held + _held(device, places)))  # what came or went between the looks counts as held
    locks = _locks(held, clients, places)
    beat(None)
    inodes = {lock["inode"] for lock in locks if lock["inode"] is not None}
    names = _names(export, inodes, beat)
    for lock in locks:
        lock["path"] = names.get(lock["inode"])
    lease = None
    with contextlib.suppress(OSError, ValueError):
        lease = int(texts.read(places.nfsd + "/nfsv4leasetime"))
    return {
        "lease_s": lease,
        "export": export.directory,
        "dev": proclocks.device_name(device),
        "locks": locks,
        "clients": [_client(seen) for seen in clients],
        "connections": _connections(places),
    }


def _client(seen: Seen) -> Json:
    kinds = [state.kind for state in seen.states]
    return {
        "id": seen.id,
        "address": seen.client.address,
        "name": seen.client.name,
        "status": seen.client.status,
        "seconds_since_renewal": seen.client.seconds_since_renewal,
        "version": seen.client.version,
        "opens": kinds.count("open"),
        "delegations": kinds.count("deleg"),
    }


def _connections(places: Places) -> List[str]:
    found: List[str] = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            found += nfsd.parse_connections(texts.read("{}/net/{}".format(places.proc, name)))
    return sorted(set(found))


def _holder(pid: int, places: Places) -> Optional[str]:
    """Return the name of the thread that took a lock; None when there is no such thread any more."""
    with contextlib.suppress(OSError):
        return texts.read("{}/{}/comm".format(places.proc, pid)).strip()
    return None


def _locks(held: Sequence[HeldLock], clients: Sequence[Seen], places: Places) -> List[Json]:
    """Bring the kernel's lock list and the NFSv4 clients' states together; each lock is told once.

    The list names no client: lockd has taken every NFSv3 lock, an nfsd thread every NFSv4 lock. A client's
    state names a file, not a range, and can outlive its ranges; it is told nevertheless.
    """
    owners = _lock_owners(clients)
    answer: List[Json] = []
    told: Set[Tuple[Optional[Inode], str]] = set()
    for lock in held:
        protocol = _protocol(lock, lock.inode in owners, places)
        mine: List[str] = owners.get(lock.inode, []) if protocol == "nfsv4" else []
        # Of several clients' locks on one file the list does not say which is whose.
        answer += [_document(lock, protocol, owner) for owner in mine] or [_document(lock, protocol, None)]
        told.update((lock.inode, owner) for owner in mine)
    for inode, ids in owners.items():
        number = inode[1] if inode is not None else None
        answer += [
            {"inode": number, "protocol": "nfsv4", "client": owner, "type": "unknown", "range": None}
            for owner in ids
            if (inode, owner) not in told
        ]
    return answer


def _lock_owners(clients: Sequence[Seen]) -> Dict[Optional[Inode], List[str]]:
    """Return the ids of the NFSv4 clients that have lock state, by file."""
    owners: Dict[Optional[Inode], List[str]] = {}
    for seen in clients:
        for state in seen.states:
            if state.kind == "lock" and seen.id not in owners.setdefault(state.inode, []):
                owners[state.inode].append(seen.id)
    return owners


def _protocol(lock: HeldLock, has_v4_owner: bool, places: Places) -> str:
    """Tell by which way a lock came: who has taken it is lockd, a thread of nfsd, or a process of the NAS."""
    thread = _holder(lock.pid, places)
    if thread in _THREADS:
        return _THREADS[thread]
    if thread is not None or lock.pid == _NO_PROCESS:
        return "local"
    return "nfsv4" if has_v4_owner else "unknown"  # nfsd's threads come and go, their locks stay


def _document(lock: HeldLock, protocol: str, client: Optional[str]) -> Json:
    return {
        "inode": lock.inode[1],
        "protocol": protocol,
        "client": client,
        "type": lock.mode,
        "range": [lock.start, lock.end],
    }


def _names(export: Export, inodes: Set[int], beat: ioguard.Beat) -> Dict[int, str]:
    """Find names of inodes below the exported directory, as far as that takes no long search."""
    found: Dict[int, str] = {}
    missing = set(inodes)
    pending = [export.directory]
    left, deadline = _MOST_NAMES, time.monotonic() + _NAMES_S
    while pending and missing and left > 0 and time.monotonic() < deadline:
        beat(None)
        directory = pending.pop(0)
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                left -= 1
                if entry.inode() in missing:
                    found[entry.inode()] = entry.path
                    missing.discard(entry.inode())
                elif entry.is_dir(follow_symlinks=False) and not os.path.ismount(entry.path):
                    pending.append(entry.path)
    return found
