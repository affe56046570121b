"""What the agent sees on a guest: files, locks, processes, mounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath

from unlatch.models.base import Value


class LockKind(StrEnum):
    """`remote` is any lock whose holder is not a process of this host: dead or alive cannot be told from the lock."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"
    PIDFILE = "pidfile"


@dataclass(frozen=True)
class ProcessFact(Value):
    """A process, identified by more than its pid."""

    pid: int
    start_ticks: int | None = None
    started_at: datetime | None = None
    exe: str | None = None
    cwd: str | None = None
    cmdline: tuple[str, ...] = ()
    uid: int | None = None


@dataclass(frozen=True)
class Lock(Value):
    """A lock as the agent sees it. For a pid file: the recorded pid, its time, and who has that pid now."""

    kind: LockKind
    type: str | None = None
    pid: int | None = None
    started_at: datetime | None = None
    process: ProcessFact | None = None
    content_sha256: str | None = None


@dataclass(frozen=True)
class Sample(Value):
    """How a file looked at one moment, with attributes from the server; `head_sha256` covers its first 64 KiB."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int | None = None
    head_sha256: str | None = None


@dataclass(frozen=True)
class FileFact(Value):
    """One file of an instance, with its lock."""

    path: PurePosixPath
    inode: int
    dev: int
    size_bytes: int
    lock: Lock
    sample: Sample
    openers: tuple[int, ...] = ()


@dataclass(frozen=True)
class OpenFile(Value):
    """A file that a process has open."""

    path: str
    inode: int
    dev: int


@dataclass(frozen=True)
class Opener(Value):
    """A process that has files of the instance open, runs in its directory, or names it in its arguments."""

    pid: int
    why: tuple[str, ...] = ()
    start_ticks: int | None = None
    started_at: datetime | None = None
    exe: str | None = None
    cwd: str | None = None
    cmdline: tuple[str, ...] = ()
    uid: int | None = None
    state: str | None = None
    fds: tuple[OpenFile, ...] = ()


@dataclass(frozen=True)
class Unchecked(Value):
    """A process that the scan was not allowed to look into: it counts as not observed, never as clear."""

    pid: int
    why: str


@dataclass(frozen=True)
class OpenerScan(Value):
    """What one scan of the guest's processes for one data directory found."""

    openers: tuple[Opener, ...]
    unchecked: tuple[Unchecked, ...]


@dataclass(frozen=True)
class MountFact(Value):
    """The mount that a path is on; `source` is what was mounted, for NFS `server:/directory`."""

    path: PurePosixPath
    mountpoint: str
    fstype: str
    nfs_version: str | None = None
    local_lock: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class HostFacts(Value):
    """The guest as it is now.

    Attributes:
        host: What it calls itself.
        boot_id: Another one after each boot.
        booted_at: When it booted, by its own clock.
        uptime_s: On the boot clock (CLOCK_BOOTTIME), on which permits expire.
        now: Its clock.
        paths: The mounts that the paths in question are on; one that does not exist is left out.
        nfs_mounts: Every NFS mount, each with its mount point as the path; None when it was not told.
    """

    host: str
    boot_id: str
    booted_at: datetime
    uptime_s: float
    now: datetime
    paths: tuple[MountFact, ...] = ()
    nfs_mounts: tuple[MountFact, ...] | None = None


@dataclass(frozen=True)
class LiveLock(Value):
    """A lock that a process of the asked host itself holds on a file of a mount."""

    pid: int
    inode: int
    mountpoint: str
    command: str | None = None
    server: str | None = None


@dataclass(frozen=True)
class NasLock(Value):
    """A lock as the NAS lists it.

    Attributes:
        path: As the guest sees the file, where that can be told.
        inode: On the NAS, which for NFS is the guest's inode too.
        protocol: `nfsv3`, `nfsv4`, `smb`, `local` or `unknown`.
        client: The NAS's own id of the client; None where it does not tell (Linux with NFSv3).
        address: The client's address, where the NAS tells.
        id: What clearing this one lock needs, where locks can be cleared one by one.
    """

    path: PurePosixPath | None
    inode: int | None
    protocol: str
    client: str | None = None
    address: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class NasClient(Value):
    """A client that the NAS knows; `status` as an NFSv4 server words it: confirmed, courtesy, unconfirmed."""

    id: str
    address: str | None = None
    name: str | None = None
    status: str = ""
    seconds_since_renewal: float | None = None


@dataclass(frozen=True)
class NasView(Value):
    """What the NAS lists for one volume. `connections`: addresses that are connected now; None when not told."""

    locks: tuple[NasLock, ...] = ()
    clients: tuple[NasClient, ...] = ()
    connections: tuple[str, ...] | None = None
    lease_s: float | None = None


class Reach(StrEnum):
    """Whose locks are freed by clearing on the NAS: single files', all of one client, or all on the volume."""

    FILES = "files"
    CLIENT = "client"
    VOLUME = "volume"


@dataclass(frozen=True)
class ClearAnswer(Value):
    """What clearing on the NAS did; `freed` is how many locks fewer the NAS lists, where it can count them."""

    freed: int | None
    words: str


@dataclass(frozen=True)
class NotifyAnswer(Value):
    """What the guest's lock notification (NSM) reached; `live_locks` are those it would have taken away."""

    servers: tuple[str, ...]
    acknowledged: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    live_locks: tuple[LiveLock, ...] = ()
