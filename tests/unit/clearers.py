"""A lock clearer in memory, and what a run has tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tests.unit.fakes import World
from tests.unit.lanes import Run
from unlatch.models import (
    ClearAnswer,
    LockKind,
    NasLock,
    NasView,
    Reach,
)


@dataclass
class Clearer:
    """See `ports.LockClearer`; frees all that the world's NAS has, or raises."""

    world: World
    reaches: Reach = Reach.FILES
    error: Exception | None = None
    names_files: bool = True
    widens: bool = False
    name: str = "made_up"

    def list(self, files: Sequence[PurePosixPath]) -> NasView:
        """The stale locks among `files`."""
        stale = [p for p in files if p in self.world.names and self.world.names[p].lock is LockKind.REMOTE]
        return NasView(tuple(self._lock(p) for p in stale), lease_s=90.0)

    def _lock(self, path: PurePosixPath) -> NasLock:
        return NasLock(path if self.names_files else None, self.world.names[path].number, "nfsv3", id=str(path))

    def reach(self, _view: NasView) -> Reach:
        """As the test has it."""
        found = self.reaches
        if self.widens and self.world.units["voms"].held:
            self.reaches = Reach.VOLUME
        return found

    def clear(self, locks: Sequence[NasLock]) -> ClearAnswer:
        """Free them."""
        self.world.call("nas.clear", (tuple(locks),), touches=True)
        if self.error is not None:
            raise self.error
        for lock in locks:
            inode = next(i for i in self.world.names.values() if i.number == lock.inode)
            inode.lock = LockKind.NONE
        return ClearAnswer(len(locks), f"{len(locks)} locks were dropped")


def tried(run: Run) -> list[tuple[str, str]]:
    """What clear_locks tried, and how that ended."""
    return [(t["remedy"], t["outcome"]) for t in run.row("clear_locks").result["tried"]]
