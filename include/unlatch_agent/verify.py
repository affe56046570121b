"""verify: are the originals in quarantine unchanged, and do the names stand for the new files?"""

import os
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from unlatch_agent import abreast, identity, journal, locks, mounts, positions
from unlatch_agent.errors import AgentError, CheckFailedError, Json
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.replaying import Entry

_WATCHED = ("size_bytes", "mtime_ns", "ctime_ns")
_SETTLED = ("committed", "set_aside", "purging")
_HALFWAY = ("swapping", "setting_aside", "restoring")


class Checked(NamedTuple):
    """What a look at one quarantined original showed."""

    changes: List[str]
    inode: Optional[int]
    lock: Optional[Json]


def run(incident: str, directories: Sequence[str], beat: Beat) -> Json:
    """Look at every file of a finished swap. Changes nothing.

    Returns:
        ``files``, which looks at each when it is asked for.

    Raises:
        CheckFailedError: after the last of them, ``late_writer`` (an original changed), ``unexpected_inode`` (a name
            stands for something else) or ``commit_unfinished``.
    """
    return {"files": _looked_at(incident, directories, beat)}


def _looked_at(incident: str, directories: Sequence[str], beat: Beat) -> Iterator[Json]:
    """Yield the answer's entries; raise the worst of what was found when all were looked at."""
    worst: List[Tuple[int, AgentError]] = []
    listed = locks.listed_here()
    on_nfs = mounts.any_on_nfs(directories)
    for directory in directories:
        owner = Journal(directory, incident)
        later = _Later(owner)

        def look(entry: Entry, owner: Journal = owner, later: _Later = later) -> Json:
            if entry.state in _SETTLED:
                return _settled(owner, entry, listed, later, worst)
            return _unfinished(owner, entry, worst)

        touched = (entry for entry in owner.entries if entry.state in _SETTLED or entry.state in _HALFWAY)
        for told in abreast.here(touched, look, beat, on_nfs=on_nfs):
            yield told
            if len(worst) > 1:
                worst[:] = [min(worst, key=lambda pair: pair[0])]
    for _, error in worst:
        raise error


class _Later:
    """What other incidents' repairs took from the names of a directory; their journals are read when that is asked."""

    def __init__(self, owner: Journal) -> None:
        self._owner = owner
        self._journals: List[Journal] = []

    def took(self, name: str, inode: Optional[int]) -> bool:
        """Say whether one took this inode from a name; before the answer is no, their journals are read anew."""
        if not self._told(name, inode):
            directory = self._owner.directory
            self._journals = [Journal(directory, other) for other in journal.others(directory, self._owner.incident)]
        return self._told(name, inode)

    def _told(self, name: str, inode: Optional[int]) -> bool:
        entries = [other.entry(name) for other in self._journals]
        known = [entry for entry in entries if entry is not None and entry.state in ("committed", "purging", "purged")]
        return inode in [entry.source_inode for entry in known]


def _settled(
    owner: Journal, entry: Entry, listed: locks.Holders, later: _Later, worst: List[Tuple[int, AgentError]]
) -> Json:
    found = quarantined(owner, entry, listed)
    named = identity.of_name(owner.beside(entry.name))
    state = entry.state
    if entry.is_pidfile:
        # The next start writes its own pid file: the name may be free or have something newer.
        right = named is None or named.inode != entry.source_inode
    else:
        right = named is not None and named.inode == entry.temp_inode
        if not right and later.took(entry.name, entry.temp_inode):
            state, right = "superseded", True  # a later repair has recreated the file again
    path = owner.beside(entry.name)
    quarantine = owner.quarantine(entry.name)
    if found.changes:
        worst.append((0, late_writer(quarantine, path, found.changes)))
    elif not right:
        worst.append(
            (
                1,
                CheckFailedError(
                    "unexpected_inode",
                    "{} is not the file that the repair put there".format(path),
                    "find out who replaced it; the original is {}".format(quarantine),
                ),
            )
        )
    return {
        "path": path,
        "state": state,
        "inode_after": named.inode if named is not None else None,
        "quarantine": quarantine,
        "quarantine_inode": found.inode,
        "quarantine_changed": bool(found.changes),
        "changes": found.changes,
        "quarantine_lock": found.lock,
        "ok": right and not found.changes,
    }


def _unfinished(owner: Journal, entry: Entry, worst: List[Tuple[int, AgentError]]) -> Json:
    path = owner.beside(entry.name)
    position = positions.look(owner, entry)
    worst.append(
        (
            2,
            CheckFailedError(
                "commit_unfinished",
                "{} is in the middle of its swap ({})".format(path, entry.state.replace("_", " ")),
                "run commit again with a new permit, or restore",
            ),
        )
    )
    return {
        "path": path,
        "state": entry.state,
        "inode_after": position.named.inode if position.named is not None else None,
        "quarantine": owner.quarantine(entry.name),
        "quarantine_inode": position.quarantine.inode if position.quarantine is not None else None,
        "quarantine_changed": False,
        "changes": [],
        "quarantine_lock": None,
        "ok": False,
    }


def quarantined(owner: Journal, entry: Entry, listed: Optional[locks.Holders] = None) -> Checked:
    """Compare a quarantined original with what was recorded at its swap.

    Args:
        owner: its journal.
        entry: its entry there.
        listed: the kernel's list of locks, when many files are looked at; read now when it is not given.
    """
    path = owner.quarantine(entry.name)
    recorded = entry.facts["quarantined"]
    try:
        descriptor = identity.open_to_read(path)
    except FileNotFoundError:
        return Checked([] if _is_purged(owner, entry) else ["missing"], None, None)
    try:
        status = os.fstat(descriptor)
        now = identity.of_status(status)
        changes = identity.differences(recorded, now, ("inode", *_WATCHED))
        if identity.head_sha256(descriptor) != recorded["head_sha256"]:
            changes.append("content")
        holders = (locks.listed_here() if listed is None else listed).get((status.st_dev, status.st_ino), set())
        return Checked(changes, now.inode, locks.describe(locks.standing(descriptor), holders))
    finally:
        os.close(descriptor)


def late_writer(quarantine: str, path: str, changes: Sequence[str]) -> CheckFailedError:
    """Return the alarm for an original that changed after its swap."""
    return CheckFailedError(
        "late_writer",
        "{}, the original of {}, has changed since the swap ({})".format(quarantine, path, ", ".join(changes)),
        "a writer of the previous incarnation lives: stop the database and that writer, keep both files",
    )


def _is_purged(owner: Journal, entry: Entry) -> bool:
    """Say whether a purge deleted an original: one that was killed before its record, or that goes on meanwhile."""
    present = Journal(owner.directory, owner.incident).entry(entry.name)
    return present is None or present.state in ("purging", "purged")
