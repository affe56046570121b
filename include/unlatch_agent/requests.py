"""What a copy method is asked for, and how it says that it cannot."""

import errno
import os
import threading
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

if TYPE_CHECKING:
    from unlatch_agent.following import Following

Advance = Callable[[int], None]

# Answers that mean "not in this way", not "this file cannot be copied".
_NOT_THIS_WAY = frozenset(
    {
        errno.EOPNOTSUPP,
        errno.ENOTTY,
        errno.ENOSYS,
        errno.EXDEV,
        errno.EINVAL,
        errno.EIO,
        errno.EREMOTEIO,
        errno.EPERM,
        errno.EBADF,
        errno.ETXTBSY,
    }
)
# Of these, the ones that hold for the whole volume.
_NEVER_HERE = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS})


class Request(NamedTuple):
    """One copy to make.

    Attributes:
        source: descriptor of the original.
        target: descriptor of an empty file, or of one that an earlier method has filled up to ``start_bytes``.
        size_bytes: the original's size.
        is_sparse: whether runs of zeros are to become holes.
        path: the original's path, for messages.
        dev: the volume.
        is_nfs: whether that is an NFS mount.
        may_copy_on_server: whether the NFS server can copy by itself (NFSv4.2).
        start_bytes: where to begin.
        mark: called with how much of the copy is on disk, every now and then; None for a file that is soon copied.
        following: compares it while it is made, if the method can have that.
    """

    source: int
    target: int
    size_bytes: int
    is_sparse: bool
    path: str
    dev: int = 0
    is_nfs: bool = False
    may_copy_on_server: bool = False
    start_bytes: int = 0
    mark: Optional[Callable[[int], None]] = None
    following: "Optional[Following]" = None


class UnfitError(Exception):
    """A method cannot do, or go on with, a copy; another may.

    Attributes:
        done_bytes: up to where the target is complete.
        is_for_good: whether the method is hopeless on the whole volume.
    """

    def __init__(self, why: str, done_bytes: int = 0, is_for_good: bool = False) -> None:
        """Say why, and how far the method came."""
        super().__init__(why)
        self.done_bytes = done_bytes
        self.is_for_good = is_for_good


def unfit(error: OSError, done_bytes: int = 0) -> UnfitError:
    """Turn a refused system call into "not in this way".

    Raises:
        OSError: it is something else: a full disk, a stale handle.
    """
    if error.errno not in _NOT_THIS_WAY:
        raise error
    for_good = error.errno in _NEVER_HERE and not done_bytes
    return UnfitError(os.strerror(error.errno or 0), done_bytes, for_good)


class Counted:
    """Tells how far several threads are together; holes count at the end."""

    def __init__(self, size_bytes: int, advance: Advance) -> None:
        self._left = size_bytes
        self._advance = advance
        self._lock = threading.Lock()

    def add(self, size_bytes: int) -> None:
        """Count bytes; pieces can reach a little into holes, so it stops at the size."""
        with self._lock:
            step = min(size_bytes, self._left)
            self._left -= step
            self._advance(step)

    def finish(self) -> None:
        """Count all the rest."""
        self.add(self._left)
