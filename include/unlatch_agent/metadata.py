"""Owner, mode, extended attributes, ACLs, flags, project and times of a copy.

ACLs (POSIX and NFSv4) and the SELinux label are extended attributes to the kernel, and are copied as such.
"""

import array
import contextlib
import errno
import fcntl
import os
import struct
from typing import Dict, List, NamedTuple, Optional, Tuple

from unlatch_agent.errors import HostError

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
IMMUTABLE = 0x10
APPEND_ONLY = 0x20
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
# struct fsxattr: flags, extent size, number of extents, project, extent size of shared blocks, padding.
_PROJECT = struct.Struct("=IIIII8x")
_NO_PROJECT = bytes(_PROJECT.size)
# GETFLAGS: room for a long, of which the kernel writes an int.
_FLAGS = struct.Struct("=I4x")
_NO_FLAGS = bytes(_FLAGS.size)
# Flags of that structure that SETFLAGS does not know, and that need an empty file: real-time device, extent sizes.
_KEPT_STORAGE = 0x1 | 0x800 | 0x10000
# Flags that say how a file is to be treated; the others only say how it is stored.
_KEPT_FLAGS = 0x4 | 0x8 | 0x40 | 0x80 | 0x800000  # compress, sync, nodump, noatime, nocow
_NO_SUCH_THING = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODATA)


def flags(descriptor: int) -> int:
    """Return a file's chattr flags, 0 where the file system has none."""
    try:
        answer = fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, _NO_FLAGS)
    except OSError:
        return 0
    return int(_FLAGS.unpack(answer)[0])


def copy_flags(source: int, target: int) -> List[str]:
    """Give a new, empty file the source's flags and project (some work only there); return what was lost."""
    lost = _copy_project(source, target)
    wanted = flags(source) & _KEPT_FLAGS
    have = flags(target)
    if wanted == have & _KEPT_FLAGS:
        return lost
    buffer = array.array("L", [(have & ~_KEPT_FLAGS) | wanted])
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, FS_IOC_SETFLAGS, buffer, True)
    return lost if flags(target) & _KEPT_FLAGS == wanted else [*lost, "chattr flags 0x{:x}".format(wanted)]


class _Storage(NamedTuple):
    """What FS_IOC_FSGETXATTR tells of a file."""

    flags: int
    extent_bytes: int
    extents: int
    project: int
    shared_extent_bytes: int

    @property
    def kept(self) -> Tuple[int, int, int, int]:
        """Return what a copy is to have too."""
        return self.flags & _KEPT_STORAGE, self.extent_bytes, self.project, self.shared_extent_bytes


def _storage(descriptor: int) -> Optional[_Storage]:
    try:
        answer = fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, _NO_PROJECT)
    except OSError:
        return None
    return _Storage(*_PROJECT.unpack(answer))


def _copy_project(source: int, target: int) -> List[str]:
    wanted, have = _storage(source), _storage(target)
    if wanted is None or have is None or wanted.kept == have.kept:
        return []
    after = have._replace(
        flags=(have.flags & ~_KEPT_STORAGE) | (wanted.flags & _KEPT_STORAGE),
        extent_bytes=wanted.extent_bytes,
        project=wanted.project,
        shared_extent_bytes=wanted.shared_extent_bytes,
    )
    buffer = array.array("B", _PROJECT.pack(*after))
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, FS_IOC_FSSETXATTR, buffer, True)
    have = _storage(target)
    if have is None or have.project != wanted.project:
        return ["project {}".format(wanted.project)]
    return [] if have.kept == wanted.kept else ["extent size or device"]


def _attributes(descriptor: int) -> Dict[str, Optional[bytes]]:
    """Return a file's extended attributes; None for one that is listed but cannot be read."""
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno in _NO_SUCH_THING:
            return {}
        raise
    found: Dict[str, Optional[bytes]] = {}
    for name in names:
        try:
            found[name] = os.getxattr(descriptor, name)
        except OSError:
            found[name] = None
    return found


def copy_owner_and_attributes(source: int, target: int, wanted: os.stat_result) -> List[str]:
    """Give the copy the source's owner and mode, as they were seen, and its extended attributes and ACLs.

    Returns:
        the extended attributes that could not be kept.

    Raises:
        HostError: owner or mode could not be kept; the database could not use such a copy.
    """
    have = os.fstat(target)
    try:
        if (have.st_uid, have.st_gid) != (wanted.st_uid, wanted.st_gid):
            os.fchown(target, wanted.st_uid, wanted.st_gid)
        os.fchmod(target, wanted.st_mode & 0o7777)
    except OSError as error:
        raise HostError(
            "owner_not_kept",
            "cannot give the copy owner {}:{} and mode {:o}: {}".format(
                wanted.st_uid, wanted.st_gid, wanted.st_mode & 0o7777, error.strerror
            ),
            "run the agent as the owner of the file (the instance's OS user), a member of its group, or as root",
        ) from error
    before, inherited = _attributes(source), _attributes(target)
    if not before and not inherited:
        return []
    for name in set(inherited) - set(before):  # inherited from the directory's default ACL
        with contextlib.suppress(OSError):
            os.removexattr(target, name)
    for name, value in before.items():
        if value is not None:
            with contextlib.suppress(OSError):
                os.setxattr(target, name, value)
    after = _attributes(target)
    lost = [name for name, value in before.items() if value is None or after.get(name) != value]
    return sorted(lost + ["extra " + name for name in after if name not in before])


def copy_times(wanted: os.stat_result, target: int) -> None:
    """Give the copy the original's access and modification times, to the nanosecond. Do it last."""
    os.utime(target, ns=(wanted.st_atime_ns, wanted.st_mtime_ns))


def has_times(wanted: os.stat_result, have: os.stat_result) -> bool:
    """Say whether a file has those times: reading it back may have moved its access time."""
    return (have.st_atime_ns, have.st_mtime_ns) == (wanted.st_atime_ns, wanted.st_mtime_ns)


def lost_basics(wanted: os.stat_result, have: os.stat_result) -> List[str]:
    """Return which of owner, mode, size and modification time differ after all was copied."""
    keys = ("st_uid", "st_gid", "st_mode", "st_size", "st_mtime_ns")
    return [key[3:] for key in keys if getattr(wanted, key) != getattr(have, key)]
