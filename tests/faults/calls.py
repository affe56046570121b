"""System calls as boundaries: which ones matter, and a name for each that is the same in every run."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import NamedTuple

from tests.faults.ptrace import Call


class _Shape(NamedTuple):
    """Where a call says what it works on."""

    number: int
    descriptor: int | None = None
    path: int | None = None


# x86-64. A path is relative to the descriptor argument where both are given.
CHANGING = {
    "write": _Shape(1, descriptor=0),
    "pwrite64": _Shape(18, descriptor=0),
    "writev": _Shape(20, descriptor=0),
    "pwritev": _Shape(296, descriptor=0),
    "pwritev2": _Shape(328, descriptor=0),
    "open": _Shape(2, path=0),
    "openat": _Shape(257, descriptor=0, path=1),
    "creat": _Shape(85, path=0),
    "mkdir": _Shape(83, path=0),
    "mkdirat": _Shape(258, descriptor=0, path=1),
    "fsync": _Shape(74, descriptor=0),
    "fdatasync": _Shape(75, descriptor=0),
    "sync_file_range": _Shape(277, descriptor=0),
    "syncfs": _Shape(306, descriptor=0),
    "ftruncate": _Shape(77, descriptor=0),
    "truncate": _Shape(76, path=0),
    "fallocate": _Shape(285, descriptor=0),
    "rename": _Shape(82, path=0),
    "renameat": _Shape(264, descriptor=0, path=1),
    "renameat2": _Shape(316, descriptor=0, path=1),
    "link": _Shape(86, path=0),
    "linkat": _Shape(265, descriptor=0, path=1),
    "unlink": _Shape(87, path=0),
    "unlinkat": _Shape(263, descriptor=0, path=1),
    "chown": _Shape(92, path=0),
    "fchown": _Shape(93, descriptor=0),
    "fchownat": _Shape(260, descriptor=0, path=1),
    "chmod": _Shape(90, path=0),
    "fchmod": _Shape(91, descriptor=0),
    "fchmodat": _Shape(268, descriptor=0, path=1),
    "utimensat": _Shape(280, descriptor=0, path=1),
    "setxattr": _Shape(188, path=0),
    "fsetxattr": _Shape(190, descriptor=0),
    "removexattr": _Shape(197, path=0),
    "fremovexattr": _Shape(199, descriptor=0),
    "ioctl": _Shape(16, descriptor=0),
    "copy_file_range": _Shape(326, descriptor=2),
    "sendfile": _Shape(40, descriptor=0),
}
READING = {
    "read": _Shape(0, descriptor=0),
    "pread64": _Shape(17, descriptor=0),
    "stat": _Shape(4, path=0),
    "lstat": _Shape(6, path=0),
    "fstat": _Shape(5, descriptor=0),
    "newfstatat": _Shape(262, descriptor=0, path=1),
    "statx": _Shape(332, descriptor=0, path=1),
    "statfs": _Shape(137, path=0),
    "fstatfs": _Shape(138, descriptor=0),
    "lseek": _Shape(8, descriptor=0),
    "getdents64": _Shape(217, descriptor=0),
    "flistxattr": _Shape(196, descriptor=0),
    "fgetxattr": _Shape(193, descriptor=0),
}
_SHAPES = {shape.number: (name, shape) for name, shape in {**CHANGING, **READING}.items()}
_OPEN_FLAGS = {"open": 1, "openat": 2}
# FICLONE, FICLONERANGE, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
_CHANGING_IOCTLS = {0x40049409, 0x4020940D, 0x40086602, 0x401C5820}


class Boundary(NamedTuple):
    """The n-th time (from 1) that a run makes a call on a file; the file relative to its root.

    An open that creates and one that does not, an ioctl that sets and one that asks, are different calls.
    """

    call: str
    subject: str
    nth: int
    changes: bool

    def __str__(self) -> str:
        """Say it for people."""
        return f"{self.call}({self.subject}) #{self.nth}"


def numbers(deep: bool) -> list[int]:
    """Return the numbers of the calls to stop at; deep: reading ones too."""
    return [shape.number for shape in [*CHANGING.values(), *(READING.values() if deep else ())]]


class Namer:
    """Names the calls of one run."""

    def __init__(self, roots: dict[str, str], deep: bool) -> None:
        """Take the directories that matter, by name; calls outside of them are of no interest."""
        self._roots = roots
        self._deep = deep
        self._counts: Counter[tuple[str, str, bool]] = Counter()

    def name(self, call: Call) -> Boundary | None:
        """Return the boundary, None for a call that does not matter."""
        name, shape = _SHAPES[call.number]
        changes = name in CHANGING
        if name in _OPEN_FLAGS:
            changes = bool(call.arguments[_OPEN_FLAGS[name]] & (os.O_CREAT | os.O_TRUNC))
        elif name == "ioctl":
            changes = call.arguments[1] in _CHANGING_IOCTLS
        if not changes and not self._deep:
            return None
        subject = self._subject(call, shape)
        if subject is None:
            return None
        # Apart by kind, so that a call has the same number whether those that only look are shown or not.
        self._counts[name, subject, changes] += 1
        return Boundary(name, subject, self._counts[name, subject, changes], changes)

    def _subject(self, call: Call, shape: _Shape) -> str | None:
        path = call.text(shape.path) if shape.path is not None else ""
        if not path.startswith("/") and shape.descriptor is not None:
            base = call.descriptor(shape.descriptor)
            path = f"{base}/{path}" if path else base
        path = path.removesuffix(" (deleted)")
        for name, root in self._roots.items():
            if path == root or path.startswith(root + "/"):
                return re.sub(r"\.json\.\d+$", ".json.PID", name + path[len(root) :])
        return None
