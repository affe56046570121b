"""The swap itself: link the original to quarantine, rename the copy over the name, look, record.

One file at a time, or many that share the waits for the disk. Every answer is judged by inode afterwards.
"""

import contextlib
import os
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from unlatch_agent import abreast, durable, identity, locks, positions, verify
from unlatch_agent.errors import CheckFailedError, Json, RefusedError
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.permit import PermittedFile
from unlatch_agent.positions import Position
from unlatch_agent.replaying import Entry

# Up to so many files are swapped one by one; more go in groups.
ONE_BY_ONE = 32
_TOGETHER = 1024
# A link changes the ctime, so a file that is half swapped is compared without it.
UNCHANGED_BUT_LINKED = ("inode", "size_bytes", "mtime_ns")
# Where a file is, and no more of it: once for all files.
_BARE = {kind: Position(kind, None, None, None) for kind in positions.KINDS}
_UNSEEN = Position("unseen", None, None, None)


class Step(NamedTuple):
    """One file of the batch."""

    owner: Journal
    entry: Entry
    allowed: PermittedFile
    position: Position = _UNSEEN

    @property
    def path(self) -> str:
        """Return the file's path."""
        return self.owner.beside(self.entry.name)

    @property
    def temp(self) -> str:
        """Return the copy's path."""
        return self.owner.temp(self.entry.name)

    @property
    def quarantine(self) -> str:
        """Return the path where the original goes."""
        return self.owner.quarantine(self.entry.name)

    @property
    def is_done(self) -> bool:
        """Say whether journal and names agree that it is swapped."""
        return self.entry.state == "committed" and self.position.kind == positions.SWAPPED

    def at(self, kind: str) -> "Step":
        """Return it with no more of a look than where the file is: there can be many steps."""
        return Step(self.owner, self.entry, self.allowed, _BARE[kind])


class Kept(NamedTuple):
    """A file's new inode from before its swap until the end of the batch.

    Attributes:
        descriptor: closing it lets go.
        is_locked: whether nobody else can have a lock on it meanwhile.
    """

    descriptor: int
    is_locked: bool


class Held(NamedTuple):
    """One file of the batch, with the descriptor that keeps its new inode locked."""

    step: Step
    descriptor: int


def written_late(step: Step) -> List[str]:
    """Say what changed in an original that is in quarantine while the journal does not yet say what it was there."""
    original = step.position.quarantine
    if original is None:
        return ["missing"]
    return identity.differences(step.entry.facts["source"], original, UNCHANGED_BUT_LINKED)


def kept(step: Step) -> Kept:
    """Open a file's new inode and lock it, so that nobody starts on half a batch."""
    path = step.path if step.position.kind == positions.SWAPPED else step.temp
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:  # a file that its owner may only read cannot carry a write lock either
        return Kept(identity.open_to_read(path), is_locked=False)
    try:
        free = locks.take(descriptor)
    except OSError:
        return Kept(descriptor, is_locked=False)  # a file system without such locks: the service hold must do
    if not free:
        os.close(descriptor)
        raise RefusedError(
            "local_holder",
            "the new {} is locked by someone".format(step.path),
            "something has started on it: stop and hold the service, then run commit again",
        )
    return Kept(descriptor, is_locked=True)


def most_together(files: int) -> int:
    """Return how many files of a batch of so many share the waits for the disk."""
    return 1 if files <= ONE_BY_ONE else _TOGETHER


def groups(steps: Sequence[Step], held: Sequence[int]) -> Iterator[List[Held]]:
    """Cut a batch into groups of files of one directory that share the waits for the disk.

    A usual batch goes file by file, so that as little as possible is half done at a time.
    """
    most = most_together(len(steps))
    group: List[Held] = []
    for step, descriptor in zip(steps, held):
        if group and (len(group) >= most or group[0].step.owner is not step.owner):
            yield group
            group = []
        group.append(Held(step, descriptor))
    yield group


def swapped(group: Sequence[Held], batch: Sequence[str], beat: Beat, *, on_nfs: bool) -> List[Step]:
    """Swap the files of a group, or finish their swap; those that are done already are left alone."""
    begin(group, batch)
    swap(group, beat, on_nfs=on_nfs)
    return finished(group, beat, on_nfs=on_nfs)


def begin(group: Sequence[Held], batch: Sequence[str]) -> None:
    """Record that the files of a group are about to be swapped."""
    left = _left(group)
    if left:
        facts = {"batch": list(batch)}
        left[0].step.owner.record_all("swapping", [(held.step.entry.name, facts) for held in left])


def swap(group: Sequence[Held], beat: Beat, *, on_nfs: bool = False) -> None:
    """Change the names of the files of a group."""
    left = [held.step for held in _left(group)]
    beat(None)
    _link([step for step in left if step.position.kind == positions.ORIGINAL], beat, on_nfs=on_nfs)
    _expect_heads(left)
    _rename([step for step in left if step.position.kind != positions.SWAPPED], beat, on_nfs=on_nfs)


def finished(group: Sequence[Held], beat: Beat, *, on_nfs: bool = False, is_awaited: bool = True) -> List[Step]:
    """Look at a group whose names were changed, and record what is right."""
    left = _left(group)
    right: List[Tuple[str, Json]] = []

    def recognise(held: Held) -> None:
        step = _looked_at(held.step, positions.SWAPPED)
        right.append((step.entry.name, _recognised(Held(step, held.descriptor))))

    try:
        abreast.do(left, recognise, beat, on_nfs=on_nfs)
    finally:  # what is known to be right is recorded, also when a file after it is not
        if right:
            left[0].step.owner.record_all("committed", right, is_kept=False, is_awaited=is_awaited)
    there = _BARE[positions.SWAPPED]
    return [Step(step.owner, step.entry.followed_by("committed"), step.allowed, there) for step, _ in group]


def _left(group: Sequence[Held]) -> List[Held]:
    return [held for held in group if not held.step.is_done]


def _link(steps: Sequence[Step], beat: Beat, *, on_nfs: bool) -> None:
    """Give every original its quarantine name, on disk before any is renamed."""

    def link(step: Step) -> None:
        # An NFS server may have done it and lost its answer: the look before the rename decides.
        with contextlib.suppress(FileExistsError):
            durable.link(step.path, step.quarantine)

    abreast.do(steps, link, beat, on_nfs=on_nfs)
    if steps:
        durable.sync_directory(steps[0].owner.directory)


def _expect_heads(steps: Sequence[Step]) -> None:
    """Let the kernel read the heads of many originals side by side; what fails here fails again when they are read."""
    for step in steps if len(steps) > 1 else ():
        if _known_head(step) is None:
            with contextlib.suppress(OSError):
                descriptor = identity.open_to_read(step.quarantine)
                try:
                    os.posix_fadvise(descriptor, 0, identity.HEAD_BYTES, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(descriptor)


def _rename(steps: Sequence[Step], beat: Beat, *, on_nfs: bool) -> None:
    """Put every copy under its name, in the order of the batch, after a last look at the original.

    Where many go side by side the last of them (ibdata1) still waits for all others: a server that is started on half
    a batch is to find that one locked.
    """

    def rename(step: Step) -> None:
        # The copies before it may have taken hours. What has the copy's name shows after the rename.
        named = _looked_at(step, positions.LINKED).position.named
        changed = named is None or identity.differences(step.entry.facts["source"], named, UNCHANGED_BUT_LINKED)
        if changed:
            raise _unexpected(step)
        with contextlib.suppress(FileNotFoundError):
            durable.rename(step.temp, step.path)

    abreast.do(steps[:-1], rename, beat, on_nfs=on_nfs)
    abreast.do(steps[-1:], rename, beat, on_nfs=False)
    if steps:
        beat(None)
        durable.sync_directory(steps[0].owner.directory)


def _recognised(held: Held) -> Json:
    """Look that both names stand for what they should; return what the journal keeps of it."""
    step = held.step
    named, original = step.position.named, step.position.quarantine
    if named is None or original is None or named.inode != os.fstat(held.descriptor).st_ino:
        raise _unexpected(step)
    written = written_late(step)
    if written:
        raise verify.late_writer(step.quarantine, step.path, written)
    quarantined = dict(original.document(), head_sha256=_known_head(step) or _head(step.quarantine))
    return {"after": named.document(), "quarantined": quarantined}


def _looked_at(step: Step, wanted: str) -> Step:
    position = positions.look(step.owner, step.entry, with_temp=False)
    if position.kind != wanted:
        raise _unexpected(step)
    return Step(step.owner, step.entry, step.allowed, position)


def _unexpected(step: Step) -> CheckFailedError:
    return positions.unexpected(step.owner, step.entry.name, "swap", "commit or restore")


def _known_head(step: Step) -> Optional[str]:
    """Return the hash of a small original whose bytes passed through this program: they are to stay as they are."""
    facts = step.entry.facts
    return facts.get("source_sha256") if facts["source"]["size_bytes"] <= identity.HEAD_BYTES else None


def _head(path: str) -> str:
    descriptor = identity.open_to_read(path)
    try:
        return identity.head_sha256(descriptor)
    finally:
        os.close(descriptor)
