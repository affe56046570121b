"""The few calls that change names or the journal, each made durable.

Every change that a repair makes beside a copy's own bytes goes through here, so there is one place to
look at for what can be left behind by a kill or a power cut, and one place where tests can cut.
"""

import contextlib
import os
from typing import Sequence

from unlatch_agent import syscalls
from unlatch_agent.errors import naming

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME


def create(path: str) -> int:
    """Make a new private file and return its descriptor; FileExistsError when the name is taken.

    Reading it back through this descriptor does not move its access time.
    """
    return os.open(path, _NEW_FILE, 0o600)


def create_anew(path: str) -> int:
    """Make a new private file, in the place of one that nobody wants, and return its descriptor."""
    with contextlib.suppress(FileExistsError):
        return create(path)
    unlink(path)
    return create(path)


def link(existing: str, name: str) -> None:
    """Give a file a second name."""
    os.link(existing, name, follow_symlinks=False)


def rename(old: str, new: str) -> None:
    """Rename, replacing what has the new name."""
    os.rename(old, new)


def unlink(path: str) -> None:
    """Remove a name."""
    os.unlink(path)


def append(descriptor: int, line: bytes) -> None:
    """Append one line and wait until the disk has it, and all that was added before."""
    add(descriptor, line)
    sync(descriptor)


def add(descriptor: int, line: bytes) -> None:
    """Append one line; the next wait is for it too."""
    with naming(descriptor):
        while line:
            line = line[os.write(descriptor, line) :]


def cut(descriptor: int, length: int) -> None:
    """Cut a file off and wait until the disk knows."""
    with naming(descriptor):
        os.ftruncate(descriptor, length)
        os.fsync(descriptor)


def sync(descriptor: int) -> None:
    """Wait until the disk has a file."""
    with naming(descriptor):
        os.fsync(descriptor)


def sync_together(descriptors: Sequence[int]) -> None:
    """Wait until the disk has all of some files of one local file system.

    One call for the whole file system costs as much as one for a single file. It does not tell of every failed
    write in every kernel, so each file is asked for its own errors; those that cannot be asked are waited for one
    by one.
    """
    with naming(descriptors[0]):
        at_once = syscalls.sync_file_system(descriptors[0])
    for descriptor in descriptors:
        with naming(descriptor):
            if not (at_once and syscalls.is_written_back(descriptor)):
                os.fsync(descriptor)


def sync_directory(directory: str) -> None:
    """Wait until the disk has the names of a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
