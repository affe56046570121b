"""What is refused before anything is touched."""

import contextlib
import itertools
import os
from typing import Collection, Dict, Iterable, List, NamedTuple, Sequence, Set

from unlatch_agent import abreast, identity, locks, mounts, openers
from unlatch_agent.errors import Json, RefusedError, UsageError
from unlatch_agent.identity import Identity
from unlatch_agent.ioguard import Beat
from unlatch_agent.locks import Inode


class Target(NamedTuple):
    """One file to act on; the directory is free of symlinks."""

    directory: str
    name: str

    @property
    def path(self) -> str:
        """Return the whole path."""
        return "{}/{}".format("" if self.directory == "/" else self.directory, self.name)


def targets(paths: Sequence[str]) -> List[Target]:
    """Resolve the files that were named, once each, in their order. Touches the volume, not the files.

    Raises:
        HostError: a directory is not there.
        RefusedError: one of our own files.
    """
    found: Dict[str, Target] = {}
    known: Dict[str, str] = {}
    for path in paths:
        target = Target(*os.path.split(identity.resolved_target(path, known)))
        if target.name.startswith(identity.PREFIX):
            raise RefusedError(
                "own_file",
                "{} is one of this program's own files".format(target.path),
                "name the database's file, not its copy or its quarantined original",
            )
        found[target.path] = target
    return list(found.values())


def directories(paths: Sequence[str]) -> List[str]:
    """Resolve directories, once each. Touches the volume.

    Raises:
        HostError: one is not there.
        UsageError: one is a file.
    """
    found: Dict[str, None] = {}
    for path in paths:
        resolved = os.path.realpath(path)
        if not identity.is_there(resolved):
            raise identity.no_such_path(path)
        if not identity.is_directory(resolved):
            raise UsageError(
                "not_a_directory", "{} is not a directory".format(path), "name the directory that the files are in"
            )
        found[resolved] = None
    return list(found)


def refuse_local_locks(directory_names: Iterable[str]) -> None:
    """Refuse mounts whose locks no other machine sees.

    Raises:
        RefusedError: ``local_locks``.
    """
    table = mounts.read_mounts()
    for directory in sorted(set(directory_names)):
        mount = mounts.mount_of(directory, table)
        if mount is not None and mount.locks_are_local:
            raise RefusedError(
                "local_locks",
                "{} is mounted with options ({}) that keep locks on this host".format(mount.mountpoint, mount.options),
                "mount the volume without nolock and local_lock: without real locks nothing protects the files",
            )


def regular_file(path: str) -> Identity:
    """Look at a file that is to be worked on.

    Raises:
        HostError: it is not there.
        RefusedError: it is a symlink or no regular file, or has other hard links.
    """
    found = identity.of_name(path)
    if found is None:
        raise identity.no_such_path(path)
    refuse_unfit(path, found)
    return found


def opened(path: str) -> int:
    """Open a file that is to be worked on, to read; nothing but a regular file is opened.

    Raises:
        HostError: it is not there.
        RefusedError: it is a symlink or no regular file.
    """
    try:
        found = identity.of_status(os.lstat(path))
        if not found.is_regular:
            refuse_unfit(path, found)
        return identity.open_to_read(path)
    except FileNotFoundError:
        raise identity.no_such_path(path) from None


def refuse_unfit(path: str, found: Identity, links: int = 1) -> None:
    """Refuse what was found under a name when it is not to be worked on.

    Args:
        path: the name.
        found: what it stands for.
        links: how many names that may have.

    Raises:
        RefusedError: it is a symlink or no regular file, or has other hard links.
    """
    if found.is_symlink:
        raise RefusedError(
            "symlink",
            "{} is a symlink to {}".format(path, os.readlink(path)),
            "if the place that it points to belongs to the instance, name the file there: {}".format(
                os.path.realpath(path)
            ),
        )
    if not found.is_regular:
        raise RefusedError(
            "not_regular", "{} is not a regular file".format(path), "only regular files can be worked on"
        )
    if found.links > links:
        raise RefusedError(
            "hard_linked",
            "{} has {} names (hard links)".format(path, found.links),
            "find the others (find VOLUME -xdev -inum {}) and remove what should not be there: a new inode would "
            "part them".format(found.inode),
        )


def refuse_local_users(
    paths: Iterable[str],
    limit_s: float,
    beat: Beat,
    *,
    on_nfs: bool,
    names: Iterable[str] = (),
) -> List[Json]:
    """Refuse files that a process of this host has locked or open.

    Args:
        paths: files to look at; those that do not exist are passed over.
        limit_s: time limit for the look at one process.
        beat: called before each look at a file.
        on_nfs: whether those looks wait for a server.
        names: the same, when ``paths`` cannot be gone through twice; read only when one is to be told.

    Returns:
        the processes that could not be looked at.

    Raises:
        RefusedError: ``local_holder``.
    """
    inodes: Set[Inode] = set()
    listed = locks.listed_here()

    def look(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            inodes.add(unlocked(path, listed))

    abreast.do(paths, look, beat, on_nfs=on_nfs)
    return refuse_open(inodes, limit_s, itertools.chain(paths, names))


def unlocked(path: str, listed: locks.Holders) -> Inode:
    """Look at a file, and refuse it when a process of this host has it locked.

    Args:
        path: its name.
        listed: the kernel's list of locks.

    Returns:
        its device and inode.

    Raises:
        FileNotFoundError: it is not there.
        RefusedError: ``local_holder``.
    """
    descriptor = identity.open_to_read(path)
    try:
        return unlocked_here(path, descriptor, os.fstat(descriptor), listed)
    finally:
        os.close(descriptor)


def unlocked_here(path: str, descriptor: int, status: os.stat_result, listed: locks.Holders) -> Inode:
    """Do the same with a file that is open already, and was looked at."""
    inode = (status.st_dev, status.st_ino)
    lock = locks.describe(locks.standing(descriptor), listed.get(inode, set()))
    if lock["kind"] == "local":
        raise _local_holder(path, lock["pid"], "has it locked")
    return inode


def refuse_open(inodes: Collection[Inode], limit_s: float, names: Iterable[str]) -> List[Json]:
    """Refuse files that a process of this host has open.

    Args:
        inodes: the files.
        limit_s: time limit for the look at one process.
        names: their paths, and perhaps others; read only when one is to be told.

    Returns:
        the processes that could not be looked at.

    Raises:
        RefusedError: ``local_holder``.
    """
    answer = openers.scan(openers.Wanted(inodes=inodes), limit_s)
    for inode, users in openers.by_inode(answer).items():
        raise _local_holder(_named(inode, names), users[0][0], "has it open")
    unchecked: List[Json] = answer["unchecked"]
    return unchecked


def _named(inode: Inode, paths: Iterable[str]) -> str:
    """Find which file it is, when that must be told: to keep the names of many files would take much memory."""
    for path in paths:
        found = identity.of_name(path)
        if found is not None and (found.dev, found.inode) == inode:
            return path
    return "inode {} of device {}".format(inode[1], inode[0])


def _local_holder(path: str, pid: int, what: str) -> RefusedError:
    return RefusedError(
        "local_holder",
        "{} is in use: process {} of this host {}".format(path, pid, what),
        "the database lives: do not repair. If this is a start attempt, stop it and hold the service first",
    )
