"""Which files of a volume carry a POSIX lock, asked without taking or dropping one."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid
_LOCKED_BY_NOBODY = fcntl.F_UNLCK


def holder(path: Path) -> int | None:
    """Return the pid of a process that holds a lock on the file as this process sees it (0: not visible here), or None.

    The caller must hold no lock on the file itself: closing the descriptor would drop it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _whence, _start, _length, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    finally:
        os.close(descriptor)
    return None if kind == _LOCKED_BY_NOBODY else pid


def files(volume: Path) -> Iterator[Path]:
    """Yield every regular file of a volume; files that vanish meanwhile are left out."""
    for directory, _names, names in os.walk(volume):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def locked_files(volume: Path) -> list[Path]:
    """Return the files of a volume that carry a lock, whoever holds it."""
    found = []
    for path in files(volume):
        try:
            if holder(path) is not None:
                found.append(path)
        except FileNotFoundError:
            continue
    return sorted(found)
