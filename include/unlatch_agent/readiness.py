"""What preflight says of a volume beyond file permissions: how a repair could go there, and how the NAS could be told.

All of it is read from what the host tells anyway; nothing is tried out.
"""

import fcntl
import os
import stat
import struct
import time
from typing import List, Optional, Tuple

from unlatch_agent import ioguard, mounts, nsm, texts
from unlatch_agent.errors import Json
from unlatch_agent.hostrows import Places, row
from unlatch_agent.mounts import Mount

_CLONING = ("btrfs", "xfs", "bcachefs")
_FASTER = "nothing to do: it only makes copies faster"
# XFS_IOC_FSGEOMETRY_V1 and the flag in its answer (linux/xfs_fs.h): any user may ask.
_XFS_GEOMETRY, _XFS_GEOMETRY_BYTES, _XFS_FLAGS_AT, _XFS_REFLINK = 0x80705864, 112, 92, 1 << 20
# A copy reads the original, writes the copy, and reads both back to compare them.
_PASSES = 4
_MEASURED_BYTES = 16 << 20
_MEASURED_S = 2.0
_CHUNK = 1 << 20
_ASSUMED_BYTES_S = 30e6
# What was in the page cache after all reads faster than any volume.
_FASTEST_BYTES_S = 200e6
_MOST_FILES = 100000


def copying_rows(directory: str, mount: Optional[Mount]) -> List[Json]:
    """Say whether copies can be had without moving the bytes; nothing is tried out, as that would write."""
    can, clones = _clones(directory, mount)
    if mount is None or not mount.is_nfs:
        kind = mount.fstype if mount is not None else "unknown"
        server = "there is no server in between" if mount is not None else "its mount is not known"
    else:
        kind = "NFSv{}".format(mount.nfs_version or "?")
        server = "the NAS may copy by itself" if mount.nfs_version == "4.2" else "all bytes go through this host"
    return [
        row(
            "clone support",
            directory,
            True if can else None,
            "{}: {}".format(kind, clones),
            _FASTER,
        ),
        row("server-side copy", directory, None, "{}: {}".format(kind, server), _FASTER),
    ]


def _clones(directory: str, mount: Optional[Mount]) -> Tuple[Optional[bool], str]:
    """Tell whether a file system can share blocks between files; None: only the NAS knows."""
    if mount is None:
        return None, "its mount is not known"
    if mount.is_nfs:
        if mount.nfs_version != "4.2":
            return False, "this version of NFS has no clones"
        return None, "possible if the NAS keeps the volume on XFS, Btrfs or the like"
    if mount.fstype == "xfs" and not _xfs_has_reflinks(directory):
        return False, "it was made without reflink=1"
    if mount.fstype in _CLONING:
        return True, "it can share blocks between files"
    return False, "it has no clones"


def _xfs_has_reflinks(directory: str) -> bool:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        geometry = fcntl.ioctl(descriptor, _XFS_GEOMETRY, bytes(_XFS_GEOMETRY_BYTES))
        return bool(struct.unpack_from("=I", geometry, _XFS_FLAGS_AT)[0] & _XFS_REFLINK)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def time_row(directory: str, beat: ioguard.Beat) -> Json:
    """Estimate how long copying every file below a directory would take: an upper bound, few are ever locked."""
    total, largest, is_whole = _sizes(directory, beat)
    if not total:
        why = "there is nothing to copy"
        found = row("time to recover", directory, None, why, "see whether the volume is mounted there")
        return dict(found, bytes=0, estimate_s=None)
    measured = _reading_rate(largest, beat) if largest else None
    rate = min(measured or _ASSUMED_BYTES_S, _FASTEST_BYTES_S)
    seconds = total * _PASSES / rate
    why = "at most {:.0f} s to copy and compare {} {:.1f} MB, at {:.0f} MB/s ({})".format(
        seconds,
        "all" if is_whole else "more than",
        total / 1e6,
        rate / 1e6,
        "as read now" if measured else "assumed",
    )
    return dict(row("time to recover", directory, True, why, ""), bytes=total, estimate_s=round(seconds, 1))


def _sizes(directory: str, beat: ioguard.Beat) -> Tuple[int, Optional[str], bool]:
    """Return the size of all regular files below a directory, the largest one, and whether all were counted."""
    total, count, largest = 0, 0, (-1, "")
    for base, _, names in os.walk(directory):
        beat(None)
        for name in names:
            path = os.path.join(base, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            count += 1
            if stat.S_ISREG(status.st_mode):
                total += status.st_size
                largest = max(largest, (status.st_size, path))
        if count > _MOST_FILES:
            return total, largest[1] or None, False
    return total, largest[1] or None, True


def _reading_rate(path: str, beat: ioguard.Beat) -> Optional[float]:
    """Measure how fast a file is read, in bytes per second, past the page cache; None when it is too small to tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        os.posix_fadvise(descriptor, 0, _MEASURED_BYTES, os.POSIX_FADV_DONTNEED)
        started, done = time.monotonic(), 0
        while done < _MEASURED_BYTES and time.monotonic() - started < _MEASURED_S:
            beat(None)
            read = len(os.pread(descriptor, _CHUNK, done))
            done += read
            if not read:
                break
        passed_s = time.monotonic() - started
        return done / passed_s if done >= _CHUNK and passed_s > 0 else None
    finally:
        os.close(descriptor)


def notify_row(directory: str, mount: Optional[Mount], places: Places = Places()) -> Json:  # noqa: B008 (immutable)
    """Say whether this host could tell the NAS that its old locks are void."""
    if mount is None or not mount.uses_nsm:
        kind = "NFSv4 locks end with their lease" if mount is not None and mount.is_nfs else "the volume is not NFS"
        return row("notify", directory, True, "not needed: {}".format(kind), "")
    if not any(os.access(os.path.join(path, "sm-notify"), os.X_OK) for path in places.tools):
        grant = "install nfs-common (Debian) or nfs-utils (Red Hat)"
        return row("notify", directory, False, "sm-notify is not installed", grant)
    if not _runs("rpc.statd", places.proc):
        why = "statd does not run: no lock can be taken on this mount (ENOLCK)"
        return row("notify", directory, False, why, "systemctl enable --now rpc-statd")
    if not os.access(places.notify, os.F_OK):
        grant = "install -o root -g root -m 755 unlatch-agent.pyz {0}; sudoers: USER ALL=(root) NOPASSWD: {0}"
        return row("notify", directory, False, "{} is not there".format(places.notify), grant.format(places.notify))
    return row("notify", directory, True, _entry_words(mount.server or "", places), "")


def _runs(name: str, proc: str) -> bool:
    pids = [entry for entry in os.listdir(proc) if entry.isdigit()]
    return any(texts.stripped("{}/{}/comm".format(proc, pid)) == name for pid in pids)


def _entry_words(server: str, places: Places) -> str:
    """Say whether statd monitors the server; a server without an entry would hear nothing at the next boot."""
    for base in places.statd:
        try:
            names = os.listdir(os.path.join(base, "sm"))
        except FileNotFoundError:
            continue
        except OSError:
            return "possible; statd's entries cannot be read by this user"
        if any(nsm.same_host(server, name) for name in names):
            return "possible; statd monitors {}".format(server)
        return (
            "possible; statd has no entry for {}: unlatch-notify makes one for itself, but this host's own next "
            "boot would not notify it (remounting brings the entry back)".format(server)
        )
    return "possible; statd's directory was not found"


def volume_rows(directory: str, beat: ioguard.Beat) -> List[Json]:
    """Return all lines about one directory. Runs in a guarded child."""
    mount = mounts.mount_of(directory, mounts.read_mounts())
    return [*copying_rows(directory, mount), notify_row(directory, mount), time_row(directory, beat)]
