"""Looking where root may not: an NFS server that squashes root lets only a directory's owner list it.

A root command that finds itself shut out looks on as that owner, which is a lesser right, and never the other way
round. Effective ids belong to the whole process: only for guarded children, which have no second thread.
"""

import contextlib
import os
from typing import Iterator, List, NamedTuple, Optional, Tuple

ROOT = 0


class Listing(NamedTuple):
    """What a directory holds.

    Attributes:
        directories: paths of its directories, no symlinks.
        inodes: device and inode of its regular files.
        uid: as whom it could be listed.
    """

    directories: List[str]
    inodes: List[Tuple[int, int]]
    uid: int


@contextlib.contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Work as that user for a while; nothing changes for who is it already.

    Raises:
        PermissionError: this process is not root.
    """
    before = os.geteuid()
    if uid == before:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


def sees(path: str) -> int:
    """Return the user as whom to look at an absolute path: this one, or the owner of what hides it from root."""
    uid = os.geteuid()
    parts = os.path.normpath(path).strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        prefix = "/" + "/".join(parts[:depth])
        with as_user(uid):
            hidden = _is_hidden(prefix)
            owner = _owner(os.path.dirname(prefix)) if hidden else None
        if owner is not None and _may_become(owner, uid):
            uid = owner
    return uid


def listing(path: str, uid: int) -> Listing:
    """List a directory as ``uid``, or as its owner where that user may not.

    Raises:
        PermissionError: neither may.
        FileNotFoundError: it is not there.
    """
    with as_user(uid):
        try:
            return _listed(path, uid)
        except PermissionError:
            owner = _owner(path)
    if owner is None or not _may_become(owner, uid):
        raise PermissionError("{} cannot be listed".format(path))
    with as_user(owner):
        return _listed(path, owner)


def _may_become(owner: int, uid: int) -> bool:
    return os.geteuid() == ROOT and owner not in (ROOT, uid)


def _is_hidden(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _owner(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def _listed(path: str, uid: int) -> Listing:
    found = Listing([], [], uid)
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.directories.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found.inodes.append((status.st_dev, status.st_ino))
    return found
