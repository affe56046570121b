"""What a file is: its names in this program, and its inode, size and times."""

import errno
import hashlib
import os
import re
import stat
from typing import Dict, List, NamedTuple, Optional, Sequence

from unlatch_agent import syscalls
from unlatch_agent.errors import HostError, Json, UsageError

PREFIX = ".unlatch-"
JOURNAL_SUFFIX = ".journal"
HEAD_BYTES = 64 * 1024
_INCIDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_HASH_LENGTH = 16
# Of devices without a major number: whether a look at a name in one is never answered from a cache that others, too,
# should have a say in. This process's mounts do not change their kind.
_without_client: Dict[int, bool] = {}
# What the journal, the answers and (but for ctime_ns) a permit say of a file.
KEYS = ("inode", "dev", "size_bytes", "mtime_ns", "ctime_ns")


def checked_incident(text: str) -> str:
    """Return an incident's id when it may be part of a file name.

    Raises:
        UsageError: it may not.
    """
    if not _INCIDENT.fullmatch(text):
        raise UsageError(
            "bad_incident",
            "{!r} is no incident id".format(text),
            "use a letter or digit, then up to 79 letters, digits, dots, underscores or dashes",
        )
    return text


def name_hash(incident: str, name: str) -> str:
    """Return the short hash that stands for a file in our names: real names can fill all 255 bytes."""
    key = incident.encode() + b"\0" + os.fsencode(name)
    return hashlib.sha256(key).hexdigest()[:_HASH_LENGTH]


def journal_name(incident: str) -> str:
    """Return the name of the incident's journal in each directory."""
    return PREFIX + incident + JOURNAL_SUFFIX


def leftover_kind(name: str) -> Optional[str]:
    """Say which of our own files a name is: quarantine, temp, journal; None for all other names."""
    if not name.startswith(PREFIX):
        return None
    kinds = {".orig": "quarantine", ".new": "temp", JOURNAL_SUFFIX: "journal"}
    return kinds.get(os.path.splitext(name)[1])


class Identity(NamedTuple):
    """One file at one moment.

    The device number of a network mount can change with every boot, so it is compared within one
    boot only (permit against file), never against a journal.
    """

    inode: int
    dev: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    links: int
    mode: int
    blocks_bytes: int

    @property
    def is_regular(self) -> bool:
        """Say whether this is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Say whether this is a symbolic link, which is never followed."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_sparse(self) -> bool:
        """Say whether the file has fewer blocks than bytes."""
        return self.blocks_bytes < self.size_bytes

    def document(self) -> Json:
        """Return what the journal and the answers keep."""
        return {
            "inode": self.inode,
            "dev": self.dev,
            "size_bytes": self.size_bytes,
            "mtime_ns": self.mtime_ns,
            "ctime_ns": self.ctime_ns,
        }


def of_status(status: os.stat_result) -> Identity:
    """Make an identity from a stat result."""
    return Identity(  # by place: this is done a dozen times for each of many files
        status.st_ino,
        status.st_dev,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_nlink,
        status.st_mode,
        status.st_blocks * 512,
    )


def is_there(path: str) -> bool:
    """Say whether a name exists. Unlike ``os.path.lexists``, a look that failed is an error and not a no."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def is_directory(path: str) -> bool:
    """Say whether a path leads to a directory; a look that failed is an error, not a no as in ``os.path.isdir``."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def of_name(path: str) -> Optional[Identity]:
    """Look at what a name stands for, without following it; None when there is no such name.

    A regular file is opened and looked at through the descriptor: that makes an NFS client ask the
    server instead of answering from its cache. What lives on a disk of this host (its device has a major number),
    on btrfs or on tmpfs needs no such trick.
    """
    try:
        status = os.lstat(path)
        if os.major(status.st_dev) or _without_client.get(status.st_dev, False) or not stat.S_ISREG(status.st_mode):
            return of_status(status)
        descriptor = open_to_read(path)
    except FileNotFoundError:
        return None
    except PermissionError:
        return of_status(status)  # the file says nothing more to this user
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return of_status(os.lstat(path))
        raise
    try:
        status = os.fstat(descriptor)
        if status.st_dev not in _without_client:
            kind = syscalls.file_system_type(descriptor)
            _without_client[status.st_dev] = kind in (syscalls.BTRFS, syscalls.TMPFS)
        return of_status(status)
    finally:
        os.close(descriptor)


def open_to_read(path: str) -> int:
    """Open a file for reading, without following it, and if possible without moving its access time."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # only the owner may ask for that
        return os.open(path, flags)


def differences(before: Json, now: Identity, keys: Sequence[str]) -> List[str]:
    """Return which of the named keys of a recorded identity no longer hold."""
    return [key for key in keys if before[key] != getattr(now, key)]


def head_sha256(descriptor: int) -> str:
    """Return the hash of a file's first 64 KiB."""
    return hashlib.sha256(os.pread(descriptor, HEAD_BYTES, 0)).hexdigest()


def resolved_target(path: str, known: Dict[str, str]) -> str:
    """Return a file's path with its directory resolved and its own name kept; the file itself is not looked at.

    Args:
        path: as it was given.
        known: directories that were resolved before; added to.

    Raises:
        HostError: the directory is not there.
    """
    as_given, _, name = path.rpartition("/")
    directory = known.get(as_given) if name not in ("", ".", "..") else None
    if directory is None:
        head, name = os.path.split(os.path.abspath(path))
        directory = known.get(head)
        if directory is None:
            directory = os.path.realpath(head)
            if not is_directory(directory):
                raise no_such_path(head)
            known[head] = directory
    return os.path.join(directory, name)


def no_such_path(path: str) -> HostError:
    """Return the error for a path that is not there."""
    return HostError(
        "no_such_path",
        "{} does not exist on this host".format(path),
        "check the path and that its volume is mounted",
    )
