"""purge: remove the quarantined originals, or copies that were never swapped."""

import contextlib
import itertools
import os
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from unlatch_agent import abreast, durable, identity, jobs, journal, locks, mounts, restore, safety, verify
from unlatch_agent.errors import Json, RefusedError, UsageError
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.replaying import Entry

_ORIGINALS = ("committed", "set_aside", "purging")
_COPIES = ("copying", "prepared", "discarding", "restored", "put_back")
_HALFWAY = ("swapping", "restoring", "setting_aside")
# So many files share two appends to the journal and one wait for the directory.
_TOGETHER = 512
_DIGEST = re.compile(r"[0-9a-fA-F]{16,128}")


class Doomed(NamedTuple):
    """One file that is to be removed; there can be very many."""

    owner: Journal
    name: str
    state: str
    bytes_held: int
    is_locked: bool

    @property
    def is_original(self) -> bool:
        """Say whether this is an original and not one of our copies."""
        return self.state in _ORIGINALS

    @property
    def path(self) -> str:
        """Return what is removed."""
        return self.owner.quarantine(self.name) if self.is_original else self.owner.temp(self.name)


def checked_digest(text: str) -> str:
    """Return the digest of the evidence that a lock's holder is dead.

    Raises:
        UsageError: it is no digest.
    """
    if not _DIGEST.fullmatch(text):
        raise UsageError("bad_digest", "{!r} is no digest".format(text), "give the evidence's digest in hexadecimal")
    return text


def run(
    incident: str,
    directories: Sequence[str],
    *,
    holder_dead: Optional[str],
    dry_run: bool,
    io_timeout_s: float,
    beat: Beat,
) -> Json:
    """Remove what an incident left in directories. The caller holds their host lock.

    All or nothing: when one file may not go, none goes. Idempotent: with nothing left it says so.

    Args:
        incident: its id.
        directories: resolved.
        holder_dead: digest of fresh evidence that the holder of a standing lock is dead.
        dry_run: only look.
        io_timeout_s: limit for the look at one process.
        beat: called before each touch.

    Returns:
        ``files`` (to be gone through), ``freed_bytes``, ``not_freed_bytes``, ``unchecked``.

    Raises:
        RefusedError: ``late_writer``, ``still_locked``, ``local_holder``, ``commit_unfinished``.
    """
    journals = journal.of_directories(directories, incident, beat).values()
    listed = locks.listed_here()
    on_nfs = mounts.any_on_nfs(directories)
    entries = ((owner, entry) for owner in journals for entry in owner.entries)
    found = abreast.here(entries, lambda one: _doomed(*one, listed, holder_dead), beat, on_nfs=on_nfs)
    doomed = [item for item in found if item is not None]
    unchecked: List[Json] = []
    if doomed:
        paths, again = ((item.path for item in doomed) for _ in range(2))
        unchecked = safety.refuse_local_users(paths, io_timeout_s, beat, on_nfs=on_nfs, names=again)
    totals: Dict[str, int] = {"freed_bytes": 0, "not_freed_bytes": 0}
    for item in doomed:
        totals["not_freed_bytes" if item.is_locked else "freed_bytes"] += item.bytes_held
    if not dry_run:
        for group in _groups(doomed):
            _removed(group, holder_dead, beat)
        for owner in journals:
            if owner.exists:
                beat(None)
                owner.remove()
        jobs.forget(incident, directories)
    files = (_document(item, dry_run) for item in doomed)
    return dict(totals, files=files, unchecked=unchecked, dry_run=dry_run)


def _doomed(owner: Journal, entry: Entry, listed: locks.Holders, holder_dead: Optional[str]) -> Optional[Doomed]:
    """Look whether a file may go; None when nothing of it is left."""
    if entry.state in _HALFWAY:
        raise RefusedError(
            "commit_unfinished",
            "{} is in the middle of its swap ({})".format(owner.beside(entry.name), entry.state.replace("_", " ")),
            "finish with commit (a new permit) or restore, then purge",
        )
    if entry.state in _COPIES:
        path = owner.temp(entry.name)
        found = identity.of_name(path)
        return Doomed(owner, entry.name, entry.state, found.blocks_bytes if found is not None else 0, False)
    if entry.state not in _ORIGINALS:
        return None
    path = owner.quarantine(entry.name)
    found = identity.of_name(path)
    if found is None and entry.state == "purging":
        return Doomed(owner, entry.name, entry.state, 0, False)
    checked = verify.quarantined(owner, entry, listed)
    if checked.changes or found is None:
        alarm = verify.late_writer(path, owner.beside(entry.name), checked.changes)
        raise RefusedError(alarm.code, alarm.message, alarm.next_step)
    is_locked = checked.lock is not None and checked.lock["kind"] != "none"
    if is_locked and holder_dead is None:
        raise RefusedError(
            "still_locked",
            "{} is still locked".format(path),
            "have the NAS drop the lock first, or give --holder-dead DIGEST with fresh evidence that its holder is "
            "dead (its space then comes back only when the NAS drops the lock)",
        )
    return Doomed(owner, entry.name, entry.state, found.blocks_bytes if found.links == 1 else 0, is_locked)


def _document(item: Doomed, dry_run: bool) -> Json:
    state = "purged" if item.is_original else "discarded"
    return {
        "path": item.owner.beside(item.name),
        "removed": item.path,
        "kind": identity.leftover_kind(os.path.basename(item.path)),
        "bytes": item.bytes_held,
        "freed": not item.is_locked,
        "state": "would_be_" + state if dry_run else state,
    }


def _groups(doomed: Sequence[Doomed]) -> Iterator[List[Doomed]]:
    """Cut the files into rows that share the waits for the disk: of one directory and one kind."""
    for _, same in itertools.groupby(doomed, key=lambda item: (item.owner.directory, item.is_original)):
        row = list(same)
        for start in range(0, len(row), _TOGETHER):
            yield row[start : start + _TOGETHER]


def _removed(group: Sequence[Doomed], holder_dead: Optional[str], beat: Beat) -> None:
    """Remove a row of files: all are announced in the journal before the first one goes."""
    owner = group[0].owner
    beat(None)
    if not group[0].is_original:
        restore.discard_all(owner, [item.name for item in group], beat)
        return
    fresh = [(item.name, {"holder_dead": holder_dead}) for item in group if item.state != "purging"]
    if fresh:
        owner.record_all("purging", fresh)
    for item in group:
        beat(None)
        with contextlib.suppress(FileNotFoundError):
            durable.unlink(item.path)
    durable.sync_directory(owner.directory)
    owner.record_all("purged", [(item.name, {}) for item in group])
