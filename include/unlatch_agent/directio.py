"""Reading and writing past the page cache, or so that nothing stays there.

A copy of a terabyte must not push everything else out of the memory of a host whose databases are about to
start; and what is read back for the compare must come from the storage, not from this host's memory.
"""

import contextlib
import fcntl
import os
from typing import Iterator, Optional

from unlatch_agent import syscalls


@contextlib.contextmanager
def reopened(descriptor: int, how: int = os.O_DIRECT) -> Iterator[Optional[int]]:
    """Open an open file once more, for direct I/O if nothing else is said; None where it does not allow that.

    This program holds no POSIX lock on any file, so closing the second descriptor loses none.
    """
    mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_NOATIME)
    try:
        again: Optional[int] = os.open("/proc/self/fd/{}".format(descriptor), mode | how | os.O_CLOEXEC)
    except OSError:
        again = None
    try:
        yield again
    finally:
        if again is not None:
            os.close(again)


def ahead(descriptor: int) -> None:
    """Let the kernel read a whole small file from the storage, without waiting: what it had in memory is dropped."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


def let_go(descriptor: int, start: int, size_bytes: int) -> None:
    """Drop clean pages of a part of a file from the page cache."""
    os.posix_fadvise(descriptor, start, size_bytes, os.POSIX_FADV_DONTNEED)


def is_evicted(descriptor: int, size_bytes: int, start: int = 0) -> bool:
    """Drop a part of a file that is on disk from the page cache, and say whether nothing of it is left there.

    The part begins at a page.

    Then whatever is read from now on comes from the storage, through the page cache as well.
    """
    let_go(descriptor, start, size_bytes)
    return not syscalls.is_cached(descriptor, size_bytes, start)
