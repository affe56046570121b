"""restore: undo a batch as a whole, as long as nothing has run on the new files."""

import contextlib
from typing import Collection, Iterable, Iterator, List, Sequence, Tuple

from unlatch_agent import abreast, durable, identity, journal, locks, mounts, positions, safety, unswapping
from unlatch_agent.errors import Json, RefusedError
from unlatch_agent.ioguard import Beat
from unlatch_agent.journal import Journal
from unlatch_agent.manyfiles import ManyFiles
from unlatch_agent.positions import Position
from unlatch_agent.replaying import Entry
from unlatch_agent.unswapping import Undo

_BEGUN = ("swapping", "committed", "restoring", "setting_aside", "set_aside")
_NEVER_SWAPPED = ("copying", "prepared", "discarding")
_CONTENT = ("inode", "size_bytes", "mtime_ns")


def run(incident: str, directories: Sequence[str], discard_temps: bool, io_timeout_s: float, beat: Beat) -> Json:
    """Bring the originals back. The caller holds the host lock of the directories.

    The new files are kept under their temp names. Idempotent; a restore that was killed goes on.

    Args:
        incident: its id.
        directories: all directories of the batch, resolved.
        discard_temps: also throw away copies that were never swapped.
        io_timeout_s: limit for the look at one process.
        beat: called before each touch.

    Returns:
        ``files`` and ``unchecked``.

    Raises:
        RefusedError: something ran on the new files or wrote to an original, or a directory is missing.
        CheckFailedError: a name does not stand for what it should after a call.
    """
    owners = journal.of_directories(directories, incident, beat).values()
    on_nfs = mounts.any_on_nfs(directories)
    undo = _to_undo(owners, directories, beat, on_nfs=on_nfs)
    unchecked: List[Json] = []
    if undo:
        paths, again = ((path for item in undo for path in (item.path, item.temp, item.quarantine)) for _ in range(2))
        unchecked = safety.refuse_local_users(paths, io_timeout_s, beat, on_nfs=on_nfs, names=again)
    files = ManyFiles()
    settled = (row for row in _all(owners) if row[1].state in ("restored", "put_back"))
    files.add(_document(owner, entry, entry.state) for owner, entry in settled)
    unswapped = [[entry.name for entry in owner.entries if entry.state in _NEVER_SWAPPED] for owner in owners]
    for group in unswapping.groups(undo[::-1]):
        unswapping.brought_back(group, beat, on_nfs=on_nfs)
        files.add(_document(item.owner, item.owner.history.entries[item.name], "restored") for item in group)
    for owner, names in zip(owners, unswapped):
        if discard_temps:
            discard_all(owner, names, beat)
        entries = (owner.history.entries[name] for name in names)
        files.add(_document(owner, entry, entry.state) for entry in entries)
    return {"files": files, "unchecked": unchecked}


def _all(owners: Iterable[Journal]) -> Iterator[Tuple[Journal, Entry]]:
    return ((owner, entry) for owner in owners for entry in owner.entries)


def _to_undo(owners: Collection[Journal], directories: Sequence[str], beat: Beat, *, on_nfs: bool) -> List[Undo]:
    """Look at every file whose swap was begun, and refuse when one may not be brought back."""
    for owner, entry in _all(owners):
        if entry.state in ("purging", "purged"):
            raise _purged(owner, entry)

    def look(one: Tuple[Journal, Entry]) -> Undo:
        owner, entry = one
        position = positions.look(owner, entry)
        _refuse_unsafe(owner, entry, position, directories)
        return Undo(owner, entry.name, position.kind)

    begun = (one for one in _all(owners) if one[1].state in _BEGUN)
    return list(abreast.here(begun, look, beat, on_nfs=on_nfs))


def _purged(owner: Journal, entry: Entry) -> RefusedError:
    return RefusedError(
        "purged",
        "the original of {} is purged".format(owner.beside(entry.name)),
        "there is nothing to go back to; use the database's backup",
    )


def _document(owner: Journal, entry: Entry, state: str) -> Json:
    return {
        "path": owner.beside(entry.name),
        "inode_before": entry.source_inode,
        "inode_after": entry.temp_inode,
        "temp": owner.temp(entry.name),
        "state": state,
    }


def _refuse_unsafe(owner: Journal, entry: Entry, position: Position, directories: Sequence[str]) -> None:
    """Refuse when the new file was used, the original was written to, or half a batch was named."""
    item = Undo(owner, entry.name, position.kind)
    left_out = sorted(set(entry.facts.get("batch", [])) - set(directories))
    if left_out:
        raise RefusedError(
            "half_batch",
            "{} was swapped together with files in {}".format(item.path, ", ".join(left_out)),
            "name all directories of the batch: it is undone as a whole",
        )
    if position.kind == positions.STRANGE and entry.state == "setting_aside":
        raise RefusedError(
            "raced",
            "{} is another file than the one that was to be set aside".format(item.quarantine),
            "run set-aside again: it puts that file back",
        )
    if position.kind == positions.STRANGE or (position.kind == positions.ASIDE and not entry.is_pidfile):
        raise RefusedError(
            "unexpected_inode",
            "{} or its quarantined original is not the file of this repair".format(item.path),
            "look with ls -li {}: a newer file has the name. Nothing was touched".format(item.owner.directory),
        )
    if entry.is_pidfile:
        if position.kind == positions.ASIDE and position.named is not None:
            raise RefusedError(
                "name_taken",
                "there is a new {}".format(item.path),
                "the server was started since: there is nothing to restore",
            )
        return
    named, quarantine = position.named, position.quarantine
    if position.kind in (positions.SWAPPED, positions.BACK_LINKED) and named is not None:
        # The link that a restore makes changes the ctime, so after a killed one it proves nothing.
        keys = _CONTENT if entry.state == "restoring" or "after" not in entry.facts else (*_CONTENT, "ctime_ns")
        changed = identity.differences(entry.facts.get("after") or entry.facts["temp"], named, keys)
        lock = locks.on_file(item.path)
        if changed or lock is None or lock["kind"] != "none":
            raise RefusedError(
                "new_file_used",
                "{} was used since the swap ({})".format(item.path, ", ".join(changed) or "it is locked"),
                "it may hold newer data than the original: do not go back. Ask the database's owner",
            )
    if quarantine is not None:
        changed = identity.differences(entry.facts["source"], quarantine, _CONTENT)
        if changed:
            raise RefusedError(
                "late_writer",
                "the original {} has changed since the swap ({})".format(item.quarantine, ", ".join(changed)),
                "a writer lives somewhere: find and stop it; keep both files",
            )


def discard_all(owner: Journal, names: Sequence[str], beat: Beat) -> None:
    """Throw away copies of one directory that no name of the database stands for."""
    if not names:
        return
    owner.record_all("discarding", [(name, {}) for name in names])
    for name in names:
        beat(None)
        with contextlib.suppress(FileNotFoundError):
            durable.unlink(owner.temp(name))
    durable.sync_directory(owner.directory)
    owner.record_all("discarded", [(name, {}) for name in names])
