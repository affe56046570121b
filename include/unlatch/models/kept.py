"""What a repair has left on a volume, and what became of it: originals in quarantine, leftovers, purged files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from unlatch.models.base import Value
from unlatch.models.observed import LockKind


@dataclass(frozen=True)
class KeptFile(Value):
    """A file that a repair has swapped, and its original in quarantine, as they are now.

    Attributes:
        path: The name that the database uses.
        quarantine: Where the original is.
        inode: The original's; None when it is gone.
        changes: What differs from the original as it was set aside; empty while nobody has written to it.
        right: Whether the name stands for the file that the repair, or a later one, has put there.
        state: The agent's word: committed, set_aside, superseded, purging; or a swap that was not finished.
        lock: Who has the original locked, as the guest sees it.
    """

    path: PurePosixPath
    quarantine: PurePosixPath
    inode: int | None
    changes: tuple[str, ...]
    right: bool
    state: str
    lock: LockKind = LockKind.NONE


@dataclass(frozen=True)
class PurgedFile(Value):
    """A file that was deleted, or in a dry run would be.

    Attributes:
        path: The name that the database uses.
        removed: The file itself.
        bytes_held: The space that it took; 0 when another name still has it, or it was gone already.
        freed: Whether the space comes back: nobody has it locked.
        held_by: Who says that it is locked, when it does not.
    """

    path: PurePosixPath
    removed: PurePosixPath
    bytes_held: int
    freed: bool
    held_by: str = ""


@dataclass(frozen=True)
class OurFile(Value):
    """A file that only Unlatch makes, found on a volume.

    Attributes:
        path: Where it is.
        kind: `quarantine` (an original), `temp` (a copy) or `journal`.
        size_bytes: Its size.
        mtime_ns: When it was last written.
        lock: Who has it locked.
    """

    path: PurePosixPath
    kind: str
    size_bytes: int
    mtime_ns: int
    lock: LockKind
