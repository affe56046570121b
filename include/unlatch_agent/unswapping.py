"""The way back of a swap: the new file gets its temp name again, the original its own, look, record.

One file at a time, or many that share the waits for the disk. Every answer is judged by inode afterwards.
"""

import contextlib
from typing import Iterator, List, NamedTuple, Sequence

from unlatch_agent import abreast, durable, positions, swapping
from unlatch_agent.errors import CheckFailedError
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal


class Undo(NamedTuple):
    """One file to bring back; there can be very many.

    Attributes:
        kind: where it is, see :mod:`unlatch_agent.positions`.
    """

    owner: Journal
    name: str
    kind: str

    @property
    def path(self) -> str:
        """Return the file's path."""
        return self.owner.beside(self.name)

    @property
    def temp(self) -> str:
        """Return the path where the new file goes."""
        return self.owner.temp(self.name)

    @property
    def quarantine(self) -> str:
        """Return the path where the original is."""
        return self.owner.quarantine(self.name)

    def now(self) -> str:
        """Look where it is now."""
        return positions.look(self.owner, self.owner.history.entries[self.name]).kind


def groups(undo: Sequence[Undo]) -> Iterator[List[Undo]]:
    """Cut a batch, in the order in which it goes back, into groups of one directory that share the waits for the disk.

    A pid file goes alone: it stays aside when there is a newer one.
    """
    most = swapping.most_together(len(undo))
    group: List[Undo] = []
    for item in undo:
        is_alone = item.kind == positions.ASIDE
        if group and (is_alone or len(group) >= most or group[0].owner is not item.owner):
            yield group
            group = []
        group.append(item)
        if is_alone:
            yield group
            group = []
    if group:
        yield group


def brought_back(group: Sequence[Undo], beat: Beat, *, on_nfs: bool) -> None:
    """Bring the originals of a group back, the first before all others; goes on with what a kill has left.

    Raises:
        CheckFailedError: a name does not stand for what it should after a call. What is right is recorded.
        FileExistsError: there is a pid file in the place of one that was set aside.
    """
    owner = group[0].owner
    beat(None)
    owner.record_all("restoring", [(item.name, {}) for item in group])
    linked = [item for item in group if item.kind in (positions.SWAPPED, positions.ASIDE)]
    abreast.do(linked, _link, beat, on_nfs=on_nfs)
    if linked:
        durable.sync_directory(owner.directory)
    # What was swapped last (ibdata1) comes first: a server that is started on half a batch is to find it locked.
    abreast.do(group[:1], _rename, beat, on_nfs=False)
    abreast.do(group[1:], _rename, beat, on_nfs=on_nfs)
    beat(None)
    durable.sync_directory(owner.directory)
    right: List[str] = []

    def recognise(item: Undo) -> None:
        if item.now() != positions.ORIGINAL:
            raise _unexpected(item)
        right.append(item.name)

    try:
        abreast.do(group, recognise, beat, on_nfs=on_nfs)
    finally:
        if right:
            owner.record_all("restored", [(name, {}) for name in right])


def _link(item: Undo) -> None:
    """Give a file the name that it is to have besides its present one."""
    if item.kind == positions.ASIDE:
        durable.link(item.quarantine, item.path)  # never replaces a pid file that just appeared
    else:
        with contextlib.suppress(FileExistsError):  # judged by inode before the rename
            durable.link(item.path, item.temp)


def _rename(item: Undo) -> None:
    """Give the original its own name, and take its quarantine's away."""
    if item.kind in (positions.LINKED, positions.ASIDE):
        # Both names are one inode, and renaming one over the other would do nothing at all.
        durable.unlink(item.quarantine)
    elif item.kind in (positions.SWAPPED, positions.BACK_LINKED):
        if item.kind == positions.SWAPPED and item.now() != positions.BACK_LINKED:
            raise _unexpected(item)
        with contextlib.suppress(FileNotFoundError):
            durable.rename(item.quarantine, item.path)


def _unexpected(item: Undo) -> CheckFailedError:
    return positions.unexpected(item.owner, item.name, "restore", "restore again")
